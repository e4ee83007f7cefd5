"""The chapter of benchmark tables in a browser: heads that stay, switches, sorting, cells."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import benchmark_views as views
from factories.benchmark_page import enter, heads, rows, told
from factories.browser import DESKTOP, PHONE, Browser, By, Keys, check_with_axe, saved
from factories.evidence import ARABIC, HOSTILE
from factories.page import Page, sound

MOST_BYTES = 350_000  # that the chapter of nine papers may take


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture
def browser(launched: Browser) -> Iterator[Browser]:
    yield launched
    launched.run("try { localStorage.clear() } catch { }")  # what a test chose


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return views.page(tmp_path_factory.mktemp("tables"), views.chapter())


def show(browser: Browser, page: Path, *size: tuple[int, int], **how: Any) -> None:
    """Open a page, and the drawers of its tables."""
    browser.open(page, *size, **how)
    browser.unpack()


def choose(browser: Browser, value: str) -> None:
    browser.tab_to(lambda e: e.get_attribute("value") == value)
    browser.press(Keys.SPACE)


def test_chapter_is_quiet_and_its_links_open_the_tables(browser: Browser, page: Path) -> None:
    browser.open(page)
    outside = [u for u in browser.requests() if not u.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    index = browser.driver.find_elements(By.CSS_SELECTOR, ".contents p, .contents a")
    assert [e.text for e in index] == [
        "FixMatch", "Table 2", "Paper 0", "Table 4", "Mean teacher", "Table 1"
    ]  # fmt: skip
    assert browser.driver.find_elements(By.CSS_SELECTOR, ".bench") == []
    index[-1].click()
    until = time.monotonic() + 10
    while not browser.driver.find_elements(By.CSS_SELECTOR, ".bench") and time.monotonic() < until:
        time.sleep(0.05)
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".bench")) == 3
    name = index[-1].get_attribute("href").partition("#")[2]
    top = browser.driver.find_element(By.ID, name).rect["y"] - browser.run("return scrollY")
    assert 0 <= top < DESKTOP[1]
    assert browser.messages() == []
    sound(Page(page.read_text("utf-8")))


def test_a_page_without_tables_has_no_chapter(tmp_path: Path) -> None:
    text = views.page(tmp_path, []).read_text("utf-8")
    assert 'id="tables"' not in text and ">Tables<" not in text and ".bench {" not in text


def test_heads_wrap_in_their_cells(browser: Browser, tmp_path: Path) -> None:
    names = ["Digits (8x8), 200 labels", "a head of many words " * 3]
    columns = [views.line("Ours, smoke tier", name, value="ours") for name in names]
    cells = [[views.cell("1.0", 1.0)] * 2]
    table = views.view("P, Table 1", columns, [views.line("Row")], cells)
    show(browser, views.page(tmp_path, [table]))
    out = browser.run("""
    return [...document.querySelectorAll('.grid thead th[scope=col]')].filter((th) => {
      const range = document.createRange();
      range.selectNodeContents(th);
      const [text, cell] = [range, th].map((e) => e.getBoundingClientRect());
      const cut = [...th.querySelectorAll('bdi')].some((e) => e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).overflow !== 'visible');
      return cut || text.left < cell.left || text.right > cell.right;
    }).map((th) => th.textContent)""")
    assert out == []


def test_heads_and_the_first_column_stay(browser: Browser, page: Path) -> None:
    show(browser, page, (1280, 620))
    places = """
    const pane = document.querySelectorAll('.pane')[1];
    pane.scrollIntoView({ block: 'center' });
    pane.scrollTo(arguments[0], arguments[1]);
    const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top]; };
    const name = [...pane.querySelectorAll('th[scope=row]')].at(-1);
    return [box(pane), box(pane.querySelector('thead')), box(name), box(name.nextSibling),
            pane.scrollWidth - pane.clientWidth, pane.scrollHeight - pane.clientHeight];
    """
    pane, head, name, cell, right, down = browser.run(places, 0, 0)
    assert right > 300 and down > 100
    pane2, head2, name2, cell2, *_ = browser.run(places, 300, 100)
    assert pane2 == pane and head2[1] == head[1] and name2[0] == name[0]  # these stay
    assert (cell2[0], cell2[1], name2[1]) == (cell[0] - 300, cell[1] - 100, name[1] - 100)
    # What passes under them does not shine through.
    shown = browser.run("""
    const pane = document.querySelectorAll('.pane')[1].getBoundingClientRect();
    const at = (x, y) => document.elementFromPoint(x, y).closest('th, td, thead').nodeName;
    return [at(pane.left + 20, pane.top + 20), at(pane.left + 20, pane.bottom - 20)];
    """)
    assert shown == ["TD", "TH"]
    assert browser.run("return document.elementFromPoint(200, 10).closest('.top') !== null")


def test_values_are_chosen_by_keyboard_and_kept(browser: Browser, page: Path) -> None:
    show(browser, page)
    both = heads(browser)
    assert len(both) == 9 and "Difference" not in both
    pressed = "[...document.querySelectorAll('[name=values][aria-pressed=true]')]"
    assert browser.run(f"return {pressed}.map(b => b.value)") == ["both"]
    choose(browser, "ours")
    assert heads(browser) == ["Ours", "digits, 40 labels", "digits, 250 labels"]
    assert len(rows(browser, 2)) == 2
    show(browser, page)
    assert browser.run(f"return {pressed}.map(b => b.value)") == ["ours"]
    choose(browser, "printed")
    assert len(heads(browser)) == 6 and len(rows(browser, 2)) == 4
    groups = browser.driver.find_elements(By.CSS_SELECTOR, ".bench:last-of-type .group")
    assert [g.text for g in groups if g.is_displayed()] == ["SVHN"]
    choose(browser, "difference")
    assert heads(browser) == ["Difference"]
    assert rows(browser, 2) == []
    said = browser.driver.find_elements(By.CSS_SELECTOR, ".bench > .empty")
    assert [e.text for e in said if e.is_displayed()] == ["This table has nothing to subtract."]


def test_what_no_table_has_cannot_be_chosen(browser: Browser, tmp_path: Path) -> None:
    show(browser, views.page(tmp_path, [views.methods_across()]))
    off = browser.driver.find_elements(By.CSS_SELECTOR, ".switches button:disabled")
    assert [button.text for button in off] == ["Difference"]
    browser.run("localStorage.setItem('values', 'difference')")  # of another page
    browser.driver.refresh()
    browser.unpack()
    assert len(rows(browser)) == 6


def test_spread_is_a_deviation_or_an_interval(browser: Browser, page: Path) -> None:
    show(browser, page)
    before = rows(browser)[1]
    assert before[5].split()[1] == "\u00b1" and "[" not in " ".join(before)
    choose(browser, "interval")
    after = rows(browser)[1]
    assert after[0] == before[0] and after[1] == before[1]  # what is printed has a deviation only
    assert after[5].split()[0] == before[5].split()[0]
    assert "\u00b1" not in after[5] and after[5].endswith("]")


def test_points_stand_in_line(browser: Browser, page: Path) -> None:
    show(browser, page)
    lines = browser.run("""
    const points = {};
    for (const row of document.querySelectorAll('.bench .grid')[1].querySelectorAll('tbody tr')) {
      [...row.cells].forEach((cell, at) => {
        const text = cell.firstChild;
        if (cell.nodeName !== 'TD' || !cell.checkVisibility()) return;
        const range = document.createRange();
        range.setStart(text, text.data.indexOf('.'));
        range.setEnd(text, text.data.indexOf('.') + 1);
        (points[at] ??= []).push(range.getBoundingClientRect().left);
      });
    }
    return Object.values(points).map((all) => [all.length, Math.max(...all) - Math.min(...all)]);
    """)
    assert len(lines) == 16 and all(count == 17 for count, _ in lines)
    assert max(apart for _, apart in lines) < 2


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0].replace(views.MINUS, "-")) for text in texts]


def test_table_is_sorted_by_keyboard(browser: Browser, page: Path) -> None:
    show(browser, page)
    before = rows(browser)
    enter(browser)
    browser.press(*[Keys.ARROW_RIGHT] * 4, Keys.ENTER)
    head = browser.run("return document.activeElement.closest('th')")
    assert head.text == "Ours" and head.get_attribute("aria-sort") == "ascending"
    column = [row[5] for row in rows(browser)]
    assert column[-1].startswith("\u2013")  # what has no number stands last, up and down
    assert numbers(column[:-1]) == sorted(numbers(column[:-1])) and len(column) == len(before)
    # Without its group a row says whose it is.
    name = browser.driver.find_elements(By.CSS_SELECTOR, ".grid.sorted tbody th[scope=row]")
    paths = [n.get_attribute("data-path") for n in name]
    assert sorted(filter(None, paths)) == ["Consistency"] * 3 + ["Pseudo-labels"] * 3
    groups = browser.driver.find_elements(By.CSS_SELECTOR, ".grid.sorted .group")
    assert len(groups) == 2 and not any(g.is_displayed() for g in groups)
    browser.press(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending"
    again = [row[5] for row in rows(browser)]
    assert numbers(again[:-1]) == sorted(numbers(column[:-1]), reverse=True)
    assert again[-1] == column[-1]
    browser.press(Keys.ENTER)
    assert head.get_attribute("aria-sort") is None and rows(browser) == before
    assert all(g.is_displayed() for g in groups)
    heads(browser)


def test_sorting_ends_when_its_column_is_hidden(browser: Browser, page: Path) -> None:
    show(browser, page)
    before = rows(browser, 1)
    browser.run("document.querySelectorAll('.grid')[1].querySelectorAll('.sort')[3].click()")
    assert rows(browser, 1) != before
    browser.run("document.querySelector('[value=printed]').click()")
    browser.run("document.querySelector('[value=both]').click()")
    assert rows(browser, 1) == before


def test_a_number_that_is_no_plain_text_is_sorted_by_its_value(
    browser: Browser, tmp_path: Path
) -> None:
    table = views.methods_across()
    texts = [("1,200", 1200.0), ("900", 900.0), (f"{views.MINUS}3", -3.0), ("not read", None),
             ("0", 0.0), ("2.5 k", 2500.0)]  # fmt: skip
    for row, (text, number) in zip(table["cells"], texts, strict=True):
        row[0] = views.cell(text, number)
    show(browser, views.page(tmp_path, [table]))
    browser.run("document.querySelector('.sort').click()")
    order = [f"{views.MINUS}3", "0", "900", "1,200", "2.5 k", "not read"]
    assert [row[1] for row in rows(browser)] == order


def test_a_cell_says_what_stands_behind_it(browser: Browser, page: Path) -> None:
    show(browser, page)
    assert told(browser) == ""
    enter(browser)
    browser.press(*[Keys.ARROW_DOWN] * 2, *[Keys.ARROW_RIGHT] * 4)
    row = rows(browser)[1]
    assert told(browser).startswith(
        f"Consistency, \u03a0-model, SVHN, 40 labels, Ours {row[5].split()[0]} \u00b1 "
    )
    assert told(browser).endswith(", smoke tier")
    browser.press(Keys.ARROW_UP)
    assert "Not run: 2.4 h" in told(browser) and told(browser).startswith("Supervised, SVHN")
    browser.press(Keys.END, Keys.ARROW_RIGHT)  # there is nothing beyond
    assert "digits, 250 labels" in told(browser)
    # Tab leaves the table, and comes back to where it was.
    browser.press(Keys.TAB)
    inside = "return document.activeElement.closest('.grid') !== null"
    assert not browser.run(inside)
    browser.run("document.querySelector('.grid [tabindex=\"0\"]').focus()")
    assert "digits, 250 labels" in told(browser)


def test_a_cell_that_takes_the_focus_is_not_under_the_heads(browser: Browser, page: Path) -> None:
    show(browser, page, (1280, 620))
    enter(browser, 1)
    covered = """
    const cell = document.activeElement;
    const box = cell.getBoundingClientRect();
    const at = (x, y) => cell.contains(document.elementFromPoint(x, y));
    return [cell.nodeName, at(box.left + 2, box.top + 2), at(box.right - 2, box.bottom - 2)];
    """
    for keys in ([Keys.ARROW_DOWN, Keys.END], [Keys.ARROW_DOWN] * 16, [Keys.ARROW_LEFT] * 14,
                 [Keys.ARROW_UP] * 14, [Keys.ARROW_UP] * 2, [Keys.ARROW_DOWN] * 8):  # fmt: skip
        browser.press(*keys)
        assert browser.run(covered) == ["TD", True, True]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["mouse", "touch"])
def test_a_cell_is_chosen_by_mouse_or_touch(
    size: tuple[int, int], browser: Browser, page: Path
) -> None:
    show(browser, page, size)
    cell = browser.driver.find_element(By.CSS_SELECTOR, ".bench tbody td")
    browser.run("arguments[0].scrollIntoView({ block: 'center' })", cell)
    if size == PHONE:
        box = browser.run("const r = arguments[0].getBoundingClientRect();"
                          "return [r.left + r.width / 2, r.top + r.height / 2]", cell)  # fmt: skip
        browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
        point = [{"x": box[0], "y": box[1]}]
        browser.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=point)
        browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        until = time.monotonic() + 10
        while not told(browser) and time.monotonic() < until:
            time.sleep(0.02)
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)
    else:
        cell.click()
    assert told(browser).startswith("Supervised, CIFAR-10, 40 labels")
    assert "arXiv:2001.07685v2" in told(browser)


def test_reproductions_by_others_are_another_kind(browser: Browser, page: Path) -> None:
    show(browser, page)
    style = "return getComputedStyle(arguments[0]).fontStyle"
    head = browser.driver.find_element(By.CSS_SELECTOR, ".bench thead th.b")
    assert head.text.endswith("by TorchSSL") and browser.run(style, head) == "italic"
    line = browser.driver.find_elements(By.CSS_SELECTOR, ".bench tbody tr")[0]
    cells = line.find_elements(By.CSS_SELECTOR, "td")
    assert [browser.run(style, cell) == "italic" for cell in cells].index(True) == 7
    own = browser.driver.find_element(By.CSS_SELECTOR, ".bench tr.b")
    assert "by Oliver et al." in own.text
    ground = "return getComputedStyle(arguments[0]).backgroundColor"
    grounds = [browser.run(ground, cell) for cell in cells]
    assert [at for at, one in enumerate(grounds) if one != grounds[0]] == [4, 8, 9]  # ours
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".bench td b")) == 2


def test_data_of_a_table_is_saved_as_csv(browser: Browser, page: Path, tmp_path: Path) -> None:
    show(browser, page)
    text = saved(browser, "mean-teacher-table-1", tmp_path).splitlines()
    assert text[0] == "row,Supervised,\u03a0-model,Mean teacher"
    assert len(text) == 7 and text[4].startswith('"SVHN, 1000",')


def test_phone_keeps_the_first_column_and_does_not_scroll_sideways(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    for shown in (page, views.page(tmp_path, [views.hostile()])):
        show(browser, shown, PHONE)
        assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
        shares = browser.run("""return [...document.querySelectorAll('.pane')].map((pane) => {
          pane.scrollLeft = 90;
          const box = pane.querySelector('th[scope=row]').getBoundingClientRect();
          const out = pane.getBoundingClientRect();
          return [pane.scrollLeft, box.left - out.left, box.width / out.width]; })""")
        assert all(by == 90 and abs(off) < 1 and share <= 0.45 for by, off, share in shares)
        buttons = browser.driver.find_elements(By.CSS_SELECTOR, ".switches button")
        assert all(b.rect["x"] + b.rect["width"] <= PHONE[0] for b in buttons)
        assert len({b.rect["y"] for b in buttons}) > 1  # they wrap
        assert browser.messages() == []


def test_print_shows_all_and_no_switches(browser: Browser, page: Path) -> None:
    show(browser, page, media="print", dark=True)
    assert not browser.driver.find_element(By.CSS_SELECTOR, ".switches").is_displayed()
    browser.run("document.querySelector('[value=ours]').click()")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert len(heads(browser)) == 10 and len(rows(browser, 2)) == 6
    panes = browser.driver.find_elements(By.CSS_SELECTOR, ".pane")
    cut = "return arguments[0].some((pane) => pane.clientHeight < pane.scrollHeight)"
    assert len(panes) == 3 and not browser.run(cut, panes)
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert len(heads(browser)) == 3


def test_hostile_texts_stay_text(browser: Browser, tmp_path: Path) -> None:
    path = views.page(tmp_path, [views.hostile()])
    source = Page(path.read_text("utf-8"))
    sound(source)
    assert "".join(source.texts).count(HOSTILE) > 15
    assert not [name for _, name, _ in source.attributes if name.startswith("on")]
    assert "style" not in [name for _, name, _ in source.attributes]
    show(browser, path)
    cell = browser.driver.find_elements(By.CSS_SELECTOR, ".bench tbody td")
    browser.run("arguments[0].click()", cell[0])
    assert told(browser).count(HOSTILE) == 4 and browser.messages() == []
    browser.run("document.querySelector('.sort').click()")
    isolated = "return [...document.querySelectorAll('bdi')].map((e) => e.textContent)"
    assert browser.run(isolated).count(ARABIC) > 4


def test_chapter_of_nine_papers_is_small(tmp_path: Path) -> None:
    shown: list[Any] = [views.large(seed, 10, 10) for seed in range(34)]
    shown.append(views.large(34, 17, 20))
    (tmp_path / "none").mkdir()
    empty = views.page(tmp_path / "none", []).stat().st_size
    assert views.page(tmp_path, shown).stat().st_size - empty < MOST_BYTES


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation(
    size: tuple[int, int], dark: bool, browser: Browser, page: Path
) -> None:
    show(browser, page, size, dark=dark)
    wanted = os.environ.get("CYCLERY_SCREENSHOTS")
    if wanted:
        browser.driver.save_screenshot(str(Path(wanted) / f"tables-{size[0]}-{dark}.png"))
    check_with_axe(browser)
