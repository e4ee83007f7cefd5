"""Datasets are found by the names of their files, and a wrong file is told in one message."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import yaml
from factories.checkout import ROOT
from factories.data import KNOWN, replace
from factories.project import PAPER, TIER, refused, write

from cyclery.common.errors import UserError
from cyclery.config.load import datasets
from cyclery.data import dataset as module
from cyclery.data.dataset import Content
from cyclery.data.readers import READERS

Json = dict[str, Any]


def test_planning_modules_import_neither_numpy_nor_torch():
    code = (
        "import sys\nfrom pathlib import Path\nimport cyclery.data.registry, cyclery.data.sizes\n"
        "from cyclery.config.load import datasets\n"
        f"assert datasets(Path({str(ROOT)!r}))['digits'].identity\n"
        "print([n for n in ('torch', 'PIL', 'safetensors', 'sklearn') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Of a folder of images all else follows from a look at it.
ARCHIVES = [name for name in KNOWN if KNOWN.declared(name).folder is None]


@pytest.mark.parametrize("name", ARCHIVES)
def test_entries_are_complete_and_consistent(name):
    dataset = KNOWN[name]
    assert dataset.name == name
    assert len(dataset.train_class_counts) == dataset.classes
    assert sum(dataset.train_class_counts) == dataset.train
    assert dataset.reader in READERS.names()
    assert dataset.citation and dataset.licence != "not stated" and dataset.title
    assert dataset.files
    # Every file can be got from somewhere, and a download is checked before it is unpacked.
    assert all(raw.urls or dataset.package for raw in dataset.files)
    assert all(raw.md5 and raw.bytes for raw in dataset.files if raw.urls)


def test_identity_follows_content_and_preparation_whatever_the_archive(monkeypatch):
    digits = KNOWN["digits"]
    identities = {KNOWN[name].identity for name in ARCHIVES}
    assert len(identities) == len(ARCHIVES)
    other = digits.files[0].model_copy(update={"sha256": "0" * 64})
    for same in ({"files": (other,)}, {"title": "other words"}, {"hierarchies": {}}):
        assert replace(digits, **same).identity == digits.identity
    for different in (
        {"content": Content(train="0" * 64)},
        {"content": Content(train=digits.content.train, test="0" * 64)},
        {"shape": (1, 4, 16)},
        {"max_value": 15},
    ):
        assert replace(digits, **different).identity != digits.identity
    monkeypatch.setattr(module, "PREPARE_VERSION", module.PREPARE_VERSION + 1)
    assert replace(digits).identity != digits.identity


def test_identity_follows_name_and_checksums_where_no_content_is_pinned():
    unpinned = replace(KNOWN["digits"], content=None)
    other = unpinned.files[0].model_copy(update={"sha256": "0" * 64})
    moved = unpinned.files[0].model_copy(update={"urls": ("https://example.org/x",)})
    assert replace(unpinned, files=(moved,)).identity == unpinned.identity
    for different in ({"files": (other,)}, {"name": "digit"}, {"shape": (1, 4, 16)}):
        assert replace(unpinned, **different).identity != unpinned.identity


def test_identities_stay_what_run_keys_were_made_of():
    # A change here makes every finished run of the dataset stale: only for another preparation.
    before = {
        "cifar10": "9cf82110d1a82add",
        "cifar100": "d124cbfa115d9dcd",
        "digits": "ed4dc3e3ac31f8ac",
        "fashion-mnist": "57590aefb5fdb8e8",
    }
    assert {name: KNOWN[name].identity[:16] for name in before} == before


def test_unknown_name_gets_the_known_and_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"unknown dataset 'cifar-10'.* There are: .*fashion") as e:
        KNOWN["cifar-10"]
    assert "Did you mean 'cifar10'?" in str(e.value)
    with pytest.raises(UserError, match=r"'digits'\. config/datasets holds none\. Add one as"):
        datasets(tmp_path)["digits"]


def test_a_project_has_the_datasets_of_its_own_folder(tmp_path, capsys):
    write(tmp_path, TIER, PAPER)
    (tmp_path / "config/datasets/cifar10.yaml").unlink()
    assert "cifar10" in KNOWN and "cifar10" not in datasets(tmp_path)
    tier = copy.deepcopy(TIER)
    tier["base"]["dataset"] = "cifar10"
    write_tier = tmp_path / "config/tiers/smoke.yaml"
    write_tier.write_text(yaml.safe_dump(tier))
    said = refused(tmp_path, capsys)
    assert f"{write_tier}: base.dataset: unknown dataset 'cifar10'. Did you mean 'cifar100'" in said


# Wrong files.

DIGITS: Json = yaml.safe_load((ROOT / "config/datasets/digits.yaml").read_text())


def first_file(**changes: Any) -> Json:
    return {"files": [DIGITS["files"][0] | changes]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clases": 10}, "unknown key 'clases'. Did you mean 'classes'?"),
        ({"name": "x"}, "unknown key 'name'"),
        ({"place": "/tmp"}, "unknown key 'place'"),
        ({"title": None}, "title: must be text"),
        ({"classes": "10"}, "classes: must be a whole number (found '10'). This is text"),
        ({"classes": 0}, "classes: must be at least 1"),
        ({"classes": None}, "classes: missing; a dataset has `folder`, or reader, files"),
        ({"reader": None}, "reader: missing; a dataset has `folder`"),
        ({"reader": "digit"}, "reader: unknown reader 'digit'. Did you mean 'digits'?"),
        ({"reader": "idx"}, "files: the reader 'idx' takes 4 (found 1)"),
        ({"reader": "_cifar"}, "reader: unknown reader '_cifar'"),
        ({"shape": [8, 8]}, "shape"),
        ({"shape": [1, 0, 8]}, "shape[1]: must be at least 1"),
        ({"train": 1796}, "class_counts: must be 10 numbers, one for each class, whose sum"),
        ({"class_counts": None}, "class_counts: missing; 1797 training images are not as many"),
        ({"max_value": 256}, "max_value: must be at most 255"),
        (first_file(sha256="x" * 64), "files[0].sha256: must be 64 hexadecimal digits"),
        (first_file(sha256=None), "files[0]: sha256: missing; a raw file has it, or `md5`"),
        (first_file(sha256=None, md5="0" * 32), "files[0]: sha256: missing; a `gzipped` file is"),
        (first_file(name="../digits.csv.gz"), "files[0].name: must be a plain name"),
        (first_file(name=".."), "files[0].name: must be a plain name"),
        (first_file(urls=["file:///etc/passwd"]), "files[0].urls[0]: must be an address"),
        (first_file(size=3), "files[0]: unknown key 'size'"),
        ({"shared": "../x"}, "shared: must be a plain name"),
        ({"package": {"install": "a", "module": "os.path", "folder": "x"}}, "package.module: must"),
        ({"folder": "images"}, "class_counts: is not said of a `folder`"),
        ({"fit": "crop"}, "fit: is said of a `folder` of images alone (found 'crop')"),
        ({"content": {"test": "0" * 64}}, "content.train: missing"),
        ({"content": {"train": "0" * 63}}, "content.train: must be 64 hexadecimal digits"),
        ({"torchvision": "../raw"}, "torchvision: must be a path below a folder"),
        ({"hierarchies": {"x": [[0, 1]]}}, "hierarchies.x[0]: must have a number for each of 10"),
        ({"hierarchies": {"x": []}}, "hierarchies.x: must have a level"),
        ({"hierarchies": {"x": 3}}, "hierarchies.x: must be a list (found 3)"),
        ({"hierarchies": {"X y": [[0]]}}, "small letters, digits, - and _ (found 'X y')"),
    ],
)
def test_a_wrong_file_is_one_message_with_its_name_and_key(tmp_path, capsys, change, message):
    write(tmp_path, TIER, PAPER)
    path = tmp_path / "config/datasets/digits.yaml"
    path.write_text(yaml.safe_dump(DIGITS | change))
    said = refused(tmp_path, capsys)
    assert said.startswith(f"cyclery: {path}: ") and message in said
    assert said.count("\n") == 0


def test_files_that_would_not_be_found_are_named(tmp_path, capsys):
    write(tmp_path, TIER, PAPER)
    folder = tmp_path / "config/datasets"
    (folder / "mine.yml").write_text("title: x")
    assert "rename it to mine.yaml" in refused(tmp_path, capsys)
    (folder / "mine.yml").rename(folder / "my own.yaml")
    assert "the name of a dataset must begin with a letter" in refused(tmp_path, capsys)
    (folder / "my own.yaml").rename(folder / "mine.yaml")
    assert "shape: missing; it has no default" in refused(tmp_path, capsys)


def test_a_reader_that_declares_too_little_is_named(tmp_path, monkeypatch):
    import cyclery.data.readers as package

    (tmp_path / "empty_reader.py").write_text("FILES = 1\n")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    folder = tmp_path / "config/datasets"
    folder.mkdir(parents=True)
    (folder / "digits.yaml").write_text(yaml.safe_dump(DIGITS | {"reader": "empty_reader"}))
    with pytest.raises(UserError, match=r"empty_reader\.py: declares no read; every reader's"):
        datasets(tmp_path)["digits"]


def test_datasets_are_read_when_asked_for(tmp_path):
    folder = tmp_path / "config/datasets"
    folder.mkdir(parents=True)
    (folder / "wrong.yaml").write_text("- 1")
    (folder / "digits.yaml").write_text(yaml.safe_dump(DIGITS))
    found = datasets(tmp_path)
    assert list(found) == ["digits", "wrong"] and len(found) == 2
    assert found["digits"] == KNOWN["digits"]
    with pytest.raises(UserError, match=r"wrong\.yaml: expected keys and values"):
        found["wrong"]
