"""Contrasts of several arms: one number per seed, and the estimator of each kind.

Like a difference, a contrast is one number for each seed, so a t test of its mean, Holm's
correction, intervals, power and seeds to settle are those of ``paired_tests``:

- interaction: the first difference of two arms minus the second one;
- trend: the least-squares line through the arms of a seed over the numbers that they stand for
  (or their logarithms or ranks), read as its rise from the smallest number to the largest, so
  that it has the metric's unit;
- rank correlation: Kendall's tau-b or Spearman's rho over the arms of a seed, between the metric
  and declared numbers or another metric. Seeds that all have the same coefficient, as a perfect
  order has, have no spread to estimate; there the bounds of a coefficient decide (``Coefficient``);
- flatness: how flat the metric is over the grid of one side minus that of the other (``flatness``);
- ordering: the smallest step from an arm to the next, by an intersection-union test (``Steps``).

A seed counts only if every arm has its metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from cyclery.evidence.contracts import Comparison, ExperimentRuns, Labels, Records
from cyclery.evidence.stats import lineage, pairing
from cyclery.evidence.stats.flatness import Resampled, flatness
from cyclery.evidence.stats.paired_tests import Estimate, Floats, Source, estimate
from cyclery.evidence.stats.pairing import Pairs, sides
from cyclery.evidence.stats.rank_and_order_tests import Coefficient, Steps
from cyclery.records import metrics as metrics_derived
from cyclery.records.budgets import ANCESTORS, MEASURES

# Contrasts by unit (its first seed): one sample, or several for a mean or an order of them.
Samples: TypeAlias = list[dict[int, float]]

Contrast: TypeAlias = Literal["interaction", "trend", "ordering", "rank_correlation", "flatness"]
KINDS: tuple[Contrast, ...] = get_args(Contrast)
LETTERS = {"kendall": "\u03c4", "spearman": "\u03c1"}


def kind(comparison: Comparison) -> str:
    """Return what a declared comparison measures in each seed."""
    found = next((key for key in KINDS if comparison.get(key)), "difference")
    return found.replace("_", " ")


# From records to one contrast for each seed.


def collect(
    comparison: Comparison, experiments: Mapping[str, ExperimentRuns], records: Records
) -> Pairs:
    """Return the contrasts of a declared comparison by seed, a difference among them."""
    found = kind(comparison)
    if found == "interaction":
        out = _interaction(comparison, experiments, records)
    elif found == "difference":
        out = pairing.collect(comparison, experiments, records)
    else:
        out = _several(comparison, experiments, records)
    arms = {(name, arm["id"]): arm for name, one in experiments.items() for arm in one["arms"]}
    other = (comparison.get("rank_correlation") or {}).get("metric")
    for name, each, metric in out.columns:
        arm = arms[name, each]
        worth = [pairing.at_chance(arm, one) for one in (metric, other) if one]
        # A seed counts only with both metrics, so it is left out where either has no chance.
        out.diverged.append(
            (pairing.diverged_seeds(arm, records), None if None in worth else worth[0])
        )
    return out


def differences(comparison: Comparison) -> tuple[Comparison, Comparison]:
    """Return the two differences of an interaction, as comparisons of their own."""
    first: Comparison = {**comparison, "interaction": None}
    second: Comparison = {**first}
    other = comparison.get("interaction") or {}
    if (name := other.get("experiment")) is not None:
        second["experiment"] = name
    if (metric := other.get("metric")) is not None:
        second["metric"] = metric
    second["arm"] = other.get("arm") or first.get("arm")
    second["against"] = other.get("against") or first.get("against")
    return first, second


def listed(comparison: Comparison) -> list[str]:
    """Return the arms that a comparison lists which is neither a difference nor an interaction."""
    if trend := comparison.get("trend"):
        return list(trend["values"])
    if flat := comparison.get("flatness"):
        return [*flat["arms"], *flat["against"]]
    if correlation := comparison.get("rank_correlation"):
        return list(correlation.get("values") or correlation.get("arms") or ())
    return list(comparison.get("ordering") or ())


def _interaction(
    comparison: Comparison, experiments: Mapping[str, ExperimentRuns], records: Records
) -> Pairs:
    """Return the first difference minus the second, seed by seed."""
    first, second = (pairing.collect(one, experiments, records) for one in differences(comparison))
    out = Pairs(
        arms=list(dict.fromkeys([*first.arms, *second.arms])),
        columns=[*first.columns, *second.columns],
        missing=first.missing or second.missing, problem=first.problem or second.problem,
        undeclared=first.undeclared or second.undeclared,
        left_out=list(dict.fromkeys([*first.left_out, *second.left_out])),
        chosen=", ".join(x.chosen for x in (first, second) if x.chosen) or None,
    )  # fmt: skip
    here, there = (dict(zip(x.seeds, x.differences, strict=True)) for x in (first, second))
    runs, others = (dict(zip(x.seeds, x.keys, strict=True)) for x in (first, second))
    figures = [dict(zip(x.seeds, x.figures, strict=True)) for x in (first, second)]
    for seed in sorted(here.keys() & there.keys()):
        out.seeds.append(seed)
        out.differences.append(here[seed] - there[seed])
        out.figures.append([*figures[0][seed], *figures[1][seed]])
        out.keys.append([*runs[seed], *others[seed]])
    alone = here.keys() ^ there.keys()
    if alone and not out.left_out:
        out.left_out = pairing.listed(dict.fromkeys(sorted(alone), "is in one difference alone"))
    out.units = pairing.units(dict(zip(out.seeds, out.keys, strict=True)), records)
    return out


def _several(
    comparison: Comparison, experiments: Mapping[str, ExperimentRuns], records: Records
) -> Pairs:
    """Return the contrasts of several arms that are listed."""
    name, names = comparison["experiment"], listed(comparison)
    ordering, correlation = comparison.get("ordering"), comparison.get("rank_correlation")
    out = Pairs()
    arms = pairing.declared(out, name, names, experiments)
    if arms is None:
        return out
    without = [arm["id"] for arm in arms if not pairing.any_record(arm, records)]
    if without:
        out.missing = f"no run of {', '.join(map(repr, without))} yet"
        return out
    metric = comparison.get("metric") or "test_accuracy"
    other = correlation.get("metric") if correlation else None
    out.columns = [(name, arm, metric) for arm in names]
    tables, faults = pairing.tables(arms, metric, records)
    others, more = pairing.tables(arms, other, records) if other else ([], {})
    faults = {**more, **faults}
    sign = -1.0 if comparison.get("lower_is_better") else 1.0
    contrast = _contrast(comparison)
    for seed in sorted(set.intersection(*(set(table) for table in [*tables, *others]))):
        y = sign * np.array([table[seed] for table in tables])
        x = np.array([table[seed] for table in others])
        if correlation and (np.ptp(y) == 0 or (x.size and np.ptp(x) == 0)):
            faults[seed] = "all arms are alike, so they have no order"
            continue
        out.seeds.append(seed)
        out.keys.append([pairing.runs_of(arm)[seed] for arm in arms])
        out.figures.append([table[seed] for table in tables])
        if ordering:
            out.steps.append([float(step) for step in y[:-1] - y[1:]])
        else:
            out.differences.append(contrast(y, x))
    out.units = pairing.units(dict(zip(out.seeds, out.keys, strict=True)), records)
    if ordering and out.seeds:
        weakest = order(samples(out)).weakest
        out.differences = [steps[weakest] for steps in out.steps]
    if any(len(set(keys)) < len(keys) for keys in out.keys):
        out.problem = "two arms are the same runs, so there is nothing to compare"
    out.left_out += pairing.listed(faults)
    return out


def _contrast(comparison: Comparison) -> Callable[[Floats, Floats], float]:
    """Return what makes a seed's metrics of all arms [k] (and another metric [k]) one number."""
    if trend := comparison.get("trend"):
        arms = list(trend["values"])
        blocks = [[arms.index(arm) for arm in block] for block in trend.get("blocks") or ()]
        weights = trend_weights(list(trend["values"].values()), trend.get("scale"), blocks)
        return lambda y, x: float(weights @ y)
    if flat := comparison.get("flatness"):
        by, within = flat.get("by") or "share", flat.get("within") or 1.0
        smaller = metrics_derived.smaller_is_better(comparison.get("metric") or "test_accuracy")

        def flatter(y: Floats, x: Floats) -> float:
            own, other = flatness(y.reshape(2, -1), by, within, smaller)
            return float(own - other)

        return flatter
    if not (correlation := comparison.get("rank_correlation")):
        return lambda y, x: 0.0  # of an ordering, whose steps are taken instead
    values = np.array(list((correlation.get("values") or {}).values()))
    name = correlation.get("coefficient") or "kendall"
    return lambda y, x: rank_correlation(x if x.size else values, y, name)


