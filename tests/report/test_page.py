"""The report in a browser: quiet, offline, by keyboard, on a phone, in print, and accessible.

Debian's chromium is driven through its own driver. Screenshots stay in pytest's folder, or in the
one that CYCLERY_SCREENSHOTS names.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from factories import evidence as factory

from cyclery.report import build as build_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

PHONE, DESKTOP = (390, 844), (1280, 900)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    # What asked for the network would fail, and be seen in the log.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


class Browser:
    """A page in chromium, and what a person would do with it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))

    def command(self, name: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def open(
        self, page: Path, size: tuple[int, int] = DESKTOP, media: str = "", dark: bool = False
    ) -> None:
        width, height = size
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height,
                     deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce"}]  # fmt: skip
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # those of the page before
        self.driver.get(page.as_uri())

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, found: Callable[[Any], bool], most: int = 120) -> Any:
        """Press Tab until the focus is on what is wanted."""
        for _ in range(most):
            self.press(Keys.TAB)
            if found(self.driver.switch_to.active_element):
                return self.driver.switch_to.active_element
        raise AssertionError("the keyboard does not get there")

    def shown(self) -> list[str]:
        """Return the claims that the board shows, in order."""
        return list(self.run(
            "return [...document.querySelectorAll('.board tr[data-verdict]')]"
            ".filter(r => r.checkVisibility()).map(r => r.dataset.name)"
        ))  # fmt: skip

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events
                if e["method"] == "Network.requestWillBeSent"]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(factory.evidence(2, 6, 5), tmp_path_factory.mktemp("page"), "smoke")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = os.environ.get("CYCLERY_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


CLAIMS = [name for part in ("gct", "clr", "cfl") for name, *_ in factory.CLAIMS[part]]


def test_page_opens_without_a_message_or_a_request(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.driver.title == "Which claims hold at the smoke tier?"
    assert browser.shown() == CLAIMS
    assert browser.messages() == []
    outside = [u for u in browser.requests() if not u.startswith(("file:", "data:", "blob:"))]
    assert outside == []


def test_board_is_filtered_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.tab_to(lambda e: e.get_attribute("value") == "contradicted")
    browser.press(Keys.SPACE)
    assert browser.shown() == ["GCT-10", "CLR-13", "CFL-9"]
    status = browser.driver.find_element(By.CSS_SELECTOR, "[role=status]")
    assert status.text == "3 of 22 claims shown"
    browser.tab_to(lambda e: e.tag_name == "select")
    browser.press("C", "L", "R")
    assert browser.shown() == ["CLR-13"]
    browser.tab_to(lambda e: e.get_attribute("class") == "reset")
    browser.press(Keys.ENTER)
    assert browser.shown() == CLAIMS
    keys = webdriver.ActionChains(browser.driver)
    keys.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert browser.driver.switch_to.active_element.get_attribute("type") == "search"
    browser.press("Batch Size")
    assert browser.shown() == ["GCT-5"]


def test_board_is_sorted_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    heads = browser.driver.find_elements(By.CSS_SELECTOR, ".board thead th")
    browser.tab_to(lambda e: e.text.startswith("Verdict") and e.tag_name == "button")
    browser.press(Keys.ENTER)
    assert heads[0].get_attribute("aria-sort") == "ascending"
    order = [factory.VERDICTS.get(name, "inconclusive") for name in browser.shown()]
    ranks = ("reproduced", "contradicted", "partly", "inconclusive", "not run")
    assert order == sorted(order, key=ranks.index) and len(order) == len(CLAIMS)
    browser.tab_to(lambda e: e.text.startswith("Effect"))
    browser.press(Keys.SPACE, Keys.SPACE)
    assert [h.get_attribute("aria-sort") for h in heads[:3]] == [None, None, "descending"]
    effects = browser.run("return arguments[0].map(n => document.querySelector("
                          "`tr[data-name='${n}']`).dataset.effect)", browser.shown())  # fmt: skip
    known = [float(e) for e in effects if e]
    assert len(known) > 5 and known == sorted(known, reverse=True)
    assert not any(effects[len(known) :])  # what has none stands last
    browser.press(Keys.SPACE)
    assert browser.shown() == CLAIMS


def test_skip_link_and_focus_are_visible(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(Keys.TAB)
    link = browser.driver.switch_to.active_element
    assert link.text == "Skip to the verdicts" and link.rect["x"] >= 0
    assert browser.run("return getComputedStyle(arguments[0]).outlineStyle", link) == "solid"
    browser.press(Keys.ENTER)
    assert browser.run("return location.hash") == "#board"


def test_headings_do_not_skip_a_level(browser: Browser, page: Path) -> None:
    browser.open(page)
    levels = browser.run(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_theme_is_chosen_and_kept(browser: Browser, page: Path) -> None:
    def ground() -> str:
        return str(browser.run("return getComputedStyle(document.body).backgroundColor"))

    browser.open(page)
    light = ground()
    browser.open(page, dark=True)
    dark = ground()
    assert light != dark
    browser.tab_to(lambda e: e.get_attribute("class") == "theme")
    browser.press(Keys.ENTER)
    assert ground() == light  # though the system is dark
    browser.open(page, dark=True)
    assert ground() == light
    browser.run("localStorage.clear()")


def test_print_is_light_and_without_controls(browser: Browser, page: Path) -> None:
    browser.open(page, media="print", dark=True)
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    gone = (
        "return [...document.querySelectorAll('.filters, .top')].filter(e => e.checkVisibility())"
    )
    assert browser.run(gone) == []
    printed = browser.command("Page.printToPDF")["data"]
    assert len(printed) > 100_000


@pytest.mark.parametrize("hostile", [False, True])
def test_phone_does_not_scroll_sideways(
    hostile: bool, browser: Browser, page: Path, screenshots: Path, tmp_path: Path
) -> None:
    if hostile:
        page = build_report(factory.hostile(), tmp_path, "smoke")
    browser.open(page, PHONE)
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"return {wide}.length") > 3
    # A region that scrolls is reached by keyboard and has a name.
    assert browser.run(f"return {wide}.every(e => e.tabIndex === 0 && document.getElementById("
                       "e.getAttribute('aria-labelledby')).textContent)")  # fmt: skip
    assert browser.messages() == []
    if not hostile:
        browser.driver.save_screenshot(str(screenshots / "phone.png"))
        browser.open(page)
        browser.driver.save_screenshot(str(screenshots / "desktop.png"))
        assert min(p.stat().st_size for p in screenshots.glob("*.png")) > 10_000


def test_board_needs_no_script(browser: Browser, page: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        rows = browser.driver.find_elements(By.CSS_SELECTOR, ".board tr[data-verdict]")
        assert len(rows) == len(CLAIMS) and all(row.is_displayed() for row in rows)
        assert not browser.driver.find_element(By.CSS_SELECTOR, ".filters").is_displayed()
        assert not browser.driver.find_elements(By.CSS_SELECTOR, ".board th button")
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_data_of_a_figure_is_saved_as_csv(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    link = browser.driver.find_element(By.CSS_SELECTOR, "a[download='gct-0-paired.csv.gz']")
    browser.run("arguments[0].focus()", link)
    browser.press(Keys.ENTER)
    file = tmp_path / "gct-0-paired.csv"
    until = time.monotonic() + 20
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert file.read_text("utf-8").startswith("claim,arm,against,metric,unit,seed,difference\n")


def check_with_axe(browser: Browser) -> None:
    """Let axe-core look at the page that is open, with all details unfolded."""
    found = find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-playwright-python, which has a copy of axe-core, is not installed")
    axe = Path(found.submodule_search_locations[0]) / "axe.min.js"
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    browser.driver.set_script_timeout(120)
    browser.run(axe.read_text("utf-8"))
    result = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(done, done)"
    )
    serious = {
        v["id"]: [node["html"][:160] for node in v["nodes"][:4]]
        for v in result["violations"] if v["impact"] in ("serious", "critical")
    }  # fmt: skip
    assert serious == {}
    assert len(result["passes"]) > 20  # that it looked at all


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_violation(
    size: tuple[int, int], dark: bool, browser: Browser, page: Path
) -> None:
    browser.open(page, size, dark=dark)
    check_with_axe(browser)


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_of_the_smoke_tier(size: tuple[int, int], browser: Browser, screenshots: Path) -> None:
    """The page of real runs, where this checkout has made it or fetched it."""
    made = Path(__file__).parents[2] / "results/smoke/report/index.html"
    if not made.exists():
        pytest.skip("no results/smoke/report/index.html: make reproduce, or make pull")
    browser.open(made, size)
    rows = browser.shown()
    assert len(rows) > 20
    browser.tab_to(lambda e: e.get_attribute("value") == "reproduced")
    browser.press(Keys.SPACE)
    assert 0 < len(browser.shown()) < len(rows)
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    assert browser.messages() == []
    outside = [u for u in browser.requests() if not u.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    browser.driver.save_screenshot(str(screenshots / f"smoke-{size[0]}.png"))
    browser.open(made, size)
    check_with_axe(browser)
