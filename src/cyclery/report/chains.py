"""Diagram of an experiment's ancestors: which runs are parents of which."""

from __future__ import annotations

import math
from functools import partial
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cyclery.records.evidence import Arm, ChainNode
from cyclery.report.chart import GRID, INK, Chart, Page, colour, drawable
from cyclery.report.model import letter

Spot: TypeAlias = tuple[float, float]

_LEVEL, _LINE = 46.0, 10.0  # heights of a level, and of a line of the key
_RADIUS = 8.0
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
    ax = page.panel(height + _LINE * len(others), "who is taught by whom", (0, 1), None)
    ax.set_axis_off()
    ax.set_ylim(height + _LINE * len(others), 0)
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
        ax.plot(
            x, y, "o", markersize=2 * _RADIUS, zorder=3, markeredgecolor=INK, markeredgewidth=0.5,
            color=colour(place[node["arm"]]) if own else GRID,
        )  # fmt: skip
        ax.text(
            x, y, letter(place[node["arm"]]) if own else number[node["id"]], zorder=4,
            color="white" if own else INK, ha="center", va="center_baseline", fontweight="bold",
        )  # fmt: skip
    for line, node in enumerate(others):
        ax.text(
            0, height + _LINE * (line + 0.5), drawable(f"{number[node['id']]}  {node['label']}"),
            va="center", fontsize=7.8,
        )  # fmt: skip


def _edges(node: ChainNode) -> dict[str, str]:
    """Return what is written at the edge to each parent, which may be one in several roles."""
    seeds: dict[str, dict[str, None]] = {}
    for parent in node["parents"]:
        seeds.setdefault(parent["of"], {})[parent["seeds"]] = None
    return {of: ", ".join(filter(None, rules)) for of, rules in seeds.items()}


def _edge(ax: Axes, parent: Spot, child: Spot, rest: list[Spot], seeds: str) -> None:
    """Draw an arrow from parent to child, bent where a straight one would pass another node."""
    size = np.array([ax.get_window_extent().width, -1.0])
    ends = np.array([parent, child]) * size
    nodes = np.array(rest).reshape(-1, 2) * size

    def distance(bend: float) -> float:
        gaps = np.linalg.norm(_curve(ends, bend)[:, None] - nodes, axis=2)
        return float(gaps.min(initial=math.inf))

    reach = 2 * _ROUND / float(np.linalg.norm(ends[0] - ends[1]))
    bends = [0.0, *(sign * times * reach for times in (1.0, 1.7) for sign in (-1, 1))]
    clear = (bend for bend in bends if distance(bend) > _RADIUS + 2)
    bend = next(clear, max(bends, key=distance))
    ax.annotate(
        "", child, parent,
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.6,
                    "connectionstyle": f"arc3,rad={bend:.3f}",
                    "shrinkA": _RADIUS, "shrinkB": _RADIUS, "mutation_scale": 6},
    )  # fmt: skip
    if seeds:
        x, y = _curve(ends, bend)[13] / size
        ax.text(
            x, y, drawable(seeds), fontsize=6.5, ha="center", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _curve(ends: NDArray[np.float64], bend: float) -> NDArray[np.float64]:
    """Return 21 points [21, 2] of matplotlib's arc3 between two points, upwards positive."""
    start, stop = ends
    across, up = stop - start
    middle = (start + stop) / 2 + bend * np.array([up, -across])
    t = np.linspace(0, 1, 21)[:, None]
    found: NDArray[np.float64] = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop
    return found
