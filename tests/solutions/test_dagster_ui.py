"""The Dagster UI in a real browser: lineage and asset pages after the demo, without an error and without a request to elsewhere.

Deselected where there is no Chromium; `tests/conftest.py` says so at the end of the run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright
from running_stack import CHROMIUM, Demo, Platform
from waiting import wait_for

from mlops_assets.local.links import PAGES

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STAGES = ("training_dataset", "model", "evaluation", "online_features", "deployment", "predictions", "outcomes")
REPORTS = ("data_quality_report", "drift_report", "performance_report", "monitoring_report")
OTHERS = ("retraining_decision", "prediction_log", "shadow_predictions", "challenger")
GROUP_PAGE = "/locations/mlops_assets/asset-groups/flight_delay/lineage"
TIMEOUT = 60_000


@dataclass
class Visit:
    """A page, what it complained about, and hosts that it asked for and did not get."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser(platform: Platform, demo: Demo) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(platform: Platform, browser: Browser) -> Iterator[Visit]:
    """A fresh page that can reach this machine alone."""
    context = browser.new_context(base_url=platform.settings.dagster_url, viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(TIMEOUT)
    visit = Visit(context.new_page())

    def pass_or_block(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("http", "https") and address.hostname != "127.0.0.1":
            visit.foreign.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            visit.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    context.route("**/*", pass_or_block)
    # As a person does: the link opens a session.
    visit.page.goto(PAGES["dagster"].link(platform.settings))
    assert visit.page.url.startswith(f"{platform.settings.dagster_url}/")
    assert "token" not in visit.page.url
    visit.page.on("console", listen)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    yield visit
    context.close()
    assert visit.foreign == []
    assert visit.complaints == []


def test_the_lineage_of_the_solution_shows_every_stage(visit: Visit) -> None:
    # So large that all nodes are in view, and show their checks, not only their names.
    visit.page.set_viewport_size({"width": 6000, "height": 8000})
    visit.page.goto(GROUP_PAGE)
    for stage in (*STAGES, *REPORTS, *OTHERS):
        expect(visit.page.get_by_text(stage, exact=True).first).to_be_visible(timeout=TIMEOUT)
    # The spine and the stages but the outcomes: two days of a blizzard, whose cancelled flights have no label, are a warning as what a report
    # finds is, and shown otherwise.
    passed = visit.page.get_by_text(re.compile(r"^([1-9]\d*) / \1 Passed$"))
    expect(passed.nth(len(STAGES) - 1)).to_be_visible(timeout=TIMEOUT)
    expect(visit.page.get_by_text("Failed to load", exact=False)).to_have_count(0)


def test_the_lineage_of_all_assets_shows_every_group(visit: Visit) -> None:
    visit.page.goto("/asset-groups")
    for group in (
        "flight_delay",
        "employment",
        "nycflights13_features",
        "nycflights13_staging",
        "nycflights13_raw",
        "census_raw",
    ):
        expect(visit.page.get_by_text(group, exact=True).first).to_be_visible(timeout=TIMEOUT)
    expect(visit.page.get_by_text("configuration_error", exact=True)).to_have_count(0)


def test_the_page_follows_dagster_by_its_websocket(visit: Visit) -> None:
    # The first frame may come before the page has loaded.
    received: list[str] = []
    visit.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(str(frame))))
    visit.page.goto("/runs")

    def acknowledged() -> bool:
        visit.page.wait_for_timeout(100)  # the browser tells nothing to a test that sleeps
        return any("connection_ack" in frame for frame in received)

    wait_for(acknowledged)


def test_mlflow_opens_with_its_link(visit: Visit, platform: Platform) -> None:
    visit.page.goto(f"{PAGES['mlflow'].link(platform.settings)}#/models/flight_delay")
    expect(visit.page.get_by_text("Version 1", exact=True).first).to_be_visible(timeout=TIMEOUT)
    assert visit.page.url == f"{platform.settings.mlflow_url}/#/models/flight_delay"
    # MLflow itself asks for a user that a server without accounts does not have.
    visit.complaints[:] = [each for each in visit.complaints if "/users/current" not in each]


def test_a_browser_without_a_session_is_told_how_to_get_in(browser: Browser, platform: Platform) -> None:
    page = browser.new_page(base_url=platform.settings.dagster_url)
    page.goto(GROUP_PAGE)
    expect(page.get_by_text("mlops open")).to_be_visible()
    page.close()


def test_the_code_location_is_loaded(visit: Visit) -> None:
    visit.page.goto("/deployment/locations")
    expect(visit.page.get_by_text("mlops_assets", exact=True).first).to_be_visible(timeout=TIMEOUT)
    expect(visit.page.get_by_text("Loaded", exact=True).first).to_be_visible(timeout=TIMEOUT)
    expect(visit.page.get_by_text("Failed", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    ("stage", "plot"),
    [
        ("evaluation", "calibration"),
        pytest.param("outcomes", "ranking", marks=pytest.mark.long),
        pytest.param("drift_report", "drift", marks=pytest.mark.long),
        pytest.param("performance_report", "performance", marks=pytest.mark.long),
    ],
)
def test_the_page_of_an_asset_shows_its_plots(visit: Visit, stage: str, plot: str) -> None:
    visit.page.goto(f"/assets/flight_delay/{stage}")
    visit.page.locator("tr", has_text=f"plot_{plot}").first.get_by_text("Show Markdown").click()
    image = visit.page.locator(f"img[alt='{plot}']").first
    expect(image).to_be_visible(timeout=TIMEOUT)
    assert image.evaluate("image => image.complete && image.naturalWidth > 100")


def test_the_page_of_a_window_stands_alone(visit: Visit, demo: Demo) -> None:
    visit.page.goto(f"file://{demo.summary['reports'][-1]}")
    expect(visit.page.get_by_role("heading").first).to_be_visible(timeout=TIMEOUT)
    assert visit.page.locator("svg, img").count() > 0
