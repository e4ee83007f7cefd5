"""Files that were cut or whose bits flipped: noticed, named or set aside, and made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import fault as fault_factory
from factories.data import DIGITS
from factories.project import run, trained

from cyclery.cli.main import main
from cyclery.common.errors import UserError
from cyclery.data.prepare import open_prepared, prepare, read_manifest
from cyclery.engine.checkpoint import load_weights
from cyclery.records.readers import read_evidence, read_records
from cyclery.records.run_store import Store
from cyclery.sharing.archives import extract, write_archive

pytestmark = [
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
Json = dict[str, Any]


def damages(whole: bytes, count: int, head: int = 400) -> Iterator[bytes]:
    """Yield a file cut at some places, and with one bit flipped in its head and in its body."""
    chance = fault_factory.generator("damage")
    for part in (0, len(whole) // 2, len(whole) - 1):
        yield whole[:part]
    for number in range(count):
        place = chance.randrange(min(head, len(whole)) if number % 3 == 0 else len(whole))
        yield flipped(whole, place, chance.randrange(8))


def flipped(whole: bytes, place: int, bit: int = 0) -> bytes:
    return whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]


def never_silently(
    path: Path, read: Callable[[], object], count: int, head: int = 400
) -> tuple[int, int]:
    """Damage a file in many ways: reading it must fail with its name, or give the same content.

    Returns how many damages were noticed and how many changed nothing that is read.
    """
    whole, expected = path.read_bytes(), read()
    noticed = harmless = 0
    for damaged in damages(whole, count, head):
        path.write_bytes(damaged)
        try:
            assert read() == expected, "a damaged file was used"
            harmless += 1
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
            noticed += 1
    path.write_bytes(whole)
    assert read() == expected
    return noticed, harmless


def as_bytes(manifest: Path) -> tuple[Json, dict[str, bytes]]:
    found, arrays = open_prepared(manifest)
    return found, {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    prepare(DIGITS, tmp_path, tmp_path / "digits.json")
    return tmp_path / "digits.json"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(trained(), tmp_path / "project")
    return tmp_path / "project"


def readers(digits: Path, project: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Return files of every kind, each with what reads it."""
    out = project / "results/smoke"
    records, ranges = out / "records/one/L0-0000.jsonl", out / "lr-range/one.jsonl"
    keys = {
        p: [json.loads(x)["key"] for x in p.read_text().splitlines()] for p in (records, ranges)
    }
    kept = next(project.glob("results/store/*/*/checkpoint.safetensors"))
    sha = json.loads((kept.parent / "record.json").read_text())["checkpoint_sha256"]
    packed = project / "p.tar.xz"
    index = write_archive(packed, {"a/records.jsonl": records, "b": b"x" * 5000})

    def weights() -> object:
        return {n: v.numpy().tobytes() for n, v in load_weights(kept, sha).items()}

    def unpacked() -> object:
        folder = project / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        names = extract(packed, index, folder)
        return {name: (folder / name).read_bytes() for name in names}

    def judged() -> object:
        found = read_evidence(out / "evidence/one.json")
        # The name of the seal may be what was hit: then all else is whole.
        return {name: found[name] for name in ("tier", "part", "claims", "experiments", "paper")}

    return {
        "dataset": (digits.with_suffix(".safetensors"), lambda: as_bytes(digits)),
        "manifest": (digits, lambda: read_manifest(digits)),
        "records": (records, lambda: read_records({records: keys[records]})),
        "range tests": (ranges, lambda: read_records({ranges: keys[ranges]})),
        "evidence": (out / "evidence/one.json", judged),
        "checkpoint": (kept, weights),
        "pack": (packed, unpacked),
    }


def test_a_damaged_file_is_never_used_silently(
    digits: Path, project: Path, record_property: fault_factory.Properties
) -> None:
    injected = 0
    for name, (path, read) in readers(digits, project).items():
        noticed, harmless = never_silently(path, read, 60)
        # A blank that became another blank, or `e` in a number that became `E`.
        assert noticed >= 55 and harmless <= 8, (name, noticed, harmless)
        injected += noticed + harmless
    fault_factory.note(
        record_property, "flipped bits and cut files", "noticed and named, or of no effect",
        injected,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["a pipe", "bottomless"])
def test_pipes_and_bottomless_nesting_are_one_message(
    digits: Path, project: Path, kind: str, record_property: fault_factory.Properties
) -> None:
    files = readers(digits, project)
    for path, read in files.values():
        whole = path.read_bytes()
        path.write_bytes(b"[" * 200_000)
        placed = fault_factory.pipe(path) if kind == "a pipe" else nullcontext()
        with placed, pytest.raises(UserError) as told:
            read()
        assert path.name in str(told.value) and "\n" not in str(told.value)
        assert len(str(told.value)) < 500
        path.unlink()
        path.write_bytes(whole)
        read()
    fault_factory.note(record_property, f"{kind} in the place of a file", "named", len(files))


