"""A dataset is the same whatever it was read from, and nothing but its content vouches for it."""

from __future__ import annotations

import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import cifar_forms as forms
from factories import data as factory
from factories.data import CIFAR10, CIFAR100, KNOWN, replace

from cyclery.common.errors import UserError
from cyclery.data import sources
from cyclery.data.content import canonical_order, measure, row_digest
from cyclery.data.dataset import Content
from cyclery.data.prepare import load_or_remake, open_prepared, prepare
from cyclery.data.readers._pickled import pixels_and_labels


def cifar100_of_all_classes() -> forms.Small:
    """Return a small CIFAR-100 whose training set has every class, as class folders must."""
    images, fine = factory.pixels(220, 3, 32, 32), np.arange(220) * 7 % 100
    members = [
        (f"cifar-100-binary/{name}.bin", factory.cifar_records(images[rows], rows_, fine[rows]))
        for name, rows in (("train", slice(0, 200)), ("test", slice(200, 220)))
        for rows_ in [fine[rows] // 5]
    ]
    dataset = replace(CIFAR100, train=200, test=20, shared=None, content=None)
    return dataset, members, images, fine


SMALL = {"cifar10": factory.small_cifar10(), "cifar100": cifar100_of_all_classes()}
FORMS = {
    "binary": forms.binary_folder,
    **{
        f"pickle {n}": partial(
            forms.pickle_folder, dumps=lambda values, n=n: pickle.dumps(values, protocol=n)
        )
        for n in (0, 2, 3, 4, 5)
    },
    "pickle of Python 2": partial(forms.pickle_folder, dumps=forms.python2_pickle),
}


def prepared(place: Path, dataset: Any, search: Path) -> tuple[Any, Any]:
    prepare(dataset, place, place / "m.json", [search])
    return open_prepared(place / "m.json", dataset)


@pytest.mark.parametrize("name", SMALL)
def test_every_form_is_prepared_to_the_same(tmp_path: Path, name: str) -> None:
    small = SMALL[name]
    dataset = forms.pinned(small)
    archive = factory.tar_gz(small[1])
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / dataset.files[0].name).write_bytes(archive)
    packed = factory.with_archive(dataset, archive)
    expected, arrays = prepared(tmp_path / "first", packed, tmp_path / "archive")
    assert expected["content"] == dataset.content.model_dump()
    assert (expected["order"], expected["source"]) == ("official", "local files")
    np.testing.assert_array_equal(small[2][arrays["index"]], arrays["images"])
    for form, write in FORMS.items():
        write(tmp_path / form, small)
        found, others = prepared(tmp_path / "of" / form, dataset, tmp_path / form)
        assert found["source"] == "local files, unpacked"
        assert found | {"source": expected["source"], "sha256": ""} == expected | {"sha256": ""}
        np.testing.assert_array_equal(others["index"], arrays["index"])
    forms.class_folders(tmp_path / "folders" / name, small)
    found, others = prepared(tmp_path / "own", dataset, tmp_path / "folders")
    assert found["identity"] == expected["identity"] == packed.identity
    assert found["content_sha256"] == expected["content_sha256"]
    assert found["order"] == "none" and set(others["index"]) == {-1}
    for key in ("images", "labels"):
        np.testing.assert_array_equal(others[key], arrays[key])


def test_rows_are_in_canonical_order() -> None:
    _, _, images, labels = SMALL["cifar10"]
    order = canonical_order(images, labels, 50)
    rows = [(i >= 50, labels[i], factory.sha256(images[i].tobytes())) for i in order]
    assert rows == sorted(rows) and sorted(order) == list(range(60))


def test_equal_images_keep_their_order() -> None:
    images = np.zeros((6, 1, 2, 2), np.uint8)
    assert canonical_order(images, np.array([1, 0, 1, 0, 0, 0]), 4).tolist() == [1, 3, 0, 2, 4, 5]


def test_content_is_of_labels_and_pixels_in_any_order_and_of_each_part() -> None:
    _, _, images, labels = SMALL["cifar10"]
    before = measure(images, labels, 50, 10)
    assert before.train == factory.content_hash(images[:50], labels[:50])
    assert before.test == factory.content_hash(images[50:], labels[50:])
    order = np.r_[np.arange(50)[::-1], np.arange(50, 60)]
    assert measure(images[order], labels[order], 50, 10) == before
    assert measure(images, labels, 60, 10).test is None
    other = labels.copy()
    other[[0, 1]] = other[[1, 0]]
    assert measure(images, other, 50, 10).train != before.train


def test_labels_beyond_a_byte_take_two() -> None:
    import hashlib

    assert row_digest(255, b"xy", 256) == hashlib.sha256(b"\xffxy").digest()
    assert row_digest(258, b"xy", 300) == hashlib.sha256(b"\x02\x01xy").digest()


def test_torchvisions_folder_of_fashion_mnist_is_searched(tmp_path: Path) -> None:
    dataset, contents = factory.small_fashion()
    folder = tmp_path / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    found, _ = prepared(tmp_path / "out", dataset, tmp_path)
    assert (found["order"], found["source"]) == ("official", "local files")


def test_the_environment_names_more_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = forms.pinned(SMALL["cifar10"])
    forms.class_folders(tmp_path / "b/cifar10", SMALL["cifar10"])
    monkeypatch.setenv("CYCLERY_DATA", f"{tmp_path / 'a'}:{tmp_path / 'b'}:")
    assert prepare(dataset, tmp_path, tmp_path / "m.json")["order"] == "none"


