"""What the tests of the page share: what is typed and pressed there, and the job that its form comes with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from kit.images import Images

ROOT = Path(__file__).parents[2]
WORD_JOB = json.loads((ROOT / "examples" / "word-job.json").read_text())
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
WITHIN = 300  # seconds for a test: a browser beside an engine on a busy machine
expect.set_options(timeout=40000)


def step(image: Images, script: str, **fields: Any) -> dict[str, Any]:
    return {"source": image.shell(script), **fields}


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def id_of(page: Page) -> str:
    """Of the job that is shown."""
    page.wait_for_url(re.compile(r"#/jobs/[0-9A-F-]+$"))
    return page.url.rsplit("/", 1)[1]
