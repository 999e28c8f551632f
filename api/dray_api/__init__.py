"""The HTTP API: Dray's contract and its problem documents over the store. `app.create_app` makes it; `dray.cli` serves it."""
