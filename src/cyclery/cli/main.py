"""Parse the command line, run one command and turn what goes wrong into a message and a code.

Every command reads ``config/`` below ``--root`` with the overrides of ``--set``. A UserError is
printed as one message and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cyclery import __version__
from cyclery.cli import authors, jobs, project, results
from cyclery.cli.commands import Commands, override
from cyclery.common.errors import UserError
from cyclery.common.files import is_full
from cyclery.common.logs import log_to
from cyclery.common.signals import EXIT_CODE, Terminated, terminable

log = logging.getLogger("cyclery")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        with terminable():
            options = parser().parse_args(arguments)
            options.set = [*options.set_first, *options.set]
            return _run(options)
    except Terminated:
        log.debug("stopped by SIGTERM")
        print("cyclery: stopped as asked, by SIGTERM; the same command goes on", file=sys.stderr)
        return EXIT_CODE


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    found = argparse.ArgumentParser(
        prog="cyclery",
        description="Reproduces cyclical training and related papers, and judges their claims.",
    )
    found.add_argument("--version", action="version", version=f"cyclery {__version__}")
    found.add_argument("--root", type=Path, default=Path(), help="folder that holds config/")
    override(found, "set_first")
    commands = Commands(found.add_subparsers(required=True, metavar="COMMAND"))
    for group in (authors, project, jobs, results):
        group.register(commands)
    return found


def _run(options: argparse.Namespace) -> int:
    """Run the command of parsed options; return its exit code."""
    try:
        log_to(options.log, options.verbose)
        command: Callable[[argparse.Namespace], int | None] = options.command
        code = command(options) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        if options.log:
            log.debug("%s", error)
        print(f"cyclery: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does.
        _forget_output()
        return 141
    except OSError as error:
        if not is_full(error):
            return _unexpected(error, options.log)
        log.debug("no space", exc_info=True)
        # What is written through a stream bears no name: mostly it is the terminal's own output.
        print(f"cyclery: no space on disk to write {error.filename or 'the output'}; free some "
              "and run the same command again", file=sys.stderr)  # fmt: skip
        _forget_output()
        return 2
    except Exception as error:
        return _unexpected(error, options.log)
    except KeyboardInterrupt:
        print("cyclery: stopped", file=sys.stderr)
        return 130


def _unexpected(error: Exception, path: Path | None) -> int:
    """Report a mistake of ours. A job keeps the traceback in its log; by hand it is shown."""
    if not path:
        raise error
    log.debug("unexpected error", exc_info=True)
    print(f"cyclery: unexpected {type(error).__name__}: {error}; details in {path}",
          file=sys.stderr)  # fmt: skip
    return 1


def _forget_output() -> None:
    """Let nothing be flushed at the exit to where nobody reads, or nothing fits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
