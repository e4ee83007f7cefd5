"""Claims as the board and the cards show them: words, strips on a shared axis, traces to runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyclery.report.contents import settling
from cyclery.report.intervals import (
    digits_for,
    domain,
    effect_text,
    interval_text,
    printed_text,
    strip,
    ticks,
)
from cyclery.report.model import VERDICTS, Slugs, metric_name, number, typeset
from cyclery.report.tables import Column, Table

Json = dict[str, Any]
Labels = Mapping[tuple[str, str], str]


def _test_text(item: Json) -> str:
    margin = f"{number(abs(item['margin'] or 0), digits_for(item))} {item['unit']}".strip()
    if item["test"] == "equivalence":
        return f"equivalence within ±{margin}"
    if item["test"] == "non-inferiority":
        return f"non-inferiority, margin {margin}"
    return f"{item['test']}, margin {margin}" if item["margin"] else item["test"]


def _comparison(
    item: Json, board_axis: tuple[float, float] | None, default: str, labels: Labels
) -> Json:
    """Return one comparison with its texts; `default` is its verdict where it states none."""
    chosen = labels.get((item["experiment"], item["chosen"]), item["chosen"])
    label = item["label"] or f"{item['arm']} against {item['against']}"
    p = item["p_holm"] if item["p_holm"] is not None else item["p"]
    shown = "< 0.001" if p is not None and p < 0.001 else f"= {number(p, 3)}"
    return {
        **item,
        "says_label": label + (f" (chosen: {chosen})" if chosen else ""),
        "says_effect": f"{number(item['effect'], digits_for(item), sign=True)} {item['unit']}",
        "says_ci": interval_text(item),
        "says_test": _test_text(item), "says_printed": _printed(item), "asides": _asides(item),
        "says_p": f"p {shown}" + (" (Holm)" if item["p_holm"] is not None else "")
        if p is not None else "",
        "board": strip(item, board_axis or domain([item], centred=True)),
        "verdict": item["verdict"] or default,
    }  # fmt: skip


def _printed(item: Json) -> str:
    """Say which effect the paper prints, and where it was read."""
    shown, found = printed_text(item), item["printed"]
    how = " (from memory)" if found["confidence"] == "memory" else ""
    return f"The paper prints {shown}: {found['source']}{how}." if shown else ""


def _asides(item: Json) -> list[str]:
    """Return what a reader must know beside the numbers: what was left out, how pairs were made."""
    said = []
    if item["effect"] is None and item["verdict"] != "not run":
        said.append(typeset(item["reason"]))
    if item["against_metric"]:
        metric, other = metric_name(item["metric"]), metric_name(item["against_metric"])
        said.append(f"{metric[:1].upper()}{metric[1:]} compared with {other}.")
    if printed := _printed(item):
        said.append(printed)
    if item["bca95"]:
        said.append(f"Bootstrap (BCa) interval {interval_text(item, 'bca95')}.")
    if item["pooled"].get("k"):
        said.append(f"Random-effects mean of {item['pooled']['k']} experiments.")
    if item["units"]:
        said.append(f"Seeds that share a parent count once: {len(item['units'])} units.")
    if item["unequal_budget"]:
        said.append(f"Unequal budgets: {item['unequal_budget']}.")
    if item["left_out"]:
        said.append(f"Left out: {'; '.join(map(str, item['left_out']))}.")
    return [text for text in said if text]


def _groups(items: list[Json]) -> list[Json]:
    """Group a claim's comparisons by unit: each group shares one axis and its ticks."""
    out = []
    for unit in dict.fromkeys(item["unit"] for item in items):
        group = [item for item in items if item["unit"] == unit]
        some = [item for item in group if item["effect"] is not None]
        axis = domain(some)
        names = list(dict.fromkeys(metric_name(item["metric"]) for item in group))
        for item in group:
            item["card"] = strip(item, axis)
        words = f"difference in {names[0]}" if len(names) == 1 else "difference"
        out.append({"rows": group, "ticks": ticks(axis) if some else [],
                    "axis": f"{words} ({unit})" if unit else words})  # fmt: skip
    return out


def _trace(slug: str, item: Json) -> Table | None:
    """Return the table of seeds, differences and run keys behind a comparison."""
    rows: list[list[Any]] = []
    for place, seed in enumerate(item["seeds"]):
        difference = item["differences"][place] if place < len(item["differences"]) else None
        keys = item["keys"][place] if place < len(item["keys"]) else []
        texts = [str(k)[:12] for k in keys] if isinstance(keys, list) else []
        rows.append([str(seed), difference, *[*texts, "", ""][:2]])
    unit = f" ({item['unit']})" if item["unit"] else ""
    columns = [Column("Seed", "right"), Column(f"Difference{unit}", "number", digits_for(item)),
               Column("Run"), Column("Against run")]  # fmt: skip
    return Table(slug, item["says_label"], columns, rows).trimmed() if rows else None


def _sentence(text: str) -> str:
    """Return a reason as a sentence: those of the configuration are clauses."""
    return typeset(
        f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
    )


def claim(raw: Json, slugs: Slugs, axis: tuple[float, float], labels: Labels) -> Json:
    """Return one claim as the board and its card show it; `labels` are those of the arms."""
    default = raw["verdict"] if len(raw["comparisons"]) == 1 else "inconclusive"
    items = [
        _comparison(c, axis if c["unit"] == "pp" else None, default, labels)
        for c in raw["comparisons"]
    ]
    # A pooled claim has one test, its mean; the members are described beside it.
    deciding = [c for c in items if c["pooled"] or c["arm"] == "pooled"] or items
    measured = [c for c in deciding if c["effect"] is not None]
    slug = slugs.make("claim", raw["id"])
    settle = settling(raw) if raw["verdict"] in ("partly", "inconclusive") else ""
    planned = raw["planned_seeds"]
    seeds = f"{raw['n']} of {planned} planned seeds" if planned else f"{raw['n']} seeds"
    facts = [raw["source"], f"{raw['tier']} tier", seeds, settle and f"to settle here: {settle}"]
    effect = f"{len(measured)} comparisons" if measured else "\u2013"
    if len(measured) == 1:
        effect = effect_text(measured[0]) + (", pooled" if measured[0]["pooled"] else "")
    hover = f"{raw['id']}: {raw['verdict']}. {_sentence(raw['reason'])}"
    traces = [_trace(slugs.make(slug, "trace"), c) for c in items]
    return {
        **raw, "slug": slug, "comparisons": items, "groups": _groups(items),
        "says_effect": effect, "on_board": [c for c in deciding if c["board"]],
        "reason": _sentence(raw["reason"]), "hover": hover.strip(),
        "rank": VERDICTS.index(raw["verdict"]),
        "size": measured[0]["effect"] if len(measured) == 1 else None,
        "says_settle": settle, "facts": [f for f in facts if f],
        "traces": [t.view() for t in traces if t],
    }  # fmt: skip
