"""Diagram of an experiment's ancestors: which runs are parents of which."""

from __future__ import annotations

import math
from functools import partial
from typing import TypeAlias

import numpy as np

from cyclery.records.evidence import Arm, ChainNode
from cyclery.report.chart import GRID, Chart, Page, Panel, colour, drawable
from cyclery.report.model import letter
from cyclery.report.shapes import INK, PAPER, Area, Points, Stroke

Spot: TypeAlias = tuple[float, float]

_LEVEL, _LINE = 46.0, 10.0  # heights of a level, and of a line of the key
_RADIUS = 8.0
_HEAD = 4.0  # of an arrow
_ROUND = 18.0  # how far an edge goes round a node that is in its way
_MOST = 14  # nodes in a row that can still be told apart


def picture(slug: str, title: str, found: list[ChainNode], arms: list[Arm]) -> Chart | None:
    """Draw every run that arms descend from, parents above their children.

    An arm of the experiment has its letter and colour; another run has a number and its name below.
    """
    if not any(node["parents"] for node in found):
        return None
    place: dict[str | None, int] = {arm["id"]: i for i, arm in enumerate(arms)}
    others = [node for node in found if node["arm"] not in place]
    rows: list[list[ChainNode]] = []
    for level in sorted({node["level"] for node in found}):
        nodes = [node for node in found if node["level"] == level]
        rows += [nodes[i : i + _MOST] for i in range(0, len(nodes), _MOST)]
    words = "; ".join(
        f"{node['label']} from {', '.join(parent['label'] for parent in node['parents'])}"
        for node in found
        if node["parents"]
    )
    text = f"Parents are above their children. {words}."
    data = [["child", "parent", "seeds"]]
    data += [[n["label"], p["label"], p["seeds"]] for n in found for p in n["parents"]]
    panels = [_LEVEL * len(rows) + _LINE * len(others)]
    draw = partial(_draw, found=found, rows=rows, others=others, place=place)
    return Chart(slug, f"{title}: chain", text, panels, draw, data)


def _draw(
    page: Page,
    found: list[ChainNode],
    rows: list[list[ChainNode]],
    others: list[ChainNode],
    place: dict[str | None, int],
) -> None:
    """Draw all nodes, in rows, with their edges, and the key of those that are no arms."""
    number = {node["id"]: str(i + 1) for i, node in enumerate(others)}
    height = _LEVEL * len(rows)
    tall = height + _LINE * len(others)
    ax = page.panel(
        tall, "who is taught by whom", (0, 1), (tall, 0), vertical=False, horizontal=False
    )
    spot = {
        node["id"]: ((i + 0.5) / len(nodes), _LEVEL * (row + 0.5))
        for row, nodes in enumerate(rows)
        for i, node in enumerate(nodes)
    }
    for node in found:
        for above, seeds in _edges(node).items():
            if above in spot:
                rest = [at for each, at in spot.items() if each not in (above, node["id"])]
                _edge(ax, spot[above], spot[node["id"]], rest, seeds)
    for node in found:
        x, y = spot[node["id"]]
        own = node["arm"] in place
        ax.dots(x, y, INK, 2 * _RADIUS + 0.5)
        ax.dots(x, y, colour(place[node["arm"]]) if own else GRID, 2 * _RADIUS - 0.5)
        text = letter(place[node["arm"]]) if own else number[node["id"]]
        shade = PAPER if own else INK
        ax.words(x, y, text, shade, side="middle", at="middle", bold=True)
    for line, node in enumerate(others):
        text = drawable(f"{number[node['id']]}  {node['label']}")
        ax.words(0, height + _LINE * (line + 0.5), text, size=7.8, at="middle")


def _edges(node: ChainNode) -> dict[str, str]:
    """Return what is written at the edge to each parent, which may be one in several roles."""
    seeds: dict[str, dict[str, None]] = {}
    for parent in node["parents"]:
        seeds.setdefault(parent["of"], {})[parent["seeds"]] = None
    return {of: ", ".join(filter(None, rules)) for of, rules in seeds.items()}


def _edge(ax: Panel, parent: Spot, child: Spot, rest: list[Spot], seeds: str) -> None:
    """Draw an arrow from parent to child, bent where a straight one would pass another node."""
    ends = ax.at(*np.array([parent, child]).T)
    nodes = ax.at(*np.array(rest).reshape(-1, 2).T)

    def distance(bend: float) -> float:
        gaps = np.linalg.norm(_curve(ends, bend)[:, None] - nodes, axis=2)
        return float(gaps.min(initial=math.inf))

    reach = 2 * _ROUND / float(np.linalg.norm(ends[0] - ends[1]))
    bends = [0.0, *(sign * times * reach for times in (1.0, 1.7) for sign in (-1, 1))]
    clear = (bend for bend in bends if distance(bend) > _RADIUS + 2)
    line = _curve(ends, next(clear, max(bends, key=distance)))
    shown = line[np.linalg.norm(line - ends[1], axis=1) > _RADIUS]
    tip = ends[1] + _RADIUS * _unit(shown[-1] - ends[1])
    back = _HEAD * _unit(shown[-1] - tip)
    aside = 0.4 * back[::-1] * (1, -1)
    ax.page.shapes.append(Stroke([np.concatenate([shown, [tip + 0.5 * back]])], INK, 0.6))
    ax.page.shapes.append(Area(np.array([tip, tip + back + aside, tip + back - aside]), INK))
    if seeds:
        x, y = line[13]
        ax.page.words(x, y, drawable(seeds), size=6.5, side="middle", at="middle", framed=True)


def _unit(vector: Points) -> Points:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def _curve(ends: Points, bend: float) -> Points:
    """Return 21 points [21, 2] of the parabola between two points whose middle is off by `bend`."""
    start, stop = ends
    across, along = stop - start
    middle = (start + stop) / 2 + bend * np.array([-along, across])
    t = np.linspace(0, 1, 21)[:, None]
    found: Points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop
    return found
