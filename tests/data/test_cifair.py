"""ciFAIR-10: its zip of pickles, in the genuine form, known by the MD5 that its authors publish."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import cifar_forms as forms
from factories import data as factory
from factories.data import KNOWN, replace

from cyclery.common.errors import UserError
from cyclery.data.dataset import Dataset
from cyclery.data.prepare import prepare
from cyclery.data.raw import open_raw
from cyclery.data.readers import cifair10

CIFAIR10 = KNOWN["cifair10"]
Members = dict[str, bytes]


def small(dumps: Callable[[dict[str, Any]], bytes], folder: Path) -> tuple[Dataset, Members]:
    """Return a dataset and the archive's members, the test batch made a pickle by ``dumps``."""
    of_cifar10 = factory.small_cifar10()
    train = forms.pickle_folder(folder / "train", of_cifar10, forms.python2_pickle)
    test = forms.pickle_folder(folder / "test", of_cifar10, dumps)
    members = {}
    for path in sorted(train.iterdir()):
        place = test / path.name if path.name == "test_batch" else path
        members[f"ciFAIR-10/{path.name}"] = place.read_bytes()
    members["ciFAIR-10/batches.meta"] = b"no pickle at all"
    return replace(CIFAIR10, train=50, test=10), members


def zipped(members: Members) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def known_by_md5(dataset: Dataset, archive: bytes) -> Dataset:
    raw = dataset.files[0].model_copy(
        update={"md5": factory.md5(archive), "bytes": len(archive), "urls": ()}
    )
    return replace(dataset, files=(raw,))


@pytest.mark.parametrize(
    "dumps",
    [forms.python2_pickle, *(lambda values, p=p: pickle.dumps(values, p) for p in (2, 3, 4, 5))],
)
def test_the_archive_is_read_in_the_order_of_its_files(dumps: Any, tmp_path: Path) -> None:
    """Training batches are CIFAR-10's, of Python 2; whatever Python has written the other one."""
    dataset, members = small(dumps, tmp_path)
    _, _, images, labels = factory.small_cifar10()
    for archive in (zipped(members), zipped(dict(reversed(members.items())))):
        found, numbers = cifair10.read(dataset, [io.BytesIO(archive)])
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(numbers, labels)


def test_a_download_of_it_is_prepared(tmp_path: Path) -> None:
    dataset, members = small(pickle.dumps, tmp_path)
    archive = zipped(members)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/ciFAIR-10.zip").write_bytes(archive)
    dataset = known_by_md5(dataset, archive)
    prepare(dataset, tmp_path / "out", tmp_path / "m.json", [tmp_path / "given"])
    assert (tmp_path / "m.json").exists()


def test_another_archive_is_passed_over(tmp_path: Path) -> None:
    dataset, members = small(pickle.dumps, tmp_path)
    dataset = known_by_md5(dataset, zipped(members))
    (tmp_path / "ciFAIR-10.zip").write_bytes(b"another")
    with pytest.raises(UserError) as caught, open_raw(dataset, tmp_path, [tmp_path]):
        pass
    assert f"expected MD5 {dataset.files[0].md5} of the file, got" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("ciFAIR-10/data_batch_3"), "it holds no file ciFAIR-10/data_batch_3"),
        (lambda m: m.update({"ciFAIR-10/test_batch": b"x"}), "test_batch: cannot be read as a p"),
        (
            lambda m: m.update({"ciFAIR-10/test_batch": bytes(2_000_000)}),
            "ciFAIR-10/test_batch has 2000000 bytes, more than",
        ),
        (
            lambda m: m.update(
                {"ciFAIR-10/test_batch": pickle.dumps({"data": bytes(30720), "labels": [1] * 9})}
            ),
            "ciFAIR-10.zip/ciFAIR-10/test_batch: holds 9 labels where 10 belong",
        ),
    ],
)
def test_an_archive_that_does_not_hold_it_is_one_message(
    change: Any, words: str, tmp_path: Path
) -> None:
    dataset, members = small(pickle.dumps, tmp_path)
    change(members)
    with pytest.raises(UserError) as caught:
        cifair10.read(dataset, [io.BytesIO(zipped(members))])
    assert str(caught.value).count(words) == 1


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"PK" * 9])
def test_a_damaged_archive_is_refused(damage: Any, tmp_path: Path) -> None:
    dataset, members = small(pickle.dumps, tmp_path)
    with pytest.raises(UserError, match=r"ciFAIR-10\.zip of cifair10 .* cannot be read"):
        cifair10.read(dataset, [io.BytesIO(damage(zipped(members)))])


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    dataset, members = small(pickle.dumps, tmp_path)
    archive = bytearray(zipped(members))
    place = archive.index(b"ciFAIR-10/data_batch_1") + 200
    archive[place : place + 50] = bytes(50)
    with pytest.raises(UserError, match=r"ciFAIR-10\.zip of cifair10 .* cannot be read"):
        cifair10.read(dataset, [io.BytesIO(bytes(archive))])


def test_a_file_known_by_md5_alone_is_told_apart_by_it() -> None:
    raw = CIFAIR10.files[0]
    assert raw.sha256 is None and raw.md5 == "ca08fd390f0839693d3fc45c4e49585f"
    other = raw.model_copy(update={"md5": "0" * 32})
    assert replace(CIFAIR10, files=(other,)).identity != CIFAIR10.identity
