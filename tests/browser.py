"""A real headless Chromium for the tests of pages: Debian's package, driven by selenium.

`tests/system-packages.sh` installs it. A machine without it skips these tests with that reason.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1280,900",
)
PAGE_SECONDS = 30
"""No page of ours takes as long to load, whatever else the machine does."""


@contextmanager
def open_browser(profile: Path) -> Iterator[WebDriver]:
    """A browser with a fresh profile in `profile`; skips the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver; tests/system-packages.sh installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are named, so selenium's own manager has nothing to look for in the network.
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        opened.get("about:blank")  # the page for new tabs has much to load and to log
        opened.set_page_load_timeout(PAGE_SECONDS)
        opened.set_script_timeout(PAGE_SECONDS)
        yield opened
    finally:
        opened.quit()


def console_errors(driver: WebDriver) -> list[str]:
    """Errors and warnings on the browser's console since the last call, a line each."""
    return [
        f"{entry['level']}: {entry['message']}"
        for entry in driver.get_log("browser")  # type: ignore[no-untyped-call]
        if entry["level"] in ("SEVERE", "WARNING")
    ]


def requested_urls(driver: WebDriver) -> list[str]:
    """Every address that pages asked for since the last call, in order; the browser's own pages aside."""
    urls = []
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        event: dict[str, Any] = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            urls.append(str(event["params"]["request"]["url"]))
    return [url for url in urls if not url.startswith(("data:", "blob:", "chrome:"))]


@contextmanager
def emulated(
    driver: WebDriver, *, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "screen"
) -> Iterator[None]:
    """A window of this size in CSS pixels under a colour scheme, on `media` (screen or print)."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
