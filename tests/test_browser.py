"""The browser that pages are tested in hears and sees what those tests rest on."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser import console_errors, emulated, requested_urls

PAGE = """<!doctype html><meta name=viewport content="width=device-width"><p>here</p>
<script>console.error("boo"); new Image().src = "http://127.0.0.1:8999/x.png";</script>"""


def test_errors_and_requests_of_a_page_are_heard_once(browser: WebDriver, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE, encoding="utf-8")
    console_errors(browser), requested_urls(browser)
    browser.get(page.as_uri())
    assert any("boo" in line for line in console_errors(browser))
    assert requested_urls(browser) == [page.as_uri(), "http://127.0.0.1:8999/x.png"]
    assert not any("boo" in line for line in console_errors(browser))


def test_a_phone_in_the_dark(browser: WebDriver, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE, encoding="utf-8")
    with emulated(browser, width=390, scheme="dark"):
        browser.get(page.as_uri())
        dark = "return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]"
        assert browser.execute_script(dark) == [390, True]
    assert browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") is False
