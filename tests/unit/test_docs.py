"""What the documents print from the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from dray.reason import MEANINGS, Reason
from dray.state import MEANING

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_meanings_is_the_codes() -> None:
    text = (DOCS / "architecture.md").read_text()
    table = re.search(r"<!-- printed from dray.state.MEANING.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert table is not None
    rows = "".join(f"| {shows} | {means} |\n" for shows, means in MEANING.items())
    assert table[1] == "| an attempt's box shows | the attempt |\n|---|---|\n" + rows


def test_the_table_of_reasons_is_the_codes() -> None:
    text = (DOCS / "api.md").read_text()
    table = re.search(r"<!-- printed from dray.reason.MEANINGS.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert table is not None
    rows = "".join(f"| `{reason}` | {side} | {'yes' if again else 'no'} | {text} |\n" for reason, (side, again, text) in MEANINGS.items())
    assert table[1] == "| reason | fault | another attempt can help | what happened |\n|---|---|---|---|\n" + rows
    assert set(MEANINGS) == set(Reason)


def test_every_page_and_every_decision_is_listed() -> None:
    for folder in (DOCS, DOCS / "decisions"):
        text = (folder / "README.md").read_text()
        assert [page.name for page in folder.glob("*.md") if page.name != "README.md" and f"({page.name})" not in text] == []