def test_every_digit_of_a_manifest_is_vouched_for(digits: Path) -> None:
    """Mean and deviation normalise every image, so a flipped digit would move all results."""
    whole = digits.read_bytes()
    start = whole.index(b'"mean"')
    for place in range(start, whole.index(b'"sha256"')):
        digits.write_bytes(flipped(whole, place))
        try:
            assert read_manifest(digits) == json.loads(whole), place
        except UserError as error:
            assert str(digits) in str(error)
    digits.write_bytes(whole)


def test_a_record_in_the_store_is_set_aside_whatever_bit_flipped(
    tmp_path: Path, record_property: fault_factory.Properties
) -> None:
    store, [record] = Store(tmp_path), factory.trainer(tmp_path).train([job := factory.job(
        factory.settings())])  # fmt: skip
    path = store.folder(job["key"]) / "record.json"
    whole, injected = path.read_bytes(), 0
    for damaged in damages(whole, 100):
        path.write_bytes(damaged)
        found = store.read(job["key"])
        assert found is None or found == record
        if found is None:
            assert path.with_name("record.json.damaged").read_bytes() == damaged
        injected += 1
    path.write_bytes(whole)
    fault_factory.note(record_property, "flipped bits and cut files", "set aside", injected)


def train(project: Path, shard: str, expect: int = 0) -> str:
    out = project / f"results/smoke/records/one/{shard}.jsonl"
    out.unlink(missing_ok=True)
    run(project, "train", f"one/{shard}", "--output", str(out), expect=expect)
    return out.read_text() if expect == 0 else ""


def figures(lines: str) -> list[Json]:
    return [factory.figures(json.loads(line)) for line in lines.splitlines()]


def test_what_was_damaged_is_made_again_and_the_rest_is_not(
    project: Path, capsys: pytest.CaptureFixture[str], record_property: fault_factory.Properties
) -> None:
    """By the commands of a user, each repeated as its message says."""
    store, data = project / "results/store", project / "results/data"
    before = {shard: train(project, shard) for shard in ("L0-0000", "L1-0000")}
    expected = {shard: figures(text) for shard, text in before.items()}
    stamps = {p: p.stat().st_mtime_ns for p in store.rglob("record.json")}
    chance = fault_factory.generator("damage")

    def damage(path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, chance.randrange(len(whole)), 1))

    # A child, whose parent's weights were altered.
    child = json.loads(before["L1-0000"].splitlines()[0])
    [parent] = next(iter(child["inputs"]["parents"].values()))
    record, folder = (store / key[:2] / key for key in (child["key"], parent["key"]))
    record /= "record.json"
    record.unlink()
    damage(folder / "checkpoint.safetensors")
    capsys.readouterr()
    train(project, "L1-0000", expect=2)
    said = capsys.readouterr().err
    assert f"{folder}/checkpoint.safetensors" in said and "delete its folder" in said
    shutil.rmtree(folder)
    assert figures(train(project, "L1-0000")) == expected["L1-0000"]
    # The large file of the dataset, then its manifest.
    for name in ("digits.safetensors", "digits.json"):
        record.unlink()
        damage(data / name)
        train(project, "L1-0000", expect=2)
        said = capsys.readouterr().err
        assert name in said and "Traceback" not in said
        run(project, "prepare", "digits")
        assert figures(train(project, "L0-0000")) == expected["L0-0000"]
        assert figures(train(project, "L1-0000")) == expected["L1-0000"]
    lost = {record, folder / "record.json"}
    changed = {p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    spoilt = len(changed - lost)
    assert spoilt == 0
    fault_factory.note(
        record_property,
        "flipped bits and cut files",
        "made again, with the same figures",
        3,
        spoilt,
    )


def test_altered_evidence_makes_no_report(
    project: Path, capsys: pytest.CaptureFixture[str], record_property: fault_factory.Properties
) -> None:
    path, page = project / "results/smoke/evidence/one.json", project / "page/index.html"
    whole = path.read_text()
    old = json.loads(whole)["claims"][0]["verdict"]
    new = "contradicted" if old == "reproduced" else "reproduced"
    path.write_text(whole.replace(f'"verdict": "{old}"', f'"verdict": "{new}"'))
    assert main(["--root", str(project), "report", str(path), "--output", str(page)]) == 2
    said = capsys.readouterr().err
    assert f"{path}: cannot be read (it was altered" in said and "Traceback" not in said
    assert not page.exists()
    fault_factory.note(record_property, "altered evidence", "named; no report is made of it")
