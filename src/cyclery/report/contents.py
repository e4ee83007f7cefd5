"""The tables of the report, as instances of the one table model."""

from __future__ import annotations

import re

from cyclery.evidence import verdict_text
from cyclery.records.claims import ClaimFacts, Row
from cyclery.records.evidence import Arm, Experiment, Metric, RangeTest
from cyclery.report import costs, searches
from cyclery.report.intervals import digits_for, interval_text, of_printed_text, printed_text
from cyclery.report.model import (
    UNTUNED,
    amount,
    compact,
    duration,
    is_share,
    letter,
    metric_name,
    number,
    readable,
    tried,
)
from cyclery.report.tables import Cell, Column, Estimate, Table
from cyclery.report.view_types import PaperView


def _estimate(metric: Metric | None, scale: float) -> Estimate | None:
    """Return one metric of an arm as an estimate in table units."""
    if not metric:
        return None
    if not metric["ci95"]:
        return Estimate(metric["mean"] * scale)
    low, high = metric["ci95"]
    return Estimate(metric["mean"] * scale, low * scale, high * scale)


def _metric_columns(metrics: list[str], wide: bool = False) -> list[Column]:
    """Return a column per metric; calibration loses its interval in a wide table."""
    columns = []
    for name in metrics:
        share = is_share(name)
        head = metric_name(name).replace("accuracy", "acc.").replace("validation", "val.")
        head = head if name == "test_accuracy" else head.removeprefix("test ")
        plain = name == "val_accuracy" or (wide and not share)
        digits = 2 if share else 4 if "ece" in name else 3
        columns.append(
            Column(
                head[:1].upper() + head[1:] + (" (%)" if share else ""),
                "number" if plain else "estimate",
                digits,
            )
        )
    return columns


def _arm_notes(arms: list[Arm]) -> list[str]:
    """Return what stands under the table about single arms, equal definitions together."""
    notes, own = [], dict[str, list[str]]()
    for place, arm in enumerate(arms):
        if arm["own_definition"]:
            own.setdefault(arm["own_definition"], []).append(letter(place))
        if arm["units"]:
            notes.append(
                f"{letter(place)}: seeds that share a parent count once, {arm['units']} units."
            )
        for one in arm["diverged"]:
            notes.append(f"{letter(place)}: seed {one['seed']} diverged at step {one['step']}.")
        if arm["tuned"]:
            values, count = _factors(arm["tuned"]["chosen"]), len(arm["tuned"]["trials"])
            why = (
                "no trial was finite, as declared"
                if arm["tuned"]["fallback"]
                else (f"best of {count} trials on validation")
            )
            notes.append(f"{letter(place)}: {why}: {values}.")
        if "searched" in arm:
            notes += searches.notes(place, arm["searched"])
    return [f"† {', '.join(who)}, own definition: {text}" for text, who in own.items()] + notes


def _factors(factors: dict[str, float]) -> str:
    """Return a trial in words; its factors are on the arm's own values."""
    return ", ".join(
        f"{metric_name(name)} \u00d7\u00a0{compact(value)}" for name, value in factors.items()
    )


def trials(slug: str, experiment: Experiment, notes: list[str]) -> Table | None:
    """Return the tuning curve of every arm as a table; None where none is tuned."""
    found = [(place, arm, arm["tuned"]) for place, arm in enumerate(experiment["arms"])]
    arms = [(place, arm, tuned) for place, arm, tuned in found if tuned]
    if not arms:
        return None
    rows: list[list[Cell]] = []
    for place, arm, tuned in arms:
        for trial in tuned["trials"]:
            score, lost = trial["val_accuracy"], trial["diverged"]
            chosen = trial["factors"] == tuned["chosen"]
            rows.append([
                place, arm["label"], _factors(trial["factors"]),
                None if score is None else 100 * score, f"{lost} diverged" if lost else None,
                "chosen" if chosen else None,
            ])  # fmt: skip
    seeds = {seed for _, _, tuned in arms for seed in tuned["seeds"]}
    said = (
        f"{len(rows)} trials, each with the arm's budget: mean validation accuracy at the end of "
        f"the run, over seeds of tuning that nothing else uses ({len(seeds)} a trial). Factors "
        "multiply the arm's own values. Arms are compared on other seeds."
    )
    columns = [
        Column("", "key"), Column("Arm", weight=2.0), Column("Trial", weight=1.6),
        Column("Val. acc. (%)", "number", 2), Column("Lost"), Column(""),
    ]  # fmt: skip
    title = experiment["title"]
    return Table(slug, f"{title}: trials of tuning", columns, rows, [said, *notes], lead=2,
                 command=experiment["command"]).trimmed()  # fmt: skip


