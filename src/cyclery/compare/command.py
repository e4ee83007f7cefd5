"""The command ``cyclery compare``: plain-text tables, or JSON."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.formatting import aligned

if TYPE_CHECKING:
    from cyclery.compare.contracts import ArmRow, Found, Verdicts

# Percentage points, where accuracies are compared.
MARGIN = 1.0

# Lines of one list; more are counted, and --json has all.
LISTED = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("a", type=Path, help="results/<tier>, or a table, records or evidence")
    parser.add_argument("b", type=Path, help="what it is compared with")
    parser.add_argument("--metric", default="test_accuracy", help="what arms are compared by")
    parser.add_argument(
        "--margin", type=float, default=MARGIN,
        help=f"largest difference called equal, in pp for accuracies (default {MARGIN:g})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")


def run(options: argparse.Namespace) -> None:
    """Read both sets, compare and print."""
    # Statistics take a second to import, and every other command adds these options too.
    from cyclery.compare.analysis import compare
    from cyclery.compare.result_sets import read

    if not (isfinite(options.margin) and options.margin > 0):
        raise UserError(f"--margin: must be a number above 0 (found {options.margin:g}).")
    found = compare(read(options.a), read(options.b), options.metric, options.margin)
    if options.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        print("\n".join(lines(found)))


def lines(found: Found) -> Iterable[str]:
    """Yield the lines of the text."""
    yield f"A  {_plain(found['a'])}"
    yield f"B  {_plain(found['b'])}"
    yield from _listed("\nWhat else differs", found["differences"])
    claims = found["claims"]
    if claims:
        yield f"\nVerdicts: {sum(row['moved'] for row in claims)} of {len(claims)} moved"
        rows = [
            [f"{row['paper']}.{row['claim']}", "moved" if row["moved"] else "", row["a"]["verdict"],
             row["b"]["verdict"], _effects(row["a"], row["b"]),
             "the statements differ" if row["statements_differ"] else ""]
            for row in claims
        ]  # fmt: skip
        yield from table_lines(["claim", "", "A", "B", "effect A -> B", ""], rows)
    else:
        yield "\nVerdicts: no claim is judged in both"
    arms, of = found["arms"], f" {found['unit']}" if found["unit"] else ""
    if arms:
        yield f"\nArms by {found['metric']}, margin {found['margin']:g}{of}"
        yield from table_lines(
            ["arm", "n", "A", "B", "B - A", "95 % interval", "p (Holm)", "test", "same bits", ""],
            [_arm(row) for row in arms], right=range(1, 7),
        )  # fmt: skip
        count = Counter(row["outcome"] for row in arms)
        yield "  " + ", ".join(f"{n} {outcome}" for outcome, n in count.most_common())
        left_out = [f"{_name(row)}: {text}" for row in arms for text in row["left_out"]]
        yield from _listed("\nLeft out", left_out)
    else:
        yield "\nArms: none is in both"
    for side, only in (("A", found["only"]["a"]), ("B", found["only"]["b"])):
        texts = [*(f"claim {name}" for name in only["claims"]), *(f"arm {n}" for n in only["arms"]),
                 *(f"{name}: seeds {', '.join(map(str, seeds))}"
                   for name, seeds in only["seeds"].items())]  # fmt: skip
        yield from _listed(f"\nOnly in {side}", texts)


def _name(row: ArmRow) -> str:
    return "/".join((row["paper"], row["experiment"], row["arm"]))


def _arm(row: ArmRow) -> list[str]:
    return [
        _name(row), "/".join(map(str, row["n"])), *(number_text(mean) for mean in row["mean"]),
        number_text(row["effect"], "+"), _interval(row["ci95"]),
        "-" if row["p"] is None else f"{row['p']:.2g}", row["test"],
        f"{len(row['identical'])}/{row['compared']}", row["outcome"],
    ]  # fmt: skip


def number_text(value: float | None, sign: str = "") -> str:
    """Return a figure with two decimals, a dash where there is none."""
    return "-" if value is None else f"{value:{sign}.2f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"[{bounds[0]:+.2f}, {bounds[1]:+.2f}]" if bounds else "-"


def _effects(a: Verdicts, b: Verdicts) -> str:
    """Return the effect of the first comparison on both sides: a claim may have many."""
    first = [side["effects"][0] if side["effects"] else None for side in (a, b)]
    texts = [number_text(effect["effect"] if effect else None, "+") for effect in first]
    return f"{texts[0]} -> {texts[1]}{' pp' if first[0] and first[0]['unit'] == 'pp' else ''}"


def _listed(title: str, texts: Sequence[str]) -> Iterable[str]:
    if texts:
        yield title
        yield from (f"  {_plain(text)}" for text in texts[:LISTED])
        if len(texts) > LISTED:
            yield f"  and {len(texts) - LISTED} more; --json has all"


def table_lines(
    head: list[str], rows: Sequence[Sequence[str]], right: Container[int] = ()
) -> Iterable[str]:
    """Yield the lines of a table whose columns are aligned, without what a terminal obeys."""
    cells = [[_plain(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    yield from (f"  {line}" for line in aligned([cells[0], rule, *cells[1:]], right))


def _plain(text: str) -> str:
    """Return a text out of a file without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
