# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium without a window, by its own driver, and what it saw of a page."""

import base64
import os

from selenium import webdriver
from selenium.webdriver.chromium import webdriver as chromium
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection

# Every name but the page's own resolves to nothing: what would reach for the network shows as a request that failed.
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--force-device-scale-factor=1",
)


PATIENCE = 600  # seconds for one answer, on a machine that does other things


class Connection(ChromiumRemoteConnection):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.client_config.timeout = PATIENCE


def start():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS + (("--no-sandbox",) if os.geteuid() == 0 else ()):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium.ChromiumRemoteConnection = Connection
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_script_timeout(PATIENCE)
    driver.set_window_size(1400, 1000)
    return driver


def media(driver, kind="", scheme="light"):
    """As it is on screen or in print, in a light or a dark setting."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": kind, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def screenshot(driver, path, width=1400, height=1000):
    """The first ``height`` pixels; the whole page with 0."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height or 1000, "deviceScaleFactor": 1, "mobile": False},
    )
    options = {"format": "png"}
    if not height:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options.update(
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": width, "height": min(size["height"], 12000), "scale": 1},
        )
    path.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def pdf(driver, path):
    found = driver.execute_cdp_cmd("Page.printToPDF", {"landscape": True, "paperWidth": 8.27, "paperHeight": 11.69})
    path.write_bytes(base64.b64decode(found["data"]))


def open_page(driver, url):
    """Milliseconds from the start of navigation until it was loaded, and until it was filtered and drawn; and how long the page's
    thread was at work in that, by the processor's clock, which other programs do not lengthen."""
    driver.get("about:blank")
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = _work(driver)
    driver.get(url)
    found = driver.execute_async_script("""
        const done = arguments[0];
        requestAnimationFrame(() => requestAnimationFrame(() => {
          const entry = performance.getEntriesByType("navigation")[0];
          const note = document.getElementById("hosts-shown");
          done({loaded: entry.loadEventEnd, drawn: performance.now(), ready: note && note.textContent !== "" && !document.forms[0].hidden});
        }));""")
    return dict(found, work=(_work(driver) - before) * 1000)


def _work(driver):
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")
