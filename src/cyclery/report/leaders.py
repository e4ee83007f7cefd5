"""Leaderboard of all methods on one data split: accuracy against training time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cyclery.records.evidence import Arm, Evidence, Metric
from cyclery.report import costs
from cyclery.report.chart import Chart, Page, colour, span
from cyclery.report.model import Slugs, amount, compact, cut, number, seed_list, tried
from cyclery.report.shapes import INK
from cyclery.report.tables import Cell, Column, Estimate, Table
from cyclery.report.tiers import nearest

VARIES = "differs by arm"
_MARKS = {"method": ("dot", 0), "baseline": ("square", 1), "control": ("up", 6)}
_TALL = 150.0  # height of a chart's panel


@dataclass
class Entry:
    """One arm of one experiment, or of several that share its runs."""

    paper: str
    family: str
    tier: str
    experiments: list[str]
    arm: Arm
    network: str
    accuracy: Metric


@dataclass
class Group:
    """The arms of every experiment on one split of one dataset, of all papers and tiers."""

    data: str
    entries: dict[tuple[Any, ...], Entry] = field(default_factory=dict)
    parts: dict[tuple[str, str], Evidence] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Data and split, and the tiers whose arms are on them."""
        tiers = nearest(entry.tier for entry in self.entries.values())
        return f"{self.data} ({' and '.join(tiers)} tier{'s' if len(tiers) > 1 else ''})"


@dataclass(frozen=True)
class Board:
    """A group with its table and chart."""

    slug: str
    title: str
    says: str
    table: Table
    chart: Chart | None


def groups(papers: list[tuple[str, list[Evidence]]]) -> tuple[list[Group], list[str]]:
    """Return the groups, largest first, and the experiments that belong to none.

    `papers` are names with their parts of evidence. Arms that are the same runs count once.
    """
    found: dict[tuple[str, str], Group] = {}
    mixed: list[str] = []
    for name, parts in papers:
        for part in parts:
            for raw in part["experiments"]:
                settings = {key.lower(): value for key, value in raw["settings"].items()}
                data, split = settings.get("dataset", ""), settings.get("split", "")
                title = raw["title"]
                if not data or VARIES in (data, split):
                    mixed += [f"{name}, {title}"] if raw["arms"] else []
                    continue
                words = ", ".join(filter(None, (data, split)))
                group = found.setdefault((data, split), Group(words))
                for arm in raw["arms"]:
                    _enter(group, name, title, arm, settings.get("network", ""), part)
    some = [group for group in found.values() if len(group.entries) > 1]
    return sorted(some, key=lambda group: -len(group.entries)), mixed


def _enter(group: Group, name: str, title: str, arm: Arm, network: str, part: Evidence) -> None:
    accuracy = arm["metrics"].get("test_accuracy")
    if not accuracy:
        return
    runs = tuple(arm["keys"]) or (name, title, arm["id"])
    family, tier = part["paper"].get("family", ""), part["tier"]
    entry = group.entries.setdefault(runs, Entry(name, family, tier, [], arm, network, accuracy))
    entry.experiments.append(title)
    group.parts[part["tier"], part["part"]] = part


def _says(group: Group) -> str:
    """Say how many arms of how many papers a group has, and which is the best."""
    entries = _ranked(group)
    papers = {entry.paper for entry in entries}
    best = entries[0]
    mean = number(100 * best.accuracy["mean"], 1)
    of = f" of {len(papers)} papers" if len(papers) > 1 else ""
    return f"{len(entries)} arms{of}; the first: {best.arm['label']} ({best.paper}), {mean}\u00a0%."


def _ranked(group: Group) -> list[Entry]:
    return sorted(group.entries.values(), key=lambda e: -e.accuracy["mean"])


def _estimate(entry: Entry) -> Estimate:
    return Estimate(100 * entry.accuracy["mean"], *_ends(entry))


