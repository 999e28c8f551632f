"""The page at `/` as people use it: a real Chromium, a real `dray serve`, a real engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from kit.api import Api
from kit.browser import Tab
from kit.images import Images
from kit.page import WITHIN, button, id_of, step
from kit.serving import Served

pytestmark = pytest.mark.timeout(WITHIN)


# --- the list


def test_jobs_appear_by_themselves_and_change(page_server: Served, tab: Tab, image: Images) -> None:
    page = tab.open()
    name = f"appears {time.time_ns()}"
    job_id = page_server.post({"name": name, "labels": {"kind": "seen"}, "steps": [step(image, "sleep 3")]})
    row = page.locator(f'tr[data-id="{job_id}"]')
    expect(row).to_contain_text(name)
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("kind=seen")
    expect(row).to_contain_text("complete")
    expect(row).to_contain_text("1 of 1")


def test_jobs_are_found_by_status_name_and_label(page_server: Served, tab: Tab, image: Images) -> None:
    name = f"found {time.time_ns()}"
    good = page_server.run({"name": name, "steps": [step(image, "true")]})["id"]
    bad = page_server.run({"name": name, "labels": {"sought": "yes"}, "steps": [step(image, "exit 4")]})["id"]
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


def test_the_example_runs_as_it_stands_and_its_output_is_saved(page_server: Served, tab: Tab) -> None:
    page = tab.open("/new")
    button(page, "Run it").click()
    expect(page.get_by_role("heading", name="Word Job")).to_be_visible()
    with page.expect_download() as saved:
        button(page, "Download output").click()
    assert saved.value.path().read_bytes() == page_server.output(id_of(page))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download output of step 2").click()
    assert saved.value.path().read_bytes() == page_server.http.get(f"/jobs/{id_of(page)}/steps/2/output").content
    steps = page.locator("ol.steps > li")
    expect(steps).to_have_count(3)
    for shown, of in zip(steps.all(), page_server.record(id_of(page))["steps"], strict=True):
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


def test_a_job_is_built_field_by_field(page_server: Served, tab: Tab, image: Images) -> None:
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
    record = page_server.wait(id_of(page))
    assert [of["name"] for of in record["steps"]] == ["first", ""]
    assert page_server.output(record["id"]) == b"ONE\n"


def test_json_that_is_none_is_told(tab: Tab) -> None:
    page = tab.open("/new")
    button(page, "JSON").click()
    page.get_by_label("The job as JSON").fill('{"steps": [')
    for name in ("Run it", "Form"):
        button(page, name).click()
        expect(page.locator(".wrongs")).to_contain_text("This is no JSON")
        expect(page.get_by_label("The job as JSON")).to_be_focused()


@pytest.mark.parametrize("size", [10, 200000])
def test_an_output_is_no_script(page_server: Served, image: Images, size: int) -> None:
    record = page_server.run({"steps": [step(image, f"head -c {size} /dev/zero")]})
    assert page_server.http.get(f"/jobs/{record['id']}/output").headers["x-content-type-options"] == "nosniff"


# --- a job seen and changed


def test_a_running_job_is_cancelled_and_run_again(page_server: Served, tab: Tab, image: Images) -> None:
    job_id = page_server.post({"name": "long", "steps": [step(image, "echo kept"), step(image, "cat; exec sleep 300", name="slow")]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("running")
    button(page, "Cancel").click()
    expect(page.get_by_label("Why it failed")).to_contain_text("cancelled")
    page.get_by_role("button", name="Run again from step 2, slow").click()
    page.wait_for_url(lambda url: job_id not in url and "/jobs/" in url)
    expect(page.get_by_text("Rerun of")).to_be_visible()
    again = id_of(page)
    assert page_server.record(again)["rerunOf"] == job_id
    expect(page.locator(".line .text")).to_have_text(["kept"])
    button(page, "Cancel").click()
    assert page_server.wait(again)["reason"] == "cancelled"
    expect(button(page, "Run again")).to_be_visible()


def test_a_cancelled_jobs_last_steps_are_stopped_when_that_is_asked(page_server: Served, tab: Tab, image: Images) -> None:
    tidy = step(image, "exec sleep 300", name="tidy", always=True)
    job_id = page_server.post({"steps": [step(image, "exec sleep 300"), tidy]})
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator("ol.steps > li").first).to_contain_text("running")
    button(page, "Cancel").click()
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("running")
    button(page, "Stop the last steps too").click()
    expect(button(page, "Run again")).to_be_visible()
    assert page_server.record(job_id)["reason"] == "cancelled"


def test_a_failed_job_says_why_and_shows_its_attempts(page_server: Served, tab: Tab, image: Images) -> None:
    flaky = "echo attempt $DRAY_ATTEMPT; echo bad luck >&2; exit 7"
    record = page_server.run({"steps": [step(image, flaky, name="flaky", retries=1), step(image, "cat")]})
    page = tab.open(f"/jobs/{record['id']}")
    why = page.get_by_label("Why it failed")
    expect(why).to_contain_text("exit code 7")
    expect(why).to_contain_text("bad luck")
    page.get_by_text("1 earlier attempt").click()
    expect(page.get_by_role("row", name="1 exit code 7")).to_be_visible()
    expect(page.locator(".bar")).to_have_count(2)
    expect(page.locator("ol.steps > li").nth(1)).to_contain_text("not run")


def test_a_job_is_deleted_only_when_confirmed(page_server: Served, tab: Tab, image: Images) -> None:
    record = page_server.run({"name": "to go", "steps": [step(image, "true")]})
    page = tab.open(f"/jobs/{record['id']}")
    button(page, "Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button(page, "Delete")).to_be_focused()
    assert page_server.record(record["id"])
    button(page, "Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The job is deleted.")).to_be_visible()
    assert page_server.http.get(f"/jobs/{record['id']}").status_code == 404
    page.goto(f"/#/jobs/{record['id']}")
    expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()
