"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let tests send Ctrl-C to what they start, wherever they run themselves.

    `nohup` and `&` in a script start them with SIGINT ignored, which children inherit: they would
    never stop.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
