"""Run DVC as a command: freeze, push, pull.

A call always waits for DVC's lock, which it otherwise gives up on after three seconds. Secrets are
never shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError, choices
from cyclery.common.formatting import without_password
from cyclery.config.load import read_yaml

FOLDER = Path("results/published")
# Its stage in dvc.yaml, its folder among results and among what is published.
ATLAS = "atlas"
_SECRET = re.compile(r"password|passphrase|secret|token|credential|connection_string|key", re.I)
_URL = re.compile(r"remote\.(.+)\.url")
_REPEAT = "Mend that and repeat the command; docs/sharing.md says how remotes are set up."
_UNCHANGED = "No result here was changed; docs/sharing.md says how remotes are set up."


@dataclass(frozen=True)
class Remote:
    """Where DVC carries to and from; ``inside`` is its folder where that is in the repository."""

    name: str
    address: str
    inside: Path | None

    def __str__(self) -> str:
        return f"remote {self.name!r} ({self.address})"


class Dvc:
    """DVC in one repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stages = _stages(root / "dvc.yaml")

    def tiers(self) -> list[str]:
        """Return the tiers that ``dvc.yaml`` says are published."""
        return _each(self._stages, "publish")

    def has_atlas(self) -> bool:
        """Return whether ``dvc.yaml`` says that the atlas is published."""
        return ATLAS in self._stages

    def frozen_atlas(self) -> list[str]:
        """Return the atlas' stage if ``dvc.lock`` has it, as it does once it is published."""
        lock = self.root / "dvc.lock"
        return [ATLAS] if lock.exists() and ATLAS in _stages(lock) else []

    def datasets(self) -> list[str]:
        """Return the prepared datasets that ``dvc.yaml`` says are published."""
        return _each(self._stages, "dataset")

    def require(self, tier: str) -> None:
        """Raise a UserError where a tier is not among those that are published."""
        if tier not in self.tiers():
            raise UserError(
                f"dvc.yaml: stages: publish: foreach lists {choices(self.tiers()) or 'no tier'}; "
                f"add {tier!r} there to share that tier."
            )

    def remote(self, name: str | None) -> Remote:
        """Return a remote by name, or the default one."""
        found = _settings(self.root)
        chosen = name or found.get("core.remote")
        if not chosen:
            raise UserError(
                ".dvc/config: no default remote; name one with --remote, or set it: "
                "dvc remote default NAME."
            )
        urls = {match[1]: url for key, url in found.items() if (match := _URL.fullmatch(key))}
        if chosen not in urls:
            raise UserError(
                f".dvc/config: there is no remote {chosen!r}; remotes: "
                f"{choices(urls) or 'none'}. dvc remote add {chosen} URL adds it."
            )
        address, root = urls[chosen], self.root.resolve()
        # DVC has made a relative address absolute.
        folder = Path(address).resolve()
        inside = "://" not in address and folder.is_relative_to(root)
        return Remote(chosen, address, folder if inside else None)

    def freeze(self, targets: list[str]) -> None:
        """Take what the stages' files hold now into the cache and ``dvc.lock``, in one call."""
        self._run("freeze what was packed", _REPEAT, "commit", "--force", *targets)

    def push(self, targets: list[str], remote: Remote) -> None:
        """Carry what is frozen to a remote."""
        self._run(f"push to {remote}", _REPEAT, "push", "--remote", remote.name, *targets)

    def pull(self, targets: list[str], remote: Remote) -> None:
        """Bring what ``dvc.lock`` names from a remote."""
        self._run(
            f"pull from {remote}", _UNCHANGED, "pull", "--force", "--remote", remote.name, *targets
        )

    def _run(self, what: str, then: str, command: str, *arguments: str) -> None:
        done = _command(self.root, "--wait-for-lock", command, *arguments)
        if done.returncode:
            said = self.redact(f"DVC could not {what}: {_reason(done.stderr + done.stdout)} {then}")
            raise UserError(" ".join(said.split()))

    def redact(self, text: str) -> str:
        """Return a text without the secrets that this machine knows."""
        text = without_password(text)
        named = [*_settings(self.root).items(), *os.environ.items()]
        # Two letters are no secret, and would blot the message.
        secrets = {
            value
            for name, value in named
            if _SECRET.search(name.rpartition(".")[2]) and len(value) > 2
        }
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _stages(path: Path) -> dict[str, Any]:
    stages = read_yaml(path).get("stages")
    return stages if isinstance(stages, dict) else {}


def _each(stages: dict[str, Any], stage: str) -> list[str]:
    found = stages.get(stage)
    names = found.get("foreach") if isinstance(found, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _reason(output: str) -> str:
    """Return what DVC says went wrong, without its hints and traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # Further lines of an error are names of files, of which the first few tell enough.
    starts = [i for i, line in enumerate(lines) if line.startswith("ERROR:")]
    if not starts:
        return " ".join(lines[-3:]) or "it did not say why."
    said = lines[starts[0]].removeprefix("ERROR:").strip()
    if "Checkout failed" in said:
        return "it does not answer, or does not hold all that dvc.lock names."
    more = [line for line in lines[starts[0] + 1 : starts[0] + 3] if not line.startswith("ERROR:")]
    text = " ".join([said, *more])
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC; a UserError where it is not installed."""
    if find_spec("dvc") is None:
        raise UserError("DVC is not installed here: pip install 'dvc>=3.60,<4'.")
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def _settings(root: Path) -> dict[str, str]:
    """Return DVC's settings as it reads them itself: of the machine, the user, the repository."""
    done = _command(root, "config", "--list")
    if done.returncode:
        # What DVC says quotes the line, which may hold a secret.
        raise UserError(
            f"{root / '.dvc/config'} or its config.local: no configuration of DVC; in that folder "
            "`dvc config --list` says what is wrong."
        )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _, value in pairs}
