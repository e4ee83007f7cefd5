from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from cyclery.common.errors import UserError
from cyclery.data import registry
from cyclery.data.readers import READERS
from cyclery.data.registry import DATASETS, get


def test_planning_modules_import_neither_numpy_nor_torch():
    code = (
        "import sys, cyclery.data.registry, cyclery.data.sizes\n"
        "print([name for name in ('numpy', 'torch', 'pydantic') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_complete_and_consistent(name):
    dataset = get(name)
    assert dataset.name == name
    assert len(dataset.train_class_counts) == dataset.classes
    assert sum(dataset.train_class_counts) == dataset.train
    assert dataset.layout in READERS
    assert dataset.citation and dataset.licence and dataset.title
    assert dataset.files
    assert all(len(raw.sha256) == 64 for raw in dataset.files)
    # Every file can be got from somewhere, and a download is checked before it is unpacked.
    assert all(raw.urls or dataset.package for raw in dataset.files)
    assert all(raw.md5 and raw.bytes for raw in dataset.files if raw.urls)


def test_identity_follows_name_checksums_and_preparation(monkeypatch):
    digits = get("digits")
    identities = {dataset.identity for dataset in DATASETS.values()}
    assert len(identities) == len(DATASETS)
    other = replace(digits.files[0], sha256="0" * 64)
    assert replace(digits, files=(other,)).identity != digits.identity
    assert replace(digits, title="other words").identity == digits.identity
    moved = replace(digits.files[0], urls=("https://example.org/x",))
    assert replace(digits, files=(moved,)).identity == digits.identity
    monkeypatch.setattr(registry, "PREPARE_VERSION", registry.PREPARE_VERSION + 1)
    assert replace(digits).identity != digits.identity


def test_identities_stay_what_run_keys_were_made_of():
    # A change here makes every finished run of the dataset stale: only for another preparation.
    assert get("digits").identity.startswith("2907446c745e4711")
    assert get("fashion-mnist").identity.startswith("07a15a8c7c1e3d04")


def test_unknown_name_gets_the_known_and_the_nearest():
    with pytest.raises(UserError, match=r"unknown dataset 'cifar-10'; known: .*fashion-mnist") as e:
        get("cifar-10")
    assert "Did you mean 'cifar10'?" in str(e.value)