def frontier(group: Group) -> list[int]:
    """Return the places, best first, of arms that no arm beats at equal or less time."""
    fastest, out = np.inf, []
    for place, entry in enumerate(_ranked(group)):
        seconds = entry.arm["seconds"]
        if seconds and seconds < fastest:
            fastest = seconds
            out.append(place)
    return out


def table(slug: str, group: Group, notes: list[str], command: str) -> Table:
    """Return the ranked table of a group."""
    front = set(frontier(group))
    spent = costs.columns([entry.arm for entry in _ranked(group)])
    rows: list[list[Cell]] = []
    families = {entry.family for entry in group.entries.values()}
    tiers = {entry.tier for entry in group.entries.values()}
    for place, entry in enumerate(_ranked(group)):
        arm = entry.arm
        network = "" if entry.network == VARIES else entry.network.split(" (")[0]
        time = compact(float(f"{arm['seconds']:.3g}")) if arm["seconds"] else None
        rows.append([
            f"{place + 1}{' ‡' if place in front else ''}", cut(arm["label"], 160),
            cut(entry.paper, 60), cut("; ".join(dict.fromkeys(entry.experiments)), 160),
            cut(network, 60), entry.family if len(families) > 1 else None,
            entry.tier if len(tiers) > 1 else None, cut(arm["role"], 60), arm["n"],
            _estimate(entry), time, amount(arm["views"]) if arm["views"] else None,
            *(cost.cells[place] for cost in spent),
        ])  # fmt: skip
    columns = [
        Column("Rank", "right"), Column("Arm", weight=2.0), Column("Paper", weight=1.3),
        Column("Experiment", weight=2.0), Column("Network", weight=0.9),
        Column("Family", weight=0.9), Column("Tier", weight=0.6), Column("Role", weight=0.8),
        Column("n", "number", 0), Column("Test accuracy (%)", "estimate"),
        Column("Seconds/run", "right"), Column("Images", "right"),
        *(Column(cost.head, "right") for cost in spent),
    ]  # fmt: skip
    return Table(
        slug, f"Every arm on {group.title}", columns, rows, [*_notes(group), *notes], lead=2,
        command=command,
    ).trimmed()  # fmt: skip


def _notes(group: Group) -> list[str]:
    seeds = {s for e in group.entries.values() for s in e.accuracy["seeds"]}
    rules = {e["selection_rule"] for p in group.parts.values() for e in p["experiments"]}
    devices = sorted({d for p in group.parts.values() for d in p["provenance"]["devices"]})
    tuned = Counter(tried(e.arm) for e in group.entries.values())
    none = tuned.pop(0, 0)
    said = [f"{arms} arms with {count} trials each" for count, arms in sorted(tuned.items())]
    tuning = f"Tuning: {none} arms as declared, untuned" if none else "Tuning: every arm"
    budget = "Budgets differ between experiments: images and time stand in the row."
    spent = costs.columns([entry.arm for entry in group.entries.values()])
    budget = " ".join([budget, *(cost.note for cost in spent)])
    return [
        f"Selection: {', '.join(sorted(rules))}. "
        f"Seeds: {seed_list(seeds)}. Mean ± half of the 95 % interval over seeds. "
        f"{'; '.join([tuning, *said])}. {budget}",
        "Ranks test nothing: arms of different experiments may differ in network and budget. "
        "Verdicts come from paired comparisons alone. Time is that of a final run, trials not "
        f"counted, on {'; '.join(devices) or 'a device not recorded'}. "
        "‡ no arm is better at equal or less time.",
    ]


