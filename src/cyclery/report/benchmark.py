"""Benchmark tables of a paper, turned as it prints them, with ours beside what it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import get_args

from cyclery.records.evidence import Evidence
from cyclery.report import words
from cyclery.report.benchmark_cells import Entry, Notes
from cyclery.report.benchmark_columns import Strip, few, padded, strips
from cyclery.report.benchmark_join import Joined, joined
from cyclery.report.download import Rows, file
from cyclery.report.model import Slugs, amount, duration, seed_list
from cyclery.report.view_types import BenchmarkView, GridLine, Value

_DIGITS = 6  # of a downloaded figure
_LARGEST = 3  # columns named with their cost


def tables(
    parts: Sequence[Evidence], others: Sequence[Evidence], slugs: Slugs, name: str
) -> list[BenchmarkView]:
    """Return the benchmark tables of a paper that show something.

    Args:
        parts: the evidence that the report is of.
        others: evidence of the same paper at other tiers.
        slugs: names given so far.
        name: what the report calls the paper.
    """
    found = joined(parts, others)
    views = []
    for table in found:
        slug = slugs.make(parts[0]["paper"]["id"], table.table["id"])
        views.append(_view(table, slug, name, parts[0]["commands"]["part"]))
    if views:
        origins = chain.from_iterable(words.provenance_notes(p) for t in found for p in t.parts)
        # Half a page if under every table.
        views[0]["notes"] += [" ".join(dict.fromkeys(origins))] if found[0].parts else []
    return views


def _view(table: Joined, slug: str, name: str, command: str) -> BenchmarkView:
    notes, sources = Notes(), dict[str, int]()
    found, kept = strips(table, notes, sources), table.full_rows()
    heads = padded([table.rows[i]["heads"] for i in kept])
    rows: list[GridLine] = [
        {"heads": h, "value": None, "by": table.rows[i]["by"], "tier": ""}
        for i, h in zip(kept, heads, strict=True)
    ]
    columns = [strip.line() for strip in found]
    entries = [list(row) for row in zip(*(strip.entries for strip in found), strict=True)]
    data = file(slug, _sheet(table, found, kept), _DIGITS)
    values = {strip.value for strip in found}
    shown = [entry for row in entries for entry in row]
    below = _below(table, shown, kept, values, " ".join(notes.texts()))
    if table.turned:
        rows, columns = columns, rows
        entries = [list(column) for column in zip(*entries, strict=True)]
    return {
        "slug": slug, "paper": name, "title": table.table["title"],
        "caption": table.table["caption"], "lines": _lines(table),
        "columns": columns, "rows": rows,
        "cells": [[entry.cell for entry in line] for line in entries],
        "values": [value for value in get_args(Value) if value in values],
        "notes": [*notes.texts(), *below, *_sources(sources), *costs(table)],
        "command": command, "file": data,
    }  # fmt: skip


def _sheet(table: Joined, found: list[Strip], kept: list[int]) -> Rows:
    """Return every figure as a row of CSV."""
    figures = ["mean", "sd", "low95", "high95", "n", "source"]
    out: Rows = [["row", "column", "whose", "by", "tier", *figures]]
    for place, i in enumerate(kept):
        for strip in found:
            figure = strip.entries[place].figure
            if figure:
                at = [", ".join(filter(None, h)) for h in (table.rows[i]["heads"], strip.heads)]
                by = strip.by or table.rows[i]["by"] if strip.value == "printed" else None
                out.append([
                    *(at[::-1] if table.turned else at), strip.value, by, strip.tier, figure.mean,
                    figure.sd, figure.low, figure.high, figure.n, figure.source,
                ])  # fmt: skip
    return out


def _lines(table: Joined) -> list[str]:
    """Say of every tier whether it may be compared with what is printed, and why not."""
    out = []
    for tier in table.tiers():
        ours = list(table.ours[tier].values())
        beside = any(one.same and at in table.printed for at, one in table.ours[tier].items())
        name = f"{tier[:1].upper()}{tier[1:]} tier"
        if any(one.same for one in ours):
            sense = table.same.get(tier, "the paper's data and setting").rstrip(".")
            said = " Differences are ours minus printed." if beside else ""
            out.append(f"{name}: {sense}.{said}")
        apart = [one for one in ours if not one.same]
        if not apart:
            continue
        images = sorted({one.arm["images"] for one in apart if one.arm["images"]})
        seen = [amount(images[0]), *([amount(images[-1])] if len(images) > 1 else [])]
        runs = sorted({len(one.metric["values"]) for one in apart})
        facts = [
            few(one.arm["data"] for one in apart), few(one.arm["network"] for one in apart),
            f"{' to '.join(dict.fromkeys(seen))} images a run" if images else "",
            f"{runs[0]} to {runs[-1]} seeds" if len(runs) > 1 else words.plural(runs[0], "seed"),
        ]  # fmt: skip
        why = "not the paper's data or setting, so nothing is subtracted"
        out.append(f"{name}: {', '.join(filter(None, facts))}: {why}.")
    if not out:
        out.append("No tier has figures of ours for this table yet.")
    return [*out, *filter(None, [table.table["note"]])]


def _below(
    table: Joined, entries: list[Entry], rows: list[int], values: set[Value], keyed: str
) -> list[str]:
    """Return the notes that belong to no single cell."""
    out = []
    if any(entry.cell["bold"] for entry in entries):
        out.append(
            "Bold: the best of ours, by more than the 95 % interval of the paired difference to "
            "the next; lines that do not compete, as a teacher's, apart."
        )
    means = ["of ours the standard deviation over seeds"] if "ours" in values else []
    if any(one.arm["units"] for tier in table.tiers() for one in table.ours[tier].values()):
        means = ["of ours the standard deviation over seeds, those that share a parent once"]
    if any(printed.figure["std"] is not None for printed in table.printed.values()):
        means += ["of printed figures theirs over runs"] if table.table["spread"] == "sd" else []
    if means:
        seeds = {
            tier: seed_list(s for one in table.ours[tier].values() for s in one.metric["seeds"])
            for tier in table.tiers()
        }
        used = "; ".join(f"{tier} {text}" for tier, text in seeds.items())
        out.append(f"After ±: {words.listed(means)}." + (f" Seeds: {used}." if used else ""))
    by: dict[str, list[str]] = {}
    for line in (*(table.rows[i] for i in rows), *table.columns):
        if line["by"]:
            by.setdefault(line["by"], []).append(line["heads"][-1])
    if by:
        said = "; ".join(f"{', '.join(names)} by {who}" for who, names in by.items())
        out.append(f"In italics, reproduced by others than the paper's authors: {said}.")
    out += _lacking(table, keyed)
    for tier, lines in table.strange.items():
        out.append(
            f"Left out of the {tier} tier, whose evidence was made with other lines: {few(lines)}; "
            "make it again."
        )
    left = [", ".join(r["heads"]) for i, r in enumerate(table.rows) if i not in rows]
    if left:
        out.append(f"Left out, without any figure: {few(left)}.")
    return out


def _lacking(table: Joined, keyed: str) -> list[str]:
    """Say of columns in which nothing of ours stands at any tier why, those of a reason together.

    Those that notes of cells say, as of a method, are left out where there are others.
    """
    filled = {j for cells in table.ours.values() for _, j in cells}
    why: dict[str, list[int]] = {}
    for j, line in enumerate(table.columns):
        reasons = list(dict.fromkeys(
            reason for cells in table.empty.values() for (i, at), reason in cells.items()
            if at == j and reason and not table.rows[i]["by"]
        ))  # fmt: skip
        if j in filled or line["by"] or not reasons:
            continue
        fresh = [r for r in reasons if r.lower() not in keyed.lower()] or reasons
        why.setdefault("; ".join(fresh), []).append(j)
    return [f"Nothing of ours in {_together(table, js)}: {why}." for why, js in why.items()]


def _together(table: Joined, places: Sequence[int]) -> str:
    """Name columns, those under a common head once, and by that alone where it has no others."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for j in range(len(table.columns)):
        groups.setdefault(tuple(table.columns[j]["heads"][:-1]), []).append(j)
    out = []
    for outer, members in groups.items():
        inner = [table.columns[j]["heads"][-1] for j in members if j in places]
        whole = outer and len(inner) == len(members)
        text = "" if whole else ", ".join(inner)
        if inner:
            out.append(
                f"{', '.join(outer)} ({text})" if outer and text else ", ".join(outer) or text
            )
    return ", ".join(out)


