"""JSON objects that carry a SHA-256 digest of their own content, so that damage is detected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

from cyclery.common.files import digest, open_regular

T = TypeVar("T", bound=Mapping[str, Any])


def seal(record: T) -> T:
    """Return the record with the SHA-256 of its content under ``sha256``."""
    body = {key: value for key, value in record.items() if key != "sha256"}
    return cast(T, {**body, "sha256": _content_digest(body)})


def is_sealed(record: Any) -> bool:
    """Return whether a record carries the correct digest of its content."""
    if not isinstance(record, dict) or "sha256" not in record:
        return False
    body = {key: value for key, value in record.items() if key != "sha256"}
    try:
        return bool(record["sha256"] == _content_digest(body))
    except RecursionError:
        # Read a few calls further up, where there was just room for it.
        return False


def is_altered(found: Any) -> bool:
    """Return whether an object contradicts its digest; an earlier version's may have none."""
    return isinstance(found, dict) and "sha256" in found and not is_sealed(found)


def _content_digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_regular(path) as stream:
        return digest(stream, "sha256")[0][0]
