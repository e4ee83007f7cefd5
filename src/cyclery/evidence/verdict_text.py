"""The one-line reason of each verdict, as text; nothing else in evidence rounds numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from cyclery.common.formatting import duration
from cyclery.evidence.stats.paired_tests import MOST_SEEDS, POWER, refutes, supports
from cyclery.records.claims import ClaimFacts, Interval, Row


def amount(x: float, unit: str) -> str:
    """Return a signed effect with its unit."""
    return f"{x:+.2f} pp" if unit == "pp" else f"{x:+.3g}"


def probability(p: float) -> str:
    """Return a p-value after its relation sign."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _effect(row: Row) -> str:
    """Return the effect with the interval that decides."""
    level, ci = (90, row["ci90"]) if row["test"] == "equivalence" else (95, row["ci95"])
    effect, naive = row["effect"], row["naive95"]
    assert effect is not None and ci is not None, "why there is none is said elsewhere"
    text = f"{amount(effect, row['unit'])} ({level} % interval {ends(ci, row['unit'])}"
    if _several_looks(row) and level == 95 and naive:
        text += f" for all looks together, naive {ends(naive, row['unit'])}"
    return f"{text})"


def ends(ci: Interval, unit: str) -> str:
    """Return an interval as its ends, the unit being said before."""
    # A look that may spend nothing yet leaves an end open.
    low, high = (
        amount(x, unit).removesuffix(" pp") if isfinite(x) else "no bound" for x in ci
    )  # fmt: skip
    return f"{low} to {high}"


def _several_looks(row: Row) -> bool:
    return bool(row["look"] and row["look"]["of"] > 1)


def _p(row: Row, opposite: bool = False) -> str:
    """Return the p-value of the verdict, or of the opposite one, with what was done to it."""
    kind = "sequential p" if _several_looks(row) else "p"
    found = row["p_opposite_holm"] if opposite else row["p_holm"]
    assert found is not None, "what has an interval has a p-value"
    return f"Holm-adjusted {kind} {probability(found)}"


def _count(row: Row, planned: int | None, samples: int) -> str:
    """Return the number of pairs, or of what was drawn independently."""
    if row["pooled"]:
        k = row["pooled"]["k"]
        text = f"{k} experiment{'s' if k > 1 else ''}, at least n = {row['n']}"
    elif row["units"]:
        text = f"n = {row['n']} parents of {samples} seeds"
    else:
        text = f"n = {row['n']}"
    if not planned:
        return text
    look = row["look"]
    text += f" of {planned} planned"
    return f"{text}, look {look['number']} of {look['of']}" if look and look["of"] > 1 else text


def _bound(row: Row) -> str:
    """Name the margin."""
    margin = amount(row["margin"], row["unit"]).lstrip("+")
    if row["test"] == "superiority":
        return "zero" if row["margin"] == 0 else f"the margin of {margin}"
    return f"+/-{margin}" if row["test"] == "equivalence" else f"-{margin}"


def _open(row: Row, problem: str | None, samples: int) -> str:
    """Say why a comparison is open."""
    if problem:
        return problem
    if samples == 0:
        return "no usable pair of runs"
    if row["n"] < 2:
        shared = "all seeds share one parent" if samples > 1 else "one pair has no spread"
        return f"{shared}: at least 2 are needed"
    if row["ci95"] is None and row["effect"] is not None:
        same = amount(row["effect"], row["unit"])
        return f"all {row['n']} differences are {same}, so their spread cannot be estimated"
    return ""


def _settling(row: Row, planned: int | None) -> str:
    """Say what would settle an open comparison."""
    if row["seeds_to_settle"] is None:
        if row["pooled"]:
            return "more seeds alone would not settle it at this effect and spread"
        return f"more than {MOST_SEEDS} seeds would be needed at this effect and spread"
    time = duration(row["seconds_to_settle"]) if row["seconds_to_settle"] else "little time"
    text = (
        f"about {row['seeds_to_settle']} seeds ({time} more) would settle it "
        f"at this effect and spread ({100 * POWER:.0f} % power)"
    )
    return text + _as_new_plan(row["seeds_to_settle"], planned)


def _as_new_plan(seeds: int, planned: int | None) -> str:
    beyond = planned and seeds > planned
    return ", as a new plan: more than were planned decide nothing" if beyond else ""


