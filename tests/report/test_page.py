"""The report in a browser: quiet, offline, by keyboard, on a phone, in print, and accessible.

Debian's chromium is driven through its own driver. Screenshots stay in pytest's folder, or in the
one that CYCLERY_SCREENSHOTS names.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from factories import evidence as factory
from factories.browser import DESKTOP, PHONE, Browser, By, Keys, check_with_axe, saved, webdriver

from cyclery.report import build as build_report


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


def _tested() -> list[str]:
    """Return the claims in the order of the board: of each paper first what is decided."""
    out = []
    for part in ("gct", "clr", "cfl"):
        found = [name for name, *_ in factory.CLAIMS[part]]
        verdicts = [factory.VERDICTS.get(name, "inconclusive") for name in found]
        order = ("reproduced contradicted partly", "inconclusive")
        out += [n for those in order for n, v in zip(found, verdicts, strict=True) if v in those]
    return out


CLAIMS = _tested()
ALL = sum(map(len, factory.CLAIMS.values()))


def skip_to_board(browser: Browser) -> None:
    """Take the link that passes by what comes before the board."""
    browser.press(Keys.TAB, Keys.ENTER)


def test_page_opens_without_a_message_or_a_request(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.driver.title == "Which claims hold at the smoke tier?"
    assert browser.shown() == CLAIMS
    assert browser.messages() == []
    outside = [u for u in browser.requests() if not u.startswith(("file:", "data:", "blob:"))]
    assert outside == []


def test_board_is_filtered_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    skip_to_board(browser)
    browser.tab_to(lambda e: e.get_attribute("value") == "contradicted")
    browser.press(Keys.SPACE)
    assert browser.shown() == ["GCT-10", "CLR-13", "CFL-9"]
    status = browser.driver.find_element(By.CSS_SELECTOR, ".filters [role=status]")
    assert status.text == f"3 of {ALL} claims shown"
    browser.tab_to(lambda e: e.get_attribute("name") == "paper")
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
    skip_to_board(browser)
    browser.tab_to(lambda e: e.text.startswith("Verdict") and e.tag_name == "button")
    browser.press(Keys.ENTER)
    assert heads[0].get_attribute("aria-sort") == "ascending"
    order = [factory.VERDICTS.get(name, "inconclusive") for name in browser.shown()]
    ranks = ("reproduced", "contradicted", "partly", "inconclusive")
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
    browser.unpack()
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
    assert len(printed) > 30_000


def pages(browser: Browser) -> int:
    """Return how many pages the print of the page has."""
    data = base64.b64decode(browser.command("Page.printToPDF", preferCSSPageSize=True)["data"])
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", data))


def test_a_paper_prints_on_one_page(browser: Browser, page: Path) -> None:
    browser.open(page)
    whole = pages(browser)
    browser.run("window.print = () => {}; document.querySelector('#clr .one').click()")
    assert browser.run("return document.querySelectorAll('.only').length") == 1
    assert pages(browser) == 1 < whole
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert pages(browser) == whole


def test_a_claim_opens_in_its_place_and_by_its_address(browser: Browser, page: Path) -> None:
    browser.open(page)
    link = browser.driver.find_element(By.CSS_SELECTOR, "#claim-clr-2 a")
    link.click()
    card = wait(browser, "#claim-clr-2 + tr.card [data-card]")
    assert "The paper prints +2.9 pp" in card.text
    assert link.get_attribute("aria-expanded") == "true"
    link.click()
    assert not card.is_displayed() and link.get_attribute("aria-expanded") == "false"
    # An address may name what is packed: a claim, a table of an experiment, a benchmark table.
    [table, *_] = factory.evidence(1, 2, 3)[1]["tables"]
    for name in ("claim-gct-8", "gct-0-arms", f"clr-{table['id']}"):
        browser.driver.get("about:blank")
        browser.driver.get(f"{page.as_uri()}#{name}")
        assert wait(browser, f"#{name}").is_displayed(), name
    assert browser.messages() == []


def wait(browser: Browser, selector: str) -> Any:
    """Return an element that is seen, once it is there."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        found = browser.driver.find_elements(By.CSS_SELECTOR, selector)
        if found and found[0].is_displayed():
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{selector} is not shown")


