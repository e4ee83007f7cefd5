"""Made-up benchmark tables and printed figures of the three papers, for the tests of the report."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]
HIGH = "w" * 300


def printed_of(paper: str) -> list[Json]:
    """Return the printed figures that no table shows; those of GCT and CFL were not read."""
    rows = [("fixed, 70000 iterations", 81.4), ("triangular2, 25000 iterations", 81.4)]
    return [
        {"table": "Table 1", "dataset": "CIFAR-10", "labels": "50000",
         "architecture": "Caffe full CNN" if paper == "clr" else None, "method": method,
         "metric": "top-1 test accuracy", "value": value if paper == "clr" else None,
         "decimals": 1, "std": None, "runs": None, "source": f"arXiv {paper} full text",
         "confidence": "read" if paper == "clr" else "memory"}
        for method, value in rows
    ]  # fmt: skip


class Maker:
    """A table while it is made, with the printed figures that it shows."""

    def __init__(self, printed: list[Json], name: str, **more: Any) -> None:
        self.printed = printed
        self.table: Json = {
            "id": name, "title": name.replace("-", " ").capitalize(), "caption": "What is shown.",
            "methods": "rows", "spread": "sd", "same": {}, "note": "", "rows": [], "columns": [],
            "cells": [], **more,
        }  # fmt: skip

    def lines(self, axis: str, *heads: list[str], by: str | None = None) -> None:
        """Add lines with these heads."""
        self.table[axis] += [{"heads": list(h), "by": by} for h in heads]

    def cell(self, row: int, column: int, **more: Any) -> Json:
        """Add a cell of ours where it names an arm, and return it."""
        made = {
            "row": row, "column": column, "metric": "test_accuracy", "shows": "percent",
            "lower_is_better": False, "experiment": None, "arm": None, "same": False,
            "best": False, "empty": "", "fill": None, "printed": None, **more,
        }  # fmt: skip
        if made["arm"] is None and not made["empty"]:
            made["empty"] = "no arm of ours"
        self.table["cells"].append(made)
        return made

    def prints(self, value: float | None, std: float | None = None, **more: Any) -> int:
        """Add a printed figure and return its place."""
        places = max(len(str(x or "").partition(".")[2]) for x in (value, std))
        self.printed.append({
            "table": self.table["title"], "dataset": "CIFAR-10", "labels": "40",
            "architecture": "WRN-28-2", "method": "m", "metric": "error_percent", "value": value,
            "decimals": places, "std": std, "runs": 5.0 if std else None, "source": "the full text",
            "confidence": "read", **more,
        })  # fmt: skip
        return len(self.printed) - 1


def wide(printed: list[Json], experiment: str) -> Json:
    """Return a table like FixMatch's Table 2: heads of two levels, many labels, others' figures."""
    made = Maker(printed, "table-2", note="Ours uses RandAugment.")
    made.table["caption"] = "Error rates at several numbers of labels."
    sets = {"CIFAR-10": (40, 250, 4000), "CIFAR-100": (400, 2500, 10000), "SVHN": (40, 250, 1000)}
    heads = [[data, f"{n} labels"] for data, sizes in sets.items() for n in sizes]
    made.lines("columns", *heads)
    made.lines("rows", ["\u03a0-model"], ["Mean Teacher"], ["FixMatch", "RA"], ["FixMatch", "CTA"])
    made.lines("rows", ["FixMatch (RA)"], by="TorchSSL")
    made.lines("rows", ["Nothing of anyone"])
    arms = {1: "tuned", 2: "easy-hard-easy"}
    for j in range(9):
        for i in range(5):
            error = 3.5 + 8.0 * (4 - i) / (1 + j % 3)
            figure = None if (i, j) == (0, 8) else round(error, 2)
            place = None if i == 1 and j > 5 else made.prints(figure, round(0.33 + i / 100, 2))
            cell = made.cell(i, j, shows="error", lower_is_better=True, printed=place)
            if i in arms and j < 3:
                cell.update(experiment=experiment, arm=arms[i], empty="", best=i == 2)
            elif i in arms:
                cell["empty"] = "not run at the smoke tier"
            if i in arms:
                run = f"{experiment}/{arms[i]}-{j}"
                cell["fill"] = {"tier": "paper", "run": run, "seconds": {run: 3600.0 * (j + 1)}}
    made.printed[-1]["confidence"] = "memory"
    made.cell(5, 0, shows="error", empty="no arm of ours")
    return made.table


def columns(printed: list[Json], experiment: str) -> Json:
    """Return a table that has its methods in columns and accuracies without a spread."""
    made = Maker(printed, "table-4", methods="columns", spread="none")
    made.lines("columns", ["Fixed"], ["CLR", "triangular"], ["CLR", "triangular2"])
    made.lines("rows", ["CIFAR-10"], ["CIFAR-100"])
    for i in range(2):
        for j, arm in enumerate(("tuned", "easy-hard-easy", "mean")):
            place = made.prints(round(92.3 + j / 10 - 20 * i, 1), metric="top-1 test accuracy")
            cell = made.cell(i, j, printed=place, empty="not run at the smoke tier")
            if not i:
                cell.update(experiment=experiment, arm=arm, empty="")
    return made.table


def metrics(printed: list[Json], experiment: str) -> Json:
    """Return a table whose columns are metrics of different units."""
    made = Maker(printed, "table-3")
    made.lines("columns", ["Accuracy (%)"], ["NLL (nats)"])
    made.lines("rows", ["Cross-entropy"], ["Cyclical focal loss"])
    for i, arm in enumerate(("tuned", "easy-hard-easy")):
        for j, (metric, shows) in enumerate([("test_accuracy", "percent"), ("test_nll", "value")]):
            place = made.prints(((94.1, 95.1), (0.184, 0.174))[j][i], metric=("accuracy", "nll")[j])
            made.cell(i, j, metric=metric, shows=shows, experiment=experiment, arm=arm,
                      printed=place, lower_is_better=bool(j))  # fmt: skip
    return made.table


def same(printed: list[Json], experiment: str) -> Json:
    """Return a table at whose tier ours have the paper's setting; it shows errors."""
    sense = "the paper's data, network and budget"
    made = Maker(printed, "table-1", same={"smoke": sense, "paper": sense})
    made.lines("columns", ["CIFAR-10"])
    made.lines("rows", ["Cross-entropy"], ["Focal loss"], ["Cyclical focal loss"], ["Remembered"])
    said = [(95.5, 0.2, "test accuracy"), (None, None, "error_percent"), (4.1, 0.15, "error")]
    for i, (arm, (value, std, metric)) in enumerate(
        zip(("tuned", "mean", "easy-hard-easy"), said, strict=True)
    ):
        place = made.prints(value, std, metric=metric)
        made.cell(i, 0, shows="error", lower_is_better=True, same=True, best=i == 2, arm=arm,
                  experiment=experiment, printed=place)  # fmt: skip
    place = made.prints(4.0, 0.1, confidence="memory", runs=1.0)
    made.cell(3, 0, shows="error", printed=place, empty="no arm of ours",
              fill={"tier": "paper", "run": "cfl-0/x", "seconds": {"d": 7200.0}})  # fmt: skip
    return made.table


