"""The report in a real headless Chromium: no error, every picture drawn, clicks work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from analysis.report import report
from tests.unit.analysis.scene import Scene
from tests.unit.analysis.test_report import HOSTILE, harmful
from tests.unit.analysis.test_report_parts import predicted

WAIT_S = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--window-size=1200,1600",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report about a hostile trace with three calls, and about one without any."""
    folder = tmp_path_factory.mktemp("report")
    scene = harmful(workload={"policy": HOSTILE}, command=[HOSTILE], host=HOSTILE)
    for at, nr in ((2_000, 7), (3_000, 45)):
        scene.block(at, 12, at - 10, 0, nr=nr, runq=0, global_runq=0, npidle=1, nmspinning=0)
        scene.exit(at + nr, 12, at - 10)
    scene.runtime(4_000, "preempt_request", 19, 0, target_tid=12, reason="time_slice", goid=120)
    scene.signal(4_005, "tgkill", 12, sender_tid=19)
    scene.signal(4_020, "deliver", 12)
    scene.runtime(4_040, "preempted", 12, 0, goid=120, reason="async")
    empty = Scene(workload={"policy": "none"}).write(folder, "empty.pretake")
    traces = [scene.write(folder), empty]
    return report(traces, folder / "report.html", predicted).as_uri()


def drawn(browser: webdriver.Chrome) -> list[bool]:
    """Whether each picture that can be seen has been drawn, and has lines or bars in it."""
    return browser.execute_script(
        """return [...document.querySelectorAll(".picture")]
             .filter((e) => e.closest("details:not([open])") === null)
             .map((e) => e.dataset.drawn === "yes" && e.querySelector(
                 ".trace path, .trace .point path, .hm image, .heatmaplayer image") !== null);"""
    )


def errors(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_every_picture_is_drawn_without_an_error(
    browser: webdriver.Chrome, page: str, scheme: str, width: int
) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page)
    WebDriverWait(browser, WAIT_S).until(lambda b: drawn(b) and all(drawn(b)))
    assert len(drawn(browser)) >= 7
    assert errors(browser) == []
    # The page itself never scrolls sideways; wide tables do so in their own frame.
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) <= 0
    assert sticking_out(browser) == []


def sticking_out(browser: webdriver.Chrome) -> list[str]:
    """What is drawn of each picture that lies beyond the card that the picture is in."""
    return browser.execute_script(
        """const found = [];
           for (const picture of document.querySelectorAll(".picture[data-drawn]")) {
             if (picture.closest("details:not([open])") !== null) continue;
             const card = picture.closest("section, .budget").getBoundingClientRect();
             const own = picture.getBoundingClientRect();
             const parts = picture.querySelectorAll(".main-svg, text, .legend, .bglayer rect");
             for (const part of parts) {
               const box = part.getBoundingClientRect();
               if (box.width && (box.right > card.right + 1 || box.left < card.left - 1))
                 found.push(picture.dataset.picture + " beside: " + part.textContent);
               if (box.width && (box.bottom > own.bottom + 1 || box.top < own.top - 1))
                 found.push(picture.dataset.picture + " above or below: " + part.textContent);
             }
           }
           return found;"""
    )


def test_a_window_that_becomes_narrow_has_its_pictures_inside_their_cards(
    browser: webdriver.Chrome, page: str
) -> None:
    size = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1200, **size})
    browser.get(page)
    WebDriverWait(browser, WAIT_S).until(lambda b: drawn(b) and all(drawn(b)))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, **size})
    WebDriverWait(browser, WAIT_S).until(lambda b: sticking_out(b) == [])
    assert errors(browser) == []


def test_a_closed_time_line_is_drawn_when_it_is_opened(
    browser: webdriver.Chrome, page: str
) -> None:
    browser.get(page)
    WebDriverWait(browser, WAIT_S).until(lambda b: drawn(b) and all(drawn(b)))
    before = len(drawn(browser))
    closed = browser.find_element(By.CSS_SELECTOR, "details.worst:not([open]) summary")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", closed)
    closed.click()
    WebDriverWait(browser, WAIT_S).until(lambda b: len(drawn(b)) > before and all(drawn(b)))
    assert errors(browser) == []


def test_a_heading_sorts_its_table(browser: webdriver.Chrome, page: str) -> None:
    """Calls were retaken after 50 us (read), and kept for 7 (poll) and 45 us (recvfrom)."""
    browser.get(page)
    # Pictures that are still to be drawn would push the heading away from under the click.
    WebDriverWait(browser, WAIT_S).until(lambda b: drawn(b) and all(drawn(b)))
    table = next(
        table
        for table in browser.find_elements(By.CSS_SELECTOR, "table.sortable")
        if "by call;" in table.text
    )
    button = next(b for b in table.find_elements(By.TAG_NAME, "button") if "hold p50" in b.text)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)

    def names() -> list[str]:
        return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tbody th")]

    button.click()
    assert names() == ["read", "recvfrom", "poll"]
    button.click()
    assert names() == ["poll", "recvfrom", "read"]


def test_hostile_names_run_nothing(browser: webdriver.Chrome, page: str) -> None:
    """A script that ran would have opened an alert, and any command would then fail."""
    browser.get(page)
    WebDriverWait(browser, WAIT_S).until(lambda b: drawn(b) and all(drawn(b)))
    assert HOSTILE in browser.find_element(By.CLASS_NAME, "what").text
    assert browser.execute_script("return document.images.length") == 0


def test_answer_comes_first_and_trust_last(browser: webdriver.Chrome, page: str) -> None:
    browser.get(page)
    headings = [h.text for h in browser.find_elements(By.CSS_SELECTOR, "h1, h2")]
    assert browser.find_element(By.TAG_NAME, "h1").text == headings[0]
    assert headings[-1] == "How far to trust it"
    assert "How long goroutines run on after they are asked to stop" in headings
    (predictions, _) = [
        t for t in browser.find_elements(By.TAG_NAME, "table") if "replayed" in t.text
    ]
    policies = [cell.text for cell in predictions.find_elements(By.CSS_SELECTOR, "tbody th")]
    replayed = ["error of a replay", HOSTILE, "raw: would never end"]
    assert policies == ["sysmon, as captured", *replayed]
    assert "+12.4 %" in predictions.text