def test_class_folders_may_lie_beside_downloads(tmp_path: Path) -> None:
    dataset = forms.pinned(SMALL["cifar10"])
    forms.class_folders(tmp_path / "raw/cifar10", SMALL["cifar10"])
    assert sources.unverified(dataset, tmp_path / "raw/cifar10") == tmp_path / "raw/cifar10"
    found = prepare(dataset, tmp_path, tmp_path / "m.json")
    assert found["source"] == "local files, class folders"


def test_without_a_pinned_content_no_other_form_is_taken(tmp_path: Path) -> None:
    dataset = replace(forms.pinned(SMALL["cifar10"]), content=None)
    forms.binary_folder(tmp_path / "bin", SMALL["cifar10"])
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz of cifar10 was not found"):
        prepare(dataset, tmp_path / "out", tmp_path / "m.json", [tmp_path / "bin"])


def _other_pixel(folder: Path) -> None:
    path = folder / "cifar-10-batches-bin/data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def _shorter(folder: Path) -> None:
    path = folder / "cifar-10-batches-bin/data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])


def _lossy(folder: Path) -> None:
    shutil.rmtree(folder / "cifar-10-batches-bin")
    forms.class_folders(folder / "cifar10", SMALL["cifar10"], "jpg")


def _one_less(folder: Path) -> None:
    shutil.rmtree(folder / "cifar-10-batches-bin")
    forms.class_folders(folder / "cifar10", SMALL["cifar10"])
    (folder / "cifar10/test/003/53.png").unlink()


def _one_class_less(folder: Path) -> None:
    _one_less(folder)
    for part in ("train", "test"):
        shutil.rmtree(folder / "cifar10" / part / "003")


WRONG = {
    "its content is not that of CIFAR-10: the training images and labels have": _other_pixel,
    "data_batch_2.bin: has 30,729 bytes where 30,730 belong": _shorter,
    "Were images saved with a loss (JPEG), or are classes in another order": _lossy,
    "cifar10: holds 9 test images where CIFAR-10 has 10. Mend that, or move": _one_less,
    "cifar10: holds 9 classes where CIFAR-10 has 10": _one_class_less,
}


@pytest.mark.parametrize("words", WRONG)
def test_other_content_is_one_message(tmp_path: Path, words: str) -> None:
    dataset = forms.pinned(SMALL["cifar10"])
    forms.binary_folder(tmp_path, SMALL["cifar10"])
    WRONG[words](tmp_path)
    with pytest.raises(UserError) as error:
        prepare(dataset, tmp_path / "out", tmp_path / "m.json", [tmp_path])
    assert words in str(error.value) and str(tmp_path) in str(error.value)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_remake_keeps_what_the_manifest_says_of_the_order(tmp_path: Path) -> None:
    small = SMALL["cifar10"]
    dataset, manifest = forms.pinned(small), tmp_path / "m.json"
    forms.class_folders(tmp_path / "folders/cifar10", small)
    forms.binary_folder(tmp_path / "binary", small)
    for first, second in (("folders", "binary"), ("binary", "folders")):
        prepare(dataset, tmp_path, manifest, [tmp_path / first])
        (tmp_path / "cifar10.safetensors").unlink()
        if first == "folders":
            _, arrays = load_or_remake(manifest, lambda _: dataset, [tmp_path / second])
            assert set(arrays["index"]) == {-1}
            open_prepared(manifest, dataset)
            manifest.unlink()
        else:
            with pytest.raises(UserError, match="official order, which local files, class folders"):
                load_or_remake(manifest, lambda _: dataset, [tmp_path / second])


# Pickles.


class Harmful:
    """A value whose unpickling would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_of_a_pickle_is_carried_out(tmp_path: Path) -> None:
    values = {"x": Harmful(tmp_path / "made"), "labels": [1, 2], "data": b"123456789"}
    content = pickle.dumps(values, protocol=2)
    assert pixels_and_labels(content, "labels", 9, "x") == (b"123456789", [1, 2])
    assert not (tmp_path / "made").exists()
    pickle.loads(content)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x: cannot be read as a pickle"),
        (b"\x80\x02T\xff\xff\xff\x7f", "x: cannot be read as a pickle"),
        (b"not a pickle", "x: cannot be read as a pickle"),
        (pickle.dumps({"labels": [1, 2], "data": b"12345678"}), "x: holds no string of 9 bytes"),
        (pickle.dumps({"label": [1, 2], "data": b"123456789"}), "x: holds no list of labels"),
        (pickle.dumps({"labels": "12", "data": b"123456789"}), "x: holds no list of labels"),
    ],
)
def test_a_pickle_that_does_not_hold_it_is_named(content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pixels_and_labels(content, "labels", 9, "x")


def test_a_pickle_of_other_sizes_is_named(tmp_path: Path) -> None:
    small = SMALL["cifar10"]
    place = forms.pickle_folder(tmp_path, small, pickle.dumps)
    values = pickle.loads((place / "data_batch_1").read_bytes())
    values["labels"].pop()
    (place / "data_batch_1").write_bytes(pickle.dumps(values))
    with pytest.raises(UserError, match=r"data_batch_1: holds 9 labels where 10 belong"):
        prepare(forms.pinned(small), tmp_path / "out", tmp_path / "m.json", [tmp_path])


def test_the_contents_of_cifar_are_pinned() -> None:
    # Measured on lossless copies whose means and deviations are the published ones to five digits.
    assert CIFAR10.content == Content(
        train="55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
        test="325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
    )
    assert CIFAR100.content == Content(
        train="6d2a03c47c105e4c34d3a2ff16c2803e8df0e5d6fa0c631e46663a327aeac573",
        test="381b7d98ce1e9b98232a8df0db0a22992654c39ff2433270656ab8ace5a45e65",
    )
    assert all(KNOWN[name].ordered for name in ("cifar10", "cifar100", "digits", "fashion-mnist"))
