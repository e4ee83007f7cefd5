"""Publish a finished tier: archives to DVC's remote; index, metrics and effects to git."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.files import lock, megabytes, write_atomic
from cyclery.common.seals import file_sha256
from cyclery.config.load import load
from cyclery.plan.project_checks import check
from cyclery.records.readers import Record, read_evidence, read_records
from cyclery.records.run_store import Store
from cyclery.sharing import arrival, index, inside, state, summary
from cyclery.sharing.archives import Archive, write_archive
from cyclery.sharing.contents import Contents
from cyclery.sharing.dvc import Dvc, Remote

log = logging.getLogger(__name__)
# Of one core: weights that train again so fast are not worth their bytes.
QUICK = 60.0


def publish(
    root: Path,
    overrides: Mapping[str, Any],
    remote_name: str | None = None,
    all_weights: bool = False,
) -> None:
    """Archive the configured tier, commit it to DVC, and push it.

    Weights of a paper's parents that train again within ``QUICK`` seconds are left out, unless
    ``all_weights`` are wanted.

    If it is killed, the same command completes it. What others pull changes only with the commit
    of the index and of ``dvc.lock``.

    Raises:
        UserError: the tier is unfinished, damaged or too large, or DVC failed.
    """
    contents = Contents(check(load(root, overrides)))
    dvc = Dvc(root)
    tier = contents.plan.tier
    dvc.require(tier)
    remote = dvc.remote(remote_name)
    with lock(root / ".dvc" / "tmp" / "cyclery.lock"):
        contents.require_whole()
        _require_finished(contents, overrides)
        home = index.Home(root, tier)
        records = _records(contents)
        quick = set() if all_weights else _quick(contents, records)
        weights, missing = _weights(contents, records, quick, _left_out_before(home))
        datasets = [name for name in contents.datasets if name in dvc.datasets()]
        shared = {name: _dataset(contents, home, name) for name in datasets}
        archives = _write_archives(contents, home)
        free = _free_bytes(home, shared, remote) - sum(found.size for found in archives.values())
        chosen = _fitting(weights, free) if remote.inside else weights
        for paper, files in chosen.items():
            name = f"checkpoints/{paper}.tar"
            archives[name] = write_archive(home.archives / name, files)
        if free < 0 and remote.inside:
            raise inside.too_large(home.archives, f"tier {tier!r}")
        _drop_others(home, archives)
        too_large = sorted(weights.keys() - chosen.keys())
        left_out = sorted([*too_large, *missing, *quick])
        _describe(contents, home, archives, shared, left_out)
        targets = home.targets(datasets)
        dvc.freeze(targets)
        # The results here are the published ones now.
        arrival.mark_installed(contents.plan.project)
        dvc.push(targets, remote)
    size = sum(found.size for found in [*archives.values(), *shared.values()])
    log.info("tier %s: %s in %d archives, on remote %r",
             tier, megabytes(size), len(archives) + len(shared), remote.name)  # fmt: skip
    reasons = {
        **dict.fromkeys(
            too_large, f"do not fit next to the rest within {megabytes(inside.MOST_INSIDE)}"
        ),
        **dict.fromkeys(missing, "were not published before, and are not here"),
    }
    if quick:
        log.info("without the weights of the parents of %s, which train again in seconds "
                 "(--all-weights publishes them, too)", ", ".join(sorted(quick)))  # fmt: skip
    for paper, reason in reasons.items():
        log.warning("%s: the weights of its parents %s; who changes an arm of it trains them again",
                    paper, reason)  # fmt: skip
    inside.say_what_to_commit(root, home.folder, remote)


def _require_finished(contents: Contents, overrides: Mapping[str, Any]) -> None:
    root, tier = contents.root, contents.plan.tier
    state.refuse_locked(root)
    if left := state.to_do(root, overrides, contents.papers):
        raise UserError(
            f"tier {tier!r} is not finished ({state.told(left)} to do): run "
            f"`make reproduce TIER={tier}`, then publish."
        )


def _records(contents: Contents) -> dict[str, Record]:
    """Return all records of the tier; a UserError names a file that is damaged."""
    files = {path: {a.key(s) for a, s in shard.runs} for path, shard in contents.shards.items()}
    wanted = {**contents.ranges, **files}
    return read_records({contents.root / path: keys for path, keys in wanted.items()})


def _left_out_before(home: index.Home) -> set[str]:
    """Return the papers whose weights the publication here does not carry."""
    return set(index.read(home).without_checkpoints) if home.index.exists() else set()


def _weights(
    contents: Contents, records: dict[str, Record], quick: set[str], dispensable: set[str]
) -> tuple[dict[str, dict[str, Path | bytes]], list[str]]:
    """Return the files of the weights that are kept, by paper and name, each as its record says.

    Those of ``quick`` papers are not asked for. With them the papers whose weights are not all
    here. Only ``dispensable`` papers may lack weights: those that the publication which was fetched
    had left out.
    """
    store = Store(contents.plan.project.results / "store")
    found: dict[str, dict[str, Path | bytes]] = {}
    missing = []
    for paper, keys in contents.kept.items():
        if paper in quick:
            continue
        # A run that diverged has none.
        kept = {key: sha for key in keys if (sha := records[key].get("checkpoint_sha256"))}
        paths = {key: store.checkpoint(key) for key in kept}
        lost = [p for k, p in paths.items() if not p.exists() or file_sha256(p) != kept[k]]
        if lost and paper not in dispensable:
            again = f"make reproduce TIER={contents.plan.tier}"
            raise UserError(
                f"{lost[0]}: the weights of a parent are lost or damaged; `{again} "
                f"TARGET=checkpoints` mends that, and then `{again}`."
            )
        if lost:
            missing.append(paper)
        elif paths:
            found[paper] = {f"{key}.safetensors": path for key, path in paths.items()}
    return found, missing


def _quick(contents: Contents, records: dict[str, Record]) -> set[str]:
    """Return the papers whose parents train again within ``QUICK`` seconds of one core."""
    return {
        paper
        for paper, keys in contents.kept.items()
        if sum(records[key]["seconds"] for key in keys) <= QUICK
    }


def _write_archives(contents: Contents, home: index.Home) -> dict[str, Archive]:
    """Write all archives but those of weights."""
    archives = {
        f"papers/{paper}.tar.xz": {
            contents.name(path): contents.root / path for path in contents.records(paper)
        }
        for paper in contents.papers
    }
    graph = contents.graph
    archives["state.tar.xz"] = {
        **{contents.name(p): contents.root / p for p in map(graph.manifest, contents.datasets)},
        **{
            f"snakemake/{contents.name(output)}": state.memory(contents.root, output)
            for output in contents.outputs()
        },
    }
    return {
        name: write_archive(home.archives / name, {**files}) for name, files in archives.items()
    }


def _dataset(contents: Contents, home: index.Home, name: str) -> Archive:
    """Write the archive of a prepared dataset, which is made again where it is absent."""
    from cyclery.data.prepare import load_or_remake

    manifest = contents.root / contents.graph.manifest(name)
    found, _ = load_or_remake(manifest, contents.plan.project.datasets.__getitem__)
    file = f"{name}.safetensors"
    return write_archive(home.dataset(name), {file: manifest.parent / str(found["file"])})


def _free_bytes(home: index.Home, shared: Mapping[str, Archive], remote: Remote) -> int:
    """Return the bytes left for this tier's archives next to all else that is published."""
    if remote.inside is None:
        return 0
    others = inside.bytes_of_others(home.root, home.tier)
    return inside.MOST_INSIDE - others - sum(found.size for found in shared.values())


