"""One table over all papers: what every method reaches on a data split, at an equal budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any, NamedTuple

from cyclery.records.evidence import Arm, Evidence, Metric
from cyclery.report import costs, download
from cyclery.report.benchmark_cells import Figure, cell, shown
from cyclery.report.model import Slugs, amount, cut, letter, number, seed_list, tried
from cyclery.report.rounding import decimals
from cyclery.report.view_types import BenchmarkView, GridCell, GridLine
from cyclery.report.words import plural

# More would be read by nobody.
MOST_SPLITS, MOST_ROWS = 14, 60
# Characters of a line on demand, of a head and of a name within either.
LONGEST, LONG, SHORT = 240, 120, 60
OF_PAPERS = ("method", "baseline")
ANCESTORS = "descends from runs that were trained, too"
VIEWS = "trained on further views, as of unlabelled images"
PASSES = "passes more images forwards than it is trained on, as those of a second network"


class Split(NamedTuple):
    """Data and network at one budget: what arms of a column share."""

    tier: str
    data: str
    network: str
    images: int


class Name(NamedTuple):
    """What an experiment of a paper calls an arm."""

    place: int
    """Of the paper, in the report's order."""
    paper: str
    title: str
    label: str
    role: str


class RowKey(NamedTuple):
    """What arms of a row share."""

    place: int
    label: str
    method: str


@dataclass
class Entry:
    """The runs of an arm, under all names that experiments give them."""

    arm: Arm
    accuracy: Metric
    device: list[str]
    rule: str
    names: list[Name]
    label: str = ""

    @property
    def name(self) -> Name:
        """Return the name in the paper that is about the arm; of equals, the first."""
        return min(self.names, key=lambda name: OF_PAPERS.index(name.role))

    @property
    def row(self) -> RowKey:
        """Return the row that the arm belongs to."""
        return RowKey(self.name.place, self.label, self.arm["method"])

    @property
    def aside(self) -> str:
        """Return why the arm had more than the budget of its column; empty where it had not."""
        found = [ANCESTORS] if self.arm["ancestors_images"] else []
        found += [VIEWS] if (self.arm["views"] or 0) > (self.arm["images"] or 0) else []
        found += [PASSES] if (self.arm["forwards"] or 0) > (self.arm["views"] or 0) else []
        return "; ".join(found)


@dataclass
class Chosen:
    """The splits that are shown, their entries by row, and how many arms are not."""

    splits: dict[Split, dict[RowKey, Entry]] = field(default_factory=dict)
    left: int = 0
    without: int = 0
    """Splits with enough rows for which there is no room."""

    def entries(self) -> list[Entry]:
        """Return all entries, by column."""
        return [entry for rows in self.splits.values() for entry in rows.values()]

    def rows(self) -> list[RowKey]:
        """Return the rows by paper, papers and rows in the order of the columns that they fill."""
        found = dict.fromkeys(key for rows in self.splits.values() for key in rows)
        first: dict[int, int] = {}
        for column, rows in enumerate(self.splits.values()):
            for key in rows:
                first.setdefault(key.place, column)
        return sorted(found, key=lambda key: (first[key.place], key.place))


def table(named: list[tuple[str, list[Evidence]]], slugs: Slugs, command: str) -> (
    BenchmarkView | None
):  # fmt: skip
    """Return methods by splits; None where no split has two methods.

    `named` are papers' short names with their parts of evidence.
    """
    chosen = choose(named)
    if not chosen.splits:
        return None
    slug = slugs.make("methods", "splits")
    rows, entries = chosen.rows(), chosen.entries()
    papers = {entry.name.place: entry.name.paper for entry in entries}
    keys = _keys(entries)
    return {
        "slug": slug,
        "paper": "All papers",
        "title": "Methods on the same data",
        "caption": "Test accuracy and training time of every method and baseline, by data split, "
        "network and number of training images",
        "lines": [
            "The arms of a column have the same data, the same network and equal numbers of "
            "labelled training images; a letter marks those that were trained on more.",
            "Ranks across experiments test nothing: the other settings are those of each "
            "experiment. Verdicts come from paired comparisons alone.",
        ],
        "columns": [line for split in chosen.splits for line in _columns(split)],
        "rows": [_line(heads) for heads in _heads(rows, papers)],
        "cells": [
            [cell for found in chosen.splits.values() for cell in _cells(found.get(key), keys)]
            for key in rows
        ],
        "values": ["ours"],
        "notes": [*_marks(entries, keys), *_notes(chosen)],
        "command": command,
        "file": download.file(slug, _figures(chosen)),
    }


