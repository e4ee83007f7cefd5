"""What a plan tells Snakemake: paths, cores, and digests that repeat a job."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from factories.plan import planned, ranged
from factories.project import arms

from cyclery.common.source_hash import imported
from cyclery.config.load import load
from cyclery.plan import snakemake_api
from cyclery.plan.snakemake_api import JUDGING, RENDERING, Graph


def test_the_graph_speaks_in_relative_paths(tmp_path: Path) -> None:
    planned(tmp_path, ranged)
    graph = Graph.of(load(tmp_path, {"tier": "smoke", "seeds": 3, "papers": ["one"]}))
    assert graph.overrides == "--set 'papers=[\"one\"]' --set seeds=3"
    assert graph.record_files("one") == ["results/smoke/records/one/L0-0000.jsonl"]
    assert graph.range_files("one", "L0-0000") == ["results/smoke/lr-range/one.jsonl"]
    assert graph.part_range_files("one") == ["results/smoke/lr-range/one.jsonl"]
    assert graph.manifests("one") == ["results/data/digits.json"]
    assert graph.evidence_files() == ["results/smoke/evidence/one.json"]
    assert graph.parent_files("one", "L0-0000") == []


def test_a_job_asks_for_no_more_cores_than_it_has_runs(tmp_path: Path) -> None:
    planned(tmp_path, ranged)
    graph = Graph.of(load(tmp_path, {"seeds": 30, "device": "cpu"}))
    # Two sweeps; many runs, of which a machine with as many cores trains 64 at once.
    assert graph.range_threads("one") == 2
    assert graph.shard_threads("one", "L0-0000") == 64
    few = Graph.of(load(tmp_path, {"seeds": 2, "device": "cpu"}))
    assert few.shard_threads("one", "L0-0000") == 2 * len(few.plan.part_arms("one"))
    on_gpu = Graph.of(load(tmp_path, {"seeds": 30, "device": "cuda"}))
    assert on_gpu.shard_threads("one", "L0-0000") == 1


def test_edited_rules_of_judging_repeat_the_verdicts(tmp_path: Path) -> None:
    planned(tmp_path)
    source = tmp_path / "package"
    package = Path(snakemake_api.__file__).parents[1]
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("__pycache__"))

    def code() -> tuple[str, str]:
        graph = Graph.of(load(tmp_path, {}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snakemake_api, "__file__", str(source / "plan/snakemake_api.py"))
            return graph.code, graph.report_code

    before = code()
    unchanged = Graph.of(load(tmp_path, {}))
    assert before == (unchanged.code, unchanged.report_code)
    packages = {path.parent.name: path for path in source.glob("*/__init__.py")}
    assert set(JUDGING) < set(RENDERING) < set(packages)
    for name in packages.keys() - set(RENDERING):
        packages[name].write_text("# Its version decides about training; or it decides nothing.")
    assert code() == before
    found = [before]
    for path in [*(packages[name] for name in JUDGING), *source.glob("evidence/stats/*.py")]:
        path.write_text("# other")
        found.append(code())
    judging, rendering = zip(*found, strict=True)
    assert len(set(judging)) == len(set(rendering)) == len(found)
    # What renders is not what judges.
    drawn = [found[-1]]
    for path in [packages["report"], *(source / "report").rglob("*.j2")]:
        path.write_text("# other")
        drawn.append(code())
    judging, rendering = zip(*drawn, strict=True)
    assert set(judging) == {found[-1][0]} and len(set(rendering)) == len(drawn)


def test_the_packages_of_judging_are_what_evidence_and_report_import() -> None:
    package = Path(snakemake_api.__file__).parents[1]

    def rooms(*names: str) -> set[str]:
        files = [path for name in names for path in (package / name).rglob("*.py")]
        return {name.partition(".")[0] for path in files for name in imported(path, "cyclery")}

    assert rooms("evidence") == set(JUDGING)
    assert rooms("evidence", "report") == set(RENDERING)


def test_what_is_said_of_a_part_changes_its_digest_only(tmp_path: Path) -> None:
    planned(tmp_path)
    before = Graph.of(load(tmp_path, {}))
    planned(tmp_path, lambda tier, paper: arms(paper)["fast"].update(label="new"))
    after = Graph.of(load(tmp_path, {}))
    assert before.shard_digest("one", "L0-0000") == after.shard_digest("one", "L0-0000")
    assert before.part_digest("one") != after.part_digest("one")
