"""Strips, labels at the ends of lines, figures as SVG."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from factories import evidence as factory
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclery.evidence.comparison import empty_row
from cyclery.report import (
    chart,
    figures,
    intervals,
    model,
    pdf,
    shapes,
    svg,
    tuning,
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
    found, other = figures.range_test("a", test), figures.range_test("b", test)
    assert found is not None and other is not None
    sheet = svg.Sheet()
    drawn, again = svg.inline(found, sheet), svg.inline(other, sheet)
    assert ">0.0001</text>" in drawn and ">0.001</text>" in drawn
    assert "#000000" not in drawn and "#0072b2" not in drawn.lower()
    assert "style=" not in drawn
    assert "currentColor" in sheet.css() and "var(--s0)" in sheet.css()
    assert not set(re.findall(r'id="([^"]+)"', drawn)) & set(re.findall(r'id="([^"]+)"', again))
    assert 'aria-describedby="a-d"' in drawn


def test_a_path_goes_where_the_lines_go() -> None:
    lines = [np.array([(1.0, 2.0), (1.04, 2.04), (11.26, 2.0)]), np.array([(0.0, 0.52)])]
    # To tenths, in steps; a point that rounds to the last is left out, a dot has no length.
    assert svg.path(lines) == "m1 2 10.3 0m-11.3-1.5h0"
    assert svg.path(lines[:1], (1.0, 2.0), 10) == "m0 0 10 0"


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100)), min_size=1, max_size=40))
def test_a_thinned_line_keeps_its_ends_and_stays_near(found: list[tuple[float, float]]) -> None:
    line = np.array(found)
    kept = shapes.thin(line)
    assert (kept[0] == line[0]).all() and (kept[-1] == line[-1]).all()
    for point in line:
        if len(kept) == 1:
            continue
        start, along = kept[:-1], np.diff(kept, axis=0)
        size = np.maximum((along**2).sum(axis=1), 1e-300)
        share = np.clip(((point - start) * along).sum(axis=1) / size, 0, 1)
        gaps = np.hypot(*(start + share[:, None] * along - point).T)
        assert gaps.min() <= 6 * shapes._FLAT + 1e-9


def test_what_lies_outside_of_a_panel_is_cut_and_what_is_missing_leaves_a_gap() -> None:
    page = chart.Page([50.0])
    panel = page.panel(50.0, "head", (0, 10), (0, 1))
    before = len(page.shapes)
    panel.line(range(6), [0.0, 0.5, None, 0.2, 0.9, 0.1], chart.colour(0), 1.0)
    panel.line([0, 5], [0.5, 3.0], chart.colour(1), 1.0)
    inside, beyond = page.shapes[before:]
    assert isinstance(inside, shapes.Stroke) and [len(one) for one in inside.lines] == [2, 3]
    assert inside.box is None and beyond.box == panel.box
    text = svg.alone(page).decode()
    left, top, width, height = panel.box
    assert f'<svg x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}">' in text
    assert text.count("<svg") == text.count("</svg>") == 2


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1e-4, 1.0), [1e-4, 1e-3, 0.01, 0.1, 1.0]),
        ((0.08, 1.5), [0.1, 0.2, 0.5, 1.0]),
        ((3.1, 4.2), [3.2, 3.4, 3.6, 3.8, 4.0, 4.2]),
    ],
)
def test_places_on_a_logarithmic_axis(limits: tuple[float, float], wanted: list[float]) -> None:
    assert chart.log_places(limits) == pytest.approx(wanted)


def test_tuning_curves_show_the_best_of_each_factor_and_mark_what_was_chosen() -> None:
    trials = [{"factors": {"lr": lr, "weight_decay": wd}, "val_accuracy": score, "diverged": 0,
               "values": []} for lr, wd, score in (
        (0.5, 1, 0.8), (1, 1, 0.9), (1, 2, 0.7), (2, 1, None))]  # fmt: skip
    tuned = {"metric": "val_accuracy", "seeds": [1], "trials": trials, "fallback": False,
             "chosen": {"lr": 1, "weight_decay": 1}}  # fmt: skip
    arms: list[Any] = [{"label": "plain", "tuned": None}, {"label": "best", "tuned": tuned}]
    found = tuning.chart("t", "E", arms)
    assert found is not None
    assert found.data[1:] == [
        ["lr", "best", 0.5, 80.0, 0], ["lr", "best", 1, 90.0, 1],
        ["weight_decay", "best", 1, 90.0, 1], ["weight_decay", "best", 2, 70.0, 0],
    ]  # fmt: skip
    assert [panel.log for panel in found.page.panels] == [True, True]
    diamonds = [s for s in found.page.shapes if isinstance(s, shapes.Area)]
    assert [d.colour for d in diamonds] == [chart.colour(1)] * 2
    assert tuning.chart("t", "E", arms[:1]) is None


def test_figures_without_data_are_left_out() -> None:
    arms = [{"id": "a"}]
    assert figures.curves("s", "t", [], arms) is None
    assert figures.paired("s", "t", [], arms) is None
    assert figures.schedules("s", "t", [], arms) == (None, [])
    constant = [{"quantity": "lr", "arm": "a", "epoch": [0, 1], "value": [0.1, 0.1]}]
    assert figures.schedules("s", "t", constant, arms) == (None, ["learning rate 0.1"])
    hollow = {"lr": [0.1], "accuracy": [], "loss": [[]], "base": None, "max": None}
    assert figures.range_test("s", hollow) is None


def test_a_page_is_the_same_pdf_each_time_and_shows_what_the_font_lacks() -> None:
    page = chart.Page([60.0])
    panel = page.panel(60.0, "Price $5_a, \U0001f600", (0, 1), (0, 1))
    panel.lines([([0, 2], [0, 2])], chart.PALETTE[0], 1.5, (4, 2))
    panel.band([0, 1], [0, 0.2], [0.5, 1.5], chart.PALETTE[1])
    panel.dots([0.5], [0.5], chart.PALETTE[2], 3.0)
    found = pdf.picture(page)
    assert found.startswith(b"%PDF") and found == pdf.picture(page)
    assert f"/MediaBox [ 0 0 {chart.WIDTH:g} {page.height:g} ]".encode() in found
    # As many, drawn in processes, are the same.
    assert set(pdf.pictures([page] * pdf._MANY)) == {found}