def _figures(arm: Arm, metrics: list[str], columns: list[Column]) -> list[Cell]:
    """Return an arm's cells for some metrics, means alone where the column holds numbers."""
    cells: list[Cell] = []
    for name, column in zip(metrics, columns, strict=False):
        found = _estimate(arm["metrics"].get(name), 100.0 if is_share(name) else 1.0)
        cells.append(found.mean if found and column.kind == "number" else found)
    return cells


def tuning(arms: list[Arm]) -> str:
    """Say how the arms were tuned, and with how many trials."""
    counts = {tried(arm) for arm in arms}
    if counts <= {0}:
        return UNTUNED
    drawn = "drawn at random and halved, " if any("searched" in arm for arm in arms) else ""
    if len(counts) == 1:
        return f"Tuning: {counts.pop()} trials an arm, {drawn}the best on validation counts."
    untuned = [letter(i) for i, arm in enumerate(arms) if not tried(arm)]
    rest = f" {', '.join(untuned)}: untuned, values as declared." if untuned else ""
    return f"Tuning: {drawn}the best trial on validation counts.{rest}"


def arms(slug: str, experiment: Experiment, extra: list[str], notes: list[str]) -> Table:
    """Return the table of an experiment's arms; `extra` are further metrics that claims use."""
    metrics = ["test_accuracy", "val_accuracy", "test_nll", "test_ece"]
    # At the end of the run a curve is the final figure, which has its column.
    extra = [m for m in extra if m not in metrics and m.partition("@")[2] not in ("1", "1.0")]
    columns = [Column("", "key"), Column("Arm", weight=2.4), Column("Role", weight=0.9)]
    columns += [Column("n", "number", 0), *_metric_columns(metrics, bool(extra))]
    spent = costs.columns(experiment["arms"])
    columns += [Column("Images", "right"), *(Column(cost.head, "right") for cost in spent)]
    columns += [Column("Time/run", "right"), *_metric_columns(extra)]
    seen = {arm["views"] for arm in experiment["arms"] if arm["views"] is not None}
    rows: list[list[Cell]] = []
    for place, arm in enumerate(experiment["arms"]):
        label = arm["label"] + (" †" if arm["own_definition"] else "")
        row: list[Cell] = [place, label, arm["role"], arm["n"]]
        row += _figures(arm, metrics, columns[len(row) :])
        row.append(amount(arm["views"]) if len(seen) > 1 else None)
        row += [cost.cells[place] for cost in spent]
        row.append(duration(arm["seconds"]))
        row += _figures(arm, extra, columns[len(row) :])
        rows.append([None if c == "\u2013" else c for c in row])
    budget = ["Images: all views that the network was trained on, unlabelled ones too."]
    if len(seen) == 1:
        budget = [f"Every arm saw {amount(max(seen))} images a run."]
    budget += filter(None, [costs.everywhere(experiment["arms"])])
    budget += [cost.note for cost in spent]
    title = experiment["title"]
    all_notes = [*notes, *(budget if seen else []), *_arm_notes(experiment["arms"])]
    return Table(
        slug, f"{title}: arms", columns, rows, all_notes, lead=2, command=experiment["command"]
    ).trimmed()


def settling(claim: ClaimFacts) -> str:
    """Return the further seeds that would decide a claim, and the time they take here."""
    seeds, seconds = claim["seeds_to_settle"], claim["seconds_to_settle"]
    parts = [f"{seeds} seeds"] if seeds is not None else []
    return ", ".join([*parts, duration(seconds)] if seconds is not None else parts)


