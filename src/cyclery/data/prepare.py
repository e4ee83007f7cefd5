"""Preparation: a dataset's source to one safetensors file and a manifest with its checksums.

The large file holds ``images`` (uint8 [N, C, H, W]) and ``labels`` (int64 [N]); a row's position is
its id for ever: training rows first, then test rows, each in canonical order (class, then SHA-256
of the pixels), so that it is the same whatever the source. ``index`` (int64 [N]) holds each row's
position in the official order, training rows from 0, test rows from ``n_train``; -1 where the
source has none, which the manifest's ``order`` says. The manifest is what a workflow declares; the
large file can be remade from it at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclery.common.errors import UserError
from cyclery.common.files import lock, parse_json, read_regular, require_regular, write_atomic
from cyclery.common.seals import is_altered, seal
from cyclery.data.content import canonical_order
from cyclery.data.dataset import Dataset
from cyclery.data.sources import Rows
from cyclery.data.sources import find as find_rows

Arrays = dict[str, NDArray[Any]]
Manifest = dict[str, Any]

_FIELDS: dict[str, type] = {
    "name": str,
    "identity": str,
    "content": dict,
    "content_sha256": str,
    "index_sha256": str,
    "order": str,
    "file": str,
    "n_train": int,
    "n_test": int,
    "classes": int,
    "shape": list,
    "max_value": int,
    "mean": list,
    "std": list,
    "source": str,
}


def prepare(
    dataset: Dataset, folder: Path, manifest_path: Path, search: Sequence[Path] = ()
) -> Manifest:
    """Make `folder`/<name>.safetensors and its manifest, or keep them where they are in order.

    Downloads are kept in `folder`/raw/<name>. Two processes that prepare one dataset at once are
    safe: the second waits, and takes what the first made.

    Args:
        dataset: The dataset.
        folder: Where the large file goes.
        manifest_path: Where the manifest (JSON) goes.
        search: Folders that may hold the raw files already.

    Returns:
        The manifest: name, identity, content (hashes of `cyclery.data.content`), content_sha256 of
        the arrays ``images`` and ``labels``, index_sha256 of ``index``, order (``official`` or
        ``none``), file (relative to the manifest's folder), n_train, n_test, classes, shape
        [C, H, W], max_value, source, mean [C] and std [C] of the training rows after division by
        max_value, and a sha256 of all these.

    Raises:
        UserError: a raw file or an image that is missing or wrong, or a disk that is full.
    """
    path = folder / f"{dataset.name}.safetensors"
    with lock(_lock_path(path)):
        with suppress(UserError):  # absent, stale or damaged: made again below
            manifest = read_manifest(manifest_path, dataset)
            if _data_path(manifest_path, manifest).resolve() == path.resolve():
                _open(manifest_path, manifest)
                return manifest
        rows, arrays = _made(dataset, path, search)
        write_atomic(path, _saved(arrays))
        manifest = _describe(dataset, rows, arrays)
        manifest["file"] = os.path.relpath(path, manifest_path.parent)
        manifest = seal(manifest)
        write_atomic(manifest_path, (json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def open_prepared(manifest_path: Path, dataset: Dataset | None = None) -> tuple[Manifest, Arrays]:
    """Return the manifest and the arrays of the large file, verified; remake nothing.

    Where ``dataset`` is given, they must be its own.

    Raises:
        UserError: a file is missing, truncated or not what the manifest says, with the remedy.
    """
    manifest = read_manifest(manifest_path, dataset)
    return manifest, _open(manifest_path, manifest)


def load_or_remake(
    manifest_path: Path, find: Callable[[str], Dataset] | None = None, search: Sequence[Path] = ()
) -> tuple[Manifest, Arrays]:
    """Like `open_prepared`, but make the large file again where it is absent.

    The manifest is never rewritten, so nothing downstream of it becomes stale.

    Args:
        manifest_path: The manifest.
        find: Returns a dataset by its name, asked only where its file must be made; with None
            that is an error.
        search: Folders that may hold the raw files.
    """
    manifest = read_manifest(manifest_path)
    path = _data_path(manifest_path, manifest)
    if find is not None and not path.exists():
        with lock(_lock_path(path)):
            if not path.exists():  # nobody made it while this process waited
                return manifest, _remade(find(manifest["name"]), manifest, path, search)
    return manifest, _open(manifest_path, manifest)


def read_manifest(path: Path, dataset: Dataset | None = None) -> Manifest:
    """Return a manifest, its digest verified, and that it is ``dataset``'s where that is given."""
    try:
        manifest = parse_json(read_regular(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; prepare the dataset to make it.") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(manifest, dict):
        raise _damaged(path, "not a JSON object")
    for key, kind in _FIELDS.items():
        if not isinstance(manifest.get(key), kind):
            raise _damaged(path, f"{key} is missing or no {kind.__name__}")
    if dataset is not None:
        _check_manifest(path, manifest, dataset)
    # Its mean and deviation go into every image, and nothing else vouches for them.
    if is_altered(manifest) or manifest.keys() - {*_FIELDS, "sha256"}:
        raise _damaged(path, "it does not match the SHA-256 at its end")
    return manifest


def _check_manifest(path: Path, manifest: Manifest, dataset: Dataset) -> None:
    """Raise a UserError unless a manifest is of this dataset, as its file is today."""
    if (manifest["name"], manifest["identity"]) != (dataset.name, dataset.identity):
        found, expected = manifest["identity"], dataset.identity
        if manifest["name"] != dataset.name:
            found, expected = f"{found} of {manifest['name']}", f"{expected} of {dataset.name}"
        raise _damaged(path, f"identity {found} where {expected} belongs")
    sizes = (manifest["n_train"], manifest["n_test"], manifest["classes"], manifest["max_value"])
    expected_sizes = (dataset.train, dataset.test, dataset.classes, dataset.max_value)
    if (*sizes, *manifest["shape"]) != (*expected_sizes, *dataset.shape):
        raise _damaged(path, "its sizes are not those of the dataset")
    if dataset.content is not None and dataset.content.model_dump() != manifest["content"]:
        raise _damaged(path, f"content is not {dataset.content.model_dump()}")


def content_sha256(arrays: Arrays, names: Sequence[str] = ("images", "labels")) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and values, whatever the file format."""
    total = hashlib.sha256()
    for name in names:
        array = arrays[name]
        kind = array.dtype.newbyteorder("<")
        total.update(f"{name} {kind.str} {list(array.shape)}\n".encode())
        total.update(np.ascontiguousarray(array, dtype=kind).data)
    return total.hexdigest()


def _made(dataset: Dataset, path: Path, search: Sequence[Path]) -> tuple[Rows, Arrays]:
    """Return a dataset's rows as its source has them, and as arrays in canonical order."""
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink(missing_ok=True)  # left by a killed process: this one holds the lock
    rows = find_rows(dataset, path.parent / "raw" / dataset.name, search)
    order = canonical_order(rows.images, rows.labels, dataset.train)
    index = order if rows.ordered else np.full(len(order), -1, dtype=np.int64)
    arrays: Arrays = {"images": rows.images[order], "labels": rows.labels[order], "index": index}
    return rows, arrays


def _remade(dataset: Dataset, manifest: Manifest, path: Path, search: Sequence[Path]) -> Arrays:
    """Write the large file of a manifest again, from whichever source; return its arrays."""
    rows, arrays = _made(dataset, path, search)
    if manifest["order"] == "none":
        # As before: the source of now may say more than that of then.
        arrays["index"] = np.full(len(arrays["index"]), -1, dtype=np.int64)
    elif not rows.ordered:
        raise UserError(
            f"{dataset.name}: was prepared in its official order, which {rows.source} have not. "
            "Bring the official files back, or remove the dataset's manifest and prepare it again."
        )
    content = content_sha256(arrays)
    if content != manifest["content_sha256"]:
        raise UserError(
            f"{dataset.name}: the prepared data has SHA-256 {content}, expected "
            f"{manifest['content_sha256']}. Remove the dataset's manifest and prepare it again."
        )
    write_atomic(path, _saved(arrays))
    return arrays


def _saved(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


def _describe(dataset: Dataset, rows: Rows, arrays: Arrays) -> Manifest:
    """Return the manifest, its ``file`` still empty."""
    mean, std = _moments(arrays["images"][: dataset.train], dataset.max_value)
    return {
        "name": dataset.name,
        "identity": dataset.identity,
        "content": rows.content.model_dump(),
        "content_sha256": content_sha256(arrays),
        "index_sha256": content_sha256(arrays, ("index",)),
        "order": "official" if rows.ordered else "none",
        "file": "",
        "n_train": dataset.train,
        "n_test": dataset.test,
        "classes": dataset.classes,
        "shape": list(dataset.shape),
        "max_value": dataset.max_value,
        "mean": mean,
        "std": std,
        "source": rows.source,
    }


def _moments(images: NDArray[np.uint8], max_value: int) -> tuple[list[float], list[float]]:
    """Return mean and population standard deviation per channel of pixels over `max_value`.

    From counts of the 256 values: exact whatever the number of pixels, and without a float copy.
    """
    values = np.arange(256) / max_value
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(images), 4096):
            block = images[start : start + 4096, channel].ravel()
            counts += np.bincount(block, minlength=256)
        share = counts / counts.sum()
        mean = float(share @ values)
        means.append(mean)
        stds.append(float(np.sqrt(share @ (values - mean) ** 2)))
    return means, stds


def _open(manifest_path: Path, manifest: Manifest) -> Arrays:
    """Load the large file and verify it against its manifest."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = _data_path(manifest_path, manifest)
    try:
        require_regular(path)
        arrays: Arrays = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; prepare {manifest['name']} again.") from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    if set(arrays) != {"images", "labels", "index"}:
        raise _damaged(path, f"it holds {sorted(arrays)} where images, labels and index belong")
    for key, names in (("content_sha256", ("images", "labels")), ("index_sha256", ("index",))):
        found, expected = content_sha256(arrays, names), manifest[key]
        if found != expected:
            raise _damaged(path, f"its SHA-256 is {found}, the manifest says {expected}")
    return arrays


def _damaged(path: Path, what: str) -> UserError:
    """Return the error for a file that cannot be trusted, with the remedy."""
    return UserError(
        f"{path} is damaged or out of date: {what}. Delete it and prepare the dataset again."
    )


def _data_path(manifest_path: Path, manifest: Manifest) -> Path:
    """Return where the large file is; manifests hold it relative to themselves.

    By the words of the path alone: `..` behind a link to another disk would lead elsewhere.
    """
    return Path(os.path.normpath(manifest_path.parent.absolute() / str(manifest["file"])))


def _lock_path(path: Path) -> Path:
    """Return the lock file of the large file."""
    return path.with_name(f".{path.name}.lock")
