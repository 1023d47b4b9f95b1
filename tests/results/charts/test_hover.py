"""What a mark says under a mouse, a finger and the keyboard's focus, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from results.charts.catalog import BUILDERS
from results.charts.page_parts import chart_css, hover_script
from results.charts.svg import svg
from results.hyperparameter_importance import Importance
from tests.browser import console_errors, emulated
from tests.results.charts.conftest import read
from tests.results.conftest import study, trial
from tests.results.report.conftest import XSS, curve

TIP = "const tip = document.querySelector('.chart-tip'); return tip && !tip.hidden ? tip.textContent : ''"
REPLACE = "const chart = document.querySelector('.chart'); chart.outerHTML = window.fresh"


@pytest.fixture
def opened(browser: WebDriver, tmp_path: Path) -> Iterator[WebDriver]:
    """A page with one chart: a best at 1e-3, another trial at 2e-4, one that failed for a hostile reason."""
    failed = trial(outcome="failed", lr=5e-4, reason=XSS)
    of = study(trial(2.2, lr=2e-4, reports=curve(2.2)), trial(2.0, lr=1e-3, reports=curve(2.0)), failed)
    chart = BUILDERS["learning_rate"](*read(of), Importance())
    assert chart is not None
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<style>{chart_css()}</style><p>text</p>{svg(chart)}"
        f"<script>window.fresh = document.querySelector('.chart').outerHTML;{hover_script()}</script>",
        encoding="utf-8",
    )
    with emulated(browser):
        browser.get(page.as_uri())
        yield browser
    assert console_errors(browser) == []


def mark(driver: WebDriver, style: str, size: str = "wide") -> WebElement:
    """The mark in the chart, not its entry of the legend, which has no text."""
    found = driver.find_elements(By.CSS_SELECTOR, f".{size} path.k-{style}")
    return next(
        node
        for node in found
        if driver.execute_script("return arguments[0].innerHTML || 't' in arguments[0].dataset", node)
    )


def pointed(driver: WebDriver, node: WebElement, *, right: int = 0) -> str:
    ActionChains(driver, duration=0).move_to_element_with_offset(node, right, 0).perform()
    return str(driver.execute_script(TIP))


def test_a_mouse_near_a_mark_shows_its_trial_and_its_settings(opened: WebDriver) -> None:
    text = pointed(opened, mark(opened, "best"), right=16)
    assert text.startswith("best: trial 1, complete\nloss 2.000\nlearning_rate 1e-3")
    assert pointed(opened, opened.find_element(By.TAG_NAME, "p")) == ""


def test_a_hostile_reason_is_text(opened: WebDriver) -> None:
    assert XSS in pointed(opened, mark(opened, "failed"))
    assert opened.execute_script("return window.pwned === undefined && !document.querySelector('img')")


def test_the_keyboard_goes_from_mark_to_mark(opened: WebDriver) -> None:
    keys = ActionChains(opened, duration=0)
    keys.send_keys(Keys.TAB).perform()
    assert opened.execute_script(TIP).startswith("best: trial 1")
    keys.reset_actions()
    keys.send_keys(Keys.ARROW_LEFT).perform()
    assert opened.execute_script(TIP).startswith("trial 2, failed")
    keys.reset_actions()
    keys.send_keys(Keys.ESCAPE).perform()
    assert opened.execute_script(TIP) == ""


def test_a_tap_on_a_phone_shows_the_same_inside_of_the_page(opened: WebDriver) -> None:
    with emulated(opened, width=390, height=844):
        mark(opened, "best", "narrow").click()
        assert opened.execute_script(TIP).startswith("best: trial 1, complete")
        box = opened.execute_script(
            "return document.querySelector('.chart-tip').getBoundingClientRect().toJSON()"
        )
        assert box["left"] >= 0
        assert box["right"] <= 390
        assert box["width"] > 150


def test_a_chart_that_replaces_another_shows_its_own(opened: WebDriver) -> None:
    """As the watch page does every few seconds."""
    pointed(opened, mark(opened, "best"))
    opened.execute_script(REPLACE)
    pointed(opened, opened.find_element(By.TAG_NAME, "p"))
    assert pointed(opened, mark(opened, "best")).startswith("best: trial 1")
