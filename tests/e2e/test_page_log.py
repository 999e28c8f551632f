"""The log of a job on the page, as it is followed and searched, and the server that goes away meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from kit.browser import Tab
from kit.images import Images
from kit.page import WITHIN, button, step
from kit.serving import Served

pytestmark = pytest.mark.timeout(WITHIN)


def test_the_log_comes_as_it_is_written_in_the_colours_of_its_streams(page_server: Served, tab: Tab, image: Images) -> None:
    job_id = page_server.post({"steps": [step(image, "echo out; echo err >&2; sleep 2; echo later")]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator(".line.stdout .text").first).to_have_text("out")
    expect(page.locator(".line.stderr .text")).to_have_text("err")
    expect(page.locator(".line.stderr .from")).to_have_text("err")
    colours = [page.locator(f".line.{stream} .text").first.evaluate("e => getComputedStyle(e).color") for stream in ("stdout", "stderr")]
    assert colours[0] != colours[1]
    expect(page.locator(".line.stdout .text").nth(1)).to_have_text("later")
    expect(page.get_by_text("The job is complete.")).to_be_visible()


def test_the_log_is_followed_paused_and_followed_again(page_server: Served, tab: Tab, image: Images) -> None:
    job_id = page_server.post({"steps": [step(image, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done")]})
    page = tab.open(f"/jobs/{job_id}")
    last = page.locator(".line .text").last
    expect(page.locator(".total")).to_contain_text(re.compile(r"^[1-9]\d\d"))
    button(page, "Pause").click()
    follow = page.get_by_role("button", name=re.compile("^Follow"))
    expect(follow).to_contain_text("further")
    stands = last.inner_text()
    total = page.locator(".total").inner_text()
    expect(page.locator(".total")).not_to_have_text(total)
    assert last.inner_text() == stands
    follow.click()
    expect(last).not_to_have_text(stands)
    page.locator(".log").hover()
    page.mouse.wheel(0, -600)
    expect(follow).to_be_visible()
    page_server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    page_server.wait(job_id)


def test_a_tab_that_nobody_sees_asks_for_nothing(page_server: Served, tab: Tab, image: Images) -> None:
    job_id = page_server.post({"steps": [step(image, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done")]})
    page = tab.open(f"/jobs/{job_id}")
    total = page.locator(".total")
    expect(total).to_contain_text("line")
    turn = (
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
    )
    page.evaluate(turn, True)
    page.wait_for_timeout(500)
    asked, stands = len(tab.asked), total.inner_text()
    page.wait_for_timeout(3000)
    assert (len(tab.asked), total.inner_text()) == (asked, stands)
    page.evaluate(turn, False)
    expect(total).not_to_have_text(stands)
    page_server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    expect(page.get_by_label("Why it failed")).to_contain_text("cancelled")
    expect(total).to_have_text(f"{len(page_server.log(job_id)):,} lines")


def test_the_log_is_searched(page_server: Served, tab: Tab, image: Images) -> None:
    record = page_server.run({"steps": [step(image, "seq 5000")]})
    page = tab.open(f"/jobs/{record['id']}")
    page.get_by_label("Search the log").fill("99")
    expect(page.locator(".hits")).to_have_text("1 of 95")
    expect(page.locator(".line.at .text")).to_have_text("99")
    expect(page.locator(".line.at mark")).to_have_text("99")
    page.get_by_label("Search the log").press("Enter")
    expect(page.locator(".line.at .text")).to_have_text("199")
    page.get_by_label("Previous match").click(click_count=2)
    expect(page.locator(".line.at .text")).to_have_text("4999")
    page.get_by_label("Search the log").fill("nowhere")
    expect(page.locator(".hits")).to_have_text("no match")


def test_a_million_lines_take_no_more_than_a_window_of_them(page_server: Served, tab: Tab, image: Images) -> None:
    record = page_server.run({"steps": [step(image, "seq 1000000")]}, within=120)
    assert record["status"] == "complete"
    page = tab.open(f"/jobs/{record['id']}")
    expect(page.locator(".total")).to_have_text("1,000,000 lines")
    expect(page.locator(".line .text").last).to_have_text("1000000")
    small = heap(page)
    log = page.locator(".log")
    log.press("Home")
    expect(page.locator(".line .text").first).to_have_text("1")
    log.press("ArrowDown")
    expect(page.locator(".line .text").first).to_have_text("2")
    for part in (0.25, 0.5, 0.75):
        log.evaluate("(e, part) => { e.scrollTop = part * e.scrollHeight; }", part)
        expect(page.locator(".line .text").first).to_have_text(re.compile(rf"^{str(part)[2]}\d+"))
    page.get_by_label("Search the log").fill("777777")
    expect(page.locator(".line.at .text")).to_have_text("777777", timeout=60000)
    expect(page.locator(".hits")).to_have_text("1 of 1", timeout=60000)
    assert page.locator(".line").count() < 60
    assert heap(page) < small + 20 * 2**20


def heap(page: Page) -> int:
    """Bytes of the page's objects that are in use."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: int = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used


def test_a_server_that_goes_away_is_told_of_and_waited_for(serve: Callable[..., Served], make_tab: Callable[..., Tab], image: Images) -> None:
    served = serve()
    job_id = served.post({"steps": [step(image, "for i in $(seq 100); do echo $i; sleep 0.1; done")]})
    page = make_tab(served.url).open(f"/jobs/{job_id}")
    expect(page.locator(".line").first).to_be_visible()
    served.kill()
    expect(page.get_by_text("Dray does not answer.")).to_be_visible()
    served.start()
    expect(page.get_by_text("Dray does not answer.")).to_be_hidden()
    expect(page.locator(".total")).to_have_text("100 lines", timeout=60000)
    expect(page.locator(".line .text").last).to_have_text("100")
