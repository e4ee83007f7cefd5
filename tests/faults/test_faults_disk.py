"""A disk that is full or read-only, at every command: a real one, of a few megabytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import fault as fault_factory
from factories import graph as graph_factory
from factories.project import trained

from cyclery.cli.main import main
from cyclery.common.errors import UserError

pytestmark = [
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
Json = dict[str, Any]
MEGABYTE = 1 << 20
AGAIN = "one message; nothing done is lost, and the same command completes"


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def leave(self, size: int) -> None:
        """Fill it but for so many bytes, in pages of 4 KiB."""
        self.free()
        rest = shutil.disk_usage(self.folder).free - size
        with self._filler.open("wb") as stream:
            while rest > 0:
                rest -= stream.write(bytes(min(rest, MEGABYTE)))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def read_only(self, on: bool = True) -> None:
        _mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))

    def halves(self) -> list[Path]:
        return list(self.folder.rglob("*.part"))


def _mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 16 MB, where `project` has its results."""
    folder = tmp_path / "project/results"
    folder.mkdir(parents=True)
    if sys.platform != "linux" or os.geteuid() != 0 or not _mount(
        "-t", "tmpfs", "-o", "size=16m", "none", str(folder)
    ):  # fmt: skip
        pytest.skip("a file system can only be mounted by root, where that is allowed")
    try:
        yield Disk(folder)
    finally:
        # Lazily, because a failed test may have left a file open in it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def project(disk: Disk) -> Path:
    """A finished project, with its results on that disk."""
    root = disk.folder.parent
    shutil.copytree(trained() / "config", root / "config")
    shutil.copytree(trained() / "results", disk.folder, dirs_exist_ok=True)
    return root


COMMANDS = {
    "prepare": (["prepare", "digits"], ["data"]),
    "lr-range": (["lr-range", "one", "--output", "{out}/lr-range/one.jsonl"],
                 ["smoke/lr-range/one.jsonl"]),
    "train": (["train", "one/L0-0000", "--output", "{out}/records/one/L0-0000.jsonl",
               "--set", "resume_seconds=0.001"], ["smoke/records/one/L0-0000.jsonl"]),
    "evidence": (["evidence", "one", "--output", "{out}/evidence/one.json",
                  "--table", "{out}/tables/one.csv"], ["smoke/evidence", "smoke/tables"]),
    "report": (["report", "{out}/evidence/one.json", "--output", "{out}/report/index.html"],
               ["smoke/report"]),
}  # fmt: skip
# Bytes left, so that the fault falls at the first write, and at ever later ones.
SPACE = {
    "prepare": (0, 4096, 40_960, 131_072, 135_168, 139_264),
    "lr-range": (0, 8192, 16_384, 24_576, 32_768),
    "train": (0, 8192, 16_384, 24_576, 36_864, 49_152, 65_536),
    "evidence": (0, 4096, 12_288),
    "report": (0, 8192, 65_536, 200_000),
}


def command(root: Path, name: str) -> list[str]:
    arguments = [part.format(out=root / "results/smoke") for part in COMMANDS[name][0]]
    return ["--root", str(root), *arguments, "--log", str(root / "results/log.txt")]


def forget(root: Path, name: str) -> None:
    """Remove what a command makes, the runs in a file of records too."""
    results = root / "results"
    for part in COMMANDS[name][1]:
        if part.endswith(".jsonl"):
            for line in (trained() / "results" / part).read_text().splitlines():
                key = json.loads(line)["key"]
                shutil.rmtree(results / "store" / key[:2] / key, ignore_errors=True)
        if (results / part).is_dir():
            shutil.rmtree(results / part)
        else:
            (results / part).unlink(missing_ok=True)


def content(root: Path) -> dict[str, object]:
    """Return what must be identical, by file: figures of records, and bytes of all else."""
    found: dict[str, object] = {}
    results = root / "results"
    for path in results.rglob("*"):
        name = str(path.relative_to(results))
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [[factory.figures(r), r.get("bounds")] for r in lines]
        elif path.name == "record.json":
            record = json.loads(path.read_text())
            found[name] = [factory.figures(record), record.get("bounds")]
        elif path.suffix in (".safetensors", ".csv", ".tex") or path.name == "digits.json":
            found[name] = path.read_bytes()
    return found


def one_message(said: str) -> str:
    """Return the message of a command that failed: one line, which says what to do."""
    assert "Traceback" not in said
    messages = [line for line in said.splitlines() if "again" in line]
    assert len(messages) == 1 and messages[0].startswith("cyclery: "), said
    return messages[0]


