"""Prepare the data that the templates render: numbers formatted, sentences made.

The templates only place things; every number is formatted and every sentence made in Python, so
the page and the LaTeX document cannot disagree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cyclery import __version__
from cyclery.records.evidence import Evidence, Experiment, PaperFacts, RangeTest
from cyclery.records.metrics import THIRDS
from cyclery.report import (
    benchmark,
    benchmark_join,
    chains,
    contents,
    figures,
    leaders,
    methods_table,
    plots,
    searches,
    tiers,
    tuning,
    words,
)
from cyclery.report.chart import Chart
from cyclery.report.claims import claim
from cyclery.report.intervals import domain
from cyclery.report.model import Slugs, amount, duration, number, seed_list
from cyclery.report.view_types import (
    ChartView,
    ClaimView,
    ExperimentView,
    LeadersView,
    PaperView,
    PlacedClaim,
    ProvenanceView,
    RangeView,
    ReportView,
)

# What makes a report of several tiers.
ATLAS = "snakemake --cores all atlas"
_NUMBERED = re.compile(r"-\d")
_ARXIV = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")


def _pairs(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _charts(found: list[Chart | None]) -> list[ChartView]:
    return [
        {
            "slug": c.slug,
            "title": c.title,
            "caption": c.description[:1].upper() + c.description[1:],
            "chart": c,
        }
        for c in found
        if c
    ]


def _place(part: Evidence, several: bool) -> tuple[list[str], str]:
    """Return what names and titles of a tier's things have besides, where there are several."""
    return ([part["tier"]], f" ({part['tier']} tier)") if several else ([], "")


def experiment(
    raw: Experiment, part: Evidence, claims: list[ClaimView], slugs: Slugs, prefix: str,
    several: bool = False,
) -> ExperimentView:  # fmt: skip
    """Return one experiment with its table and figures.

    `claims` are those of its paper at every tier; `several` says whether that is more than one.
    """
    under, beside = _place(part, several)
    slug = slugs.make(prefix, *under, raw["id"].removeprefix(f"{prefix}-"))
    title = f"{raw['title']}{beside}"
    items = [
        c
        for one in claims if (one["tier"], one["part"]) == (part["tier"], part["part"])
        for c in one["comparisons"] if c["experiment"] == raw["id"]
    ]  # fmt: skip
    measured = {s for a in raw["arms"] for m in a["metrics"].values() for s in m["seeds"]}
    # Arms may have costs and curves, and no figure.
    seeds = measured or part["provenance"]["seeds"]
    notes = [f"Selection: {raw['selection_rule']}. Seeds: {seed_list(seeds)}."]
    notes += ["Mean ± half of the 95 % interval over seeds.", *words.provenance_notes(part)]
    notes = [" ".join(notes)]
    if raw["not_run"]:
        reasons = dict.fromkeys(raw["not_run"].values())
        absent = "; ".join(
            f"{', '.join(k for k, v in raw['not_run'].items() if v == why)} ({why})"
            for why in reasons
        )
        notes.append(f"Arms not run at this tier: {absent}.")
    used = [c["metric"] for c in items]
    extra = [
        m for m in dict.fromkeys([*used, *THIRDS])
        if any(m in a["metrics"] for a in raw["arms"])
    ]  # fmt: skip
    notes.append(contents.tuning(raw["arms"]))
    if part["printed"]:
        notes.append("What the paper prints, and where it was read, stands at the end of its part.")
    raw = {**raw, "title": title}
    table = contents.arms(slugs.make(slug, "arms"), raw, extra, notes)
    at = slugs.make(slug, "trials")
    trials = contents.trials(at, raw, notes[:1]) or searches.table(at, raw, notes[:1])
    lines, constant = figures.schedules(
        slugs.make(slug, "schedules"), title, raw["schedules"], raw["arms"]
    )
    known = {(e["id"], arm["id"]): arm for e in part["experiments"] for arm in e["arms"]}
    charts = _charts([
        *(plots.chart(slugs.make(slug, plot["id"]), plot, known)
          for plot in part.get("plots", ()) if plot["experiment"] == raw["id"]),
        chains.picture(slugs.make(slug, "chain"), title, raw["chain"], raw["arms"]),
        figures.paired(slugs.make(slug, "paired"), title, items, raw["arms"]),
        figures.curves(slugs.make(slug, "curves"), title, raw["curves"], raw["arms"]),
        lines,
        tuning.chart(slugs.make(slug, "tuning"), title, raw["arms"]),
        *searches.charts(slugs, slug, raw),
    ])  # fmt: skip
    settings = dict(raw["settings"])
    if constant:
        settings["Held constant in every arm"] = ", ".join(constant)
    return {
        "id": raw["id"], "title": title, "description": raw["description"],
        "selection_rule": raw["selection_rule"], "command": raw["command"],
        "not_run": raw["not_run"], "chain": raw["chain"], "arms": raw["arms"],
        "curves": raw["curves"], "schedules": raw["schedules"], "warnings": raw["warnings"],
        "slug": slug, "tier": part["tier"], "settings": settings,
        "charts": charts,
        "source": table if raw["arms"] else None, "source_trials": trials,
    }  # fmt: skip


