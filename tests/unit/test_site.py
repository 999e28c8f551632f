"""`make docs` makes a site in which every link leads somewhere, and which takes nothing from elsewhere."""

from __future__ import annotations

import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from kit.docs import ROOT

SITE = ROOT / "site"


class Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.taken: list[str] = []  # what a browser fetches by itself
        self.anchors = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        fetched = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") != "canonical" else None)
        if fetched:
            self.taken.append(fetched)


@pytest.fixture(scope="module")
def site() -> dict[Path, Links]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "docs"], cwd=ROOT, env=own, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {page: Links(page) for page in SITE.rglob("*.html") if page.name != "404.html"}


def test_every_document_is_a_page(site: dict[Path, Links]) -> None:
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"README"} <= {page.stem for page in site}


def test_every_link_leads_somewhere(site: dict[Path, Links]) -> None:
    dead = []
    for page, found in site.items():
        for link in (*found.links, *found.taken):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (target in site and unquote(parts.fragment) not in site[target].anchors):
                dead.append(f"{page.relative_to(SITE)}: {link}")
    assert dead == []


def test_nothing_is_taken_from_elsewhere(site: dict[Path, Links]) -> None:
    assert [link for found in site.values() for link in found.taken if urlsplit(link).scheme or link.startswith("//")] == []
    styles = [style.read_text() for style in SITE.rglob("*.css")]
    assert styles
    assert [text for text in styles if "url(http" in text or "@import" in text] == []
