"""The picture of a chain: every edge once and in sight, ensembles counted, all within the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from cyclery.report import chains, chart, svg

Json = dict[str, Any]
Edge = tuple[str, str, str]  # the parent, its role, its seeds


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with chart.style():
        yield


def node(name: str, level: int, *parents: Edge, arm: bool = False, label: str = "") -> Json:
    return {
        "id": name, "arm": name if arm else None, "label": label or name, "level": level,
        "parents": [{"of": of, "label": f"{role}: {of}", "seeds": seeds}
                    for of, role, seeds in parents],
    }  # fmt: skip


def picture(found: list[Json]) -> chart.Chart:
    arms = [{"id": each["arm"]} for each in found if each["arm"]]
    made = chains.picture("chain", "An experiment", found, arms)
    assert made is not None
    FigureCanvasAgg(made.figure).draw()
    return made


def edges(made: chart.Chart) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return where each arrow begins and ends, in the picture's own coordinates."""
    [ax] = made.figure.axes
    return [(each.xyann, each.xy) for each in ax.texts if isinstance(each, Annotation)]


def words(made: chart.Chart) -> list[str]:
    [ax] = made.figure.axes
    return [each.get_text() for each in ax.texts if each.get_text()]


def chain(length: int, *more: Edge) -> list[Json]:
    """Return generations, each taught by the one before; the last has more parents besides."""
    found = [node("g0", 0)]
    found += [node(f"g{n}", n, (f"g{n - 1}", "teacher", "")) for n in range(1, length)]
    found[-1]["parents"] += node("-", 0, *more)["parents"]
    return found


def test_each_edge_is_drawn_once_from_parent_to_child() -> None:
    found = [
        node("a", 0), node("b", 0),
        node("c", 1, ("a", "teacher", ""), ("a", "reference", ""), ("b", "start", "")),
        node("d", 2, ("c", "teacher", ""), ("a", "reference", ""), arm=True),
    ]  # fmt: skip
    made = picture(found)
    drawn = edges(made)
    assert len(drawn) == len(set(drawn)) == 4
    # Downwards, for the vertical axis is turned round.
    assert all(start[1] < stop[1] for start, stop in drawn)
    assert made.description.count("reference: a") == 2


@pytest.mark.parametrize("length", [3, 4, 7])
def test_no_edge_runs_through_a_node_of_others(length: int) -> None:
    """As that of a student's reference, the teacher of its teacher, would in one column."""
    made = picture(chain(length, ("g0", "reference", "")))
    [ax] = made.figure.axes
    centres = [line.get_xydata()[0] for line in ax.lines]
    spots = ax.transData.transform(np.array(centres))
    arrows = [each for each in ax.texts if isinstance(each, Annotation)]
    assert len(arrows) == length
    for arrow in arrows:
        path = arrow.arrow_patch.get_path().interpolated(20)
        points = path.cleaned(curves=False).vertices
        points = arrow.arrow_patch.get_transform().transform(points[:-1])
        ends = {tuple(arrow.xy), tuple(arrow.xyann)}
        for centre, spot in zip(centres, spots, strict=True):
            if tuple(centre) not in ends:
                assert np.linalg.norm(points - spot, axis=1).min() > chains._RADIUS


def test_ensembles_and_nested_students_show_how_many() -> None:
    found = [
        node("pool", 0), node("one", 0),
        node("five", 1, ("pool", "teacher", "members 5"), arm=True),
        node("two", 1, ("one", "teacher", "nested 2"), ("one", "reference", "nested 2"), arm=True),
        node("both", 1, ("pool", "teacher", "members 3"), ("pool", "reference", "members 5")),
    ]  # fmt: skip
    made = picture(found)
    assert len(edges(made)) == 3
    for text, times in (("members 5", 1), ("nested 2", 1), ("members 3, members 5", 1)):
        assert words(made).count(text) == times


def test_labels_are_text_and_no_markup_nor_mathematics() -> None:
    hostile = "<script>alert(1)</script> & $x^2$ \\alpha"
    found = [node("a", 0, label=hostile), node("b", 1, ("a", "teacher", "<b>5</b>"), arm=True)]
    made = picture(found)
    shown = str(svg.inline(made, svg.drawn(made)[0], svg.Sheet()))
    assert "<script" not in shown and "<b>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x^2$" in shown
    assert "&lt;b&gt;5&lt;/b&gt;" in shown


@pytest.mark.parametrize(
    "found",
    [
        chain(40, ("g0", "reference", "")),
        [node("a", 0), *(node(f"s{n}", 1, ("a", "teacher", ""), arm=True) for n in range(30))],
        [*(node(f"t{n}", 0, label="a-paper/an-experiment/an-arm~other " * 4) for n in range(14)),
         node("s", 1, *((f"t{n}", f"expert-{n}", "members 12") for n in range(14)), arm=True)],
    ],
    ids=["long", "wide", "many parents with long names"],
)  # fmt: skip
def test_all_of_it_is_within_the_page(found: list[Json]) -> None:
    made = picture(found)
    [ax] = made.figure.axes
    assert len(edges(made)) == sum(len(each["parents"]) for each in found)
    page = made.figure.bbox
    for artist in [*ax.texts, *ax.lines, *made.figure.texts]:
        if isinstance(artist, Annotation):
            box = artist.arrow_patch.get_window_extent()
        else:
            box = artist.get_window_extent()
        assert box.x0 >= page.x0 - 0.5 and box.x1 <= page.x1 + 0.5, artist
        assert box.y0 >= page.y0 - 0.5 and box.y1 <= page.y1 + 0.5, artist
    # Nodes that touch could not be told apart.
    spots = ax.transData.transform([line.get_xydata()[0] for line in ax.lines])
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(len(spots), 1)]
    assert gaps.min() > 2 * chains._RADIUS


def test_arms_that_descend_from_none_have_no_picture() -> None:
    assert chains.picture("chain", "-", [node("a", 0, arm=True)], [{"id": "a"}]) is None