def trend_weights(
    values: ArrayLike, scale: str | None = "linear", blocks: Sequence[Sequence[int]] = ()
) -> Floats:
    """Return the weights [k] of the arms' metrics whose sum is the fitted rise over all values.

    ``blocks`` are the places of arms that have a height of their own; their slope is one.
    """
    x = np.asarray(values, dtype=np.float64)
    if scale == "log":
        x = np.log(x)
    elif scale == "rank":
        x = np.asarray(scipy_stats.rankdata(x), dtype=np.float64)
    centred = x - x.mean()
    for block in map(list, blocks):
        centred[block] = x[block] - x[block].mean()
    weights: Floats = centred * np.ptp(x) / (centred @ centred)
    return weights


def rank_correlation(x: ArrayLike, y: ArrayLike, coefficient: str = "kendall") -> float:
    """Return Kendall's tau-b or Spearman's rho of two samples [k] that are not constant.

    Computed by hand, because scipy takes a hundred times as long for a handful of arms.
    """
    if coefficient == "spearman":
        a, b = scipy_stats.rankdata(x), scipy_stats.rankdata(y)
        a, b = a - a.mean(), b - b.mean()
    else:
        upper = np.triu_indices(np.size(x), 1)
        a, b = (np.sign(np.subtract.outer(v, v))[upper] for v in (np.asarray(x), np.asarray(y)))
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