def choose(named: list[tuple[str, list[Evidence]]]) -> Chosen:
    """Return the splits that the table has room for.

    Tiers with larger budgets are nearest to the papers and come first; then splits that papers
    share, then those with most rows. After the first, one too large for the room that is left is
    passed over.
    """
    found: dict[Split, dict[tuple[Any, ...], Entry]] = {}
    arms: set[tuple[Any, ...]] = set()
    for place, (name, parts) in enumerate(named):
        for part in parts:
            _enter(found, arms, place, name, part)
    splits = {split: _rows(list(entries.values())) for split, entries in found.items()}
    splits = {split: rows for split, rows in splits.items() if len(rows) > 1}
    chosen, rows = Chosen(), set[RowKey]()
    largest = {s.tier: max(o.images for o in splits if o.tier == s.tier) for s in splits}
    sharing = {split: _papers(rows.values()) for split, rows in splits.items()}
    for split in sorted(splits, key=lambda s: (-largest[s.tier], -sharing[s], -len(splits[s]), s)):
        more = rows | splits[split].keys()
        if len(chosen.splits) == MOST_SPLITS or (rows and len(more) > MOST_ROWS):
            chosen.without += 1
            continue
        chosen.splits[split] = splits[split]
        rows = more
    chosen.left = len(arms) - len(chosen.entries())
    return chosen


def _papers(entries: Iterable[Entry]) -> int:
    """Return how many papers run the arms of a split."""
    return len({name.place for entry in entries for name in entry.names})


def _enter(
    found: dict[Split, dict[tuple[Any, ...], Entry]], arms: set[tuple[Any, ...]],
    place: int, paper: str, part: Evidence,
) -> None:  # fmt: skip
    """Add a part's arms to their splits, and the runs of all that have an accuracy to `arms`."""
    for raw in part["experiments"]:
        for arm in raw["arms"]:
            accuracy = arm["metrics"].get("test_accuracy")
            if not accuracy:
                continue
            runs = tuple(arm["keys"]) or (part["tier"], paper, raw["id"], arm["id"])
            arms.add(runs)
            if arm["role"] not in OF_PAPERS or not arm["data"] or not arm["images"]:
                continue
            split = Split(part["tier"], arm["data"], arm["network"], round(arm["images"]))
            name = Name(place, paper, raw["title"], arm["label"], arm["role"])
            entries = found.setdefault(split, {})
            if runs in entries:
                entries[runs].names.append(name)
            else:
                entries[runs] = Entry(
                    arm, accuracy, part["provenance"]["devices"], raw["selection_rule"], [name]
                )


def _rows(entries: list[Entry]) -> dict[RowKey, Entry]:
    """Return a split's entries by row: where a label stands twice, its experiment is named."""
    for entry in entries:
        entry.label = entry.name.label
    for more in (lambda e: e.name.title, lambda e: e.arm["id"]):
        count = Counter((entry.name.place, entry.label) for entry in entries)
        for entry in entries:
            if count[entry.name.place, entry.label] > 1:
                entry.label = f"{entry.label} ({more(entry)})"
    found: dict[RowKey, Entry] = {}
    for entry in entries:
        found.setdefault(entry.row, entry)
    return found


def _heads(rows: list[RowKey], papers: dict[int, str]) -> Iterator[list[str]]:
    """Yield paper and label of rows; the method, too, where two rows would read the same."""
    count = Counter((key.place, key.label) for key in rows)
    for key in rows:
        alike = count[key.place, key.label] > 1
        label = f"{key.label} ({key.method})" if alike else key.label
        yield [cut(papers[key.place], SHORT), cut(label, LONG)]


def _line(heads: list[str], tier: str = "") -> GridLine:
    return {"heads": heads, "value": "ours" if tier else None, "by": None, "tier": tier}


def _columns(split: Split) -> Iterator[GridLine]:
    heads = [f"{cut(split.data, LONG)} ({split.tier} tier)"]
    heads.append(f"{cut(split.network, LONG)}, {split.images:,} images")
    for figure in ("accuracy (%)", "s a run"):
        yield _line([*heads, figure], split.tier)


def _keys(entries: list[Entry]) -> dict[str, str]:
    """Return the keys of cells' notes by what the notes say."""
    found = dict.fromkeys(entry.aside for entry in entries if entry.aside)
    return {why: letter(place).lower() for place, why in enumerate(found)}


def _marks(entries: list[Entry], keys: dict[str, str]) -> Iterator[str]:
    """Yield the notes of cells, with the range of what ancestors were trained on."""
    for why, key in keys.items():
        counts = [e.arm["ancestors_images"] or 0.0 for e in entries if e.aside == why]
        span = dict.fromkeys(map(amount, (min(counts), max(counts))))
        images = f" Ancestors: {' to '.join(span)} images." if any(counts) else ""
        yield f"{key}: More than the column's budget: {why}.{images}"


