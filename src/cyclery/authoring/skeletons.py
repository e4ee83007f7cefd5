"""The first version of a file that an author writes: ``cyclery new``."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from cyclery.common.errors import UserError


@dataclass(frozen=True)
class Kind:
    """What one kind of file is called, where it lies and what its author does next."""

    path: str
    pattern: str
    allowed: str
    next: str


_PYTHON = r"[a-z][a-z0-9_]{0,63}"
_PYTHON_SAYS = "a small letter, then small letters, digits and _, at most 64, and no word of Python"
_CONFIG = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_CONFIG_SAYS = "a letter, then letters, digits, - and _, at most 64, and no target's name"
KINDS = {
    "method": Kind(
        "src/cyclery/methods/{name}.py",
        _PYTHON,
        _PYTHON_SAYS,
        "Write its step, try it with `cyclery check --method {name}`, and compare it with others "
        "in a paper (`cyclery new paper NAME`). docs/writing-a-method.md has every hook.",
    ),
    "network": Kind(
        "src/cyclery/models/{name}.py",
        _PYTHON,
        _PYTHON_SAYS,
        "Write its layers, name it in an arm (`model: {name}`), and try it with `cyclery check "
        "--method METHOD`, the method of that arm. docs/writing-a-method.md says what it must "
        "give; `make docs` puts it into the reference.",
    ),
    "paper": Kind(
        "config/papers/{name}.yaml",
        _CONFIG,
        _CONFIG_SAYS,
        "Say what it claims, check it with `cyclery check`, see its cost with `cyclery plan "
        '{name}`, and run it with `snakemake --cores all --config "papers=[{name}]"`. '
        "config/README.md has every step.",
    ),
    "dataset": Kind(
        "config/datasets/{name}.yaml",
        _CONFIG,
        _CONFIG_SAYS,
        "Put its images into images/{name}, a folder for each class, or name another folder; say "
        "their shape, check that with `cyclery check`, and read them with `cyclery prepare "
        "{name}`. `cyclery new paper NAME --dataset {name}` writes a comparison on it; any "
        "experiment may name it, beside a `split` of its own. config/README.md has more.",
    ),
}


def write(
    root: Path, kind: str, name: str, *, folder: Path | None = None, dataset: str | None = None
) -> str:
    """Write a skeleton below ``root``; return its path and what comes next.

    Args:
        root: the project's root.
        kind: of ``KINDS``.
        name: what it is called.
        folder: of a dataset, the images that it is to have, which are looked at.
        dataset: of a paper, the dataset that its arms are to be compared on.

    Raises a UserError for a name that such a file cannot have, and for a file that is there.
    """
    found = KINDS[kind]
    for option, given, its in (("--folder", folder, "dataset"), ("--dataset", dataset, "paper")):
        if given is not None and kind != its:
            raise UserError(f"new {kind}: {option} is for `new {its}`; leave it out.")
    if not re.fullmatch(found.pattern, name) or name in _taken(kind):
        raise UserError(f"new {kind}: a name must be {found.allowed} (found {name!r:.80}).")
    path = root / found.path.format(name=name)
    if not path.parent.is_dir():
        raise UserError(
            f"{path.parent}: there is no such folder. Run in the folder of the project, or name it "
            "with --root."
        )
    if path.exists():
        raise _is_there(path)
    text = _render(root, kind, name, folder, dataset)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None
    follows = found.next if folder is None else _WITH_FOLDER
    return f"{path}: written. {follows.format(name=name)}"


_WITH_FOLDER = (
    "See whether its shape suits you, and check it with `cyclery check`. `cyclery new paper NAME "
    "--dataset {name}` writes a comparison on it, and `make reproduce PAPER=NAME` makes the report "
    "of that."
)


def _is_there(path: Path) -> UserError:
    return UserError(f"{path}: is there already; choose another name, or edit it.")


def _taken(kind: str) -> tuple[str, ...]:
    if KINDS[kind].pattern == _CONFIG:
        from cyclery.config.load import TAKEN

        return TAKEN
    return tuple(keyword.kwlist)


def _render(root: Path, kind: str, name: str, folder: Path | None, dataset: str | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cyclery.authoring import own_images
    from cyclery.config.load import datasets, load_config

    environment = Environment(
        loader=PackageLoader("cyclery.authoring"), undefined=StrictUndefined,
        keep_trailing_newline=True, autoescape=False, trim_blocks=True,
    )  # fmt: skip
    tier = load_config(root)[0].tier if kind == "paper" else ""
    words = name.replace("_", " ").replace("-", " ")
    return environment.get_template(f"{kind}.j2").render(
        name=name, title=words[0].upper() + words[1:], claim=name.upper().replace("_", "-"),
        tier=tier, look=folder and own_images.look(root, folder),
        comparison=dataset and own_images.comparison(datasets(root)[dataset]),
    )  # fmt: skip