def test_a_count_is_never_broken(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE)
    parts = "[...document.querySelectorAll('.bar span')]"
    tall = browser.run(f"return {parts}.map(e => e.offsetHeight)")
    assert len(tall) >= 5 and len(set(tall)) == 1
    assert browser.run(f"return {parts}.every(e => e.scrollWidth <= e.clientWidth)")


def test_papers_begin_folded_on_a_phone_and_open_for_a_filter(browser: Browser, page: Path) -> None:
    browser.open(page, PHONE)
    assert browser.shown() == []
    browser.run("document.querySelector('#clr .fold').click()")
    assert browser.shown() and all(name.startswith("CLR") for name in browser.shown())
    browser.run("document.querySelector('button[value=contradicted]').click()")
    assert browser.shown() == ["GCT-10", "CLR-13", "CFL-9"]


@pytest.mark.parametrize("hostile", [False, True])
def test_phone_does_not_scroll_sideways(
    hostile: bool, browser: Browser, page: Path, screenshots: Path, tmp_path: Path
) -> None:
    if hostile:
        page = build_report(factory.hostile(), tmp_path, "smoke")
    browser.open(page, PHONE)
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
    browser.unpack()
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"return {wide}.length") > 3
    # A region that scrolls is reached by keyboard and has a name.
    assert browser.run(f"return {wide}.every(e => e.tabIndex === 0 && document.getElementById("
                       "e.getAttribute('aria-labelledby')).textContent)")  # fmt: skip
    assert browser.messages() == []
    if not hostile:
        browser.open(page, PHONE)
        browser.driver.save_screenshot(str(screenshots / "phone.png"))
        browser.open(page)
        browser.driver.save_screenshot(str(screenshots / "desktop.png"))
        assert min(p.stat().st_size for p in screenshots.glob("*.png")) > 10_000


def test_board_needs_no_script_and_says_what_does(browser: Browser, page: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        rows = browser.driver.find_elements(By.CSS_SELECTOR, ".board tr[data-verdict]")
        assert len(rows) == len(CLAIMS) and all(row.is_displayed() for row in rows)
        assert not browser.driver.find_element(By.CSS_SELECTOR, ".filters").is_displayed()
        assert "Without script" in browser.driver.find_element(By.CSS_SELECTOR, ".opening").text
        assert not browser.driver.find_elements(By.CSS_SELECTOR, ".board thead button")
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_data_of_a_figure_is_saved_as_csv(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    browser.unpack()
    text = saved(browser, "gct-0-paired", tmp_path)
    assert text.startswith("claim,arm,against,metric,unit,seed,difference\n")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation(
    size: tuple[int, int], dark: bool, browser: Browser, page: Path
) -> None:
    browser.open(page, size, dark=dark)
    browser.unpack()
    check_with_axe(browser)


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_of_the_smoke_tier(size: tuple[int, int], browser: Browser, screenshots: Path) -> None:
    """The page of real runs, where this checkout has made it or fetched it."""
    made = Path(__file__).parents[2] / "results/smoke/report/index.html"
    if not made.exists():
        pytest.skip("no results/smoke/report/index.html: make reproduce, or make pull")
    browser.open(made, size)
    browser.run("document.querySelectorAll('[aria-expanded=false].fold').forEach(b => b.click())")
    rows = browser.shown()
    assert len(rows) > 20
    skip_to_board(browser)
    browser.tab_to(lambda e: e.get_attribute("value") == "reproduced")
    browser.press(Keys.SPACE)
    assert 0 < len(browser.shown()) < len(rows)
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    assert browser.messages() == []
    outside = [u for u in browser.requests() if not u.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    browser.driver.save_screenshot(str(screenshots / f"smoke-{size[0]}.png"))
    browser.open(made, size)
    browser.unpack_paper("clr")
    assert browser.messages() == []
    check_with_axe(browser, "#clr")
