"""The report in a real headless Chromium, as its reader sees it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser import console_errors, emulated, requested_urls

Page = Callable[..., Path]
LOOKS = [
    pytest.param(1280, "light", id="desktop"),
    pytest.param(1280, "dark", id="desktop-dark"),
    pytest.param(390, "light", id="phone"),
    pytest.param(390, "dark", id="phone-dark"),
]
SHOWN_MARKS = """
const width = (svg) => svg.getBoundingClientRect().width;
const shown = [...document.querySelectorAll(".chart svg")].filter(width);
return shown.map((svg) => [width(svg), svg.querySelectorAll("path, circle, rect").length]);
"""
INK_AND_PAPER = """
const rgb = (node, name) => getComputedStyle(node)[name].match(/[0-9.]+/g).slice(0, 3).map(Number);
const drawn = [...document.querySelectorAll(".chart text:not(.k-onbar)")].map((text) => rgb(text, "fill"));
return [rgb(document.body, "color"), drawn, rgb(document.body, "backgroundColor")];
"""
NUM_CHARTS = 6
PAGES = re.compile(rb"/Type\s*/Page[^s]")


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
        drawn = browser.execute_script(SHOWN_MARKS)
        assert console_errors(browser) == []
        assert requested_urls(browser) == [address]
        assert len(drawn) == NUM_CHARTS  # of the two widths of each chart one is shown
        assert all(0.8 * min(width, 1000) < shown <= width and marks > 3 for shown, marks in drawn), drawn
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return window.pwned === undefined")
        ink, drawn, paper = browser.execute_script(INK_AND_PAPER)
        assert (sum(paper) < 200) == (scheme == "dark")
        assert contrast(ink, paper) > 7  # WCAG 2.2 AAA for text
        assert min(contrast(color, paper) for color in drawn) > 4.5  # AA


def contrast(one: list[float], other: list[float]) -> float:
    """Of two sRGB colours from 0 to 255, by WCAG's formula."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: list[float]) -> float:
    shares = [value / 255 for value in color]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("width", "height", "shown"), [(1280, 900, ".tiles"), (390, 844, ".headline")])
def test_the_answer_is_on_the_first_screen(opened: WebDriver, width: int, height: int, shown: str) -> None:
    with emulated(opened, width=width, height=height):
        opened.execute_script("scrollTo(0, 0)")
        bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
        assert opened.execute_script(bottom, shown) < height


def test_a_button_copies_its_command(opened: WebDriver) -> None:
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    opened.execute_cdp_cmd("Browser.grantPermissions", grant)
    opened.execute_script("document.querySelector('button.copy').click()")
    code = opened.execute_script("return document.querySelector('.command code').textContent")
    assert code == "sweeps run runs/demo"
    assert eventually(opened, "return document.querySelector('button.copy').textContent === 'Copied'")


def test_without_its_scripts_the_page_says_the_same(
    opened: WebDriver, rich_page: Path, tmp_path: Path
) -> None:
    """The buttons stay hidden, the commands can be selected with one click."""
    text = """
    const main = document.querySelector("main").cloneNode(true);
    main.querySelectorAll("svg, button").forEach((node) => node.remove());
    return main.textContent;
    """
    with_scripts = opened.execute_script(text)
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script>.*?</script>", "", rich_page.read_text("utf-8"), flags=re.S), "utf-8")
    opened.get(bare.as_uri())
    assert opened.execute_script(text) == with_scripts
    assert opened.execute_script("return document.querySelector('button.copy').offsetHeight") == 0
    style = "return getComputedStyle(document.querySelector('.command code')).userSelect"
    assert opened.execute_script(style) == "all"


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


def test_hostile_names_are_text(opened: WebDriver) -> None:
    titles = opened.execute_script("return document.querySelector('main').textContent")
    assert "<img src=x onerror=" in titles
    assert opened.execute_script("return window.pwned === undefined && !document.querySelector('main img')")


def test_an_injected_script_would_not_run(opened: WebDriver) -> None:
    """The page's policy is the second wall behind the escaping."""
    opened.execute_script(
        "const made = document.createElement('script'); made.textContent = 'window.injected = 1';"
        "document.body.append(made)"
    )
    assert opened.execute_script("return window.injected === undefined")
    assert any("Content Security Policy" in line for line in console_errors(opened))


def test_print_is_light_and_short(opened: WebDriver) -> None:
    with emulated(opened, scheme="dark"):
        # Neither `screen` nor `print` is forced any longer; the dark scheme remains.
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": dark})
        answer = opened.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
        ink, _, paper = opened.execute_script(INK_AND_PAPER)
        left_out = "return [...document.querySelectorAll('.copy, details')].map(e => e.offsetHeight)"
        assert set(opened.execute_script(left_out)) == {0}
    printed = base64.b64decode(answer["data"])
    assert printed.startswith(b"%PDF")
    assert len(PAGES.findall(printed)) <= 4
    assert (sum(ink) < 200, paper) == (True, [255, 255, 255])
    assert console_errors(opened) == []


def test_the_keyboard_reaches_charts_commands_and_wide_tables(opened: WebDriver) -> None:
    names = opened.execute_script(
        "const all = document.querySelectorAll('[tabindex=\"0\"][role=region], svg[role=img]');"
        "return [...all].map(e => e.ariaLabel)"
    )
    assert len(names) > 5
    assert all(names)
    assert opened.execute_script("return document.querySelector('.skip').hash") == "#answer"
    assert opened.execute_script("return document.querySelectorAll('.command button').length") >= 1


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
