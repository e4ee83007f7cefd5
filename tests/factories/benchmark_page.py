"""Benchmark tables as a browser shows them: what is seen of rows and heads, and what is told."""

from __future__ import annotations

from factories.browser import Browser, By

# The rows that are seen, as the texts of their cells that are seen.
ROWS = """
const seen = (each) => each.checkVisibility();
const table = document.querySelectorAll('.bench')[arguments[0]].querySelector('table');
return [...table.querySelectorAll('tbody tr:not(.group)')].filter(seen).map(
  (row) => [...row.cells].filter(seen).map((cell) => cell.innerText.trim()));
"""
# The innermost heads that are seen, from left to right, and the places of a row's cells.
COLUMNS = """
const table = document.querySelectorAll('.bench')[arguments[0]].querySelector('table');
const seen = (each) => each.checkVisibility();
const place = (each) => [each.getBoundingClientRect().left, each.getBoundingClientRect().right];
const heads = [...table.tHead.querySelectorAll('th')].filter(seen).map(
  (head) => [head.innerText.trim(), head.scope, ...place(head)]);
const cells = [...table.querySelectorAll('tbody tr:not(.group)')].filter(seen).map(
  (row) => [...row.cells].slice(1).filter(seen).map(place));
return [heads, cells];
"""


def rows(browser: Browser, table: int = 0) -> list[list[str]]:
    return browser.run(ROWS, table)  # type: ignore[no-any-return]


def heads(browser: Browser, table: int = 0) -> list[str]:
    """Return the innermost heads, and check that every column stands under its own ones."""
    found, cells = browser.run(COLUMNS, table)
    inner = sorted((place, end, text) for text, scope, place, end in found if scope == "col")
    for row in cells:
        assert len(row) == len(inner)
        for (left, right), (start, end, text) in zip(row, inner, strict=True):
            assert abs(left - start) < 1 and abs(right - end) < 1, text
    edges = {round(x) for place, end, _ in inner for x in (place, end)}
    assert all(round(place) in edges and round(end) in edges for _, _, place, end in found)
    return [text for _, _, text in inner]


def enter(browser: Browser, table: int = 0) -> None:
    """Go with Tab to a table, which is one stop of the keyboard."""
    name = f"document.querySelectorAll('.bench')[{table}].querySelector('table')"
    browser.tab_to(lambda e: browser.run(f"return {name}.contains(arguments[0])", e))


def told(browser: Browser, table: int = 0) -> str:
    return str(browser.driver.find_elements(By.CSS_SELECTOR, ".told")[table].text)
