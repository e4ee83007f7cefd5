"""The one rule for verdicts: declared comparisons and records in, judged claims out.

p is Holm-adjusted over every comparison of every claim that the paper declares as tested at the
tier; a comparison without data counts in that family with p = 1, so verdicts do not get easier
while data are missing. To contradict takes as much as to reproduce: the p-value of the opposite
test, adjusted in the same family and at the same looks. A pooled claim is one test. Verdicts are
those of the last planned look (interim analysis) that a claim's data have reached (see
``stats.alpha_spending``): p is sequential before it is adjusted, and intervals have the level that
the look may spend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm

from cyclery.evidence import verdict_text
from cyclery.evidence.comparison import Case, blank, compare, pooled
from cyclery.evidence.contracts import Claim, ExperimentRuns, Labels, Records
from cyclery.evidence.stats import paired_tests
from cyclery.evidence.stats.paired_tests import ALPHA, refutes, supports
from cyclery.records import claims as judged
from cyclery.records.claims import Fragile, Interval, OfPrinted, Row, Test, Verdict


def decide(
    test: Test, margin: float, ci95: Interval | None, ci90: Interval | None, p: float,
    opposite: float,
) -> Verdict:  # fmt: skip
    """Return the verdict of one comparison.

    Args:
        test: the declared test.
        margin: the declared margin, in the unit of the intervals.
        ci95: two-sided 95 % interval of the oriented effect; None without an estimable spread.
        ci90: its 90 % interval.
        p: Holm-adjusted p-value.
        opposite: that of the opposite test.
    """
    if ci95 is None or ci90 is None:
        return "inconclusive"
    if p < ALPHA and supports(test, margin, ci95, ci90):
        return "reproduced"
    if opposite < ALPHA and refutes(test, margin, ci95, ci90):
        return "contradicted"
    return "inconclusive"


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of a claim that needs all of its comparisons."""
    reproduced = verdicts.count("reproduced")
    if reproduced:
        return "reproduced" if reproduced == len(verdicts) else "partly"
    if "contradicted" in verdicts:
        return "contradicted"
    return "not run" if set(verdicts) <= {"not run"} else "inconclusive"


@dataclass(frozen=True)
class Family:
    """Tests that share one Holm correction: the p-values of each and of its opposite."""

    p: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Family:
        """Return the family of these tests."""
        return cls(tuple(case.p_values() for case in cases))

    @cached_property
    def adjusted(self) -> list[tuple[float, float]]:
        """Return both kinds of p-values with Holm's correction."""
        return list(
            zip(*(paired_tests.holm([p[kind] for p in self.p]) for kind in (0, 1)), strict=True)
        )

    def verdict(self, case: Case, place: int) -> Verdict:
        """Return the verdict of one of its tests, without regard to divergence."""
        return decide(case.test, case.row["margin"], case.interval(0.95), case.interval(0.90),
                      *self.adjusted[place])  # fmt: skip

    def replaced(self, place: int, case: Case) -> Family:
        """Return the family with another test at one place."""
        return Family((*self.p[:place], case.p_values(), *self.p[place + 1 :]))


def _rule(cases: Sequence[Case]) -> None:
    """Judge one family of tests in place."""
    family = Family.of(cases)
    for place, case in enumerate(cases):
        row = case.row
        ci95 = case.interval(0.95)
        row |= {"ci95": ci95, "ci90": case.interval(0.90)}
        row["naive95"] = row["naive95"] if ci95 is None else case.interval(0.95, naive=True)
        if ci95 is not None:
            row["p"], row["p_opposite"] = family.p[place]
            row["p_holm"], row["p_opposite_holm"] = family.adjusted[place]
            row["of_printed"] = _of_printed(row)
        found = family.verdict(case, place)
        row["verdict"] = case.held_back(found)
        row["held_back"] = found if found != row["verdict"] else None
        if case.missing:
            row["verdict"] = "not run"
        if row["verdict"] == "inconclusive":
            case.plan_more_seeds(ALPHA / len(cases))
        case.plan_stated_effect(ALPHA / len(cases))
        row["reason"] = verdict_text.comparison(
            row, case.missing, case.problem, case.planned, len(cases), case.samples
        )
        row["fragile"] = _fragile(case, family, place)


def _of_printed(row: Row) -> OfPrinted | None:
    """Return how large the effect is as a share of the printed one, with its 95 % interval.

    Direction and size are two answers: the verdict is about the direction (or the margin). None
    where nothing is printed, or in another unit.
    """
    printed, effect, ci95 = row["printed"], row["effect"], row["ci95"]
    if effect is None or ci95 is None or not printed or not printed["value"]:
        return None
    if printed["unit"] != row["unit"]:
        return None
    whole = printed["value"]
    low, high = sorted(end / whole for end in ci95)
    return {"share": effect / whole, "ci95": (low, high)}


