"""Signing in with a real browser, for which the provider is another site: its rules for cookies are what decides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded_service import guarded_service
from openid_provider import openid_provider
from playwright.sync_api import Browser, sync_playwright
from running_stack import CHROMIUM


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_a_browser_is_led_to_the_provider_and_back_to_the_page_that_it_wanted(browser: Browser, tmp_path: Path) -> None:
    with openid_provider() as provider, guarded_service(provider, tmp_path) as service:
        page = browser.new_page()
        page.goto(f"{service.url}/runs?a=b")
        page.get_by_role("link", name="Sign in").click()
        assert page.url.startswith(f"{provider.issuer}/oauth2/authorize?")
        page.get_by_text("olga").click()
        page.wait_for_url(f"{service.url}/runs?a=b")
        assert page.inner_text("body") == "let in"
        page.goto(f"{service.url}/.mlops/sign-out")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_text("Sign in again").wait_for()
        page.goto(service.url)
        assert page.get_by_role("link", name="Sign in").is_visible()