def _fitting(
    weights: dict[str, dict[str, Path | bytes]], free: int
) -> dict[str, dict[str, Path | bytes]]:
    """Return the weights of as many papers as fit, the smallest first."""

    def size(paper: str) -> int:
        # A head and a tail of a block of 512 each, and the end of the tar.
        files = (path for path in weights[paper].values() if isinstance(path, Path))
        return sum(path.stat().st_size + 1024 for path in files) + 10_240

    chosen = {}
    for paper in sorted(weights, key=lambda p: (size(p), p)):
        if size(paper) <= free:
            free -= size(paper)
            chosen[paper] = weights[paper]
    return chosen


def _drop_others(home: index.Home, archives: Mapping[str, Archive]) -> None:
    """Remove archives of earlier publications, and partial ones of a killed process."""
    wanted = {home.archives / name for name in archives}
    for path in list(home.archives.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()


def _describe(
    contents: Contents,
    home: index.Home,
    archives: dict[str, Archive],
    datasets: dict[str, Archive],
    without_checkpoints: list[str],
) -> None:
    """Write the files in git: metrics, effects and, last, the index."""
    evidence = [read_evidence(contents.root / contents.graph.evidence(p)) for p in contents.papers]
    write_atomic(home.folder / "metrics.json", summary.metrics(evidence))
    write_atomic(home.folder / "effects.csv", summary.effects(evidence))
    project, seeds = contents.plan.project, contents.allocation
    found = {
        "format": index.WITH_SEEDS if seeds else index.FORMAT,
        "tier": contents.plan.tier,
        "papers": contents.papers,
        "seeds": project.seeds,
        "checkpoints": project.config.checkpoints,
        "results": project.config.results,
        "data": project.config.data,
        "snakemake": state.snakemake_version(),
        "packs": {name: archives[name].as_dict() for name in sorted(archives)},
        "datasets": {name: found.as_dict() for name, found in datasets.items()},
        "without_checkpoints": without_checkpoints,
        "allocation": seeds,
    }
    index.write(home, index.Index.model_validate(found))