def scatter(slug: str, group: Group) -> Chart | None:
    """Draw accuracy against device-seconds, with intervals and the frontier."""
    found = [(i, e) for i, e in enumerate(_ranked(group)) if e.arm["seconds"]]
    if len(found) < 2:
        return None
    seconds = [e.arm["seconds"] or 0.0 for _, e in found]
    means = [100 * e.accuracy["mean"] for _, e in found]
    # Arms near chance would flatten all others; they are named in the caption instead.
    floor = float(np.percentile(means, 75)) - 4 * float(
        np.subtract(*np.percentile(means, [75, 25]))
    )
    shown = [m for m in means if m >= floor]
    y = span([*shown, *(v for _, e in found for v in _ends(e) if v >= floor)])
    times = [time for time, mean in zip(seconds, means, strict=True) if mean >= floor]
    x = (min(times) / 1.3, max(times) * 1.3)
    points = [
        (time, mean, _ends(e), e.arm["role"])
        for (_, e), time, mean in zip(found, seconds, means, strict=True)
    ]
    front = set(frontier(group))
    best = sorted(
        (e.arm["seconds"] or 0.0, 100 * e.accuracy["mean"], i) for i, e in found if i in front
    )
    below = len(means) - len(shown)
    text = (
        "Methods are dots, baselines squares, other controls triangles; bars are 95 % intervals. "
        "The dashed line joins the arms that none beats at equal or less time, by rank."
    )
    text += f" Below the axis: {below} arm{'s' if below > 1 else ''}." if below else ""
    head = ["rank", "paper", "experiment", "arm", "role", "n", "seconds", "images"]
    head += costs.FIGURES[1:]
    data: list[list[Any]] = [[*head, "test_accuracy", "low95", "high95"]]
    for place, entry in enumerate(_ranked(group)):
        arm, ends = entry.arm, _ends(entry)
        name, where = arm["label"], "; ".join(entry.experiments)
        cost = (arm["n"], arm["seconds"], *costs.figures(arm))
        row = (place + 1, entry.paper, where, name, arm["role"], *cost)
        data.append([*row, 100 * entry.accuracy["mean"], *ends])
    title = f"Every arm on {group.title}: accuracy against time"
    draw = partial(_draw, x=x, y=y, points=points, best=best)
    return Chart(slug, title, text, [_TALL], draw, data)


def _draw(
    page: Page,
    x: tuple[float, float],
    y: tuple[float, float],
    points: list[tuple[float, float, list[float], str]],
    best: list[tuple[float, float, int]],
) -> None:
    """Draw arms as (seconds, mean, ends of the interval, role), and the frontier with its ranks."""
    ax = page.panel(_TALL, "test accuracy (%) against time of a run", x, y, log=True)
    for time, mean, ends, role in points:
        mark, shade = _MARKS.get(role, _MARKS["control"])
        if ends:
            ax.line([time, time], ends, colour(shade), 0.7, opacity=0.5)
        ax.mark(time, mean, mark, colour(shade), 3.4, 0.85)
    ax.line([b[0] for b in best], [b[1] for b in best], INK, 0.7, (3, 2))
    for time, mean, place in best:
        if y[0] <= mean <= y[1]:
            above = mean + 0.03 * (y[1] - y[0])
            ax.words(time, above, str(place + 1), size=7.5, side="middle")
    page.foot("device-seconds (log)")


def _ends(entry: Entry) -> list[float]:
    return [100 * end for end in entry.accuracy["ci95"] or ()]


def leaderboards(
    papers: list[tuple[str, list[Evidence]]], slugs: Slugs, command: str,
    notes: Mapping[tuple[str, str], list[str]],
) -> list[Board]:  # fmt: skip
    """Return every group with its table and chart; `notes` are those of a tier's part."""
    out = []
    found, mixed = groups(papers)
    for place, group in enumerate(found):
        slug = slugs.make("leaders", group.title)
        below = [" ".join(dict.fromkeys(n for part in group.parts for n in notes.get(part, [])))]
        if not place and mixed:
            below.append(f"In no table, for their arms differ in the data: {'; '.join(mixed)}.")
        ranked = table(slugs.make(slug, "table"), group, [n for n in below if n], command)
        picture = scatter(slugs.make(slug, "plot"), group)
        out.append(Board(slug, group.title, _says(group), ranked, picture))
    return out
