"""Claims prepared for the templates: texts, interval strips, and links to runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cyclery.evidence import verdict_text
from cyclery.evidence.stats.paired_tests import refutes
from cyclery.records.budgets import ANCESTORS, MEASURES
from cyclery.records.claims import DECIDED, VERDICTS, Row
from cyclery.records.evidence import Arm
from cyclery.report.contents import settling
from cyclery.report.intervals import (
    digits_for,
    domain,
    effect_text,
    interval_text,
    of_printed_text,
    printed_text,
    strip,
    ticks,
)
from cyclery.report.model import Slugs, metric_name, number, typeset
from cyclery.report.tables import Cell, Column, Table
from cyclery.report.view_types import AxisGroup, ClaimView, ComparisonView, PlacedClaim

Arms = Mapping[tuple[str, str], Arm]
"""By experiment and name."""
# What arms have equal where a comparison says nothing.
USUAL = MEASURES["images"].noun
EQUAL = f"equal budgets: {USUAL}, those of {ANCESTORS['started']} among them"


def _test_text(item: Row) -> str:
    margin = f"{number(abs(item['margin']), digits_for(item))} {item['unit']}".strip()
    # Of a contrast above zero its kind says more than the word superiority.
    kind = "" if item["kind"] == "difference" else item["kind"]
    if item["test"] == "equivalence":
        said = f"equivalence within ±{margin}"
    elif item["test"] == "non-inferiority":
        said = f"non-inferiority, margin {margin}"
    elif item["margin"]:
        said = f"{'above' if kind else 'superiority,'} {'' if kind else 'margin '}{margin}"
    else:
        said = "" if kind else item["test"]
    return " ".join(filter(None, (kind and f"{kind}{',' if said else ''}", said)))


def _on_the_other_side(item: Row) -> bool:
    """Say whether the effect itself lies where a whole interval would contradict."""
    at = item["effect"]
    return at is not None and refutes(item["test"], item["margin"], (at, at), (at, at))


def _comparison(
    claim: str, item: Row, board_axis: tuple[float, float] | None, arms: Arms
) -> ComparisonView:
    """Return one comparison with its texts."""
    chosen = item["chosen"]
    known = arms.get((item["experiment"], chosen)) if chosen else None
    chosen = known["label"] if known else chosen
    # What lies on the other side is held against the opposite test, whatever came of it.
    against = item["p_opposite_holm"] is not None and _on_the_other_side(item)
    adjusted = item["p_opposite_holm"] if against else item["p_holm"]
    p = adjusted if adjusted is not None else item["p"]
    shown = "< 0.001" if p is not None and p < 0.001 else f"= {number(p, 3)}"
    shown = f"p of the opposite {shown}" if against else f"p {shown}"
    return {
        **item,
        "claim": claim,
        "says_label": item["label"] + (f" (chosen: {chosen})" if chosen else ""),
        "says_effect": f"{number(item['effect'], digits_for(item), sign=True)} {item['unit']}",
        "says_ci": interval_text(item), "p_adjusted": adjusted,
        "says_test": _test_text(item), "says_printed": _printed(item), "asides": _asides(item),
        "says_p": shown + (" (Holm)" if adjusted is not None else "") if p is not None else "",
        "board": strip(item, board_axis or domain([item], centred=True)),
        "card": None,
    }  # fmt: skip


def _printed(item: Row) -> str:
    """Say which effect the paper prints, and where it was read."""
    shown, found = printed_text(item), item["printed"]
    if not found:
        return ""
    how = " (from memory)" if found["confidence"] == "memory" else ""
    size = of_printed_text(item)
    size = (
        f" Ours is {size} of it; the verdict is about the direction, or the margin." if size else ""
    )
    return f"The paper prints {shown}: {found['source']}{how}.{size}"


def _asides(item: Row) -> list[str]:
    """Return remarks on a comparison: what was left out, how pairs were made."""
    said: list[str | None] = []
    if item["effect"] is None and item["verdict"] != "not run":
        said.append(typeset(item["reason"]))
    if item["against_metric"]:
        metric, other = metric_name(item["metric"]), metric_name(item["against_metric"])
        said.append(f"{metric[:1].upper()}{metric[1:]} compared with {other}.")
    said += [item["detail"], _printed(item)]
    if item["bca95"]:
        said.append(f"Bootstrap (BCa) interval {interval_text(item, 'bca95')}.")
    if item["look"] and item["look"]["of"] > 1 and item["naive95"]:
        said.append(f"Naive 95 % interval, as if looked at once: {interval_text(item, 'naive95')}.")
    said += [typeset(verdict_text.exploratory(item)), typeset(verdict_text.fragile(item))]
    said += [sensitivity(item), _stated(item)]
    if item["pooled"]:
        said.append(f"Random-effects mean of {item['pooled']['k']} experiments.")
    if item["units"]:
        said.append(f"Seeds that share a parent count once: {len(item['units'])} units.")
    said.append(budgets(item))
    if item["diverged"]:
        said.append(f"Diverged: {'; '.join(item['diverged'])}.")
    if item["left_out"]:
        said.append(f"Left out: {'; '.join(item['left_out'])}.")
    return [text for text in said if text]


def budgets(item: Row) -> str:
    """Say what the arms have equal where it is not the usual, or why it is not equal."""
    what = MEASURES[item["equal"]].noun
    what += {"all": ", all ancestors counted", "none": ", ancestors not counted"}.get(
        item["ancestors"], ""
    )
    if item["unequal_budget"]:
        named = "" if what == USUAL else f" ({what})"
        return f"Unequal budgets{named}: {item['unequal_budget']}."
    return "" if what == USUAL else f"Equal budgets: {what}."


def sensitivity(item: Row) -> str:
    """Return the sensitivity analyses of a verdict in one sentence, or nothing."""
    found = item["beside"]
    if not found:
        return ""
    p = found["p_sign_flip"]
    parts = [f"sign-flip p {'< 0.001' if p < 0.001 else f'= {number(p, 3)}'}",
             f"{100 * found['improvement']:.0f}\u00a0% of pairs in favour"]  # fmt: skip
    if len(found["iqm"]) in (1, 2):
        digits = 2 if item["unit"] == "pp" else 4
        means = " and ".join(number(mean, digits) for mean in found["iqm"])
        parts.append(f"interquartile mean{'s' if len(found['iqm']) == 2 else ''} {means}")
    return f"Beside it, deciding nothing: {'; '.join(parts)}."


def _stated(item: Row) -> str:
    """Return the effect that a comparison states, and the seeds that would find it."""
    if item["stated_effect"] is None:
        return ""
    effect = f"{number(item['stated_effect'], digits_for(item), sign=True)} {item['unit']}".strip()
    seeds = item["seeds_for_power"]
    if seeds is None:
        why = (
            "more than 10,000 seeds"
            if item["sd"]
            else "an unknown number of seeds, without spread,"
        )
        return f"Stated effect {effect}: {why} would find it with 80\u00a0% power."
    return f"Stated effect {effect}: {seeds} seeds would find it with 80\u00a0% power."


# What is drawn on the axis of a comparison.
AXES = {
    "difference": "difference in", "interaction": "difference of differences in",
    "trend": "rise along the trend in", "ordering": "smallest step in",
    "rank correlation": "rank correlation of", "flatness": "difference in flatness of",
}  # fmt: skip


def _groups(items: list[ComparisonView]) -> list[AxisGroup]:
    """Group a claim's comparisons by unit: each group shares one axis and its ticks."""
    out: list[AxisGroup] = []
    for unit in dict.fromkeys(item["unit"] for item in items):
        group = [item for item in items if item["unit"] == unit]
        some = [item for item in group if item["effect"] is not None]
        axis = domain(some)
        names = list(dict.fromkeys(metric_name(item["metric"]) for item in group))
        kinds = {item["kind"] for item in group}
        of = AXES.get(kinds.pop(), "contrast of") if len(kinds) == 1 else "contrast of"
        for item in group:
            item["card"] = strip(item, axis)
        words = f"{of} {names[0]}" if len(names) == 1 else of.rpartition(" ")[0]
        out.append({"rows": group, "ticks": ticks(axis) if some else [],
                    "axis": f"{words} ({unit})" if unit else words})  # fmt: skip
    return out


