"""The page at `/` as people use it: a real Chromium, a real `dray serve`, a real engine."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Locator, Page, expect

import images
from kit.api import Api
from kit.browser import Tab, chromium
from kit.images import Images
from kit.process import until
from kit.serving import Served

ROOT = Path(__file__).parents[2]
HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9"}
WORD_JOB = json.loads((ROOT / "examples" / "word-job.json").read_text())
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
pytestmark = pytest.mark.timeout(300)  # a browser beside an engine on a busy machine
expect.set_options(timeout=40000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with this file's tests: while it runs, no other event loop can in this thread."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(redis: None, engine: docker.DockerClient) -> Iterator[Served]:
    images.ensure(engine)
    served = Served(engine)
    yield served
    served.close()


@pytest.fixture
def make_tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """make_tab(url, **options): a Tab; at the end its browser must have had nothing to complain of."""
    made: list[Tab] = []

    def make(url: str, **options: Any) -> Tab:
        made.append(Tab(browser, url, **options))
        return made[-1]

    yield make
    for tab in made:
        tab.close()
    assert [complaint for tab in made for complaint in tab.complaints] == []


@pytest.fixture
def tab(make_tab: Callable[..., Tab], server: Served) -> Tab:
    return make_tab(server.url)


def step(image: Images, script: str, **fields: Any) -> dict[str, Any]:
    return {"source": image.shell(script), **fields}


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def id_of(page: Page) -> str:
    """Of the job that is shown."""
    page.wait_for_url(re.compile(r"#/jobs/[0-9A-F-]+$"))
    return page.url.rsplit("/", 1)[1]


# --- its files


def test_html_is_for_those_who_ask_for_it(api: Api) -> None:
    page = api.http.get("/", headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for headers in ({"Accept": "*/*"}, {"Accept": "application/json"}):
        other = api.http.get("/", headers=headers)
        assert (other.status_code, other.headers["content-type"]) == (404, "application/problem+json")
    assert api.http.get("/v1/", headers=HTML).content == page.content


def test_nothing_may_run_but_its_own_files(api: Api) -> None:
    page = api.http.get("/", headers=HTML)
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(names) >= 4
    for answer in (page, *(api.http.get(f"/{name}") for name in names)):
        assert answer.status_code == 200
        rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'none'"
        assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types")} == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_browser_keeps_a_file_until_it_changes(api: Api) -> None:
    first = api.http.get("/page/app.js")
    again = api.http.get("/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.headers["cache-control"], again.status_code, again.content) == ("no-cache", 304, b"")


def test_files_need_no_token_and_data_does(make_api: Callable[..., Api]) -> None:
    closed = make_api(DRAY_TOKEN="open-sesame-sesame")
    closed.http.headers.pop("Authorization")
    assert [closed.http.get(path, headers=HTML).status_code for path in ("/", "/page/app.js", "/jobs")] == [200, 200, 401]


@pytest.mark.parametrize("path", ["/page/", "/page/none.js", "/page/index.html", "/page/..%2fpage.py", "/page/../page.py"])
def test_there_are_no_other_files(api: Api, path: str) -> None:
    assert api.http.get(path, headers=HTML).status_code == 404


# --- the list


def test_jobs_appear_by_themselves_and_change(server: Served, tab: Tab, image: Images) -> None:
    page = tab.open()
    name = f"appears {time.time_ns()}"
    job_id = server.post({"name": name, "labels": {"kind": "seen"}, "steps": [step(image, "sleep 3")]})
    row = page.locator(f'tr[data-id="{job_id}"]')
    expect(row).to_contain_text(name)
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("kind=seen")
    expect(row).to_contain_text("complete")
    expect(row).to_contain_text("1 of 1")


def test_jobs_are_found_by_status_name_and_label(server: Served, tab: Tab, image: Images) -> None:
    name = f"found {time.time_ns()}"
    good = server.run({"name": name, "steps": [step(image, "true")]})["id"]
    bad = server.run({"name": name, "labels": {"sought": "yes"}, "steps": [step(image, "exit 4")]})["id"]
    page = tab.open()
    rows = page.locator("tbody tr")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Name", exact=True).press("Enter")
    expect(rows).to_have_count(2)
    page.get_by_label("Status").select_option("error")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("exit code")
    assert rows.get_attribute("data-id") == bad
    page.reload()
    expect(rows).to_have_count(1)
    page.get_by_label("Status").select_option("running")
    expect(page.get_by_role("heading", name="No job is like that")).to_be_visible()
    button(page, "Show all jobs").click()
    page.locator(f'tr[data-id="{good}"]').wait_for()
    page.get_by_role("link", name="sought=yes").click()
    expect(rows).to_have_count(1)


def test_many_jobs_are_shown_a_page_at_a_time(make_api: Callable[..., Api], make_tab: Callable[..., Tab]) -> None:
    api = make_api()
    name = f"many {time.time_ns()}"
    ids = [api.post({"name": name, "steps": [{"source": "dray.invalid/none"}]}) for _ in range(60)]
    page = make_tab(api.url).open(f"/?name={name}")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    assert rows.first.get_attribute("data-id") == ids[-1]
    button(page, "Older →").click()
    expect(rows).to_have_count(10)
    assert rows.last.get_attribute("data-id") == ids[0]
    expect(button(page, "Older →")).to_be_disabled()
    button(page, "← Newer").click()
    expect(rows).to_have_count(50)


# --- a job posted


def test_the_example_runs_as_it_stands_and_its_output_is_saved(server: Served, tab: Tab) -> None:
    page = tab.open("/new")
    button(page, "Run it").click()
    expect(page.get_by_role("heading", name="Word Job")).to_be_visible()
    with page.expect_download() as saved:
        button(page, "Download output").click()
    assert saved.value.path().read_bytes() == server.output(id_of(page))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download output of step 2").click()
    assert saved.value.path().read_bytes() == server.http.get(f"/jobs/{id_of(page)}/steps/2/output").content
    steps = page.locator("ol.steps > li")
    expect(steps).to_have_count(3)
    for shown, of in zip(steps.all(), server.record(id_of(page))["steps"], strict=True):
        expect(shown).to_contain_text(of["source"])
        expect(shown).to_contain_text(f"{of['bytesOut']} B")


def test_what_the_server_refuses_is_told_at_its_field(tab: Tab) -> None:
    page = tab.open("/new")
    sources = page.get_by_label("Image", exact=True)
    sources.nth(1).fill("NOT AN IMAGE")
    page.get_by_label("Name", exact=True).nth(3).fill("x" * 1025)
    page.locator("summary").nth(1).click()
    page.get_by_label("Timeout").nth(1).fill("soon")
    button(page, "Run it").click()
    expect(page.locator(".wrongs")).to_contain_text("3 things are to be mended")
    expect(page.locator("[aria-invalid]")).to_have_count(3)
    for control in page.locator("[aria-invalid]").all():
        assert control.evaluate("e => document.getElementById(e.getAttribute('aria-describedby').split(' ').at(-1)).className") == "wrong"
    expect(sources.nth(1)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("[aria-invalid]").first).to_be_focused()


def test_a_job_is_built_field_by_field(server: Served, tab: Tab, image: Images) -> None:
    page = tab.open("/new")
    button(page, "Empty it").click()
    page.get_by_label("Image", exact=True).fill(image("cat"))
    page.get_by_label("Name", exact=True).nth(1).fill("first")
    page.locator("summary").nth(1).click()
    page.get_by_label("Command", exact=True).fill("sh\n-c\necho $A $B; exit 0")
    button(page, "Add a variable").nth(0).click()
    page.get_by_label("Name", exact=True).nth(1).press_sequentially("A")
    page.get_by_label("Value", exact=True).fill("one")
    button(page, "Add a step").click()
    page.get_by_label("Image", exact=True).nth(1).fill(image("tr", "a-z", "A-Z"))
    button(page, "JSON").click()
    job = json.loads(page.get_by_label("The job as JSON").input_value())
    assert job["environment"] == [{"variable": "A", "value": "one"}]
    job["steps"][0]["resources"] = {"pids": 64}
    page.get_by_label("The job as JSON").fill(json.dumps(job))
    button(page, "Form").click()
    expect(page.get_by_text("Also set, to be seen as JSON: resources.")).to_be_visible()
    button(page, "Run it").click()
    record = server.wait(id_of(page))
    assert [of["name"] for of in record["steps"]] == ["first", ""]
    assert server.output(record["id"]) == b"ONE\n"


def test_json_that_is_none_is_told(tab: Tab) -> None:
    page = tab.open("/new")
    button(page, "JSON").click()
    page.get_by_label("The job as JSON").fill('{"steps": [')
    for name in ("Run it", "Form"):
        button(page, name).click()
        expect(page.locator(".wrongs")).to_contain_text("This is no JSON")
        expect(page.get_by_label("The job as JSON")).to_be_focused()


@pytest.mark.parametrize("size", [10, 200000])
def test_an_output_is_no_script(server: Served, image: Images, size: int) -> None:
    record = server.run({"steps": [step(image, f"head -c {size} /dev/zero")]})
    assert server.http.get(f"/jobs/{record['id']}/output").headers["x-content-type-options"] == "nosniff"


# --- a job seen and changed


def test_a_running_job_is_cancelled_and_run_again(server: Served, tab: Tab, image: Images) -> None:
    job_id = server.post({"name": "long", "steps": [step(image, "echo kept"), step(image, "cat; exec sleep 300", name="slow")]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("running")
    button(page, "Cancel").click()
    expect(page.get_by_label("Why it failed")).to_contain_text("cancelled")
    page.get_by_role("button", name="Run again from step 2, slow").click()
    page.wait_for_url(lambda url: job_id not in url and "/jobs/" in url)
    expect(page.get_by_text("Rerun of")).to_be_visible()
    again = id_of(page)
    assert server.record(again)["rerunOf"] == job_id
    expect(page.locator(".line .text")).to_have_text(["kept"])
    button(page, "Cancel").click()
    assert server.wait(again)["reason"] == "cancelled"
    expect(button(page, "Run again")).to_be_visible()


def test_a_cancelled_jobs_last_steps_are_stopped_when_that_is_asked(server: Served, tab: Tab, image: Images) -> None:
    tidy = step(image, "exec sleep 300", name="tidy", always=True)
    job_id = server.post({"steps": [step(image, "exec sleep 300"), tidy]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator("ol.steps > li").first).to_contain_text("running")
    button(page, "Cancel").click()
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("running")
    button(page, "Stop the last steps too").click()
    expect(button(page, "Run again")).to_be_visible()
    assert server.record(job_id)["reason"] == "cancelled"


def test_a_failed_job_says_why_and_shows_its_attempts(server: Served, tab: Tab, image: Images) -> None:
    flaky = "echo attempt $DRAY_ATTEMPT; echo bad luck >&2; exit 7"
    record = server.run({"steps": [step(image, flaky, name="flaky", retries=1), step(image, "cat")]})
    page = tab.open(f"/jobs/{record['id']}")
    why = page.get_by_label("Why it failed")
    expect(why).to_contain_text("exit code 7")
    expect(why).to_contain_text("bad luck")
    page.get_by_text("1 earlier attempt").click()
    expect(page.get_by_role("row", name="1 exit code 7")).to_be_visible()
    expect(page.locator(".bar")).to_have_count(2)
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("not run")


def test_a_job_is_deleted_only_when_confirmed(server: Served, tab: Tab, image: Images) -> None:
    record = server.run({"name": "to go", "steps": [step(image, "true")]})
    page = tab.open(f"/jobs/{record['id']}")
    button(page, "Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button(page, "Delete")).to_be_focused()
    assert server.record(record["id"])
    button(page, "Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The job is deleted.")).to_be_visible()
    assert server.http.get(f"/jobs/{record['id']}").status_code == 404
    page.goto(f"/#/jobs/{record['id']}")
    expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()


# --- its log


def test_the_log_comes_as_it_is_written_in_the_colours_of_its_streams(server: Served, tab: Tab, image: Images) -> None:
    job_id = server.post({"steps": [step(image, "echo out; echo err >&2; sleep 2; echo later")]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator(".line.stdout .text").first).to_have_text("out")
    expect(page.locator(".line.stderr .text")).to_have_text("err")
    expect(page.locator(".line.stderr .from")).to_have_text("err")
    colours = [page.locator(f".line.{stream} .text").first.evaluate("e => getComputedStyle(e).color") for stream in ("stdout", "stderr")]
    assert colours[0] != colours[1]
    expect(page.locator(".line.stdout .text").nth(1)).to_have_text("later")
    expect(page.get_by_text("The job is complete.")).to_be_visible()


def test_the_log_is_followed_paused_and_followed_again(server: Served, tab: Tab, image: Images) -> None:
    job_id = server.post({"steps": [step(image, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done")]})
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
    server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    server.wait(job_id)


def test_a_tab_that_nobody_sees_asks_for_nothing(server: Served, tab: Tab, image: Images) -> None:
    job_id = server.post({"steps": [step(image, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done")]})
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
    server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    expect(page.get_by_label("Why it failed")).to_contain_text("cancelled")
    expect(total).to_have_text(f"{len(server.log(job_id)):,} lines")


def test_the_log_is_searched(server: Served, tab: Tab, image: Images) -> None:
    record = server.run({"steps": [step(image, "seq 5000")]})
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


def test_a_million_lines_take_no_more_than_a_window_of_them(server: Served, tab: Tab, image: Images) -> None:
    record = server.run({"steps": [step(image, "seq 1000000")]}, within=120)
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


# --- what comes from elsewhere

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_what_jobs_say_of_themselves_is_text(server: Served, tab: Tab, image: Images) -> None:
    script = f"echo '{EVIL}'; echo '{EVIL}' >&2; exit 1"
    job = {"name": EVIL, "labels": {"x": "y"}, "steps": [step(image, script, name=f'"><svg onload=alert(3)>{EVIL}')]}
    record = server.run(job)
    page = tab.open()
    expect(page.get_by_role("link", name=EVIL).first).to_be_visible()
    page.get_by_role("link", name=EVIL).first.click()
    expect(page.get_by_role("heading", name=EVIL, level=1)).to_be_visible()
    expect(page.locator(".line .text")).to_have_text([EVIL, EVIL])
    expect(page.get_by_label("Why it failed")).to_contain_text(EVIL)
    page.get_by_label("Search the log").fill("<script>")
    expect(page.locator("mark").first).to_have_text("<script>")
    assert page.locator("main :is(img, script, svg, iframe)").count() == 0
    button(page, "Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(EVIL)
    assert server.record(record["id"])


def test_nothing_in_a_log_hides_or_turns_other_text(server: Served, tab: Tab, image: Images) -> None:
    script = r"printf '\033[31mred\033[0m \033]0;title\007 \rover \342\200\256turned \342\200\213none\n'"
    record = server.run({"name": "a\u202eb", "steps": [step(image, script)]})
    page = tab.open(f"/jobs/{record['id']}")
    expect(page.locator(".line .text")).to_have_text(r"red \u001b]0;title\u0007 \u000dover \u202eturned \u200bnone")
    expect(page.get_by_role("heading", name=r"a\u202eb")).to_be_visible()
    assert "\u202e" not in page.content()


def test_a_line_without_end_is_cut(server: Served, tab: Tab, image: Images) -> None:
    record = server.run({"steps": [step(image, "head -c 50000 /dev/zero | tr '\\0' x; echo")]})
    page = tab.open(f"/jobs/{record['id']}")
    expect(page.locator(".line .text").first).to_contain_text("characters more")
    assert len(page.locator(".line .text").first.inner_text()) < 5000


# --- the token


def test_the_token_is_asked_for_and_goes_into_no_address(serve: Callable[..., Served], make_tab: Callable[..., Tab], image: Images) -> None:
    served = serve(DRAY_TOKEN="open-sesame-sesame")
    record = served.run({"name": "closed", "steps": [step(image, "echo secret stuff")]})
    tab = make_tab(served.url)
    page = tab.open(f"/jobs/{record['id']}")
    dialog = page.get_by_role("dialog", name="Token")
    dialog.get_by_label("Token").fill("open-barley")
    dialog.get_by_label("Token").press("Enter")
    expect(dialog.get_by_text("That is not the token.")).to_be_visible()
    page.keyboard.press("Escape")
    dialog.get_by_label("Token").fill("open-sesame-sesame")
    dialog.get_by_role("button", name="Continue").click()
    expect(page.locator(".line .text")).to_have_text("secret stuff")
    with page.expect_download() as saved:
        button(page, "Download output").click()
    assert saved.value.path().read_bytes() == b"secret stuff\n"
    page.reload()
    expect(page.locator(".line .text")).to_have_text("secret stuff")
    assert page.evaluate("[...Object.values(localStorage), document.cookie].join()") == ""
    button(page, "Forget token").click()
    expect(dialog).to_be_visible()
    assert not [url for url in tab.asked if "sesame" in url]
    assert "sesame" not in served.process.output


# --- for everybody


def test_all_of_it_can_be_done_with_the_keyboard(server: Served, tab: Tab) -> None:
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
    assert server.wait(job_id)["status"] == "complete"
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
def test_no_page_keeps_anybody_out(server: Served, make_tab: Callable[..., Tab], image: Images, theme: str, options: dict[str, Any]) -> None:
    flaky = step(image, "echo to err >&2; exit 3", name="flaky", retries=1)
    failed = server.run({"name": "for all", "labels": {"team": "a"}, "steps": [step(image, "echo out"), flaky, step(image, "true", always=True)]})["id"]
    page = make_tab(server.url, color_scheme=theme, reduced_motion="reduce", **options).open()
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


def test_the_theme_is_the_systems_until_one_is_chosen(server: Served, make_tab: Callable[..., Tab]) -> None:
    page = make_tab(server.url, color_scheme="dark").open()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    button(page, "Light theme").click()
    light = page.evaluate(ground)
    page.reload()
    assert page.evaluate(ground) == light != dark
    button(page, "Dark theme").click()
    assert page.evaluate(ground) == dark


def test_who_wants_no_motion_gets_none(server: Served, make_tab: Callable[..., Tab], image: Images) -> None:
    job_id = server.post({"steps": [step(image, "exec sleep 300")]})
    page = make_tab(server.url, reduced_motion="reduce").open(f"/jobs/{job_id}")
    badge = page.locator(".badge.running").first
    assert badge.evaluate("e => getComputedStyle(e, '::before').animationName") == "none"
    server.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    server.wait(job_id)


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