def board(slug: str, paper: PaperView, below: list[str]) -> Table:
    """Return a paper's verdicts as a table (the page has its own board)."""
    rows: list[list[Cell]] = []
    for claim in paper["claims"]:
        mark = " †" if claim["own_definition"] else ""
        said = f"{claim['statement']}{mark} {claim['reason']}".strip()
        seeds = f"{claim['n']}/{claim['planned_seeds'] or '?'}"
        rows.append([
            claim["verdict"], claim["id"], said, claim["says_effect"], seeds,
            claim["says_settle"], claim["tier"],
        ])  # fmt: skip
    columns = [
        Column("Verdict", "verdict"), _claim_column(paper), Column("Statement", weight=3.0),
        Column("Effect", weight=1.15), Column("Seeds", "right"), Column("To settle", weight=0.8),
        Column("Tier", weight=0.5),
    ]  # fmt: skip
    notes = ["Effect with 95 % interval (over all looks), positive in the claim's favour. "
             "Seeds: used/planned."]  # fmt: skip
    notes += [
        f"† {c['id']}, own definition: {c['own_definition']}"
        for c in paper["claims"] if c["own_definition"]
    ]  # fmt: skip
    return Table(slug, f"{paper['name']}: verdicts", columns, rows, [*notes, *below],
                 command=paper["command"]).trimmed()  # fmt: skip


def _claim_column(paper: PaperView) -> Column:
    """Return the column of claims' names, wide enough to break them at their hyphens alone."""
    parts = (part for c in paper["claims"] for part in re.split("(?<=-)", c["id"]))
    return Column("Claim", weight=min(max(0.65, 0.125 * max(map(len, parts), default=0)), 1.8))


def _effect(item: Row) -> str:
    text = number(item["effect"], digits_for(item), sign=True)
    # A narrow column may break an interval after its comma.
    ends = interval_text(item).replace("\u00a0", " ")
    return " ".join(filter(None, (text, item["unit"], ends)))


def comparisons(slug: str, paper: PaperView, below: list[str]) -> Table | None:
    """Return every comparison of a paper with its test, interval and p; None where none ran."""
    columns = [
        _claim_column(paper), Column("Comparison", weight=2.0),
        Column("Metric", weight=0.9),
        Column("Test, margin", weight=1.0), Column("Effect", weight=1.2),
        Column("p (Holm)", "number", 3), Column("p (sign flip)", "number", 3),
        Column("n", "number", 0), Column("For 80 %", "right"),
        Column("Paper prints", "right"), Column("Verdict", "verdict"),
    ]  # fmt: skip
    sources: dict[str, int] = {}
    rows: list[list[Cell]] = [
        [claim["id"], item["says_label"], metric_name(item["metric"]), item["says_test"],
         _effect(item), item["p_adjusted"],
         item["beside"]["p_sign_flip"] if item["beside"] else None,
         item["n"], _foreseen(item), _printed_effect(item, sources), item["verdict"]]
        for claim in paper["claims"] for item in claim["comparisons"]
        if item["effect"] is not None or item["verdict"] != "not run"
    ]  # fmt: skip
    shown = [(claim["id"], item) for claim in paper["claims"] for item in claim["comparisons"]]
    notes = []
    if any(item["beside"] for _, item in shown):
        notes.append("p (sign flip): a permutation test beside the verdict, deciding nothing.")
    if any(item["seeds_for_power"] for _, item in shown):
        notes.append("For 80 %: the seeds that would find the stated effect with this power.")
    sizes = [f"{name}, {item['says_label']}: {size}" for name, item in shown
             if (size := of_printed_text(item))]  # fmt: skip
    if sizes:
        notes.append(
            "The verdict is about the direction, or the margin. The effect as a share of the one "
            f"that the paper prints, with its 95 % interval: {'; '.join(sizes)}."
        )
    notes += [f"[{place}] {source}" for source, place in sources.items()]
    notes += [
        f"{name}, {item['says_label']}: {text}" for name, item in shown
        for text in (verdict_text.exploratory(item), verdict_text.fragile(item)) if text
    ]  # fmt: skip
    # A table without a row would lose every column, which LaTeX cannot set.
    return Table(
        slug, f"{paper['name']}: comparisons", columns, rows, [*notes, *below],
        command=paper["command"],
    ).trimmed() if rows else None  # fmt: skip


