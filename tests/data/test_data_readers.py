from __future__ import annotations

import io
import struct
import tarfile

import numpy as np
import pytest
from factories import data as factory
from factories.data import DIGITS, replace

from cyclery.common.errors import UserError
from cyclery.data.readers import cifar10, cifar100, digits, idx


def streams(*contents: bytes) -> list[io.BytesIO]:
    return [io.BytesIO(content) for content in contents]


# Digits


def digits_of(*rows: str):
    dataset = replace(DIGITS, train=len(rows))
    return digits.read(dataset, streams("\n".join(rows).encode()))


def test_digits_keep_their_raw_values_and_order():
    first, second = [str(v % 17) for v in range(64)], ["16"] * 64
    images, labels = digits_of(",".join([*first, "3"]), ",".join([*second, "9"]))
    assert images.shape == (2, 1, 8, 8)
    assert images.dtype == np.uint8
    assert images[0].ravel().tolist() == [v % 17 for v in range(64)]
    assert images[1].min() == 16
    assert labels.tolist() == [3, 9]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",".join(["1"] * 64), "64 columns where 65 belong"),
        (",".join(["17"] * 65), "pixels outside 0 to 16"),
        (",".join(["-1"] * 65), "pixels outside 0 to 16"),
        (",".join(["x"] * 65), "could not convert"),
    ],
)
def test_digits_that_do_not_follow_the_format_are_refused(row, message):
    with pytest.raises(UserError, match=rf"digits\.csv\.gz of digits.*{message}"):
        digits_of(row)


# IDX


def small_idx() -> tuple:
    dataset = factory.small_fashion(30, 10)[0]
    arrays = [
        factory.pixels(30, 28, 28),
        np.arange(30) % 10,
        factory.pixels(10, 28, 28),
        np.arange(10),
    ]
    return dataset, arrays, [factory.idx(array) for array in arrays]


def test_idx_gives_training_rows_then_test_rows():
    dataset, arrays, contents = small_idx()
    images, labels = idx.read(dataset, streams(*contents))
    assert images.shape == (40, 1, 28, 28)
    np.testing.assert_array_equal(images[:30, 0], arrays[0])
    np.testing.assert_array_equal(images[30:, 0], arrays[2])
    np.testing.assert_array_equal(labels, np.concatenate([arrays[1], arrays[3]]))
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x0d\x01" + bytes(12), "not an IDX file of bytes"),
        (b"\x00\x00\x08\x03\x00\x00", "header is cut short"),
        (struct.pack(">HBBI", 0, 8, 1, 30) + bytes(29), "29 values where its header says"),
        (factory.idx(np.zeros(29)), r"shape \(29,\) where \(30,\) belongs"),
        (struct.pack(">HBBII", 0, 8, 2, 2**31, 2**31), "0 values where its header says"),
    ],
)
def test_idx_that_does_not_follow_the_format_is_refused(content, message):
    dataset, _, contents = small_idx()
    contents[1] = content
    with pytest.raises(UserError, match=rf"train-labels-idx1-ubyte\.gz.*{message}"):
        idx.read(dataset, streams(*contents))


# CIFAR


@pytest.mark.parametrize(
    ("small", "reader"),
    [(factory.small_cifar10, cifar10.read), (factory.small_cifar100, cifar100.read)],
)
def test_cifar_archives_are_read_in_order(small, reader):
    dataset, members, images, labels = small()
    read_images, read_labels = reader(dataset, streams(factory.tar_gz(members)))
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)
    # The order in the archive does not matter; that of the official files does.
    again, _ = reader(dataset, streams(factory.tar_gz(members[::-1])))
    np.testing.assert_array_equal(again, images)


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def test_cifar_members_that_climb_out_or_link_are_never_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset, members, images, _ = factory.small_cifar10()
    evil = [
        ("../evil.bin", b"x" * 30730),
        ("/tmp/evil.bin", b"x"),
        ("link", link("cifar-10-batches-bin/link", "/etc/passwd", tarfile.SYMTYPE)),
        # A link under an expected name is passed over; the real file follows.
        ("", link("cifar-10-batches-bin/data_batch_1.bin", "/etc/passwd", tarfile.SYMTYPE)),
        ("", link("cifar-10-batches-bin/data_batch_2.bin", "../evil.bin", tarfile.LNKTYPE)),
        ("", link("cifar-10-batches-bin/test_batch.bin", "", tarfile.FIFOTYPE)),
    ]
    read, _ = cifar10.read(dataset, streams(factory.tar_gz([*evil, *members])))
    np.testing.assert_array_equal(read, images)
    assert not list(tmp_path.iterdir())


def test_cifar_without_a_member_or_with_only_a_link_is_refused():
    dataset, members, *_ = factory.small_cifar10()
    name = "cifar-10-batches-bin/data_batch_3.bin"
    rest = [member for member in members if member[0] != name]
    for archive in (rest, [*rest, (name, link(name, "/etc/passwd", tarfile.SYMTYPE))]):
        with pytest.raises(UserError, match=r"no whole file .*data_batch_3\.bin"):
            cifar10.read(dataset, streams(factory.tar_gz(archive)))


def test_cifar_member_of_another_size_is_refused():
    dataset, members, *_ = factory.small_cifar10()
    name, content = members[2]
    members[2] = (name, content[:-1])
    with pytest.raises(UserError, match=r"data_batch_2\.bin has 30729 bytes where 30730 belong"):
        cifar10.read(dataset, streams(factory.tar_gz(members)))


@pytest.mark.parametrize("content", [b"", b"not an archive", "cut"])
def test_cifar_archive_that_is_damaged_is_refused(content):
    dataset, members, *_ = factory.small_cifar10()
    if content == "cut":
        content = factory.tar_gz(members)[:-4000]
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz of cifar10 is not as expected"):
        cifar10.read(dataset, streams(content))