# From contrasts to what is estimated.


def samples(found: Pairs) -> Samples:
    """Return the contrasts by independent unit (its first seed): of an ordering each step's."""
    columns = zip(*found.steps, strict=True) if found.steps else [found.differences]
    by_seed = [dict(zip(found.seeds, column, strict=True)) for column in columns]
    firsts = [unit[0] for unit in found.units]
    return [
        dict(zip(firsts, pairing.by_unit(column, found.units), strict=True)) for column in by_seed
    ]


def mean(found: Samples) -> Estimate:
    """Return the mean of one sample."""
    [sample] = found
    return estimate(list(sample.values()))


def order(found: Samples) -> Steps:
    """Return the steps of an ordering, given each as a sample."""
    return Steps(tuple(estimate(list(sample.values())) for sample in found))


def coefficient(found: Samples) -> Coefficient:
    """Return the mean of one sample of rank correlations."""
    return Coefficient(mean(found))


def resampled(found: Samples) -> Resampled:
    """Return the mean of one sample of differences in flatness."""
    [sample] = found
    return Resampled.of(list(sample.values()))


def estimator(comparison: Comparison) -> Callable[[Samples], Source]:
    """Return what estimates a comparison from samples that are not empty."""
    if comparison.get("ordering"):
        return order
    if comparison.get("flatness"):
        return resampled
    return coefficient if comparison.get("rank_correlation") else mean


def steps(comparison: Comparison) -> int:
    """Return the number of means that must all hold: 1 but for an ordering."""
    return max(1, len(comparison.get("ordering") or []) - 1)


# Words, metrics and budgets.


def metrics(comparison: Comparison) -> list[str | None]:
    """Return the metrics that a comparison names, None where it does not."""
    difference, correlation = comparison.get("interaction"), comparison.get("rank_correlation")
    return [comparison.get("metric"), comparison.get("against_metric"),
            difference.get("metric") if difference else None,
            correlation.get("metric") if correlation else None]  # fmt: skip