def _printed_effect(item: Row, sources: dict[str, int]) -> str:
    """Return the effect that the paper prints, and the number of its source, given at first use."""
    if not (found := item["printed"]):
        return ""
    text = printed_text(item)
    text = text if len(text) <= 16 else f"{text[:15]}\u2026"  # the card says it in full
    how = ", from memory" if found["confidence"] == "memory" else ""
    source = f"{found['source']}{how}"
    return f"{text} [{sources.setdefault(source, len(sources) + 1)}]"


def _foreseen(item: Row) -> str:
    """Return the seeds for the stated effect of a comparison, where it states one."""
    return str(item["seeds_for_power"]) if item["seeds_for_power"] else ""


def printed(slug: str, paper: PaperView, rest: bool = False) -> Table | None:
    """Return the figures that a paper prints, with where each was read; None without any.

    Those that no benchmark table shows come first; with `rest` they are all.
    """
    columns = [
        Column("Where", weight=0.9), Column("Data", weight=0.9), Column("Network", weight=1.1),
        Column("Method", weight=1.7), Column("Metric", weight=1.2), Column("Printed", weight=0.9),
        Column("Source", "right"), Column("How", weight=0.6), Column("In table", weight=0.7),
    ]  # fmt: skip
    both = sorted(zip(paper["printed_rows"], paper["in_tables"], strict=True),
                  key=lambda one: bool(one[1]))  # fmt: skip
    shown = [one for one in both if not (rest and one[1])]
    named = (row.get("source") for row, _ in shown)
    sources = list(dict.fromkeys(source for source in named if source))
    rows: list[list[Cell]] = []
    for item, titles in shown:
        value = "printed value not read"
        if item["value"] is not None:
            value = readable(item["value"], item["decimals"])
            if item["std"] is not None:
                value += f" ± {readable(item['std'], item['decimals'])}"
            if item["runs"] is not None:
                value += f" ({item['runs']:g} run{'' if item['runs'] == 1 else 's'})"
        data = ", ".join(text for text in (item.get("dataset"), item.get("labels")) if text)
        source, how = item.get("source"), item.get("confidence")
        place = f"[{sources.index(source) + 1}]" if source else ""
        texts = (item.get("table"), data, item.get("architecture"), item.get("method"),
                 item["metric"], value, place, "" if how == "read" else how,
                 ", ".join(titles))  # fmt: skip
        rows.append([text or "" for text in texts])
    notes = [
        "Read in the source named, but where it says memory. Never mixed into our figures.",
        *(f"[{place + 1}] {source}" for place, source in enumerate(sources)),
    ]
    return Table(slug, f"{paper['name']}: what the paper prints", columns, rows, notes,
                 command=paper["command"]).trimmed() if rows else None  # fmt: skip


_READINGS = {"minimum_10": "minimum / 10"}


def readings(slug: str, test: RangeTest, notes: list[str], command: str) -> Table:
    """Return the bounds of a range test and the automated readings, numbered as in the plot."""
    rows: list[list[Cell]] = [
        ["", "base (lower bound)", compact(test["base"])],
        ["", "max (upper bound)", compact(test["max"])],
    ]
    for i, (name, value) in enumerate(test["readings"].items()):
        words = _READINGS.get(name, name.replace("_", " "))
        rows.append([str(i + 1), words, compact(value)])
    columns = [Column("#", "right"), Column("Reading"), Column("Learning rate", "right")]
    return Table(slug, f"Range test, {test['label']}: readings", columns, rows, notes,
                 command=command)  # fmt: skip
