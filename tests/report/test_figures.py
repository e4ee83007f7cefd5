"""Strips, labels at the ends of lines, figures as SVG."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from factories import evidence as factory
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.evidence.comparison import empty_row
from cyclery.report import (
    chart,
    figures,
    intervals,
    model,
    svg,
)


def comparison(effect: float | None, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {**empty_row("", "test_accuracy", "pp", "superiority"), "effect": effect,
            "ci95": [low, high], **more}  # fmt: skip


def test_strip_cuts_a_wild_interval_and_says_so() -> None:
    calm = [comparison(0.5, 0.2, 0.8)] * 3
    wild = comparison(9.0, -30.0, 48.0)
    axis = intervals.domain([*calm, wild], centred=True)
    assert axis[0] == -axis[1] and axis[1] < 3
    shown = intervals.strip(wild, axis)
    assert shown is not None
    assert shown["cut_low"] and shown["cut_high"] and shown["dot_cut"]
    assert shown["says"] == "+9.00 pp [\u221230.00,\u00a0+48.00]"
    assert intervals.strip(comparison(None, 0, 1), axis) is None


def test_strip_places_zero_margin_and_ends() -> None:
    item = comparison(0.0, -1.0, 1.0, test="equivalence", margin=0.5, ci90=[-0.8, 0.8])
    shown = intervals.strip(item, (-2.0, 2.0))
    assert shown is not None
    assert (shown["zero"], shown["low"], shown["high"]) == (50.0, 25.0, 75.0)
    assert shown["zone"] == shown["margins"] == [37.5, 62.5]
    assert shown["inner"] == [30.0, 70.0]
    inferior = intervals.strip(item | {"test": "non-inferiority"}, (-2.0, 2.0))
    assert inferior is not None and inferior["margins"] == [37.5] and inferior["zone"] is None
    assert intervals.domain([]) == (-1.0, 1.0) and intervals.domain([], centred=True)[1] > 1
    assert [t["text"] for t in intervals.ticks((-2.0, 2.0))] == [
        "\u22122",
        "\u22121",
        "0",
        "1",
        "2",
    ]


@given(st.lists(st.floats(0, 1), max_size=12))
@settings(deadline=None)
def test_labels_at_line_ends_never_overlap(places: list[float]) -> None:
    gap = 0.05
    out = chart.spread(sorted(places), gap)
    assert len(out) == len(places)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(out))
    assert all(-1e-9 <= v <= 1 + 1e-9 for v in out)


def test_svg_keeps_numbers_in_text_and_follows_the_page() -> None:
    test = model.complete(factory.evidence(1, 2, 3)[0])["ranges"][0]
    with chart.style():
        found = figures.range_test("a", test)
        assert found is not None
        sheet = svg.Sheet()
        drawn = svg.inline(found, svg.drawn(found)[0], sheet)
        other = figures.range_test("b", test) or found
        again = svg.inline(other, svg.drawn(other)[0], sheet)
    assert ">0.0001</tspan>" in drawn and ">0.001</tspan>" in drawn
    assert "#000000" not in drawn and "#0072b2" not in drawn.lower()
    assert "style=" not in drawn
    assert "currentColor" in sheet.css() and "var(--s0)" in sheet.css()
    assert not set(re.findall(r'id="([^"]+)"', drawn)) & set(re.findall(r'id="([^"]+)"', again))
    assert 'aria-describedby="a-d"' in drawn and "<metadata" not in drawn


def test_figures_without_data_are_left_out() -> None:
    arms = [{"id": "a"}]
    assert figures.curves("s", "t", [], arms) is None
    assert figures.paired("s", "t", [], arms) is None
    assert figures.schedules("s", "t", [], arms) == (None, [])
    constant = [{"quantity": "lr", "arm": "a", "epoch": [0, 1], "value": [0.1, 0.1]}]
    assert figures.schedules("s", "t", constant, arms) == (None, ["learning rate 0.1"])
    hollow = {"lr": [0.1], "accuracy": [], "loss": [[]], "base": None, "max": None}
    assert figures.range_test("s", hollow) is None


def test_characters_without_a_glyph_become_boxes() -> None:
    assert chart.drawable("a$b_\u4e2d") == "a$b_\u25a1"
    assert chart.drawable("x" * 90, 10) == "x" * 9 + "\u2026"
