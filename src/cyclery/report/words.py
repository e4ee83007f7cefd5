"""Sentences of the report: summary, scope, what was run, table notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

from cyclery.records.claims import DECIDED
from cyclery.records.evidence import Evidence
from cyclery.report.leaders import VARIES
from cyclery.report.model import (
    UNTUNED,
    amount,
    duration,
    metric_name,
    seed_list,
    trained_trials,
    tried,
)

# Metrics that a note names; more are counted.
LISTED = 8


def listed(words: list[str]) -> str:
    """Join words as a sentence does: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def plural(count: int, word: str) -> str:
    """Return a count with its noun."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def title(tiers: Sequence[str]) -> str:
    """Return the question that the report answers."""
    return f"Which claims hold at the {tiers[0]} tier?" if len(tiers) == 1 else "Which claims hold?"


def summary(counts: Counter[str], papers: int, tiers: Sequence[str]) -> str:
    """Say in two sentences how many claims there are and how many the tiers could decide."""
    total = sum(counts.values())
    if not total:
        return "There is no claim to judge yet."
    decided = sum(counts[v] for v in DECIDED)
    said = listed([f"{counts[v]} {v}" for v in DECIDED if counts[v]])
    who = f"the {listed(list(tiers))} tier{'s' if len(tiers) > 1 else ''}"
    words = f"Of {plural(total, 'claim')} in {plural(papers, 'paper')}, {who} "
    words += f"could decide {decided}: {said}." if decided else "could decide none."
    endings = {
        "inconclusive": ("stays", "stay", "inconclusive"),
        "not run": ("was", "were", "not run"),
    }
    rest = [f"{counts[v]} {one if counts[v] == 1 else more} {end}"
            for v, (one, more, end) in endings.items() if counts[v]]  # fmt: skip
    return f"{words} {listed(rest)}." if rest else words


def scope(tiers: Sequence[str]) -> str:
    """Say what a verdict of these tiers is about."""
    if len(tiers) > 1:
        return (
            f"In front stands the verdict of the tier nearest to the paper that decided a claim: "
            f"{', '.join(tiers)}, in this order. Each is about its own tier: its data, networks "
            "and budget."
        )
    if tiers[0] == "paper":
        return "Each verdict is about the paper tier: the papers' own data and budgets, run here."
    return (
        f"A verdict at {tiers[0]} is about {tiers[0]} only: its data, networks and budget. It says "
        "nothing yet about the claim at the paper's own scale."
    )


def _origin(part: Evidence) -> dict[str, list[str]]:
    facts = part["provenance"]
    versions = [
        ", ".join(f"{k} {v}" for k, v in one.items()) for one in facts["versions"]
    ]  # fmt: skip
    return {
        "Device": [text[:160] for text in facts["devices"]],
        "Versions": [text[:160] for text in versions],
        "Commit": [commit[:12] for commit in facts["commits"]],
    }


def provenance_notes(part: Evidence) -> list[str]:
    """Return device, versions and commit in the words that stand under every table."""
    return [f"{name}: {'; '.join(values)}." for name, values in _origin(part).items() if values]


def _facts(parts: Sequence[Evidence]) -> dict[str, str]:
    """Return seeds, devices, versions and commits of parts of one tier."""
    seeds = chain.from_iterable(part["provenance"]["seeds"] for part in parts)
    origins = [_origin(part) for part in parts]
    return {
        "Seeds": seed_list(seeds),
        **{
            name: "; ".join(dict.fromkeys(chain.from_iterable(each[name] for each in origins)))
            for name in origins[0]
        },
    }


def _by_tier(name: str, facts: Mapping[str, Mapping[str, str]]) -> str:
    """Return a fact as a sentence; where tiers differ, what it is at each."""
    found = {tier: each[name] for tier, each in facts.items() if each[name]}
    said = list(dict.fromkeys(found.values()))
    if len(said) > 1:
        said = [f"at {tier} {text}" for tier, text in found.items()]
    return f"{name}: {'; '.join(said)}." if said else ""


def paper_notes(parts: list[Evidence]) -> list[str]:
    """Return what stands under the tables of a whole paper: rule, seeds, tuning, budget, origin."""
    experiments = [e for p in parts for e in p["experiments"]]
    if not experiments:
        return []
    rules = dict.fromkeys(e["selection_rule"] for e in experiments)
    counts = [tried(a) for e in experiments for a in e["arms"]]
    tuned = sum(bool(count) for count in counts)
    total = sum(trained_trials(a) for e in experiments for a in e["arms"])
    by_tier: dict[str, list[Evidence]] = {}
    for part in parts:
        by_tier.setdefault(part["tier"], []).append(part)
    facts = {tier: _facts(own) for tier, own in by_tier.items()}
    seeds, *origin = (_by_tier(name, facts) for name in next(iter(facts.values())))
    said = [
        f"Selection: {'; '.join(rules)}.", _judged_by(parts), seeds,
        f"Tuning: {tuned} of {len(counts)} arms, {total} trials in all, chosen on validation."
        if tuned else UNTUNED,
        "Budget: in the table of each experiment's arms, with images and time.", *origin,
    ]  # fmt: skip
    return [" ".join(filter(None, said))]


def _judged_by(parts: list[Evidence]) -> str:
    """Name the metrics that claims compare: some are a median of the last evaluations."""
    used = (row["metric"] for p in parts for claim in p["claims"] for row in claim["comparisons"]
            if row["effect"] is not None)  # fmt: skip
    names = list(dict.fromkeys(map(metric_name, used)))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Judged by: {', '.join(names[:LISTED])}{more}." if names else ""


def compute(parts: list[Evidence]) -> list[tuple[str, str]]:
    """Return what a paper cost: runs, device time and images."""
    found = [p["provenance"] for p in parts]
    devices = "; ".join(dict.fromkeys(d for one in found for d in one["devices"]))
    seconds = sum(one["seconds"] for one in found)
    images = sum(one["images"] for one in found)
    runs = sum(one["records"] for one in found)
    if not runs:
        return []
    hours = f"{seconds / 3600:.2g} device-hours ({duration(seconds)})"
    facts = [("Runs", amount(runs)), ("Time", hours), ("Images", amount(images)), ("On", devices)]
    return [(name, text) for name, text in facts if text]


def ran(parts: list[Evidence]) -> str:
    """Say in two sentences what was run for a paper."""
    experiments = [e for p in parts for e in p["experiments"] if e["arms"]]
    if not experiments:
        return "Nothing was run for this paper."
    arms = sum(len(e["arms"]) for e in experiments)
    seeds = sorted({a["n"] for e in experiments for a in e["arms"] if a["n"]}) or [0]
    found = ({k.lower(): v for k, v in e["settings"].items()} for e in experiments)
    used: dict[str, dict[str, None]] = {"dataset": {}, "network": {}}
    for settings in found:
        for name, words in used.items():
            text = settings.get(name, "").split(" (")[0]
            if text and text != VARIES:
                words.setdefault(text)
    data, networks = (listed(list(words)) for words in used.values())
    said = f"{plural(len(experiments), 'experiment')} with {plural(arms, 'arm')}"
    said += f" of {seeds[0]}" if len(seeds) == 1 else f" of {seeds[0]} to {seeds[-1]}"
    said += " seeds" if seeds[-1] != 1 else " seed"
    said += f" on {data}" if data else ""
    return f"{said}{f', with {networks}' if networks else ''}."
