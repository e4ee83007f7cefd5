"""Words for numbers, names of files, and CSV."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from factories.page import columns
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.report import (
    download,
    model,
    words,
)


def test_a_csv_holds_no_formula() -> None:
    rows = [["=1+1", "+x", 'a,"b'], [-1.5, None, float("nan")]]
    made = download.file("a", rows)
    assert columns(made["columns"]) == [["'=1+1", -1.5], ["'+x", None], ['a,"b', None]]
    assert made == download.file("a", rows)


@given(
    st.lists(
        st.tuples(*[st.none() | st.floats(-1e6, 1e6) | st.integers(-9, 9)] * 4), min_size=1
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_download_holds_the_digits_of_its_numbers(rows: list[tuple[float | None, ...]]) -> None:
    found = columns(download.file("a", [["a", "b", "c", "d"], *map(list, rows)])["columns"])
    for place, (head, *cells) in enumerate(found):
        assert head == "abcd"[place]
        for cell, row in zip(cells, rows, strict=True):
            value = row[place]
            wanted = float(f"{value:.4g}") if isinstance(value, float) else value
            assert cell == wanted


def test_the_upper_end_of_an_interval_takes_no_room() -> None:
    rows = [[0.9 + i / 1000, 0.88 + i / 1000, 0.92 + i / 1000] for i in range(50)]
    made = download.file("a", [["mean", "low", "high"], *rows])["columns"]
    assert made.endswith(f'["high",[3,1]{",0" * 50}]]')


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_slugs_are_safe_and_unique(text: str) -> None:
    slugs = model.Slugs()
    first, second = slugs.make(text, text), slugs.make(text, text)
    assert first != second
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in (first, second))


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (model.number(-0.001), "0.00"),
        (model.number(-1.5, sign=True), "\u22121.50"),
        (model.number(None), "\u2013"),
        (model.compact(8e-5), "8\u00d710\u207b\u2075"),
        (model.compact(1e-7), "10\u207b\u2077"),
        (model.compact(None), "\u2013"),
        (model.amount(1471572), "1.47\u00a0M"),
        (model.amount(40877), "40.9\u00a0k"),
        (model.amount(None), "\u2013"),
        (model.duration(89), "89\u00a0s"),
        (model.duration(0.34), "0.3\u00a0s"),
        (model.typeset("-0.1 to -2, a-1, 3-4"), "\u22120.1 to \u22122, a-1, 3-4"),
        (model.duration(412), "6.9\u00a0min"),
        (model.duration(9100), "2.5\u00a0h"),
        (model.duration(200000), "2.3\u00a0days"),
        (model.seed_list([4, 0, 1, 2, 9, None]), "0\u20132, 4, 9"),
        (model.metric_name("test_accuracy@0.875"), "test accuracy at 88\u00a0% of the run"),
        (model.metric_name("a@b"), "a@b"),
        (model.letter(0) + model.letter(25) + model.letter(26), "AZAA"),
    ],
)
def test_words_for_numbers(shown: str, wanted: str) -> None:
    assert shown == wanted


def test_summary_grammar() -> None:
    one = Counter({"reproduced": 1})
    assert words.summary(one, 1, ["desk"]) == (
        "Of 1 claim in 1 paper, the desk tier could decide 1: 1 reproduced."
    )
    none = Counter({"not run": 1, "inconclusive": 1})
    assert words.summary(none, 2, ["smoke"]) == (
        "Of 2 claims in 2 papers, the smoke tier could decide none. "
        "1 stays inconclusive and 1 was not run."
    )
    assert "paper tier" in words.scope(["paper"])