def _sources(sources: dict[str, int]) -> list[str]:
    listed = "; ".join(f"[{place}] {source.rstrip('.')}" for source, place in sources.items())
    return [f"Printed figures were read in {listed}."] if sources else []


def costs(table: Joined) -> list[str]:
    """Say for each tier what training would fill the empty cells, a run that they share once."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for (i, j), fill in table.fill.items():
        if (i, j) not in table.ours.get(fill["tier"], {}):
            _take(found.setdefault(fill["tier"], {}).setdefault(j, {}), fill["seconds"])
    out = []
    for tier, columns in found.items():
        together: dict[str, float] = {}
        for runs in columns.values():
            _take(together, runs)
        total = sum(together.values())
        said = f"Ours at the {tier} tier would take about {duration(total)} of training"
        size = {j: sum(runs.values()) for j, runs in columns.items()}
        largest = sorted(size, key=lambda j: -size[j])[:_LARGEST]
        named = "; ".join(
            f"{', '.join(table.columns[j]['heads'])} {duration(size[j])}" for j in sorted(largest)
        )
        rest = " among them " if len(size) > _LARGEST else " "
        out.append(f"{said}:{rest}{named}." if len(size) > 1 else f"{said}.")
    return out


def _take(runs: dict[str, float], more: Mapping[str, float]) -> None:
    """Add runs to others, the longer time of those that both have: trials need fewer seeds."""
    runs |= {run: max(time, runs.get(run, 0.0)) for run, time in more.items()}
