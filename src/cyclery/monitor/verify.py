"""The command ``cyclery verify``: check every file of a tier against its digest.

Records, manifests and evidence carry their own digest; lists have those of tables and report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from cyclery.common import checksums
from cyclery.common.errors import UserError
from cyclery.plan.graph import Plan
from cyclery.records.readers import read_records
from cyclery.sharing.contents import Contents


def verify(plan: Plan) -> None:
    """Print each damaged or lost file of the selected papers, or that all are intact.

    Raises:
        UserError: a file is damaged or lost; each was printed, with its remedy.
    """
    contents = Contents(plan)
    problems = list(_problems(contents))
    for problem in problems:
        print(problem)
    if problems:
        raise UserError(
            f"tier {plan.tier!r}: {len(problems)} of its files are damaged or lost. Delete what is "
            f"named and run `make reproduce TIER={plan.tier}`: what the run store holds is not "
            "trained again."
        )
    files = len(contents.shards) + len(contents.ranges)
    print(f"tier {plan.tier}: {len(contents.papers)} papers, {files} files of records, evidence, "
          "tables and report are intact")  # fmt: skip
    print(f"Report: {(contents.root / contents.report[0]).resolve()}")


def _problems(contents: Contents) -> Iterator[str]:
    """Yield a message for each file that is damaged or lost."""
    from cyclery.data.prepare import read_manifest

    root, graph = contents.root, contents.graph
    known = contents.plan.project.datasets
    runs = {path: {a.key(s) for a, s in shard.runs} for path, shard in contents.shards.items()}
    checks: list[Callable[[], object]] = [
        *(
            partial(read_manifest, root / graph.manifest(name), known[name])
            for name in contents.datasets
        ),
        *(
            partial(read_records, {root / path: keys})
            for path, keys in {**contents.ranges, **runs}.items()
        ),
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            yield str(error)
    # Evidence among them.
    for path in (root / each for each in (*map(graph.sums, contents.papers), contents.report[-1])):
        if not path.exists():
            yield f"{path}: there is no such file; `make reproduce` makes it."
        yield from (checksums.problem(path, file) for file in checksums.wrong(path))