def _fragile(case: Case, family: Family, place: int) -> list[Fragile]:
    """Return the verdicts that a comparison would have without one unit, where they differ.

    All else stays: the look with its levels, and the p-values of the family.
    """
    if case.row["ci95"] is None:
        return []
    found: list[Fragile] = []
    for unit in case.units():
        less = case.without(unit)
        verdict = case.held_back(family.replaced(place, less).verdict(less, place))
        if verdict != case.row["verdict"]:
            seeds = next((u for u in case.row["units"] or [] if u[0] == unit), [unit])
            found.append({"seeds": seeds, "verdict": verdict})
    return found


def not_tested(claim: Claim, tier: str) -> str | None:
    """Return why a claim is not tested at a tier, or None where it is."""
    given = claim.get("not_run", {})
    reason = given.get(tier) or given.get("all")
    return reason or (None if claim["comparisons"] else "no comparison is declared")


def judge(
    claims: Sequence[Claim], tier: str, experiments: Sequence[ExperimentRuns], records: Records,
    needs: Mapping[str, str] | None = None,
) -> list[judged.Claim]:  # fmt: skip
    """Return the judged claims of one paper at one tier, in declared order.

    Args:
        claims: all claims of the paper: together they are the family of Holm's correction.
        tier: the tier.
        experiments: the paper's experiments, arms with their run keys by seed.
        records: records by run key.
        needs: what it would take to test the claims that are not tested here.
    """
    index = {experiment["id"]: experiment for experiment in experiments}
    labels = {(name, arm["id"]): arm["label"]
              for name, experiment in index.items() for arm in experiment["arms"]}  # fmt: skip
    drafts: list[tuple[Claim, list[Case], list[Case]]] = []
    family: list[Case] = []
    for claim in claims:
        members: list[Case] = []
        mean: list[Case] = []
        if not_tested(claim, tier) is None:
            planned = claim.get("planned_seeds")
            members = [compare(c, index, records, labels, planned) for c in claim["comparisons"]]
            if claim.get("pooled"):
                # One mean has its looks at the same seeds of all, in units of the coarsest.
                share = lcm(*(case.share for case in members))
                members = [
                    case if case.share == share
                    else compare(c, index, records, labels, planned, share)
                    for case, c in zip(members, claim["comparisons"], strict=True)
                ]  # fmt: skip
                mean = [pooled(members)]
            family += mean or members
        drafts.append((claim, members, mean))
    _rule(family)
    out = []
    for claim, members, mean in drafts:
        if mean:
            _rule(members)  # shown next to the mean; corrected among themselves
        out.append(_claim(claim, tier, members, mean, labels, needs or {}))
    return out


def _claim(
    claim: Claim, tier: str, members: Sequence[Case], mean: Sequence[Case],
    labels: Labels, needs: Mapping[str, str],
) -> judged.Claim:  # fmt: skip
    """Return one judged claim from its judged comparisons."""
    deciding = list(mean or members)
    rows = [case.row for case in deciding]
    out: judged.Claim = {
        "id": claim["id"], "statement": claim["statement"], "source": claim.get("source") or None,
        "own_definition": claim.get("own_definition"), "note": claim.get("note") or None,
        "planned_seeds": claim.get("planned_seeds"), "n": 0, "seeds_to_settle": None,
        "seeds_for_power": None, "seconds_to_settle": None,
        "comparisons": [case.row for case in [*mean, *members]], "verdict": "not run", "reason": "",
    }  # fmt: skip
    if not deciding:
        reason = not_tested(claim, tier) or ""
        if claim["id"] in needs:
            reason = f"{reason}; {needs[claim['id']]}"
        rows = [{**blank(c, labels), "reason": reason} for c in claim["comparisons"]]
        return out | {"reason": reason, "comparisons": rows}
    out["verdict"] = combine([row["verdict"] for row in rows])
    out["n"] = min((row["n"] for row in rows if row["n"]), default=0)
    out["seeds_to_settle"], out["seconds_to_settle"] = _to_settle(deciding)
    foreseen = [row["seeds_for_power"] for row in rows if row["stated_effect"] is not None]
    known = [seeds for seeds in foreseen if seeds is not None]
    if foreseen and len(known) == len(foreseen):
        out["seeds_for_power"] = max(known)
    out["reason"] = verdict_text.claim(out, rows)
    return out


def _to_settle(cases: Sequence[Case]) -> tuple[int | None, float | None]:
    """Return the seeds and seconds that settle every open comparison; None if one cannot be."""
    seconds: dict[tuple[str, str], float] = {}
    most: int | None = None
    for case in cases:
        if case.row["verdict"] != "inconclusive":
            continue
        needed = case.row["seeds_to_settle"]
        if needed is None:
            return None, None
        most = max(needed, most or 0)
        extra = needed - case.samples
        for arm, cost in case.costs.items():  # an arm of two comparisons is trained once
            seconds[arm] = max(seconds.get(arm, 0.0), extra * cost)
    return most, None if most is None else sum(seconds.values())