def range_test(
    raw: RangeTest, part: Evidence, slugs: Slugs, prefix: str, several: bool = False
) -> RangeView:
    """Return one range test with its figure and readings; `several`: the report's tiers."""
    under, beside = _place(part, several)
    slug = slugs.make(prefix, *under, "range", raw["label"])
    raw = {**raw, "label": f"{raw['label']}{beside}"}
    said = f"Seeds: {seed_list(raw['seeds'])}. Read from held-out accuracy, no other tuning."
    budget = ", ".join(f"{name} {value}" for name, value in raw["settings"].items())
    notes = " ".join([said, f"Budget of a seed: {budget or 'not stated'}.",
                      *words.provenance_notes(part)])  # fmt: skip
    command = part["commands"]["part"]
    table = contents.readings(slugs.make(slug, "readings"), raw, [notes], command)
    return {
        "key": raw["key"], "label": raw["label"], "seeds": raw["seeds"], "lr": raw["lr"],
        "accuracy": raw["accuracy"], "loss": raw["loss"], "base": raw["base"], "max": raw["max"],
        "readings": raw["readings"], "flags": raw["flags"], "settings": raw["settings"],
        "slug": slug, "tier": part["tier"], "source": table,
        "charts": _charts([figures.range_test(slugs.make(slug, "plot"), raw)]),
    }  # fmt: skip


def _citation(paper: PaperFacts) -> list[str]:
    """Return authors and venue with year, apart: either may run from right to left."""
    year = str(paper["year"])
    dated = re.search(r"\b(19|20)\d\d\b", paper["venue"])
    venue = paper["venue"] if dated else f"{paper['venue']}, {year}"
    parts = (paper["authors"], (venue if paper["venue"] else year).strip(", "))
    return [p.rstrip(".") + "." for p in parts if p]


