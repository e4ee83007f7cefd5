"""Install fetched files in the project; files that differ are set aside, never overwritten."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from filecmp import cmp
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import Busy, synced_at_once, writing
from cyclery.common.seals import file_sha256
from cyclery.common.set_aside import Aside
from cyclery.plan import allocation
from cyclery.records.run_store import Store
from cyclery.records.shard_files import refresh
from cyclery.sharing import state
from cyclery.sharing.contents import Contents
from cyclery.sharing.delivery import Delivery, Record
from cyclery.sharing.index import Index

log = logging.getLogger(__name__)


def put_in_place(contents: Contents, delivery: Delivery, found: Index) -> None:
    """Fill the run store and install outputs; a second call completes one that was killed."""
    fill_store(contents, delivery)
    _put_allocation(contents, found)
    put(contents, delivery, found)


def fill_store(contents: Contents, delivery: Delivery) -> None:
    """Put the published runs into the run store."""
    store = Store(contents.plan.project.results / "store")
    aside = Aside(contents.plan.project.results)
    # Records and weights have digests, and what is damaged is put again by the next attempt.
    with synced_at_once():
        for key, record in delivery.records.items():
            with store.lock(key, wait=False) as held:
                if not held:
                    raise UserError(
                        f"run {key} is being trained by another process; wait for it, then fetch "
                        "again."
                    )
                _put_run(store, record, delivery.weights.get(key), aside)
    # Other files of records that list a parent which was replaced: what was made of it is stale.
    # All parents, not those replaced now: an attempt before this one may have been killed here.
    parents = {key: run for key, run in delivery.records.items() if run.get("checkpoint_sha256")}
    files = set(contents.graph.files_holding(parents)) - delivery.files.keys()
    refresh([contents.root / file for file in sorted(files)], parents)
    _say(aside, "runs")


def _put_allocation(contents: Contents, found: Index) -> None:
    """Give single arms the seeds that are published; arms of other papers keep what they have."""
    project = contents.plan.project
    path = allocation.place(project.results, found.tier)
    if not found.allocation and not path.exists():
        return
    try:
        with allocation.hold(path):
            known = allocation.read(path)
            wanted = {**allocation.of_others(known, found.papers), **found.allocation}
            if wanted == known:
                return
            aside = Aside(project.results)
            aside.take(path, f"{contents.graph.results}/{path.name}")
            if wanted:
                allocation.write(path, wanted)
            _say(aside, "files")
    except Busy:
        raise UserError(
            f"{path}: `cyclery decide` is at work on this tier; wait for it, then fetch again."
        ) from None


def _put_run(store: Store, record: Record, weights: Path | None, aside: Aside) -> None:
    """Store one run. The caller holds its lock."""
    key = record["key"]
    path = store.checkpoint(key)
    known = store.read(key)
    digest = record.get("checkpoint_sha256")
    whole = path.exists() and digest is not None and file_sha256(path) == digest
    if known == record and (whole or weights is None):
        return
    if known is not None and known != record:
        aside.take(store.folder(key) / "record.json", f"store/{key}/record.json")
    if not whole:
        aside.take(path, f"store/{key}/{path.name}")
        if weights is not None:
            _copy(weights, path)
    # Last: a record promises the weights.
    store.write(key, record)


def put(contents: Contents, delivery: Delivery, found: Index) -> None:
    """Put outputs in their places, with what Snakemake remembers of them."""
    aside = Aside(contents.plan.project.results)
    _put_datasets(contents, delivery, aside)
    if _remembers(contents, delivery, found):
        chosen, memories = list(delivery.files), delivery.memories
    else:
        chosen, memories = _still_current(contents, delivery), {}
    # Downstream first: were an input to go while its product stays, Snakemake would not see it.
    for output in reversed(_ordered(contents, delivery.files)):
        path = contents.root / output
        if output not in chosen or not _same(delivery.files[output], path):
            aside.take(path, output)
    state.forget(contents.root, [path for path in contents.outputs() if path in delivery.files])
    state.remember(contents.root, memories)
    placed = [output for output in _ordered(contents, delivery.files) if output in chosen]
    for output in placed:
        path = contents.root / output
        if not path.exists():
            _copy(delivery.files[output], path)
    if not memories:
        outputs = [output for output in contents.outputs() if output in placed]
        state.touch(contents.root, outputs, contents.plan.project.overrides)
    _say(aside, "files")


def _remembers(contents: Contents, delivery: Delivery, found: Index) -> bool:
    """Say whether Snakemake here understands what the publisher's remembers."""
    config = contents.plan.project.config
    return (
        state.same_minor(found.snakemake, state.snakemake_version())
        and (found.results, found.data) == (config.results, config.data)
        and bool(delivery.memories)
    )


def _still_current(contents: Contents, delivery: Delivery) -> list[str]:
    """Return the files that this configuration would make, of all that are published.

    Snakemake takes what is touched for current, so what differs from the plan, and all that is
    made of it, must not be there.
    """
    from cyclery.data.prepare import read_manifest

    graph, files = contents.graph, delivery.files
    current: set[str] = set()
    for dataset in contents.datasets:
        manifest = graph.manifest(dataset)
        try:
            read_manifest(files[manifest], contents.plan.project.datasets[dataset])
        except UserError:
            continue
        current.add(manifest)

    def keep(output: str, listed: set[str], inputs: Iterable[str]) -> None:
        if set(delivery.listed.get(output, ())) == listed and current.issuperset(inputs):
            current.add(output)

    for path, keys in contents.ranges.items():
        keep(path, keys, graph.manifests(Path(path).stem))
    for path, shard in contents.shards.items():
        keep(
            path,
            {arm.key(seed) for arm, seed in shard.runs},
            [
                *graph.manifests(shard.group),
                *graph.range_files(shard.group, shard.name),
                *graph.parent_files(shard.group, shard.name),
            ],
        )
    return [path for path in files if path in current]


def _ordered(contents: Contents, files: Iterable[str]) -> list[str]:
    """Return files upstream first; last what the graph does not know."""
    order = {path: place for place, path in enumerate(contents.outputs())}
    return sorted(files, key=lambda path: (order.get(path, len(order)), path))


def _put_datasets(contents: Contents, delivery: Delivery, aside: Aside) -> None:
    """Install prepared datasets next to their manifests, where this project lacks that content."""
    for dataset in contents.datasets:
        manifest = contents.graph.manifest(dataset)
        local = (contents.root / manifest).with_name(f"{dataset}.safetensors")
        if not _same(delivery.files[manifest], contents.root / manifest):
            # Of another preparation; where it is the same after all, it comes back in a moment.
            aside.take(local, f"{contents.graph.data}/{local.name}")
        if not local.exists() and dataset in delivery.datasets:
            _copy(delivery.datasets[dataset], local)


def _say(aside: Aside, what: str) -> None:
    if aside.count:
        log.warning("%d %s of this project differed from what was published: now in %s",
                    aside.count, what, aside.folder)  # fmt: skip


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and cmp(one, other, shallow=False)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, writing(target, source.stat().st_size) as output:
        shutil.copyfileobj(stream, output)