def of_paper(paper: str) -> tuple[list[Json], list[Json]]:
    """Return the printed figures and the tables of a paper."""
    printed, experiment = printed_of(paper), f"{paper}-0"
    makers = {"gct": (wide,), "clr": (columns,), "cfl": (same, metrics)}
    return printed, [make(printed, experiment) for make in makers[paper]]


def at_tier(part: Json, tier: str, data: str, images: float = 1e7) -> Json:
    """Return the evidence of a paper as another tier might have it."""
    other = copy.deepcopy(part)
    other.update(tier=tier, part=f"{part['part']}.{tier}")
    for experiment in other["experiments"]:
        for arm in experiment["arms"]:
            arm.update(data=data, images=images)
    return other


def attack(part: Json, text: str, other: str) -> None:
    """Let every text of a part's tables attack the markup, or be very long."""
    for figure in part["printed"]:
        figure.update(source=other + HIGH, metric=f"accuracy {text}")
    for table in part["tables"]:
        table.update(title=text, caption=other + HIGH, note=text, id=text, same={"smoke": text})
        for place, line in enumerate([*table["rows"], *table["columns"]]):
            line["heads"] = [text, other] if place % 2 else [f"{place} {HIGH}"]
            line["by"] = text if place == 1 else None
        for cell in table["cells"]:
            if cell["empty"]:
                fill = {"tier": text, "run": other, "seconds": {other: 1e9}}
                cell.update(empty=text + HIGH, fill=fill)