def paper(parts: list[Evidence], slugs: Slugs, others: Sequence[Evidence] = ()) -> PaperView:
    """Return one paper from the parts of evidence about it; `others` are of other tiers."""
    facts = parts[0]["paper"]
    slug = slugs.make(facts["id"])
    own = [p for p in parts if p["tier"] == parts[0]["tier"]]
    raw: list[PlacedClaim] = [
        {**c, "tier": p["tier"], "part": p["part"]} for p in parts for c in p["claims"]
    ]
    # Claims carry the paper's short name: CLR-2, KD-FIDELITY-1-gap.
    prefixes = Counter(_NUMBERED.split(one["id"])[0] for one in raw)
    name = max(prefixes, key=prefixes.__getitem__, default=facts["id"])
    axis = domain([c for one in raw for c in one["comparisons"] if c["unit"] == "pp"], centred=True)
    arms = {
        (p["tier"], p["part"]): {(e["id"], a["id"]): a for e in p["experiments"] for a in e["arms"]}
        for p in parts
    }
    names = {name: slugs.make("claim", name) for name in dict.fromkeys(one["id"] for one in raw)}
    views = [
        claim(one, slugs.make(names[one["id"]], one["tier"]), slugs, axis,
              arms[one["tier"], one["part"]])
        for one in raw
    ]  # fmt: skip
    found = tiers.nearest(p["tier"] for p in parts)
    several = len(found) > 1
    experiments = [
        experiment(e, p, views, slugs, slug, several) for p in parts for e in p["experiments"]
    ]
    for one in views:
        used = {row["experiment"] for row in one["comparisons"]}
        one["experiments"] = [(e["slug"], e["title"] or e["id"]) for e in experiments
                              if e["tier"] == one["tier"] and e["id"] in used]  # fmt: skip
    claims = tiers.merge(views, names)
    decided = [c for c in claims if c["state"] == "decided"]
    deviations = list(dict.fromkeys(d for p in parts for d in p["paper"]["deviations"]))
    view: PaperView = {
        "id": facts["id"], "title": facts["title"], "authors": facts["authors"],
        "year": facts["year"], "arxiv": facts["arxiv"], "venue": facts["venue"],
        "summary": facts["summary"], "name": name, "slug": slug, "claims": claims,
        "family": facts.get("family", "other"),
        "decided": decided, "undecided": [c for c in claims if c["state"] == "undecided"],
        "folds": tiers.folds(claims), "counts": tiers.counted(c["verdict"] for c in claims),
        "tiers": found, "absent": [],
        "deviations": deviations,
        "citation": _citation(facts), "tally": f"{len(decided)} of {len(claims)} decided",
        "link": f"https://arxiv.org/abs/{facts['arxiv']}"
        if _ARXIV.fullmatch(facts["arxiv"] or "") else "",
        "scale": f"strips span ±{number(axis[1], 1)} pp"
        if any(c["board"] for one in claims for c in one["comparisons"]) else "",
        "experiments": experiments,
        "ranges": [range_test(r, p, slugs, slug, several) for p in parts for r in p["ranges"]],
        "printed_rows": [row for p in own for row in p["printed"]],
        "in_tables": benchmark_join.showing(own), "benchmarks": [],
        "command": parts[0]["commands"]["part"],
        "compute": words.compute(parts), "ran": words.ran(parts),
        "notes": words.paper_notes(parts),
        "board_table": None, "comparison_table": None, "printed_table": None,
        "printed_rest": None,
    }  # fmt: skip
    notes = view["notes"]
    view["board_table"] = contents.board(slugs.make(slug, "verdicts"), view, notes) if raw else None
    view["comparison_table"] = contents.comparisons(slugs.make(slug, "comparisons"), view, notes)
    listed = slugs.make(slug, "printed")
    view["printed_table"] = contents.printed(listed, view)
    view["printed_rest"] = contents.printed(listed, view, rest=True)
    view["benchmarks"] = benchmark.tables(parts, others, slugs, name)
    return view


def provenance(part: Evidence, several: bool = False) -> ProvenanceView:
    """Return the provenance of one part as labelled facts; `several`: the report's tiers."""
    found = part["provenance"]
    versions = [_pairs(one) for one in found["versions"]]
    warnings = list(found["warnings"])
    if len(versions) > 1:
        warnings.append(f"The runs mix {len(versions)} sets of library versions.")
    records = f"{found['records']}, of which {found['diverged']} diverged"
    facts = [
        ("Tier", part["tier"]), ("Records", records), ("Seeds", seed_list(found["seeds"])),
        ("Devices", "; ".join(found["devices"])), ("Versions", "; ".join(versions)),
        ("Commits", ", ".join(found["commits"])),
        ("Training time", duration(found["seconds"])), ("Images seen", amount(found["images"])),
        ("Newest run", found["made"]),
    ]  # fmt: skip
    _, beside = _place(part, several)
    return {"title": f"{part['title']}{beside}", "warnings": warnings,
            "facts": [(k, v) for k, v in facts if v], "records": found["records"],
            "made": found["made"]}  # fmt: skip


