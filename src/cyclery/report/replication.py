"""The table of a replication: the verdicts of a tier beside those of the same tier on fresh seeds.

``read`` gives what ``cyclery replicate`` has written, ``counts`` and ``claims`` are tables of it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import cast

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, read_regular
from cyclery.common.seals import is_sealed
from cyclery.records.replication import OUTCOMES, SCHEMA, Replication, Share, moved
from cyclery.report.tables import Cell, Column, Estimate, Table


def read(path: Path) -> Replication:
    """Return the replication in a file; a UserError names one that cannot be used."""
    try:
        found = parse_json(read_regular(path))
        if not is_sealed(found):
            raise ValueError("its content does not match its SHA-256")
        if found.get("schema") != SCHEMA:
            raise ValueError(f"it is of schema {found.get('schema')!r}, not {SCHEMA}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); make it again with `cyclery replicate --no-run`."
        ) from None
    return cast(Replication, found)


def counts(found: Replication, papers: Collection[str]) -> Table:
    """Return what became of the verdicts that the old seeds decided, in counts and shares.

    ``papers`` are those that the tier has.
    """
    rows: list[list[Cell]] = []
    for name, shares in (("claims", found["of_claims"]), ("comparisons", found["of_comparisons"])):
        decided = shares["decided"]
        rows.append([
            name, str(decided["same"]["of"]),
            *(_percent(decided[outcome]) for outcome in OUTCOMES),
            str(shares["open"]["stronger"]["of"]), _percent(shares["open"]["stronger"]),
        ])  # fmt: skip
    inside = found["effects_inside"]
    return Table(
        f"replication-{found['tier']}-counts",
        f"Verdicts of {found['tier']} on fresh seeds, in per cent of those that the first seeds "
        "decided",
        [Column("verdicts of"), Column("decided", "right"),
         *(Column(outcome, "estimate", 0) for outcome in OUTCOMES),
         Column("open", "right"), Column("decided now", "estimate", 0)],
        rows,
        [*_extent(found, papers),
         f"Seeds from {found['first_seed']} on. Brackets are Wilson's 95 % intervals. "
         "Opposite is reproduced on one side and contradicted on the other.",
         f"{inside['count']} of {inside['of']} new effects lie in the 95 % prediction interval of "
         "the old one."],
        lead=2, command=_command(found, papers),
    )  # fmt: skip


def _chosen(found: Replication, papers: Collection[str]) -> list[str]:
    """Return the papers that have run again; none where all have."""
    return found["papers"] if set(papers).difference(found["papers"]) else []


def _narrowed(found: Replication) -> list[str]:
    """Return the papers of which claims were left out that the old seeds tested and left open."""
    left = (claim["paper"] for claim in found["claims"]
            if claim["outcome"] == "not run" and claim["old"] != "not run")  # fmt: skip
    return list(dict.fromkeys(left))


def _extent(found: Replication, papers: Collection[str]) -> list[str]:
    """Return notes on what has not run again."""
    out = []
    if chosen := _chosen(found, papers):
        out.append(f"Papers, of {len({*papers, *chosen})}: {', '.join(chosen)}.")
    if narrowed := _narrowed(found):
        out.append(
            f"Of {', '.join(narrowed)} only what decided claims need has run again. Holm's "
            "correction has fewer tests there than before, so that a verdict near the line is the "
            "same somewhat more often."
        )
    return out


def claims(found: Replication, papers: Collection[str]) -> Table:
    """Return the claims that either set of seeds decided, opposite verdicts first.

    A row has the first comparison that the verdict hangs on. ``papers`` are those of the tier.
    """
    rows: list[list[Cell]] = []
    for each in moved(found):
        first = each["comparisons"][0] if each["comparisons"] else None
        sides = (first["old"], first["new"]) if first else (None, None)
        inside = first["inside"] if first else None
        rows.append([
            each["paper"], each["claim"], each["outcome"], each["old"], each["new"],
            *(_estimate(side["effect"], side["ci95"]) if side else None for side in sides),
            first["unit"] if first else "", None if inside is None else "yes" if inside else "no",
        ])  # fmt: skip
    return Table(
        f"replication-{found['tier']}",
        f"Claims of {found['tier']} on the first seeds and on fresh ones",
        [Column("paper"), Column("claim"), Column("is"), Column("old", "verdict"),
         Column("new", "verdict"), Column("old effect", "estimate"),
         Column("new effect", "estimate"), Column("unit"), Column("as predicted")],
        rows,
        ["Effects are those of the first comparison that a verdict hangs on, with the 95 % "
         "interval of its look. As predicted: the new one lies in the 95 % prediction interval of "
         "the old."],
        lead=2, command=_command(found, papers),
    )  # fmt: skip


def _command(found: Replication, papers: Collection[str]) -> str:
    words = ["cyclery", "replicate", "--tier", found["tier"], *_chosen(found, papers)]
    decided = ["--decided"] if _narrowed(found) else []
    return " ".join([*words, "--first-seed", str(found["first_seed"]), *decided])


def _percent(each: Share) -> Estimate | None:
    if each["share"] is None or each["ci95"] is None:
        return None
    low, high = each["ci95"]
    return Estimate(100 * each["share"], 100 * low, 100 * high)


def _estimate(effect: float | None, ci95: tuple[float | None, float | None] | None) -> Cell:
    """Return an effect with its interval; an end that a look leaves open has none."""
    if effect is None:
        return None
    low, high = ci95 or (None, None)
    return Estimate(effect, low, high) if None not in (low, high) else Estimate(effect)