def _trace(slug: str, item: ComparisonView) -> Table | None:
    """Return the table of seeds, differences and run keys behind a comparison."""
    rows: list[list[Cell]] = []
    # A difference names its sides in the label, a contrast of more runs in the header.
    heads = ["Run", "Against run"] if len(item["columns"]) <= 2 else item["columns"]
    for place, seed in enumerate(item["seeds"]):
        difference = item["differences"][place] if place < len(item["differences"]) else None
        keys = item["keys"][place] if place < len(item["keys"]) else []
        # A constant is no run.
        texts = ["" if key is None else str(key)[:12] for key in keys]
        padded = [*texts, *[""] * len(heads)][: len(heads)]
        rows.append([str(seed), difference, *padded])
    unit = f" ({item['unit']})" if item["unit"] else ""
    word = "Difference" if item["kind"] == "difference" else "Contrast"
    columns = [Column("Seed", "right"), Column(f"{word}{unit}", "number", digits_for(item)),
               *(Column(head) for head in heads)]  # fmt: skip
    return Table(slug, item["says_label"], columns, rows).trimmed() if rows else None


def _sentence(text: str) -> str:
    """Return a reason as a sentence: those of the configuration are clauses."""
    return typeset(
        f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
    )


def shares(items: Sequence[Row]) -> str:
    """Return the effect as a share of the printed one; of several the smallest and the largest."""
    known = [item for item in items if of_printed_text(item)]
    if len(known) == 1:
        return of_printed_text(known[0])
    found = sorted(item["of_printed"]["share"] for item in known if item["of_printed"])
    return f"{number(100 * found[0], 0)} to {number(100 * found[-1], 0)}\u00a0%" if found else ""


