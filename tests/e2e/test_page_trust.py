"""What the page trusts, and what it does not: its own files, what comes from jobs, the token."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from kit.api import Api
from kit.browser import Tab
from kit.images import Images
from kit.page import WITHIN, button, step
from kit.serving import Served

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9"}
pytestmark = pytest.mark.timeout(WITHIN)


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


# --- what comes from elsewhere


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_what_jobs_say_of_themselves_is_text(page_server: Served, tab: Tab, image: Images) -> None:
    script = f"echo '{EVIL}'; echo '{EVIL}' >&2; exit 1"
    job = {"name": EVIL, "labels": {"x": "y"}, "steps": [step(image, script, name=f'"><svg onload=alert(3)>{EVIL}')]}
    record = page_server.run(job)
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
    assert page_server.record(record["id"])


def test_nothing_in_a_log_hides_or_turns_other_text(page_server: Served, tab: Tab, image: Images) -> None:
    script = r"printf '\033[31mred\033[0m \033]0;title\007 \rover \342\200\256turned \342\200\213none\n'"
    record = page_server.run({"name": "a\u202eb", "steps": [step(image, script)]})
    page = tab.open(f"/jobs/{record['id']}")
    expect(page.locator(".line .text")).to_have_text(r"red \u001b]0;title\u0007 \u000dover \u202eturned \u200bnone")
    expect(page.get_by_role("heading", name=r"a\u202eb")).to_be_visible()
    assert "\u202e" not in page.content()


def test_a_line_without_end_is_cut(page_server: Served, tab: Tab, image: Images) -> None:
    record = page_server.run({"steps": [step(image, "head -c 50000 /dev/zero | tr '\\0' x; echo")]})
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
