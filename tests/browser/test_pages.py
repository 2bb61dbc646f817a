"""What a person sees: every page in Chromium, on real data. `SCREENSHOTS=DIR` keeps pictures of them."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import FLAGS
from tests.fixtures import fleet

pytestmark = pytest.mark.browser

WAIT_MS = 120_000
CHART = "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg"


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request):
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    outside = []
    page.on("requestfailed", lambda failed: outside.append(failed.url))
    yield page
    if folder := os.environ.get("SCREENSHOTS"):
        _picture(page, Path(folder) / f"{request.node.name}.png")
    context.close()
    assert [url for url in outside if "127.0.0.1" not in url] == []


@pytest.fixture(autouse=True)
def _patience():
    expect.set_options(timeout=WAIT_MS)


def _picture(page, path):
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": 1360, "height": min(3000, int(height) + 20)})
    page.wait_for_timeout(2000)
    page.screenshot(path=path)


def fine(page):
    """No page may end in an error box."""
    expect(page.locator("[data-testid=stException]")).to_have_count(0)
    expect(page.get_by_text("The API does not answer")).to_have_count(0)


def test_incidents_come_first_and_lead_to_the_incident(page, site):
    page.goto(site.pages)
    expect(page.get_by_role("heading", name="Incidents")).to_be_visible()
    expect(page.get_by_text("P99 of gateway rose").first).to_be_visible()
    expect(page.get_by_text(re.compile("firing$"))).to_be_visible()
    expect(page.get_by_text("resolved", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"cause: llm-engine · GPU-.* \(93% sure\)")).first).to_be_visible()
    fine(page)
    page.get_by_role("link", name="Open").first.click()
    expect(page.get_by_role("heading", name="Why")).to_be_visible()
    assert "incident=inc-4f2a" in page.url


def test_an_alert_links_straight_to_its_incident(page, site):
    page.goto(f"{site.pages}/?incident=inc-4f2a")
    expect(page.get_by_role("heading", name=re.compile("P99 of gateway rose"))).to_be_visible()
    expect(page.get_by_text("SM clock of GPU-5f1c2a fell from 1,980 to 540 MHz")).to_be_visible()
    expect(page.get_by_text("its self time is as before")).to_be_visible()
    expect(page.get_by_role("heading", name="Who suffers")).to_be_visible()
    expect(page.locator("[data-testid=stGraphVizChart] svg").first).to_contain_text("llm-engine")
    expect(page.get_by_role("heading", name="For example")).to_be_visible()
    # The series of the symptom, and the waterfall.
    expect(page.locator(CHART)).to_have_count(2)
    expect(page.get_by_text(re.compile("6 spans of 3 services"))).to_be_visible()
    fine(page)


def test_an_unknown_incident_is_told_kindly(page, site):
    page.goto(f"{site.pages}/?incident=nope")
    expect(page.get_by_text(re.compile("there is none with this id"))).to_be_visible()
    fine(page)


def test_the_map_shows_who_calls_whom_and_the_cause(page, site):
    page.goto(f"{site.pages}/map")
    drawing = page.locator("[data-testid=stGraphVizChart] svg")
    for name in ("gateway", "retriever", "llm-engine", "qdrant", "⚠ cause", "degraded"):
        expect(drawing).to_contain_text(name)
    fine(page)


def test_the_map_shows_what_services_run_on_and_how_whole_traces_are(page, site):
    page.goto(f"{site.pages}/map")
    page.get_by_text("Instances, hosts and GPUs").click()
    drawing = page.locator("[data-testid=stGraphVizChart] svg")
    for name in ("llm-engine-0", "gpu-node-1", fleet.GPU):
        expect(drawing).to_contain_text(name)
    expect(page.get_by_text(re.compile("have all parents"))).to_be_visible()
    fine(page)


def test_logs_are_searched_and_lead_to_their_trace(page, site):
    page.goto(f"{site.pages}/logs")
    expect(page.get_by_text(re.compile(r"^\d+ records"))).to_be_visible()
    page.get_by_label("Contains").fill("there is no such text")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No log records match.")).to_be_visible()
    fine(page)


def test_a_service_is_silenced_and_heard_again(page, site):
    page.goto(f"{site.pages}/silences")
    expect(page.get_by_text("Nothing is silenced.")).to_be_visible()
    page.get_by_label("Service", exact=True).fill("llm-*")
    page.keyboard.press("Enter")
    page.get_by_label("Why").fill("planned work")
    page.get_by_role("button", name="Silence").click()
    expect(page.get_by_text("llm-* — planned work")).to_be_visible()
    page.get_by_role("button", name="End now").click()
    expect(page.get_by_text("Nothing is silenced.")).to_be_visible()
    fine(page)


def test_a_service_shows_latency_traffic_errors_and_operations(page, site):
    page.goto(f"{site.pages}/?service=llm-engine")
    expect(page.get_by_text("version: 0.11.0 · instance: llm-engine-0 · host: gpu-node-1")).to_be_visible()
    expect(page.locator(CHART)).to_have_count(3)
    for label in ("traffic", "errors", "P50", "P95", "P99"):
        expect(page.locator("[data-testid=stMetric]").filter(has_text=label)).to_have_count(1)
    assert "service=llm-engine" in page.url
    fine(page)


def test_traces_are_found_and_opened(page, site):
    page.goto(f"{site.pages}/traces")
    page.get_by_text("Only with errors").click()
    expect(page.get_by_text(re.compile("3 with errors"))).to_be_visible()
    expect(page.locator(CHART)).to_have_count(1)
    page.get_by_text("Attributes, events and links of a span").click()
    expect(page.locator("[data-testid=stJson]").first).to_contain_text("deadline exceeded")
    fine(page)


def test_gpus_tell_what_holds_them_back(page, site):
    page.goto(f"{site.pages}/gpus")
    expect(page.get_by_text("throttled: hw_thermal")).to_be_visible()
    expect(page.get_by_text(fleet.GPU).first).to_be_visible()
    expect(page.get_by_text(re.compile("SM clock 540 MHz"))).to_be_visible()
    expect(page.locator(CHART)).to_have_count(1)
    fine(page)