def _cells(entry: Entry | None, keys: dict[str, str]) -> Iterator[GridCell]:
    """Yield accuracy and time of a row on one split."""
    if not entry:
        yield from (cell(), cell())
        return
    mean, sd, ends = _accuracy(entry)
    low, high = ends or (None, None)
    figure = Figure(mean, decimals(sd, percent=True), sd, low, high)
    yield shown(figure, _title(entry), keys.get(entry.aside, "")).cell
    seconds = entry.arm["seconds"]
    yield {**cell(_time(seconds)), "number": seconds} if seconds else cell()


def _accuracy(entry: Entry) -> tuple[float, float | None, list[float]]:
    """Return mean, standard deviation and ends of the interval in per cent."""
    found = entry.accuracy
    sd = None if found["sd"] is None else 100 * found["sd"]
    return 100 * found["mean"], sd, [100 * end for end in found["ci95"] or ()]


def _time(seconds: float) -> str:
    """Return seconds with three digits, without a power of ten."""
    return number(seconds, min(max(2 - floor(log10(seconds)), 0), 4))


def _title(entry: Entry) -> str:
    """Say on one line what a cell is of: seeds, further images, other names."""
    arm, name = entry.arm, entry.name
    said = [f"n = {arm['n']}"]
    said += [plural(arm["units"], "independent unit")] if arm["units"] else []
    said += [f"{len(arm['diverged'])} diverged"] if arm["diverged"] else []
    said += [plural(tried(arm), "trial")] if tried(arm) else []
    said += filter(None, [costs.ancestors(arm)])
    if VIEWS in entry.aside:
        said.append(f"{amount(arm['views'])} views")
    if PASSES in entry.aside:
        said.append(f"{amount(arm['forwards'])} forward passes")
    said += [] if name.title in entry.label else [cut(name.title, SHORT)]
    others = _others(entry)
    text = "; ".join([*said, f"also {others}"] if others else said)
    return cut(text, LONGEST)


def _others(entry: Entry) -> str:
    """Return what experiments call the same runs besides the row's name, by paper."""
    found: dict[str, dict[str, None]] = {}
    for name in entry.names:
        if (name.place, name.label) != (entry.name.place, entry.name.label):
            found.setdefault(name.paper, {}).setdefault(cut(name.label, SHORT))
    return "; ".join(f"{paper}: {', '.join(labels)}" for paper, labels in found.items())


def tuning(arms: Iterable[Arm]) -> str:
    """Say how many arms were tuned, and with how many trials each."""
    counts = Counter(tried(arm) for arm in arms)
    none = counts.pop(0, 0)
    said = [f"{plural(none, 'arm')} without trials"] if none else []
    said += [
        f"{plural(found, 'arm')} with {plural(count, 'trial')} each"
        for count, found in sorted(counts.items())
    ]
    return f"Tuning: {'; '.join(said)}."


def _notes(chosen: Chosen) -> list[str]:
    """Return what stands under the table, but for the notes of cells."""
    entries = chosen.entries()
    rules = ", ".join(dict.fromkeys(entry.rule for entry in entries))
    seeds = seed_list(seed for entry in entries for seed in entry.accuracy["seeds"])
    devices = "; ".join(dict.fromkeys(d for entry in entries for d in entry.device))
    left = ""
    if chosen.left:
        left = " Left to the leaderboards and the experiments' own tables: "
        left += f"{plural(chosen.left, 'arm')}, as controls or without another on their split"
        left += f", or of {plural(chosen.without, 'further split')}." if chosen.without else "."
    return [
        f"Selection: {rules}. Seeds: {seeds}. Mean ± standard deviation over seeds. "
        f"{tuning(entry.arm for entry in entries)} Time is that of a final run, trials and "
        f"ancestors not counted, on {devices or 'a device not recorded'}.",
        "Nothing is bold: verdicts decide which arm is better. Runs that experiments share stand "
        f"in one row, of the paper whose method they are.{left}",
    ]


def _figures(chosen: Chosen) -> download.Rows:
    """Return all figures of the table, one row a cell."""
    head = ["tier", "data", "network", "images", "paper", "arm", "method", "role", "experiment"]
    head += ["n", "diverged", "test_accuracy", "sd", "low95", "high95", "seconds"]
    out: download.Rows = [[*head, *costs.FIGURES, "trials", "also"]]
    for split, rows in chosen.splits.items():
        for entry in rows.values():
            arm, name = entry.arm, entry.name
            mean, sd, ends = _accuracy(entry)
            low, high = ends or (None, None)
            out.append([
                *split, name.paper, entry.label, arm["method"], name.role, name.title, arm["n"],
                len(arm["diverged"]), mean, sd, low, high, arm["seconds"],
                *costs.figures(arm), tried(arm), _others(entry),
            ])  # fmt: skip
    return out
