"""Searches in the report: a table of their trials, and for each arm its tuning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cyclery.records.evidence import Arm, Experiment
from cyclery.records.record import StudiedTrial
from cyclery.records.searches import Searched, SearchedStudy
from cyclery.report.chart import Chart, Page, colour, span
from cyclery.report.model import (
    Slugs,
    amount,
    compact,
    duration,
    letter,
    metric_name,
    seed_list,
)
from cyclery.report.tables import Cell, Column, Table
from cyclery.report.words import plural

TALL = 74.0
# Rows of a table; of more trials each study shows the best.
MOST_ROWS = 60
BEST = 3
# From this ratio of the largest to the smallest value on an axis is logarithmic.
WIDE = 20.0
# Values that a quantity must take to have a panel of its own.
SEVERAL = 5
PRUNED, FULL = 0.28, 0.6  # opacity of trials that were not chosen
HEADS = {"weight_decay": "Decay", "lr": "LR"}


def words(values: Mapping[str, float]) -> str:
    """Return a configuration in words."""
    return ", ".join(f"{metric_name(name)} {compact(v)}" for name, v in values.items())


def notes(place: int, found: Searched) -> Iterator[str]:
    """Yield what a search chose, for the notes under the arms table."""
    chosen: dict[str, list[int]] = {}
    for study in found["studies"]:
        best = study["chosen"]
        text = (
            "every trial diverged, as declared"
            if best is None
            else f"best of {found['tried']} drawn trials on validation: "
            f"{words(study['trials'][best]['values'])}"
        )
        chosen.setdefault(text, []).extend(study["seeds"])
    for text, seeds in chosen.items():
        which = f"seeds {seed_list(seeds)}, " if len(chosen) > 1 else ""
        yield f"{letter(place)}: {which}{text}."


def table(slug: str, experiment: Experiment, under: list[str]) -> Table | None:
    """Return the trials of all searches; None where there are none."""
    found = [(i, arm, arm["searched"]) for i, arm in enumerate(experiment["arms"])
             if "searched" in arm]  # fmt: skip
    if not found:
        return None
    quantities = list(dict.fromkeys(q for _, _, one in found for q in _quantities(one)))
    every = sum(len(study["trials"]) for _, _, one in found for study in one["studies"])
    rows: list[list[Cell]] = []
    for place, arm, one in found:
        for study in one["studies"]:
            for number in _shown(study, every > MOST_ROWS):
                trial = study["trials"][number]
                last = trial["metric"][-1] if trial["metric"] else None
                values = (trial["values"].get(q) for q in quantities)
                rows.append([
                    place, arm["label"], seed_list(study["seeds"]),
                    *(None if v is None else compact(v) for v in values), trial["epochs"],
                    None if last is None else 100 * last, trial["ended"],
                    "chosen" if number == study["chosen"] else None,
                ])  # fmt: skip
    columns = [
        Column("", "key"), Column("Arm", weight=2.0), Column("Seeds", "right"),
        *(Column(_head(q), "right") for q in quantities),
        Column("Epochs", "number", 0), Column("Val. acc. (%)", "number", 2), Column("Ended"),
        Column(""),
    ]  # fmt: skip
    return Table(
        slug, f"{experiment['title']}: trials of the searches", columns, rows,
        [" ".join(_said(found, every)), *under], lead=2, command=experiment["command"],
    ).trimmed()  # fmt: skip


def _head(quantity: str) -> str:
    name = metric_name(quantity)
    return HEADS.get(quantity, name[:1].upper() + name[1:])


def _said(found: list[tuple[int, Arm, Searched]], every: int) -> Iterator[str]:
    """Yield the sentences under the table of trials."""
    _, _, first = found[0]
    yield (
        f"Random search, {first['tried']} configurations a study, the same for every arm, halved "
        f"on the way: after {plural(first['grace_epochs'], 'epoch')}, and each time its epochs "
        f"have grown {first['reduction']}-fold, one trial in {first['reduction']} goes on. What "
        f"counts is the mean of the last {first['last']} validation accuracies at a trial's end; "
        "the test set is not read."
    )
    if every > MOST_ROWS:
        yield f"The best {BEST} of each study; all {every:,} are in the data of the figures."
    for place, _, one in found:
        views = sum(study["views"] for study in one["studies"])
        seconds = sum(study["seconds"] for study in one["studies"])
        count = len(one["studies"])
        yield (
            f"{letter(place)}: {count} {'study' if count == 1 else 'studies'}, "
            f"{amount(views)} views, {duration(seconds)}."
        )


def _shown(study: SearchedStudy, few: bool) -> list[int]:
    """Return the trials that a table shows, the best first: ``few`` of them, or all."""

    def rank(number: int) -> tuple[bool, float]:
        trial = study["trials"][number]
        return trial["ended"] == "diverged", -(trial["metric"][-1] if trial["metric"] else -1.0)

    order = sorted(range(len(study["trials"])), key=rank)
    return order[:BEST] if few else order


def _quantities(found: Searched) -> list[str]:
    return [*found["studies"][0]["trials"][0]["values"]] if found["studies"] else []


def charts(slugs: Slugs, slug: str, experiment: Experiment) -> list[Chart]:
    """Draw of each searched arm the metric by epoch, and by the values that were drawn."""
    drawn = []
    for place, arm in enumerate(experiment["arms"]):
        found = arm.get("searched")
        if found is None or not any(
            trial["metric"] for study in found["studies"] for trial in study["trials"]
        ):
            continue
        panels = [name for name in _quantities(found) if len(set(_values(found, name))) > SEVERAL]
        across = " and ".join(map(metric_name, panels))
        text = (
            "Validation accuracy, the mean of the last "
            f"{found['last']}, by epoch{f', and at the end by {across}' if panels else ''}: each "
            "line or dot is a trial. Strong are the chosen ones, pale those that were stopped."
        )
        title = f"{experiment['title']}: search of {letter(place)}, {arm['label']}"
        name = f"{letter(place)} {arm['label']}"
        draw = partial(_draw, name=name, found=found, panels=panels, shade=colour(place))
        drawn.append(
            Chart(slugs.make(slug, "search", arm["id"]), title, text,
                  [TALL] * (1 + len(panels)), draw, _data(found))
        )  # fmt: skip
    return drawn


def _values(found: Searched, name: str) -> list[float]:
    return [trial["values"][name] for study in found["studies"] for trial in study["trials"]]


def _data(found: Searched) -> list[list[Any]]:
    names = _quantities(found)
    rows: list[list[Any]] = [["seeds", "trial", *names, "ended", "chosen", "epoch", "val_accuracy"]]
    for study in found["studies"]:
        for number, trial in enumerate(study["trials"]):
            head = [seed_list(study["seeds"]), number, *(trial["values"][name] for name in names),
                    trial["ended"], int(number == study["chosen"])]  # fmt: skip
            rows += [[*head, epoch, value] for epoch, value in enumerate(trial["metric"], 1)]
    return rows


def _draw(page: Page, name: str, found: Searched, panels: list[str], shade: str) -> None:
    kinds = _kinds(found)
    every = [100 * v for trials in kinds.values() for t in trials for v in t["metric"]]
    y = span(every)
    ax = page.panel(TALL, f"{name}: val. acc. (%) by epoch", (1, max(found["epochs"], 2)), y)
    for opacity, trials in kinds.items():
        lines = [t["metric"] for t in trials if t["metric"]]
        drawn = [(range(1, len(line) + 1), [100 * v for v in line]) for line in lines]
        ax.lines(drawn, shade, 1.9 if opacity == 1 else 0.8, opacity=opacity)
    for quantity in panels:
        values = _values(found, quantity)
        low, high = min(values), max(values)
        log = low > 0 and high / low >= WIDE
        limits = (low / 1.25, high * 1.25) if log else span(values)
        head = f"at the end of a trial, by {metric_name(quantity)}{' (log)' if log else ''}"
        ax = page.panel(TALL, head, limits, y, log=log)
        for opacity, trials in kinds.items():
            ended = [t for t in trials if t["metric"]]
            ax.dots([t["values"][quantity] for t in ended],
                    [100 * t["metric"][-1] for t in ended],
                    shade, 6 if opacity == 1 else 3.6, opacity)  # fmt: skip


def _kinds(found: Searched) -> dict[float, list[StudiedTrial]]:
    """Return the trials by the opacity that they are drawn with, the chosen ones last."""
    kinds: dict[float, list[StudiedTrial]] = {PRUNED: [], FULL: [], 1.0: []}
    for study in found["studies"]:
        for number, trial in enumerate(study["trials"]):
            left = FULL if trial["ended"] == "finished" else PRUNED
            kinds[1.0 if number == study["chosen"] else left].append(trial)
    return kinds
