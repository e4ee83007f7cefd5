from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from factories import data as factory
from factories.checkout import ROOT
from factories.data import DIGITS, FASHION_MNIST, KNOWN
from safetensors.numpy import load as load_file_from
from safetensors.numpy import load_file, save_file

from cyclery.common import files
from cyclery.common.errors import UserError
from cyclery.common.seals import seal
from cyclery.data.dataset import Content
from cyclery.data.prepare import (
    content_sha256,
    load_or_remake,
    open_prepared,
    prepare,
    read_manifest,
)
from cyclery.data.raw import system_folders

FASHION_HERE = any(folder.is_dir() for folder in system_folders(FASHION_MNIST))


@pytest.fixture
def digits(tmp_path) -> Path:
    """Return the manifest of freshly prepared digits."""
    prepare(DIGITS, tmp_path / "data", tmp_path / "results" / "digits.json")
    return tmp_path / "results" / "digits.json"


@pytest.fixture
def small(tmp_path):
    """Return a small Fashion-MNIST and the folder where its files lie."""
    dataset, contents = factory.small_fashion()
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return dataset, folder


def data_file(manifest_path: Path) -> Path:
    return (manifest_path.parent / read_manifest(manifest_path)["file"]).resolve()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# What is made


def test_digits_are_those_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    expected = load_digits()
    manifest, arrays = open_prepared(digits)
    np.testing.assert_array_equal(arrays["images"][:, 0], expected.images[arrays["index"]])
    np.testing.assert_array_equal(arrays["labels"], expected.target[arrays["index"]])
    assert sorted(arrays["index"]) == list(range(1797))
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].dtype == arrays["index"].dtype == np.int64
    assert arrays["images"].max() == manifest["max_value"] == 16
    np.testing.assert_allclose(manifest["mean"], [(expected.images / 16).mean()], rtol=1e-12)
    np.testing.assert_allclose(manifest["std"], [(expected.images / 16).std()], rtol=1e-12)
    counts = np.bincount(expected.target)
    assert tuple(counts) == DIGITS.train_class_counts


def test_the_manifest_says_what_the_contract_says(digits):
    manifest = json.loads(digits.read_text())
    for key in ("mean", "std", "sha256", "content_sha256", "index_sha256"):
        assert manifest.pop(key)
    assert manifest == {
        "name": "digits",
        "identity": DIGITS.identity,
        "content": {"train": DIGITS.content.train, "test": None},
        "order": "official",
        "file": "../data/digits.safetensors",
        "n_train": 1797,
        "n_test": 0,
        "classes": 10,
        "shape": [1, 8, 8],
        "max_value": 16,
        "source": "Python package scikit-learn",
    }
    assert visible(digits.parent) == ["digits.json"]
    assert visible(data_file(digits).parent) == ["digits.safetensors"]


def test_two_preparations_write_the_same_bytes(digits, tmp_path):
    again = tmp_path / "again" / "results" / "digits.json"
    prepare(DIGITS, tmp_path / "again" / "data", again)
    assert again.read_bytes() == digits.read_bytes()
    assert data_file(again).read_bytes() == data_file(digits).read_bytes()