def sweep(
    name: str, project: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> tuple[int, int]:
    """Run a command with ever more space left; return how often it failed, and what that cost."""
    assert main(command(project, name)) == 0
    expected = content(project)
    injected = spoilt = 0
    for space in SPACE[name]:
        forget(project, name)
        before = content(project)
        disk.leave(space)
        capsys.readouterr()
        code = main(command(project, name))
        said = capsys.readouterr().err
        disk.free()
        assert not disk.halves(), space
        after = content(project)
        # Whole or absent: whatever has its name is what it is to be.
        assert {key: expected[key] for key in after if not key.endswith("resume.safetensors")} == {
            key: value for key, value in after.items() if not key.endswith("resume.safetensors")
        }
        assert before.keys() <= after.keys()
        if code:
            assert code == 2
            message = one_message(said)
            assert "no space on disk to write" in message and str(disk.folder) in message
            injected += 1
        stamps = {p: p.stat().st_mtime_ns for p in disk.folder.rglob("record.json")}
        assert main(command(project, name)) == 0
        assert content(project) == expected
        spoilt += sum(path.stat().st_mtime_ns != stamp for path, stamp in stamps.items())
    return injected, spoilt


@pytest.mark.parametrize(
    "name",
    ["prepare", "evidence",
     *(pytest.param(slow, marks=pytest.mark.slow) for slow in ("lr-range", "train", "report"))],
)  # fmt: skip
def test_a_full_disk_costs_nothing_that_was_done(
    name: str, project: Path, disk: Disk, capsys: pytest.CaptureFixture[str],
    record_property: fault_factory.Properties,
) -> None:  # fmt: skip
    injected, spoilt = sweep(name, project, disk, capsys)
    assert injected >= 2 and spoilt == 0
    fault_factory.note(record_property, f"full disk, {name}", AGAIN, injected, spoilt)


def test_training_goes_on_where_only_a_resume_point_does_not_fit(
    disk: Disk, caplog: pytest.LogCaptureFixture, record_property: fault_factory.Properties
) -> None:
    """A run of a network whose resume point is large, beside a record that is small."""
    job = factory.job(factory.settings(model_settings={"hidden": [512, 512]}, epochs=4))
    [expected] = factory.trainer(disk.folder.parent / "other").train([job])
    disk.leave(200_000)
    [record] = factory.trainer(disk.folder, resume_seconds=0.0).train([job])
    assert factory.figures(record) == factory.figures(expected)
    assert caplog.text.count("no resume point was saved") == 3
    assert "No space left on device" in caplog.text and not disk.halves()
    fault_factory.note(
        record_property,
        "full disk, a resume point",
        "training goes on without it, with a warning",
        3,
    )


@pytest.mark.parametrize(
    ("hidden", "keep", "space", "file"),
    [([512, 512], True, 200_000, "checkpoint.safetensors"), ([32], False, 0, "record.json")],
)
def test_a_run_whose_end_does_not_fit_ends_the_same_later(
    hidden: list[int], keep: bool, space: int, file: str, disk: Disk,
    record_property: fault_factory.Properties,
) -> None:  # fmt: skip
    job = factory.job(factory.settings(model_settings={"hidden": hidden}), keep=keep)
    calm, trainer = factory.trainer(disk.folder.parent / "other"), factory.trainer(disk.folder)
    [expected] = calm.train([job])
    disk.leave(space)
    with pytest.raises(UserError, match=f"no space on disk to write .*{file}"):
        trainer.train([job])
    assert trainer.store.read(job["key"]) is None and not disk.halves()
    disk.free()
    [record] = factory.trainer(disk.folder).train([job])
    assert factory.figures(record) == factory.figures(expected)
    if keep:
        weights = (each.store.checkpoint(job["key"]).read_bytes() for each in (calm, trainer))
        assert len(set(weights)) == 1
    fault_factory.note(record_property, f"full disk, {file}", AGAIN)


def test_a_full_disk_behind_the_output_is_one_message(
    project: Path, record_property: fault_factory.Properties
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cyclery", "--root", str(project), "plan"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "no space on disk to write the output" in one_message(done.stderr)
    fault_factory.note(record_property, "full disk, the terminal's output", "one message")


@pytest.mark.parametrize("name", COMMANDS)
def test_results_that_cannot_be_written_are_named(
    name: str, project: Path, disk: Disk, capsys: pytest.CaptureFixture[str],
    record_property: fault_factory.Properties,
) -> None:  # fmt: skip
    forget(project, name)
    before = content(project)
    disk.read_only()
    arguments = command(project, name)
    with_log, without = arguments, arguments[:-2]
    for given in (with_log, without):
        capsys.readouterr()
        assert main(given) == 2
        message = one_message(capsys.readouterr().err)
        assert f"cannot write {disk.folder}/" in message
        assert "Read-only file system" in message and "choose another folder" in message
    assert content(project) == before
    # To look needs no right to write.
    for looking in ("status", "plan"):
        assert main(["--root", str(project), looking]) == 0
    disk.read_only(False)
    assert main(with_log) == 0
    fault_factory.note(record_property, f"read-only results, {name}", AGAIN, 2)


@pytest.mark.slow
def test_snakemake_on_a_full_and_on_a_read_only_disk(
    disk: Disk, tmp_path: Path, record_property: fault_factory.Properties
) -> None:
    (tmp_path / "calm").mkdir()
    calm, copy = graph_factory.Copy(tmp_path / "calm"), graph_factory.Copy(disk.folder.parent)
    calm.snakemake("tiny.other")
    disk.leave(8192)
    said = copy.snakemake("tiny.other", expect=1)
    assert "no space on disk to write" in said
    disk.free()
    disk.read_only()
    said = copy.snakemake("tiny.other", expect=1)
    assert "Read-only file system" in said
    disk.read_only(False)
    copy.snakemake("tiny.other")
    assert "Nothing to be done" in copy.snakemake("--dry-run", "tiny.other")
    assert copy.figures() == calm.figures() != {}
    outcome = "the job says why; the same command completes, with the same records"
    fault_factory.note(record_property, "full and read-only disk, snakemake", outcome, 2)
