"""The page for everybody: by keyboard, in both themes, on a phone. And the pictures of it in docs/page.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Locator, Page, expect

import images
from kit.browser import Tab
from kit.images import Images
from kit.page import PHONE, ROOT, WITHIN, WORD_JOB, button, id_of, step
from kit.process import until
from kit.serving import Served

pytestmark = pytest.mark.timeout(WITHIN)


# --- for everybody


def test_all_of_it_can_be_done_with_the_keyboard(page_server: Served, tab: Tab) -> None:
    page = tab.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to(page, page.get_by_role("main").get_by_role("link", name="New job"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    tab_to(page, button(page, "Add a step"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Image", exact=True).nth(3)).to_be_focused()
    page.keyboard.type("examples/count")
    tab_to(page, button(page, "Run it"))
    page.keyboard.press("Enter")
    job_id = id_of(page)
    assert page_server.wait(job_id)["status"] == "complete"
    tab_to(page, button(page, "Download output"))
    with page.expect_download():
        page.keyboard.press("Enter")
    tab_to(page, page.locator(".log"))
    page.keyboard.press("Home")
    expect(page.locator(".line").first).to_be_visible()
    page.locator("main").focus()
    tab_to(page, button(page, "Delete"))
    page.keyboard.press("Enter")
    expect(button(page, "Keep it")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The job is deleted.")).to_be_visible()


def tab_to(page: Page, target: Locator) -> None:
    """By the Tab key alone; what has the focus on the way must show it."""
    target.wait_for()
    for _ in range(80):
        page.keyboard.press("Tab")
        if target.evaluate("e => e === document.activeElement"):
            assert target.evaluate("e => getComputedStyle(e).outlineStyle") != "none"
            return
    raise AssertionError(f"the keyboard does not get to {target}")


@pytest.mark.parametrize(("theme", "options"), [("light", {}), ("dark", {}), ("dark", PHONE)], ids=["light", "dark", "phone"])
def test_no_page_keeps_anybody_out(page_server: Served, make_tab: Callable[..., Tab], image: Images, theme: str, options: dict[str, Any]) -> None:
    flaky = step(image, "echo to err >&2; exit 3", name="flaky", retries=1)
    failed = page_server.run({"name": "for all", "labels": {"team": "a"}, "steps": [step(image, "echo out"), flaky, step(image, "true", always=True)]})["id"]
    page = make_tab(page_server.url, color_scheme=theme, reduced_motion="reduce", **options).open()
    page.locator(f'tr[data-id="{failed}"]').wait_for()
    found = faults(page, "list")
    page.goto(f"/#/jobs/{failed}")
    page.get_by_text("1 earlier attempt").click()
    page.get_by_label("Search the log").fill("err")
    page.locator("mark").first.wait_for()
    found += faults(page, "job")
    button(page, "Delete").click()
    found += faults(page, "dialog")
    page.keyboard.press("Escape")
    page.goto("/#/new")
    page.get_by_label("Image", exact=True).first.fill("")
    page.locator("summary").nth(1).click()
    button(page, "Run it").click()
    page.locator("p.wrong").wait_for()
    found += faults(page, "form")
    assert found == []


def faults(page: Page, where: str) -> list[str]:
    """What axe finds against WCAG 2.2 AA, and whether anything is wider than the window."""
    tags = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}
    axe = Axe().run(page, options=tags).response
    assert "color-contrast" in [one["id"] for one in axe["passes"]]
    found = [f"{where}: {one['id']}: {node['target']} {node['failureSummary']}" for one in axe["violations"] for node in one["nodes"]]
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        found.append(f"{where}: wider than the window")
    return found


def test_the_theme_is_the_systems_until_one_is_chosen(page_server: Served, make_tab: Callable[..., Tab]) -> None:
    page = make_tab(page_server.url, color_scheme="dark").open()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    button(page, "Light theme").click()
    light = page.evaluate(ground)
    page.reload()
    assert page.evaluate(ground) == light != dark
    button(page, "Dark theme").click()
    assert page.evaluate(ground) == dark


def test_who_wants_no_motion_gets_none(page_server: Served, make_tab: Callable[..., Tab], image: Images) -> None:
    job_id = page_server.post({"steps": [step(image, "exec sleep 300")]})
    page = make_tab(page_server.url, reduced_motion="reduce").open(f"/jobs/{job_id}")
    badge = page.locator(".badge.running").first
    assert badge.evaluate("e => getComputedStyle(e, '::before').animationName") == "none"
    page_server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    page_server.wait(job_id)


# --- the pictures in docs/page.md


@pytest.mark.skipif("DRAY_SCREENSHOTS" not in os.environ, reason="writes docs/images: make screenshots")
def test_the_pictures_of_the_docs(serve: Callable[..., Served], make_tab: Callable[..., Tab], engine: docker.DockerClient) -> None:
    images.ensure(engine)
    served = serve()
    served.run(WORD_JOB)
    served.run(json.loads((ROOT / "examples" / "failing.json").read_text()))
    slow = "cat; for i in $(seq 500); do echo loaded batch $i; [ $((i % 9)) = 4 ] && echo batch $i was slow >&2; sleep 0.1; done"
    steps = [
        {"name": "fetch", "source": "examples/customers", "command": ["sh", "-c", "cat /customers.txt; sleep 1"]},
        {"name": "load", "source": "examples/sort", "command": ["sh", "-c", slow]},
        {"name": "count", "source": "examples/count"},
    ]
    running = served.post({"name": "nightly import", "labels": {"team": "data"}, "steps": steps})
    time.sleep(4)
    folder = Path(os.environ["DRAY_SCREENSHOTS"])
    folder.mkdir(exist_ok=True)
    for name, address, options in (
        ("list", "/", {}),
        ("job", f"/jobs/{running}", {}),
        ("job-dark", f"/jobs/{running}", {"color_scheme": "dark"}),
        ("form", "/new", {}),
        ("phone", f"/jobs/{running}", PHONE),
    ):
        page = make_tab(served.url, **{"viewport": {"width": 1100, "height": 860}, **options}).open(address)
        page.locator("tbody tr, .line, .steps.edit").first.wait_for()
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"page-{name}.png")
    served.http.post(f"/jobs/{running}/cancel").raise_for_status()
    until(lambda: served.record(running)["status"] == "error", 30, "it is cancelled")
