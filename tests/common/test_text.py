"""How people say things."""

from __future__ import annotations

import pytest

from cyclery.common.formatting import duration, without_password


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "0.3 s"), (5, "5.0 s"), (89, "89 s"), (90, "1.5 min"), (3000, "50 min"),
        (7200, "2.0 h"), (100_000, "28 h"), (200_000, "2.3 days"),
    ],
)  # fmt: skip
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://me:word@host/x@y.", "at https://***@host/x@y."),
        ("ssh://me:p@ss@host/x", "ssh://***@host/x"),
        ("https://host/x and me@host", "https://host/x and me@host"),
    ],
)
def test_addresses_are_shown_without_passwords(text: str, shown: str) -> None:
    assert without_password(text) == shown