def comparison(
    row: Row, missing: str | None, problem: str | None, planned: int | None, family: int,
    samples: int,
) -> str:  # fmt: skip
    """Return the reason of one judged comparison."""
    if missing:
        return f"{missing[0].upper()}{missing[1:]}."
    count, why = _count(row, planned, samples), _open(row, problem, samples)
    if why:
        text = f"{why[0].upper()}{why[1:]}; {count}."
    elif row["verdict"] == "reproduced":
        text = f"{_effect(row)}; {_p(row)}, {count}."
    elif row["verdict"] == "contradicted":
        text = f"{_effect(row)} {_beyond(row)}; {_p(row, opposite=True)}, {count}."
    elif row["held_back"]:
        text = (
            f"{_effect(row)} would be {row['held_back']}, but runs that diverged are left out, "
            f"unequally; {count}."
        )
    else:
        text = f"{_between(row, family)}; {count}; {_settling(row, planned)}."
    for what, lines in (("Diverged", row["diverged"]), ("Left out", row["left_out"])):
        text += f" {what}: {'; '.join(lines)}." if lines else ""
    return text


def _beyond(row: Row) -> str:
    return f"lies {'outside' if row['test'] == 'equivalence' else 'below'} {_bound(row)}"


def _between(row: Row, family: int) -> str:
    """Say where the interval of an open comparison lies, and what keeps it open."""
    test, margin, ci95, ci90 = row["test"], row["margin"], row["ci95"], row["ci90"]
    assert ci95 is not None and ci90 is not None, "why there is none is said elsewhere"
    if supports(test, margin, ci95, ci90):
        return f"{_effect(row)} clears {_bound(row)}, but {_p(row)} over {family} tests"
    if refutes(test, margin, ci95, ci90):
        return (
            f"{_effect(row)} {_beyond(row)}, but {_p(row, opposite=True)} of the opposite over "
            f"{family} tests"
        )
    spans = "is neither inside nor outside" if test == "equivalence" else "spans"
    return f"{_effect(row)} {spans} {_bound(row)}"


def exploratory(row: Row) -> str:
    """Say what seeds show that decide nothing, or nothing where there are none."""
    more, look = row["exploratory"], row["look"]
    if not more or more["effect"] is None:
        return ""
    after = "before the first look"
    if look:
        last = look["number"] == look["of"]
        after = f"after look {look['number']} of {look['of']}"
        after = f"beyond the {look['planned']} planned" if last else after
    text = f"Exploratory, {len(more['seeds'])} seeds {after}: with them the effect is "
    text += amount(more["effect"], row["unit"])
    naive = f", naive 95 % interval {ends(more['naive95'], row['unit'])}" if more["naive95"] else ""
    return f"{text} (n = {more['n']}{naive}); they decide nothing."


def fragile(row: Row) -> str:
    """Say which single seeds the verdict hangs on, or nothing where it hangs on none."""
    by_verdict: dict[str, list[str]] = {}
    for one in row["fragile"]:
        by_verdict.setdefault(one["verdict"], []).append(" and ".join(map(str, one["seeds"])))
    if not by_verdict:
        return ""
    parts = [
        f"without seed {' or '.join(seeds)} {verdict}" for verdict, seeds in by_verdict.items()
    ]
    return f"Fragile: {'; '.join(parts)}."


def claim(judged: ClaimFacts, rows: Sequence[Row]) -> str:
    """Return the reason of a judged claim: that of its comparison, or a tally."""
    if len(rows) == 1:
        return str(rows[0]["reason"])
    order = ("reproduced", "contradicted", "inconclusive", "not run")
    verdicts = [row["verdict"] for row in rows]
    tally = ", ".join(f"{verdicts.count(v)} {v}" for v in order if v in verdicts)
    text = f"Of {len(rows)} comparisons: {tally}."
    if judged["verdict"] == "partly":
        missed = [f"{row['label']} ({row['verdict']})" for row in rows
                  if row["verdict"] != "reproduced"]  # fmt: skip
        text += f" Not reproduced: {'; '.join(missed)}."
    if "inconclusive" in verdicts:
        planned = f" of {judged['planned_seeds']} planned" if judged["planned_seeds"] else ""
        text += f" n = {judged['n']}{planned};"
        if judged["seeds_to_settle"] is None:
            text += " no estimate of the seeds that would settle the rest."
        else:
            time = duration(judged["seconds_to_settle"] or 0.0)
            seeds = judged["seeds_to_settle"]
            text += f" about {seeds} seeds ({time} more) would settle the rest"
            text += f"{_as_new_plan(seeds, judged['planned_seeds'])}."
    return text
