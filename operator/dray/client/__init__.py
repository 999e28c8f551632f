"""The client: what a person types to have jobs run. It knows Dray by its API (docs/api.md) only; `dray.cli` calls `app`."""
