"""The picture of a chain: who is whose parent, level by level."""

from __future__ import annotations

from typing import Any

from cyclery.report.chart import GRID, INK, Chart, Page, colour, drawable
from cyclery.report.model import letter

Json = dict[str, Any]

_LEVEL, _LINE = 46.0, 10.0  # heights of a level, and of a line of the key
_RADIUS = 8.0
_MOST = 14  # nodes in a row that can still be told apart


def picture(slug: str, title: str, found: list[Json], arms: list[Json]) -> Chart | None:
    """Draw every run that arms descend from, parents above their children.

    An arm of the experiment has its letter and colour; another run has a number and its name below.
    """
    if not any(node["parents"] for node in found):
        return None
    place = {arm["id"]: i for i, arm in enumerate(arms)}
    others = [node for node in found if node["arm"] not in place]
    number = {node["id"]: str(i + 1) for i, node in enumerate(others)}
    rows: list[list[Json]] = []
    for level in sorted({node["level"] for node in found}):
        nodes = [node for node in found if node["level"] == level]
        rows += [nodes[i : i + _MOST] for i in range(0, len(nodes), _MOST)]
    height = _LEVEL * len(rows)
    page = Page([height + _LINE * len(others)])
    ax = page.panel(height + _LINE * len(others), "who is taught by whom", (0, 1), None)
    ax.set_axis_off()
    ax.set_ylim(height + _LINE * len(others), 0)
    spot = {
        node["id"]: ((i + 0.5) / len(nodes), _LEVEL * (row + 0.5))
        for row, nodes in enumerate(rows)
        for i, node in enumerate(nodes)
    }
    for node in found:
        for parent in node["parents"]:
            if parent["of"] in spot:
                ax.annotate(
                    "", spot[node["id"]], spot[parent["of"]],
                    arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.6,
                                "shrinkA": _RADIUS, "shrinkB": _RADIUS, "mutation_scale": 6},
                )  # fmt: skip
                (x, y), (above, top) = spot[node["id"]], spot[parent["of"]]
                if parent["seeds"]:
                    ax.text(
                        0.65 * x + 0.35 * above, 0.65 * y + 0.35 * top, parent["seeds"],
                        fontsize=6.5, ha="center", va="center",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                    )  # fmt: skip
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
    words = "; ".join(
        f"{node['label']} from {', '.join(parent['label'] for parent in node['parents'])}"
        for node in found
        if node["parents"]
    )
    text = f"Parents are above their children. {words}."
    data = [["child", "parent", "seeds"]]
    data += [[n["label"], p["label"], p["seeds"]] for n in found for p in n["parents"]]
    return Chart(slug, f"{title}: chain", text, page.figure, data)
