"""Files that are lost or damaged after a reproduction are noticed, said and made again."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from factories.graph import Copy
from factories.project import evidence, run, trained

from cyclery.common import checksums, files
from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan.snakemake_api import Graph

RECORDS, RANGES = "results/smoke/records/one/L0-0000.jsonl", "results/smoke/lr-range/one.jsonl"
MANIFEST, EVIDENCE = "results/data/digits.json", "results/smoke/evidence/one.json"
TABLE, TABLE_SUMS = "results/smoke/tables/one.csv", "results/smoke/tables/one.sha256"
REPORT = "results/smoke/report"


# Lists of sums.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and the list of their sums."""
    for name in ("evidence/one.json", "tables/one.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"{name}\n")
    checksums.write(tmp_path / "tables/one.sha256", [tmp_path / "evidence/one.json",
                                                tmp_path / "tables/one.csv"])  # fmt: skip
    return tmp_path


def test_every_flipped_byte_of_a_list_or_of_its_files_is_noticed(folder: Path) -> None:
    path = folder / "tables/one.sha256"
    assert checksums.wrong(path) == []
    for name in ("tables/one.sha256", "tables/one.csv", "evidence/one.json"):
        file = folder / name
        whole = file.read_bytes()
        for place in range(len(whole)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert checksums.wrong(path) == [file], place
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            assert checksums.wrong(path) == [file], length
        file.write_bytes(whole)
    assert checksums.wrong(path) == []


def test_lost_files_and_pipes_are_wrong_and_without_a_list_nothing_is(folder: Path) -> None:
    path, table = folder / "tables/one.sha256", folder / "tables/one.csv"
    table.unlink()
    with pytest.raises(UserError, match=f"{table}: was altered or lost since it was made"):
        checksums.require(path)
    os.mkfifo(table)
    assert checksums.wrong(path) == [table]
    path.unlink()
    assert checksums.wrong(path) == []
    checksums.require(path)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["tables/one.sha256", "tables/one.csv"])
def test_what_cannot_be_read_now_is_not_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    inner = os.open

    def refuse(path: Path, *given: int) -> int:
        if path == folder / name:
            raise OSError(code, os.strerror(code))
        return inner(path, *given)

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(UserError, match=f"cannot read .*{name}: {os.strerror(code)}"):
        checksums.wrong(folder / "tables/one.sha256")


def test_a_list_that_names_files_elsewhere_is_not_believed(folder: Path) -> None:
    path = folder / "tables/one.sha256"
    (folder.parent / "elsewhere").write_text("x")
    for name in ("../../elsewhere", f"{folder.parent}/elsewhere"):
        (folder / "tables/one.csv").write_text("x")
        checksums.write(path, [folder / "tables/one.csv"])
        body = path.read_text().partition("# ")[0].replace("one.csv", name)
        path.write_text(f"{body}# {sha256(body.encode()).hexdigest()}\n")
        assert checksums.wrong(path) == [path]


def test_sha256sum_reads_the_lists(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    command = ["sha256sum", "--check", "--strict", "one.sha256"]
    done = subprocess.run(command, cwd=folder / "tables", capture_output=True, text=True)
    assert done.stdout == "../evidence/one.json: OK\none.csv: OK\n" and done.stderr == ""
    assert done.returncode == 0


# What targets ask for.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has run through every command, its table where the graph has it."""
    root = tmp_path / "project"
    shutil.copytree(trained(), root, ignore=shutil.ignore_patterns("store"))
    (root / TABLE).parent.mkdir()
    (root / "results/smoke/one.csv").rename(root / TABLE)
    checksums.write(root / TABLE_SUMS, [root / TABLE, root / EVIDENCE])
    return root


def aside(root: Path) -> list[Path]:
    """Return what was set aside, by its path in the project."""
    paths = (root / "results/set-aside").rglob("*")
    return [path.relative_to(root) for path in paths if not path.is_dir()]


def due(root: Path, part: str | None = None) -> list[str]:
    return Graph.of(load(root, {})).due(part)


def test_what_is_whole_asks_for_nothing_and_what_is_lost_by_name(project: Path) -> None:
    assert due(project) == due(project, "one") == []
    for name in (RECORDS, RANGES, MANIFEST, EVIDENCE, TABLE, TABLE_SUMS):
        whole = (project / name).read_bytes()
        (project / name).unlink()
        # Without what it lists, the list goes as well: one job makes all.
        expected = [name, TABLE_SUMS] if name in (EVIDENCE, TABLE) else [name]
        assert due(project) == expected
        assert due(project, "one") == expected
        (project / name).write_bytes(whole)
        checksums.write(project / TABLE_SUMS, [project / TABLE, project / EVIDENCE])
    # Before anything is made, jobs ask for records themselves.
    shutil.rmtree(project / "results")
    assert due(project) == [MANIFEST, RANGES, EVIDENCE, TABLE, TABLE_SUMS]


@pytest.mark.parametrize(
    "name", [TABLE, EVIDENCE, f"{REPORT}/index.html", f"{REPORT}/report.tex", "tables", "figures"]
)
def test_a_flipped_byte_sets_a_file_aside_with_a_word(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next((project / REPORT / name).iterdir()) if "/" not in name else project / name
    whole = path.read_bytes()
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    found = due(project)
    said = capsys.readouterr().err
    assert said.startswith(f"cyclery: {path.relative_to(project)}: altered or lost since")
    assert said.count("\n") == 1
    [kept] = aside(project)
    assert f"is kept in {kept.parents[len(path.relative_to(project).parts) - 1]}," in said
    assert not path.exists() and (project / kept).read_bytes()[99] == whole[99] ^ 1
    assert kept.name == path.name
    listing = TABLE_SUMS if name in (TABLE, EVIDENCE) else f"{REPORT}/{checksums.NAME}"
    assert not (project / listing).exists()
    assert found == ([name, TABLE_SUMS] if name in (TABLE, EVIDENCE) else [])
    # Said once; what is missing now is due by itself.
    assert due(project) == found
    assert capsys.readouterr().err == ""


def test_a_pipe_in_the_place_of_a_file_is_set_aside(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (RECORDS, MANIFEST, RANGES):
        (project / name).unlink()
        os.mkfifo(project / name)
        assert due(project) == [name]
        said = capsys.readouterr().err
        assert f"cyclery: {name}: is no regular file; what is left is kept in results/set" in said
        (project / name).touch()
    assert len(aside(project)) == 3


def test_every_damaged_state_is_kept_wherever_results_lie(project: Path, tmp_path: Path) -> None:
    (project / "results").rename(tmp_path / "elsewhere")
    for results in (f"{tmp_path}/elsewhere", "../elsewhere"):
        graph = Graph.of(load(project, {"results": results, "data": f"{results}/data"}))
        table, evidence = (project / name for name in (graph.table("one"), graph.evidence("one")))
        for text in ("mine", "mine, too"):
            whole = table.read_bytes()
            table.write_text(text)
            graph.due()
            table.write_bytes(whole)
            checksums.write(project / graph.sums("one"), [table, evidence])
    kept = [path for path in (tmp_path / "elsewhere/set-aside").rglob("*") if path.is_file()]
    assert sorted(path.read_text() for path in kept) == ["mine"] * 2 + ["mine, too"] * 2


def test_verify_names_every_damaged_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(project, "verify")
    said = capsys.readouterr().out
    assert "tier smoke: 1 papers, 3 files of records" in said
    assert said.endswith(f"\nReport: {project / REPORT}/index.html\n")
    names = (RECORDS, RANGES, MANIFEST, TABLE, f"{REPORT}/index.html")
    for name in names:
        path = project / name
        text = path.read_text()
        path.write_text(text.replace("0", "1", 1))
    (project / EVIDENCE).unlink()
    run(project, "verify", expect=2)
    said, told = capsys.readouterr()
    for name in (*names, EVIDENCE):
        assert any(line.startswith(f"{project / name}") for line in said.splitlines()), name
    assert "tier 'smoke': " in told and told.count("\n") == 1 and "Traceback" not in told


def test_some_papers_have_a_report_of_their_own(tmp_path: Path) -> None:
    for name in ("two", "three"):
        shutil.copytree(trained() / "config", tmp_path / "config", dirs_exist_ok=True)
        shutil.copy(tmp_path / "config/papers/one.yaml", tmp_path / f"config/papers/{name}.yaml")

    def report(**overrides: object) -> str:
        return Graph.of(load(tmp_path, overrides)).report

    whole = "results/smoke/report"
    assert report() == report(papers=["one", "three", "two"]) == whole
    assert report(papers=["two", "one", "three"]) == whole
    assert report(papers=["two"]) == f"{whole}-two"
    assert report(papers=["two", "one"]) == f"{whole}-two+one"
    # The papers that there are, not those that the main file selects.
    (tmp_path / "config/config.yaml").write_text("{tier: smoke, papers: [one]}")
    assert report() == f"{whole}-one"
    for number in range(30):
        shutil.copy(tmp_path / "config/papers/one.yaml", tmp_path / f"config/papers/p{number}.yaml")
    many = [f"p{number}" for number in range(30)]
    assert re.fullmatch(rf"{whole}-30-papers-[0-9a-f]{{8}}", report(papers=many))
    assert report(papers=many) != report(papers=["two", *many[1:]])


def test_the_same_evidence_gives_the_same_list(project: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    run(project, "report", str(project / EVIDENCE), "--output", f"{again}/index.html")
    assert (again / checksums.NAME).read_bytes() == (project / REPORT / checksums.NAME).read_bytes()
    found = checksums.listed(again / checksums.NAME)
    files = {str(p.relative_to(again)) for p in again.rglob("*") if p.is_file()}
    assert found is not None and files - found.keys() <= {
        checksums.NAME,
        "report.log",
        "report.pdf",
    }
    assert evidence(project)["claims"]


# The whole graph.

LOST = (
    "records/tiny/L0-0000.jsonl", "lr-range/tiny.jsonl", "../data/digits.json",
    "evidence/tiny.json", "tables/tiny.csv", "report/SHA256SUMS",
)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Iterator[Copy]:
    """A finished reproduction. Whoever breaks something mends it."""
    with TemporaryDirectory(prefix="cyclery-lost-") as folder:
        copy = Copy(Path(folder))
        copy.snakemake("report")
        yield copy


def snapshot(copy: Copy) -> dict[str, bytes]:
    """Return the bytes of all that is made of runs."""
    folder = copy.root / "results"
    kinds = ("records", "lr-range", "evidence", "tables", "report")
    paths = [path for kind in kinds for path in (folder / "smoke" / kind).rglob("*")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in [*paths, folder / "data/digits.json"]
        if path.is_file() and path.suffix != ".log"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [LOST[0], "all"])
def test_what_is_deleted_is_made_again(made: Copy, name: str) -> None:
    """No run is trained, and all has the same bytes."""
    before = snapshot(made)
    made.forget_logs()
    for each in LOST if name == "all" else [name]:
        (made.root / "results/smoke" / each).unlink()
    made.snakemake(*([] if name == "all" else ["report"]))
    assert snapshot(made) == before
    assert made.trained() == 0
    assert made.nothing_to_do()


@pytest.mark.slow
def test_a_named_part_asks_for_its_own_files(made: Copy) -> None:
    made.snakemake("tiny.T-2")
    folder = made.root / "results/smoke"
    lost = [*(folder / "records/tiny.T-2").glob("*.jsonl"), folder / "tables/tiny.T-2.csv"]
    assert len(lost) == 2
    for path in lost:
        path.unlink()
    said = made.snakemake("tiny.T-2")
    assert "Nothing to be done" not in said and all(path.exists() for path in lost)


@pytest.mark.slow
def test_a_flipped_byte_is_made_again(made: Copy) -> None:
    before = snapshot(made)
    made.forget_logs()
    folder = made.root / "results/smoke"
    paths = folder / "tables/tiny.csv", next((folder / "report/figures").iterdir())
    for path in paths:
        stat, whole = path.stat(), path.read_bytes()
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        # As a disk does it: nobody wrote.
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    said = made.snakemake("--dry-run", "report")
    assert said.count("altered or lost since they were made") == 2
    assert "Nothing to be done" not in said
    made.snakemake("report")
    assert snapshot(made) == before
    assert made.trained() == 0 and made.nothing_to_do()
    # Also what lay in a folder that Snakemake removed before it was made again.
    assert {path.name for path in aside(made.root)} >= {path.name for path in paths}


@pytest.mark.slow
def test_a_pipe_in_the_place_of_records_is_made_again(made: Copy) -> None:
    before = snapshot(made)
    path = made.root / "results/smoke" / LOST[0]
    path.unlink()
    os.mkfifo(path)
    assert "is no regular file; what is left is kept in" in made.snakemake("report")
    assert snapshot(made) == before


@pytest.mark.slow
def test_what_cannot_be_read_is_one_message_of_snakemake(made: Copy) -> None:
    path = made.root / "results/smoke/tables/tiny.sha256"
    whole = path.read_bytes()
    # No system opens a name of that length.
    body = f"{'0' * 64}  {'x' * 300}\n"
    path.write_text(f"{body}# {sha256(body.encode()).hexdigest()}\n")
    said = made.snakemake("--dry-run", expect=2)
    assert "cyclery: cannot read " in said and "File name too long" in said
    assert "Traceback" not in said and "InputFunctionException" not in said
    path.write_bytes(whole)
    assert made.nothing_to_do()
