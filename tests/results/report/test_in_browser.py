"""The report in a real headless Chromium, as its reader sees it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser import console_errors, emulated, requested_urls

Page = Callable[..., Path]
PLOTS = ("rates", "ratio", "curves", "importance", "parallel", "timeline")
LOOKS = [
    pytest.param(1280, "light", id="desktop"),
    pytest.param(1280, "dark", id="desktop-dark"),
    pytest.param(390, "dark", id="phone-dark"),
]
COUNT_MARKS = """
const plot = document.getElementById(arguments[0]);
return plot.querySelectorAll(".point, .js-line, .bars path").length;
"""
INK_AND_PAPER = """
const rgb = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
const tick = document.querySelector("#plot-rates .ytick text");
return [rgb(getComputedStyle(tick).fill), rgb(getComputedStyle(document.body).backgroundColor)];
"""


@pytest.fixture
def opened(browser: WebDriver, rich_page: Path) -> Iterator[WebDriver]:
    """The browser on the page of the richest study, in a desktop window; loaded once."""
    with emulated(browser):
        if browser.current_url != rich_page.as_uri():
            browser.get(rich_page.as_uri())
        yield browser


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_loads_alone_and_draws_every_plot(
    browser: WebDriver, rich_page: Path, width: int, scheme: str
) -> None:
    address = rich_page.as_uri()
    with emulated(browser, width=width, scheme=scheme):
        console_errors(browser), requested_urls(browser)
        browser.get(address)
        drawn = {name: browser.execute_script(COUNT_MARKS, f"plot-{name}") for name in PLOTS}
        assert console_errors(browser) == []
        assert requested_urls(browser) == [address]
        # 31 trials: as many points as are seated or finished, a line at least where lines are drawn.
        assert all(drawn[name] >= least for name, least in zip(PLOTS, (20, 15, 5, 3, 20, 20), strict=True)), (
            drawn
        )
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return window.pwned === undefined")
        ink, paper = browser.execute_script(INK_AND_PAPER)
        assert (sum(paper) < 200) == (scheme == "dark")
        assert contrast(ink, paper) > 7  # WCAG 2.2 AAA for text


def contrast(one: list[float], other: list[float]) -> float:
    """Of two sRGB colours from 0 to 255, by WCAG's formula."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: list[float]) -> float:
    shares = [value / 255 for value in color]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_change_of_look_or_width_draws_again(opened: WebDriver) -> None:
    before = opened.execute_script(INK_AND_PAPER)
    with emulated(opened, width=390, scheme="dark"):
        fits = "const p = document.querySelector('#plot-rates .main-svg'); return p.clientWidth <= 390"
        assert eventually(opened, fits)
        assert (
            eventually(opened, "return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        )
        assert opened.execute_script(INK_AND_PAPER) != before
    assert console_errors(opened) == []


def eventually(driver: WebDriver, script: str) -> Any:
    """What a script returns once it is true, within 50 frames."""
    frames = """
    const [body, done] = arguments, test = new Function(body); let left = 50;
    const look = () => {
      const found = test();
      if (found || !left--) done(found); else requestAnimationFrame(look);
    };
    look();
    """
    return driver.execute_async_script(frames, script)


def test_a_pointer_on_a_hostile_name_shows_it_as_text(opened: WebDriver) -> None:
    shown = opened.execute_async_script(
        """
        const done = arguments[0], plot = document.getElementById("plot-rates");
        const hostile = (text) => text.includes("onerror");
        const curve = plot.data.findIndex((t) => Array.isArray(t.hovertext) && t.hovertext.some(hostile));
        const point = plot.data[curve].hovertext.findIndex(hostile);
        Plotly.Fx.hover(plot, [{ curveNumber: curve, pointNumber: point }]);
        setTimeout(() => done(plot.querySelector(".hoverlayer").textContent), 200);
        """
    )
    assert "<img src=x onerror=" in shown
    assert opened.execute_script("return window.pwned === undefined && !document.querySelector('main img')")


def test_an_injected_script_would_not_run(opened: WebDriver) -> None:
    """The page's policy is the second wall behind the escaping."""
    opened.execute_script(
        "const made = document.createElement('script'); made.textContent = 'window.injected = 1';"
        "document.body.append(made)"
    )
    assert opened.execute_script("return window.injected === undefined")
    assert any("Content Security Policy" in line for line in console_errors(opened))


def test_print_is_light_and_fits_the_paper(opened: WebDriver) -> None:
    with emulated(opened, scheme="dark"):
        opened.execute_script(
            "const plot = () => document.querySelector('#plot-rates .main-svg');"
            "addEventListener('beforeprint', () => { window.printed ="
            " [plot().clientWidth, getComputedStyle(plot().querySelector('.ytick text')).fill]; })"
        )
        # Neither `screen` nor `print` is forced any longer; the dark scheme remains.
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": dark})
        answer = opened.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
        width, ink = opened.execute_script("return window.printed")
    assert base64.b64decode(answer["data"]).startswith(b"%PDF")
    assert (width, ink) == (680, "rgb(27, 31, 36)")
    assert console_errors(opened) == []


def test_the_keyboard_reaches_sections_and_wide_tables(opened: WebDriver) -> None:
    names = opened.execute_script(
        "return [...document.querySelectorAll('[tabindex=\"0\"][role=region]')].map(e => e.ariaLabel)"
    )
    assert len(names) > 5
    assert all(names)
    targets = opened.execute_script("return [...document.querySelectorAll('nav a')].map(a => a.hash)")
    assert all(
        opened.execute_script("return !!document.querySelector(arguments[0])", hash) for hash in targets
    )


@pytest.mark.parametrize("state", ["empty", "failed"])
def test_a_page_with_little_to_show_has_no_errors(
    browser: WebDriver, make_trial: Any, make_study: Any, page: Page, state: str
) -> None:
    trials = [make_trial(outcome="failed", reason="no such file")] if state == "failed" else []
    address = page(make_study(*trials)).as_uri()
    console_errors(browser), requested_urls(browser)
    browser.get(address)
    assert console_errors(browser) == []
    assert requested_urls(browser) == [address]
