"""The picture of a chain: every edge once and in sight, ensembles counted, all within the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cyclery.report import chains, chart, shapes, svg

Json = dict[str, Any]
Edge = tuple[str, str, str]  # the parent, its role, its seeds


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
    return made


def edges(made: chart.Chart) -> list[shapes.Points]:
    """Return the line of each arrow, on the page."""
    return [s.lines[0] for s in made.page.shapes if isinstance(s, shapes.Stroke) and s.width < 1]


def nodes(made: chart.Chart) -> shapes.Points:
    """Return the centres of the nodes, on the page."""
    wide = 2 * chains._RADIUS + 0.5
    found = [s for s in made.page.shapes if isinstance(s, shapes.Stroke) and s.width == wide]
    return np.concatenate([dot for stroke in found for dot in stroke.lines])


def words(made: chart.Chart) -> list[str]:
    return [each.text for each in made.page.shapes if isinstance(each, shapes.Words)]


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
    assert len({line.tobytes() for line in drawn}) == len(drawn) == 4
    assert all(line[0, 1] < line[-1, 1] for line in drawn)  # downwards
    assert made.description.count("reference: a") == 2


@pytest.mark.parametrize("length", [3, 4, 7])
def test_no_edge_runs_through_a_node_of_others(length: int) -> None:
    """As that of a student's reference, the teacher of its teacher, would in one column."""
    made = picture(chain(length, ("g0", "reference", "")))
    arrows, centres = edges(made), nodes(made)
    assert len(arrows) == length
    for arrow in arrows:
        ends = [np.linalg.norm(centres - arrow[at], axis=1).argmin() for at in (0, -1)]
        # Straight pieces between the points are checked, too.
        share = np.linspace(0, 1, 20)[:, None, None]
        points = (arrow[:-1] * (1 - share) + arrow[1:] * share).reshape(-1, 2)
        for place, centre in enumerate(centres):
            if place not in ends:
                assert np.linalg.norm(points - centre, axis=1).min() > chains._RADIUS


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
    shown = str(svg.inline(made, svg.Sheet()))
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
    assert len(edges(made)) == sum(len(each["parents"]) for each in found)
    for shape in made.page.shapes:
        if isinstance(shape, shapes.Words):
            # Letters are about 0.6 of their size wide.
            size = 0.6 * shape.size * len(shape.text)
            left = shape.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.side] * size
            points, slack = np.array([(left, shape.y), (left + size, shape.y)]), 0.5
        else:
            lines = shape.lines if isinstance(shape, shapes.Stroke) else [shape.line]
            points = np.concatenate(lines)
            slack = 0.5 - (shape.width / 2 if isinstance(shape, shapes.Stroke) else 0.0)
        assert (points >= -slack).all(), shape
        assert (points <= (chart.WIDTH + slack, made.page.height + slack)).all(), shape
    # Nodes that touch could not be told apart.
    spots = nodes(made)
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(len(spots), 1)]
    assert gaps.min() > 2 * chains._RADIUS


def test_arms_that_descend_from_none_have_no_picture() -> None:
    assert chains.picture("chain", "-", [node("a", 0, arm=True)], [{"id": "a"}]) is None
