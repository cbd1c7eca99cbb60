# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's page in Debian's Chromium: nothing in a name runs, nothing is fetched, it is filtered by keyboard, and all of it is
printed. With SCREENSHOTS=FOLDER it leaves pictures there to look at."""

import json
import os
from pathlib import Path

import browser
import pytest
import simulated
from ansible_collections.exfil.guard.plugins.plugin_utils._report import figures, page
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

NASTY = "</script><script>window.ran=1</script><img src=//192.0.2.1/x onerror=window.ran=1><svg onload=window.ran=1>\"'>&\x1b[2J\u202e\0"


def nasty():
    record = {
        "kind": "decision",
        "time": simulated.NOW.isoformat(),
        "last_time": simulated.NOW.isoformat(),
        "count": 1,
        "uid": 1,
        **dict.fromkeys(
            ("rule", "user", "executable", "action", "path", "object", "login_user", "unit", "address"), NASTY
        ),
    }
    status = dict(
        {
            "installed": True,
            "running": True,
            "in_force": True,
            "generation": 1,
            "totals": {},
            "problems": [NASTY],
            "drift": [NASTY],
            "unenforced": [NASTY],
        },
        **dict.fromkeys(("mode", "kernel", "revision"), NASTY),
    )
    plan = simulated.plan(["web1", NASTY])
    plan["entries"][0]["lines"] = [NASTY]
    plan["entries"][0]["decisions"]["changes"][0].update(who=NASTY, what=NASTY, rule=NASTY)
    plan["entries"][1].update(error=NASTY)
    answers = {
        name: {
            "groups": ["web", NASTY],
            "status": status,
            "records": [dict(record, verdict=verdict) for verdict in ("denied", "audit")],
        }
        for name in ("web1", NASTY)
    }
    return page.page(figures.report(answers, simulated.NOW.isoformat(), plan))


@pytest.fixture(scope="module", name="fleet")
def fixture_fleet():
    answers = simulated.answers(hosts=100, events=10_000)
    return figures.report(answers, simulated.NOW.isoformat(), simulated.plan(answers))


@pytest.fixture(name="show")
def fixture_show(chromium, tmp_path):
    def show(text):
        path = tmp_path / "report.html"
        path.write_text(text)
        chromium.get_log("browser"), chromium.get_log("performance")
        chromium.get(path.as_uri())
        return chromium

    return show


def told(driver):
    """What the console says: a script that was refused, an error, a request that failed."""
    return [each["message"] for each in driver.get_log("browser")]


def requests(driver):
    events = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


def shown(driver, table):
    return [row for row in driver.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr") if row.is_displayed()]


def test_nothing_in_a_name_runs_and_nothing_is_fetched(show):
    driver = show(nasty())
    assert told(driver) == []
    assert [url for url in requests(driver) if not url.startswith("file:")] == []
    assert driver.execute_script("return window.ran") is None
    assert (
        driver.execute_script(
            "return document.querySelectorAll('img, script:not(:last-child), [onload], [onerror], [style]').length"
        )
        == 0
    )
    assert driver.execute_script("return document.scripts.length") == 1
    assert "<script>window.ran=1</script>" in driver.find_element(By.ID, "hosts").text  # it is there to read

    # the control: what would have run is refused by the page's own policy even where a name had become markup
    driver = show(
        nasty().replace(
            "<h1>", "<script>window.ran=1</script><img src='http://192.0.2.1/x' onerror='window.ran=1'><h1>", 1
        )
    )
    assert driver.execute_script("return window.ran") is None
    said = " ".join(told(driver))
    assert "script" in said and "img-src" in said and "Content Security Policy" in said, said
    # and without that policy it runs
    driver = show(
        nasty().replace("<h1>", "<script>window.ran=1</script><h1>", 1).replace("Content-Security-Policy", "x")
    )
    assert driver.execute_script("return window.ran") == 1


def test_it_is_filtered_by_keyboard(show, fleet):
    driver = show(page.page(fleet))
    active = driver.switch_to.active_element
    reached = []
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    for _ in range(40):
        active = driver.switch_to.active_element
        reached.append(
            active.get_attribute("name")
            or active.get_attribute("type")
            or active.get_attribute("aria-label")
            or active.tag_name
        )
        outline = active.value_of_css_property("outline-style"), active.value_of_css_property("outline-width")
        assert outline == ("solid", "3px"), (reached, outline)  # where one is can be seen
        if active.get_attribute("aria-label") == "denials":
            break
        active.send_keys(Keys.TAB)
    fields = [each for each in reached if each in ("search", "group", "state", "verdict", "reset")]
    assert (
        fields == ["search", "group", "state", "verdict", "reset"]
        and reached[0] == "a"
        and reached[-2:] == ["hosts", "denials"]
    )
    assert "summary" in reached

    search = driver.find_element(By.NAME, "search")
    search.send_keys("web0001")
    assert [row.text.split()[0] for row in shown(driver, "hosts")] == ["web0001.example.com"]
    assert driver.find_element(By.ID, "hosts-shown").text == "1 of 100 shown"
    for _ in range(7):
        search.send_keys(Keys.BACKSPACE)
    group = driver.find_element(By.NAME, "group")
    group.send_keys("build")
    assert {row.get_attribute("data-groups") for row in shown(driver, "hosts")} == {"build guarded"}
    assert len(shown(driver, "hosts")) == 15
    driver.find_element(By.CSS_SELECTOR, "button").send_keys(Keys.ENTER)
    driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(shown(driver, "hosts")) == 100
    summary = driver.find_element(By.TAG_NAME, "summary")
    summary.send_keys(Keys.ENTER)
    assert driver.find_element(By.TAG_NAME, "details").get_attribute("open") is not None
    assert told(driver) == []


def test_all_of_it_is_printed_and_read_in_the_dark(show, fleet, tmp_path):
    driver = show(page.page(fleet))
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(exist_ok=True)
    browser.screenshot(driver, folder / "light.png")
    visible = "return document.querySelector('details table').checkVisibility({contentVisibilityAuto: true})"
    assert driver.execute_script(visible) is False
    browser.media(driver, "print")
    assert (
        not driver.find_element(By.TAG_NAME, "form").is_displayed()
        and not driver.find_element(By.TAG_NAME, "nav").is_displayed()
    )
    assert driver.execute_script(visible) is True  # the table of the chart, which is folded up on screen
    assert len(shown(driver, "hosts")) == 100
    browser.pdf(driver, folder / "report.pdf")
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert colours(driver)[1] == "rgb(27, 110, 60)"
    browser.media(driver, scheme="dark")
    dark = colours(driver)
    browser.screenshot(driver, folder / "dark.png")
    browser.media(driver)
    assert dark != colours(driver) and dark[1] == "rgb(129, 199, 132)"
    browser.screenshot(driver, folder / "narrow.png", width=400, height=2000)
    # nothing but what scrolls by itself is wider than the screen
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def colours(driver):
    return driver.execute_script("""
        return [getComputedStyle(document.querySelector('svg text')).fill, getComputedStyle(document.querySelector('svg .enforcing rect')).fill]""")


def test_without_its_script_it_can_be_read(show, fleet):
    driver = show(page.page(fleet).replace("<script>", "<script type='none'>"))
    assert not driver.find_element(By.TAG_NAME, "form").is_displayed() and len(shown(driver, "hosts")) == 100