@pytest.mark.skipif(not FASHION_HERE, reason="the package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_the_official_one(tmp_path):
    manifest = prepare(FASHION_MNIST, tmp_path, tmp_path / "m.json")
    assert manifest["content"] == FASHION_MNIST.content.model_dump()
    _, arrays = open_prepared(tmp_path / "m.json")
    assert arrays["images"].shape == (70_000, 1, 28, 28)
    assert np.bincount(arrays["labels"][:60_000]).tolist() == [6_000] * 10
    assert np.bincount(arrays["labels"][60_000:]).tolist() == [1_000] * 10
    # The first training and test images of the official files.
    official = arrays["labels"][np.argsort(arrays["index"])]
    assert official[:5].tolist() == [9, 0, 0, 3, 0]
    assert official[60_000:60_005].tolist() == [9, 2, 1, 1, 6]
    # The moments that are widely used for this set.
    np.testing.assert_allclose(manifest["mean"], [0.2860], atol=5e-5)
    np.testing.assert_allclose(manifest["std"], [0.3530], atol=5e-5)


def test_moments_are_per_channel_and_of_training_rows_only(tmp_path):
    dataset, members, images, labels = factory.small_cifar10()
    archive = factory.tar_gz(members)
    dataset = factory.with_archive(dataset, archive)
    (tmp_path / dataset.files[0].name).write_bytes(archive)
    manifest = prepare(dataset, tmp_path, tmp_path / "m.json", [tmp_path])
    _, arrays = open_prepared(tmp_path / "m.json")
    np.testing.assert_array_equal(arrays["images"], images[arrays["index"]])
    np.testing.assert_array_equal(arrays["labels"], labels[arrays["index"]])
    train = images[:50] / 255
    np.testing.assert_allclose(manifest["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(manifest["std"], train.std(axis=(0, 2, 3)), rtol=1e-12)


def test_arrays_become_tensors_without_a_copy_or_a_warning(digits):
    import torch

    _, arrays = open_prepared(digits)
    assert torch.from_numpy(arrays["images"]).shape == (1797, 1, 8, 8)


# What is kept


def test_prepare_keeps_what_is_in_order(digits, monkeypatch):
    before = digits.stat().st_mtime_ns, data_file(digits).stat().st_mtime_ns
    monkeypatch.setattr("cyclery.data.prepare.find_rows", None)  # nothing is read
    manifest = prepare(DIGITS, data_file(digits).parent, digits)
    assert manifest == read_manifest(digits)
    assert before == (digits.stat().st_mtime_ns, data_file(digits).stat().st_mtime_ns)


def test_prepare_mends_what_is_damaged(digits):
    whole = data_file(digits).read_bytes()
    for damage in (whole[:-1], whole[:-1] + b"\x07", b""):
        data_file(digits).write_bytes(damage)
        prepare(DIGITS, digits.parent.parent / "data", digits)
        assert data_file(digits).read_bytes() == whole
    text = digits.read_text()
    digits.write_text(text[:40])
    prepare(DIGITS, digits.parent.parent / "data", digits)
    assert digits.read_text() == text


def test_prepare_into_another_folder_moves_the_manifest_on(digits, tmp_path):
    prepare(DIGITS, tmp_path / "elsewhere", digits)
    assert data_file(digits).resolve() == tmp_path / "elsewhere" / "digits.safetensors"
    open_prepared(digits)


def test_results_can_be_moved_together(digits, tmp_path):
    (tmp_path / "moved").mkdir()
    for name in ("data", "results"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    open_prepared(tmp_path / "moved" / "results" / "digits.json")


@pytest.mark.parametrize("linked", ["data", "results"])
def test_either_folder_may_be_a_link_to_another_disk(tmp_path, linked):
    (tmp_path / "disk" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / linked).symlink_to(tmp_path / "disk" / "deep" / "er")
    manifest_path = tmp_path / "home" / "results" / "digits.json"
    manifest = prepare(DIGITS, tmp_path / "home" / "data", manifest_path)
    assert manifest["file"] == "../data/digits.safetensors"
    open_prepared(manifest_path)


def test_the_large_file_is_remade_where_it_is_absent(digits):
    path, manifest = data_file(digits), digits.stat().st_mtime_ns
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} is missing; prepare digits again"):
        open_prepared(digits)
    with pytest.raises(UserError, match=rf"{path.name} is missing; prepare digits again"):
        load_or_remake(digits)
    _, made = load_or_remake(digits, KNOWN.__getitem__)
    assert path.read_bytes() == whole
    assert content_sha256(made) == read_manifest(digits)["content_sha256"]
    assert digits.stat().st_mtime_ns == manifest
    _, loaded = load_or_remake(digits)
    np.testing.assert_array_equal(loaded["images"], made["images"])


def test_a_remake_that_differs_from_the_manifest_is_refused(small, tmp_path):
    manifest_path = tmp_path / "m.json"
    dataset, folder = small
    manifest = prepare(dataset, tmp_path / "data", manifest_path, [folder])
    manifest["content_sha256"] = "0" * 64
    manifest_path.write_text(json.dumps(seal(manifest)))
    data_file(manifest_path).unlink()
    with pytest.raises(UserError, match=r"has SHA-256 [0-9a-f]+, expected 0000"):
        load_or_remake(manifest_path, lambda name: dataset, [folder])
    assert not data_file(manifest_path).exists()


# What is refused


def test_a_data_file_that_was_cut_or_changed_is_refused(digits):
    path = data_file(digits)
    whole = path.read_bytes()
    for damage in (b"", whole[:5], whole[:-1], b"\xff" * 9 + whole):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="is damaged or out of date") as error:
            open_prepared(digits)
        assert str(path) in str(error.value)
        assert "Delete it and prepare the dataset again" in str(error.value)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"its SHA-256 is .*, the manifest says"):
        load_or_remake(digits)
    arrays = load_file_from(whole)
    for name in arrays:
        save_file(arrays | {name: arrays[name][::-1].copy()}, path)
        with pytest.raises(UserError, match=r"its SHA-256 is .*, the manifest says"):
            open_prepared(digits)
    save_file({"images": np.zeros(3)}, path)
    with pytest.raises(UserError, match="where images, labels and index belong"):
        open_prepared(digits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": "0" * 64}, "identity 0000"),
        ({"content": {"train": "0" * 64, "test": None}}, "content is not"),
        ({"n_train": 3}, "sizes are not those"),
        ({"shape": [8, 8]}, "sizes are not those"),
        ({"mean": None}, "mean is missing or no list"),
        ({"file": 3}, "file is missing or no str"),
        ({"name": "digit"}, "of digit where .* of digits belongs"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(digits, change, message):
    digits.write_text(json.dumps(json.loads(digits.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_manifest(digits, DIGITS)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_manifest_that_was_cut_is_refused(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="is damaged or out of date"):
        read_manifest(path)
    with pytest.raises(UserError, match=r"none\.json is missing; prepare the dataset"):
        read_manifest(tmp_path / "none.json")


def test_wrong_labels_and_pinned_content_are_refused(small, tmp_path):
    dataset, folder = small
    for change, message in (
        ({"classes": 9}, "a label is not in 0 to 8"),
        ({"max_value": 200}, "a pixel is above 200"),
        ({"content": Content(train="0" * 64)}, "images and labels have the hash .* expected 0000"),
        ({"shape": (1, 14, 56)}, "belongs"),
    ):
        changed = factory.replace(dataset, **change)
        with pytest.raises(UserError, match=message):
            prepare(changed, tmp_path / "data", tmp_path / "m.json", [folder])
    assert visible(tmp_path / "data") == []


# Disks and other processes


@pytest.mark.parametrize("target", ["safetensors", "json"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, target):
    replace = files.replace

    def full(temporary: Path, path: Path) -> None:
        if target in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(temporary, path)

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(UserError, match=rf"no space on disk to write .*{target}.* It needs 1 MB"):
        prepare(DIGITS, tmp_path / "data", tmp_path / "digits.json")
    assert [path for path in visible(tmp_path) if path != "data"] == []
    assert visible(tmp_path / "data") == ([] if target == "safetensors" else ["digits.safetensors"])


def test_an_old_file_survives_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write_atomic(path, b"old")
    monkeypatch.setattr(files.os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert visible(tmp_path) == ["x"]


def test_files_get_the_usual_permissions(tmp_path):
    files.write_atomic(tmp_path / "x", b"")
    (tmp_path / "y").write_bytes(b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        prepare(DIGITS, tmp_path / "file" / "data", tmp_path / "m.json")


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / ".digits.safetensors.x1.part").write_bytes(b"half")
    prepare(DIGITS, tmp_path, tmp_path / "m.json")
    assert visible(tmp_path) == ["digits.safetensors", "m.json"]


WORKER = """
import sys, time
from pathlib import Path
from cyclery.config.load import datasets
from cyclery.data import prepare as module
made, make = [], module._made
def slow(*arguments):
    made.append(1)
    time.sleep(0.3)
    return make(*arguments)
module._made = slow
folder = Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.005)
module.prepare(datasets(Path(sys.argv[2]))["digits"], folder / "data", folder / "m.json")
module.open_prepared(folder / "m.json")
print(len(made))
"""


def test_two_processes_at_once_make_it_once(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(ROOT)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    outputs = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(outputs) == ["0", "1"]
    assert visible(tmp_path / "data") == ["digits.safetensors"]


def test_what_was_saved_reads_without_this_package(digits):
    arrays = load_file(data_file(digits))
    assert set(arrays) == {"images", "labels", "index"}