def _others(parts: list[Evidence], others: Sequence[Evidence]) -> list[Evidence]:
    """Return what is about the same paper at tiers that the report has not."""
    own = {part["tier"] for part in parts}
    return [o for o in others
            if o["paper"]["id"] == parts[0]["paper"]["id"] and o["tier"] not in own]  # fmt: skip


def report(evidence: list[Evidence], tier: str, others: Sequence[Evidence] = ()) -> ReportView:
    """Return everything that the page and the LaTeX document show (figures not yet drawn out).

    `others` is evidence of other tiers, of which benchmark tables alone show something.
    """
    slugs = Slugs()
    for taken in ("board", "provenance", "replication", "top", "leaders", "tables"):
        slugs.make(taken)
    groups: dict[str, list[Evidence]] = {}
    order = tiers.nearest(part["tier"] for part in evidence)
    for part in sorted(evidence, key=lambda part: order.index(part["tier"])):
        groups.setdefault(part["paper"]["id"], []).append(part)
    papers = [paper(parts, slugs, _others(parts, others)) for parts in groups.values()]
    for one in papers:
        one["absent"] = [name for name in order if name not in one["tiers"]]
    claims = [c for p in papers for c in p["claims"]]
    counted, shares = tiers.counted(c["verdict"] for c in claims), tiers.by_tier(papers)
    drawn = [counted, *(tier["counts"] for tier in shares)]
    parts = [provenance(part, len(order) > 1) for group in groups.values() for part in group]
    command = evidence[0]["commands"]["report"] if evidence else ""
    command = ATLAS if len(order) > 1 else command
    named = [(one["name"], group) for one, group in zip(papers, groups.values(), strict=True)]
    origin = {
        (p["tier"], p["part"]): words.provenance_notes(p)
        for group in groups.values()
        for p in group
    }
    boards: list[LeadersView] = [
        {"slug": board.slug, "title": board.title, "says": board.says,
         "source": board.table, "charts": _charts([board.chart])}
        for board in leaders.leaderboards(named, slugs, command, origin)
    ]  # fmt: skip
    tables = [table for one in papers for table in one["benchmarks"]]
    everywhere = [(name, [*group, *_others(group, others)]) for name, group in named]
    methods = methods_table.table(everywhere, slugs, command)
    shared = [methods] if methods else []
    return {
        "title": words.title(order or [tier]),
        "summary": words.summary(Counter(dict(counted)), len(papers), order or [tier]),
        "scope": words.scope(order or [tier]),
        "counts": counted, "total": len(claims),
        "tested": sum(c["state"] != "not run" for c in claims),
        "decided": sum(c["state"] == "decided" for c in claims),
        "widths": sorted({n for counts in drawn for _, n in counts}),
        "tiers": shares, "families": tiers.by_family(papers),
        "disagreements": sorted(
            (c for c in claims if c["disagreement"] != "none"),
            key=lambda c: c["disagreement"] != "opposite",
        ),
        "left_open": [c for c in claims if c["left_open"]],
        "papers": papers, "benchmarks": [*tables, *shared], "shared": shared,
        "datasets": sorted({name for c in claims for name in c["data"]}),
        "leaders": boards, "replications": [], "provenance": parts, "command": command,
        "board_notes": words.paper_notes([p for group in groups.values() for p in group]),
        "records": sum(p["records"] for p in parts),
        "made": max((p["made"] for p in parts), default=""), "version": __version__,
    }  # fmt: skip