def unit(comparison: Comparison) -> str:
    """Return the unit of a comparison's effect: ``pp``, the letter of a coefficient or nothing.

    Nothing is that of a share, too.
    """
    if (flat := comparison.get("flatness")) and (flat.get("by") or "share") == "share":
        return ""
    if correlation := comparison.get("rank_correlation"):
        return LETTERS[correlation.get("coefficient") or "kendall"]
    return metrics_derived.unit(comparison.get("metric") or "test_accuracy")


def label_of(comparison: Comparison, labels: Labels) -> tuple[str, str, str]:
    """Return the names of a comparison's sides, and its label from the labels of the arms.

    Of a trend the first side is its last arm, of an ordering and a correlation the first one, and
    of grids all of one.
    """
    name, found = comparison["experiment"], kind(comparison)

    if found == "interaction":
        first, second = differences(comparison)
        arm, against, label = _difference(first, labels)
        other = _difference(second, labels)[2]
        place = "" if second["experiment"] == name else f" in {second['experiment']}"
        return arm, against, f"{label}, more than {other}{place}"
    if found == "difference":
        return _difference(comparison, labels)
    arms = listed(comparison)
    called = [labels.get((name, arm), arm) for arm in arms]
    if found == "ordering":
        return arms[0], ", ".join(arms[1:]), f"order: {', '.join(called)}"
    if found == "trend":
        return arms[-1], ", ".join(arms[:-1]), f"trend over {', '.join(called)}"
    if flat := comparison.get("flatness"):
        ends = (called[0], called[len(flat["arms"]) - 1], called[len(flat["arms"])], called[-1])
        text = "flatness from {} to {} against {} to {}".format(*ends)
        return ", ".join(flat["arms"]), ", ".join(flat["against"]), text
    metric = (comparison.get("rank_correlation") or {}).get("metric")
    other = metric.replace("_", " ") if metric else "declared numbers"
    return arms[0], ", ".join(arms[1:]), f"rank correlation with {other} over {', '.join(called)}"


def _difference(comparison: Comparison, labels: Labels) -> tuple[str, str, str]:
    """Return the sides of a difference and its label."""
    name, (arm, against) = comparison["experiment"], sides(comparison)
    if isinstance(against, str):
        text = against
    elif "best_of" in against:
        text = f"best of {', '.join(against['best_of'])}"
    else:
        text = f"{against['constant']:g}"
    called = [labels.get((name, side), side) for side in (arm, text)]
    return arm, text, " against ".join(called)


def detail(comparison: Comparison, found: Pairs, labels: Labels) -> str | None:
    """Say which step an ordering hangs on."""
    if not found.steps or not found.seeds:
        return None
    arms, name = listed(comparison), comparison["experiment"]
    at = order(samples(found)).weakest
    better, worse = (labels.get((name, arm), arm) for arm in arms[at : at + 2])
    return f"Effect and differences are those of the smallest step, {better} against {worse}."


def unequal_budgets(comparison: Comparison, found: Pairs, records: Records) -> str | None:
    """Say by how much the budgets of arms differ, if they do and it is not declared."""
    if comparison.get("unequal_budget") or comparison.get("against_metric"):
        return None
    measure = comparison.get("equal") or "images"
    which = comparison.get("ancestors") or "started"
    # Each difference of an interaction has a budget of its own.
    half = len(found.columns) // 2
    groups = [slice(0, half), slice(half, None)] if comparison.get("interaction") else [slice(None)]
    for part in groups:
        for keys in found.keys:
            spent = [lineage.budget(key, records, measure, which) for key in keys[part] if key]
            known = [count for count in spent if count]
            if len(known) == len(spent) > 1 and max(known) - min(known) > 0.01 * max(known):
                arms = [arm for _, arm, _ in found.columns[part]]
                first, others = f"'{arms[0]}'", "its comparator"
                if len(known) > 2:
                    first, others = f"one of {', '.join(arms)}", "another"
                a, b = (known[0], known[1]) if len(known) == 2 else (max(known), min(known))
                words = MEASURES[measure]
                said = f"{first} {words.did} {a:.0f} {words.noun} and {others} {b:.0f}"
                return f"{said} in the same seed" + (
                    f", {ANCESTORS[which]} counted" if which == "all" else ""
                )
    return None
