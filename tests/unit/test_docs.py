"""What the documents print from the code is what the code says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from docs import reference

from dray.judge import MEANING
from dray.reason import MEANINGS, Reason
from dray.spec import parse
from kit.docs import ROOT, blocks

DOCS = ROOT / "docs"
TYPED = {"README.md", "docs/first-job.md", "docs/client.md", "docs/migration.md"}  # tests/e2e/test_readme.py, test_guides.py
TYPED |= {"docs/install.md"}  # test_image.py, test_chart.py, test_release.py


def test_the_table_of_meanings_is_the_codes() -> None:
    text = (DOCS / "architecture.md").read_text()
    table = re.search(r"<!-- printed from dray.judge.MEANING.*?-->\n(.*?)<!-- end -->", text, re.DOTALL)
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


def pages() -> list[str]:
    return [str(page.relative_to(ROOT)) for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))]


def test_what_is_to_be_typed_is_typed_by_a_test() -> None:
    assert {page for page in pages() if blocks(page, "bash")} == TYPED


def test_every_json_is_json_and_every_job_a_job() -> None:
    jobs = []
    for page in pages():
        for block in blocks(page, "json"):
            value = json.loads(block)
            if isinstance(value, dict) and "steps" in value and "id" not in value:
                jobs.append(parse(value))
    assert len(jobs) >= 2


def test_the_reference_is_what_the_code_says() -> None:
    for name, text in reference.pages().items():
        assert (DOCS / name).read_text() == text, f"{name} is old: make reference"


def test_every_page_is_in_the_sites_contents() -> None:
    listed = set(_leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert {page for page in pages() if "decisions/0" not in page and page != "docs/README.md"} <= listed
    assert [page for page in listed if not (ROOT / page).exists()] == []


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(part)
