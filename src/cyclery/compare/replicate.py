"""The command ``cyclery replicate``: run a tier on fresh seeds, and put its verdicts beside it."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.compare.command import number_text, table_lines

if TYPE_CHECKING:
    from cyclery.config.load import Project
    from cyclery.records.evidence import Evidence
    from cyclery.records.replication import Answer, Outcome, Replication, Share

log = logging.getLogger(__name__)

# Below results: what runs on fresh seeds has a folder of its own.
FOLDER = "replication"
WORDS: Mapping[Outcome, str] = {
    "opposite": "the opposite", "weaker": "weaker", "same": "the same", "stronger": "stronger",
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("papers", nargs="*", metavar="PAPER", help="papers; all that have evidence")
    parser.add_argument("--tier", help="a file of config/tiers, by default the selected one")
    parser.add_argument("--cores", default="all", help="cores that Snakemake may use (default all)")
    parser.add_argument(
        "--first-seed", type=int, metavar="SEED",
        help="first of the fresh seeds (default 12000)",
    )  # fmt: skip
    parser.add_argument(
        "--decided", action="store_true",
        help="run only what the claims need that the first seeds decided",
    )  # fmt: skip
    parser.add_argument(
        "--no-run", action="store_true", help="run nothing; put side by side what is there"
    )


def run(options: argparse.Namespace) -> None:
    """Run the papers on fresh seeds, as far as they have not, and write and print the table."""
    from cyclery.compare.replication import replication
    from cyclery.config.load import load, overrides
    from cyclery.plan.fresh_seeds import SUITABLE

    given = overrides(options.set)
    given |= {"tier": options.tier} if options.tier else {}
    given |= {"papers": options.papers} if options.papers else {}
    project = load(options.root, given)
    if project.config.first_seed:
        raise UserError(
            "first_seed: must be 0 in the configuration, for the old verdicts are those of the "
            f"first seeds (found {project.config.first_seed}); --first-seed names the new ones."
        )
    old = _evidence(project, project.selected(), needed=bool(options.papers))
    first = SUITABLE if options.first_seed is None else options.first_seed
    if first < 1:
        raise UserError(f"--first-seed: must be above 0 (found {first}); {SUITABLE} suits.")
    fresh = {
        **given, "papers": list(old), "first_seed": first,
        "results": f"{project.config.results}/{FOLDER}",
    }  # fmt: skip
    again = load(options.root, fresh)
    if not options.no_run:
        _plan(again, old, options.decided)
        _snakemake(again, options.cores)
    new = _evidence(again, again.selected(), needed=not options.no_run)
    found = replication({name: old[name] for name in new}, new, project.config.tier, first)
    folder = again.results / project.config.tier
    write_atomic(folder / "replication.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_atomic(folder / "replication.csv", as_csv(found))
    print("\n".join(lines(found)))
    log.info("%s: written, and replication.csv beside it", folder / "replication.json")


def _evidence(project: Project, papers: Sequence[str], needed: bool) -> dict[str, Evidence]:
    """Return the evidence of papers at the project's tier; a UserError where there is none.

    Args:
        project: where it is.
        papers: which papers.
        needed: whether all of them must have some; else one must.
    """
    from cyclery.records.evidence import SCHEMA
    from cyclery.records.readers import read_evidence
    from cyclery.sharing.state import selection

    tier = project.config.tier
    files = {name: project.results / tier / "evidence" / f"{name}.json" for name in papers}
    lacking = [name for name, file in files.items() if not file.is_file()]
    if len(lacking) == len(files) or (needed and lacking):
        raise UserError(
            f"{files[lacking[0]]}: there is no such file, so there are no verdicts to compare; run "
            f"`snakemake --cores all {lacking[0]} {' '.join(selection(project.overrides))}`, which "
            "trains nothing after `cyclery fetch` of a published tier."
        )
    if lacking:
        log.info("without evidence at %s, so left out: %s", tier, ", ".join(lacking))
    found = {name: read_evidence(file) for name, file in files.items() if name not in lacking}
    for name, said in found.items():
        if said.get("schema") != SCHEMA or said["tier"] != tier:
            raise UserError(
                f"{files[name]}: is evidence of another version or tier; delete it and repeat."
            )
    return found


def _plan(project: Project, old: Mapping[str, Evidence], decided: bool) -> None:
    """Check that all can run, and have every arm run or those that decided claims need.

    Their ancestors run in any case.

    Args:
        project: that of the fresh seeds.
        old: the evidence on the first ones, by paper.
        decided: whether undecided claims get no runs.

    Raises:
        UserError: the configuration is wrong, or chooses the number of seeds of every arm.
    """
    from cyclery.plan import allocation
    from cyclery.plan.project_checks import check
    from cyclery.records.claims import DECIDED

    if decided and project.config.seeds:
        raise UserError(
            f"--decided: cannot go with seeds={project.config.seeds}, which every arm would have; "
            "leave one of them out."
        )
    path = allocation.place(project.results, project.config.tier)
    path.unlink(missing_ok=True)
    # One message, instead of Snakemake's own.
    plan = check(project)
    if not decided:
        return
    none: dict[str, int] = {}
    for paper, evidence in old.items():
        claims = [claim["id"] for claim in evidence["claims"] if claim["verdict"] in DECIDED]
        needed = {arm for claim in claims for arm in plan.part_arms(f"{paper}.{claim}")}
        none |= {".".join(arm): 0 for arm in plan.part_arms(paper) if arm not in needed}
    allocation.write(path, none)


def _snakemake(project: Project, cores: str) -> None:
    """Make the evidence of the selected papers, by a Snakemake that shows what it does.

    Raises:
        UserError: Snakemake failed.
    """
    from cyclery.sharing.state import snakemake

    command = snakemake(cores, project.selected(), project.overrides)
    with subprocess.Popen(command, cwd=project.root) as running:
        try:
            code = running.wait()
        except BaseException:
            # It lets the jobs that run come to their end, and gives its lock back.
            running.terminate()
            running.wait()
            raise
    if code:
        raise UserError(
            f"Snakemake failed (exit code {code}), as it says above. Run the same command again: "
            "it goes on where it was."
        )


def lines(found: Replication) -> Iterable[str]:
    """Yield the lines of the text."""
    from cyclery.records.replication import moved

    old, new = found["seeds"]
    yield f"Tier {found['tier']}: {new} seeds from {found['first_seed']} on, beside {old} from 0 on"
    claims, compared = found["of_claims"], found["of_comparisons"]
    for title, shares in (
        ("claims that the old seeds decided", claims["decided"]),
        ("claims that they left open", claims["open"]),
        ("comparisons that they decided", compared["decided"]),
        ("comparisons that they left open", compared["open"]),
    ):
        of = next(iter(shares.values()))["of"]
        yield f"\n{of} {title}"
        for name, each in shares.items():
            yield f"  {each['count']:4d} {WORDS[name]}{_percent(each)}"
    inside = found["effects_inside"]
    yield (
        f"\n{inside['count']} of {inside['of']} new effects lie in the 95 % prediction interval of "
        f"the old{_percent(inside)}"
    )
    rows = [
        [f"{claim['paper']}.{claim['claim']}", claim["outcome"], claim["old"], claim["new"],
         *_first(claim["comparisons"])]
        for claim in moved(found)
    ]  # fmt: skip
    if rows:
        yield ""
        yield from table_lines(["claim", "is", "old", "new", "effect old -> new", "95 %"], rows)
    yield from (f"left out: {text}" for text in found["left_out"])


def _percent(each: Share) -> str:
    if each["share"] is None or each["ci95"] is None:
        return ""
    low, high = each["ci95"]
    return f": {100 * each['share']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _first(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the effects of the first comparison, and whether the new one was to be expected."""
    if not rows:
        return ["-", ""]
    old, new = rows[0]["old"], rows[0]["new"]
    inside = {True: "inside", False: "outside", None: ""}[rows[0]["inside"]]
    return [f"{number_text(old['effect'], '+')} -> {number_text(new['effect'], '+')}", inside]


HEAD = (
    "paper", "claim", "claim_outcome", "claim_old", "claim_new", "comparison", "unit", "outcome",
    "old", "new", "old_effect", "old_low", "old_high", "old_n", "new_effect", "new_low",
    "new_high", "new_n", "predicted_low", "predicted_high", "inside",
)  # fmt: skip


def as_csv(found: Replication) -> str:
    """Return the table of all comparisons, one in a row."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEAD)
    for claim in found["claims"]:
        own = [claim["paper"], claim["claim"], claim["outcome"], claim["old"], claim["new"]]
        for row in claim["comparisons"]:
            low, high = row["predicted"] or (None, None)
            writer.writerow([
                *own, row["label"], row["unit"], row["outcome"], row["old"]["verdict"],
                row["new"]["verdict"], *_cells(row["old"]), *_cells(row["new"]), low, high,
                row["inside"],
            ])  # fmt: skip
    return stream.getvalue()


def _cells(answer: Answer) -> list[float | None]:
    low, high = answer["ci95"] or (None, None)
    return [answer["effect"], low, high, answer["n"]]