def _data(items: Sequence[Row], arms: Arms) -> list[str]:
    """Return the datasets of a claim's experiments, without their splits."""
    used = {item["experiment"] for item in items}
    named = (arm["data"].split(",")[0] for (where, _), arm in arms.items() if where in used)
    return list(dict.fromkeys(filter(None, named)))


def claim(
    raw: PlacedClaim, slug: str, slugs: Slugs, axis: tuple[float, float], arms: Arms
) -> ClaimView:
    """Return one claim at one tier, as its card shows it; `arms` are those of its part."""
    items = [
        _comparison(raw["id"], c, axis if c["unit"] == "pp" else None, arms)
        for c in raw["comparisons"]
    ]
    # A pooled claim has one test, its mean; the members are described next to it.
    deciding = [c for c in items if c["pooled"] or c["arm"] == "pooled"] or items
    measured = [c for c in deciding if c["effect"] is not None]
    settle = settling(raw) if raw["verdict"] in ("partly", "inconclusive") else ""
    planned = raw["planned_seeds"]
    seeds = f"{raw['n']} of {planned} planned seeds" if planned else f"{raw['n']} seeds"
    foreseen = raw["seeds_for_power"]
    facts = [raw["source"], f"{raw['tier']} tier", seeds, settle and f"to settle here: {settle}",
             foreseen and f"{foreseen} seeds find the stated effect (80\u00a0% power)"]  # fmt: skip
    rules = {
        _test_text(c) if c["test"] != "superiority" or c["margin"] else "" for c in deciding
    }  # fmt: skip
    budget = "" if any(budgets(c) for c in items) else EQUAL
    facts.append(budget if measured else "")
    effect = f"{len(measured)} comparisons" if measured else "\u2013"
    if len(measured) == 1:
        effect = effect_text(measured[0]) + (", pooled" if measured[0]["pooled"] else "")
    found = [c["of_printed"]["share"] for c in deciding if c["of_printed"] and of_printed_text(c)]
    traces = [_trace(slugs.make(slug, "trace"), c) for c in items]
    return {
        "id": raw["id"], "statement": raw["statement"], "source": raw["source"],
        "own_definition": raw["own_definition"], "note": raw["note"],
        "planned_seeds": planned, "n": raw["n"], "seeds_to_settle": raw["seeds_to_settle"],
        "seeds_for_power": foreseen, "seconds_to_settle": raw["seconds_to_settle"],
        "verdict": raw["verdict"], "reason": _sentence(raw["reason"]),
        "tier": raw["tier"], "part": raw["part"], "slug": slug, "data": _data(items, arms),
        "comparisons": items, "groups": _groups(items), "experiments": [],
        "on_board": [c for c in deciding if c["board"]],
        "rank": VERDICTS.index(raw["verdict"]),
        "size": measured[0]["effect"] if len(measured) == 1 else None,
        "says_effect": effect, "says_rule": rules.pop() if len(rules) == 1 else "",
        "fragile": raw["verdict"] in DECIDED and any(c["fragile"] for c in deciding),
        "share": min(found) if found else None,
        "says_share": shares(deciding), "says_settle": settle,
        "facts": [f for f in facts if f],
        "traces": [t.view() for t in traces if t],
    }  # fmt: skip
