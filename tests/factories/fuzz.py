"""Shipped configuration files with a change, as a slip of the pen or of a program makes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from cyclery.config.load import read_yaml

ROOT = Path(__file__).parents[2]
PAPERS = sorted(path.stem for path in ROOT.glob("config/papers/*.yaml"))
TIERS = sorted(path.stem for path in ROOT.glob("config/tiers/*.yaml"))
SHARED = ["config/config.yaml", *(f"config/tiers/{tier}.yaml" for tier in TIERS)]
FILES = [*SHARED, *(f"config/papers/{paper}.yaml" for paper in PAPERS)]

HUGE = [2**31, 2**63 - 1, 2**63, 2**64, 10**12, 10**18, 10**19, 10**400, -(10**400), 10**4000]
FLOATS = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-320, 1e19, 0.5, -0.0, 1e9]
TEXTS = ["", " ", "\n", "-", "x" * 200_000, "word " * 5000, "\x1b[31mred", "a\x00b", "a\nb",
         "\u202e",
         "../../etc", "config/papers", "range", "range.max", "nan", "1e3", "010", "1:30", "0x10",
         "test_accuracy@0_1", "log:log:seconds", "a/b/c/d", "é" * 300, "⟨key⟩", "{0}",
         "%s"]  # fmt: skip
PLAIN = [None, True, False, 0, -1, 1, 2, 3, 17, 1000, 10**6, 10**9, [], {}, [[]], [{}], {"": None},
         {1: 2}, {None: None}, {"kind": "cycle"}, {"name": "kd"}, {"op": "flip"}, [1, 2, 3],
         ["a"] * 3000, {"constant": 1e12}, {"best_of": ["a"] * 500}, {"arm": "x", "seeds": {}},
         {"kind": "product", "of": [1] * 150},
         {"kind": "piecewise", "value": 1, "drops": [0.5] * 90}]  # fmt: skip


def nested(depth: int, value: Any = 1) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"of": value, "kind": "product"}
    return value


VALUES = [*HUGE, *FLOATS, *TEXTS, *PLAIN, nested(10), nested(48), nested(200)]

# A text in the place of a value: refused wherever it stands.
LAUGHS = ", ".join(f"&l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
LAUGHS = f"[&l0 [x], {LAUGHS}]"
RAW = ['!!int ""', "!!bool maybe", "!!timestamp abc", "!!set [clr]", "!!float x", "!!null x",
       "!!python/object/apply:os.system [ls]", "!unknown x", "010", "-017", "1:30", "1_000", "0b11",
       "9" * 400, "9" * 4000, "[" * 30_000, "{a: " * 30_000, "[" * 30_000 + "]" * 30_000, "*nobody",
       "&self [*self]", "&self {<<: *self}", "{<<: &d {lr: 0.3, lr: 99}}", "{x: 1, x: 2}",
       "{<<: 5}",
       "[1, 2", '"\\x07"', '"\\ud800"', "\x07", "&a [x, x, &b [*a, *a]]",
       "{<<: {a: 1}, <<: {b: 1}}",
       LAUGHS]  # fmt: skip
FOLDERS = ["config", "config/papers", "src", "tests/x", "workflow", ".git", ".git/objects", ".",
           "..", "/", "results/../config", "docs", "pyproject.toml", "a b", "$HOME",
           "x" * 3000]  # fmt: skip
METRICS = ["test_accuracy", "test_nll", "test_ece", "seconds", "log:seconds",
           "train_loss@0.5", "log:test_nll"]  # fmt: skip
WORDS = ("statement", "not_run", "unequal_budget", "own_definition", "title", "summary")

Keys = tuple[Any, ...]


@cache
def original(file: str) -> Any:
    return read_yaml(ROOT / file)


def places(value: Any, path: Keys = ()) -> Iterator[Keys]:
    """Yield the path of every value in a tree but the tree itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def at(tree: Any, path: Keys) -> Any:
    for key in path:
        tree = tree[key]
    return tree


class Change:
    """A change of one file: the text that it then has; whether and where it must be refused."""

    def __init__(
        self, file: str, text: str, must: bool, words: str, tier: str | None = None
    ) -> None:
        self.file, self.text, self.must, self.words, self.tier = file, text, must, words, tier

    def __repr__(self) -> str:
        return f"{self.file}: {self.words}"[:500]


def dumped(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, width=10**9)


def replaced(random: Random, file: str) -> Change:
    tree = copied(original(file))
    path = random.choice(list(places(tree)))
    value = copied(random.choice(VALUES))
    at(tree, path[:-1])[path[-1]] = value
    return Change(file, dumped(tree), False, f"{path} is {value!r:.80}")


def several(random: Random, file: str) -> Change:
    tree = copied(original(file))
    words = []
    for _ in range(random.randint(2, 5)):
        path = random.choice(list(places(tree)))
        value = copied(random.choice(VALUES))
        at(tree, path[:-1])[path[-1]] = value
        words.append(f"{path} is {value!r:.80}")
    return Change(file, dumped(tree), False, "; ".join(words))


def dropped(random: Random, file: str) -> Change:
    tree = copied(original(file))
    path = random.choice(list(places(tree)))
    del at(tree, path[:-1])[path[-1]]
    return Change(file, dumped(tree), False, f"{path} is dropped")


def renamed(random: Random, file: str) -> Change:
    tree = copied(original(file))
    path = random.choice([path for path in places(tree) if isinstance(path[-1], str)])
    name = random.choice(
        [path[-1] + "x", path[-1][1:], path[-1].upper(), *TEXTS, 7, None, True, 1.5]
    )
    inner = at(tree, path[:-1])
    items = [(name if key == path[-1] else key, value) for key, value in inner.items()]
    inner.clear()
    inner.update(items)
    return Change(file, dumped(tree), False, f"{path} is renamed to {name!r:.80}")


def moved(random: Random, file: str) -> Change:
    """Put one value of the file, or of another, in the place of one."""
    tree, other = copied(original(file)), original(random.choice(FILES))
    path, source = random.choice(list(places(tree))), random.choice(list(places(other)))
    at(tree, path[:-1])[path[-1]] = copied(at(other, source))
    return Change(file, dumped(tree), False, f"{path} is {source} of another")


def keyed(file: str) -> tuple[list[str], list[int]]:
    """Return the lines of a file, and which of them are a key and a short value."""
    lines = (ROOT / file).read_text(encoding="utf-8").split("\n")
    return lines, [
        n for n, line in enumerate(lines) if re.match(r" *[\w-]+: [\w./-]+( +#|$)", line)
    ]


def doubled(random: Random, file: str) -> Change:
    """Let a line with a key stand twice."""
    lines, keys = keyed(file)
    number = random.choice(keys)
    lines.insert(number, lines[number])
    return Change(file, "\n".join(lines), True, f"line {number + 1} stands twice")


def raw(random: Random, file: str) -> Change:
    """Put a text that is refused anywhere in the place of a value."""
    lines, keys = keyed(file)
    number, text = random.choice(keys), random.choice(RAW)
    lines[number] = lines[number].partition(":")[0] + ": " + text
    # Alias and all, it may be within its bounds: then it is no value for the key.
    return Change(file, "\n".join(lines), True, f"line {number + 1} has {text!r:.80}")


def garbled(random: Random, file: str) -> Change:
    """Change some characters of the text."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for _ in range(random.randint(1, 4)):
        place, length = random.randrange(len(text)), random.choice([0, 1, 1, 5, 40])
        new = random.choice(["", "[", "]", "{", "}", ":", ": ", "- ", "\n", "\t", "&a ", "*a", "!!",
                             "'", '"', "|", ">", "%", "@", "\x00", "\ufeff", "---\n", "<<: ", "? ",
                             "#", "é"])  # fmt: skip
        text = text[:place] + new + text[place + length :]
    return Change(file, text, False, "characters are changed")


def wordless(random: Random, file: str) -> Change:
    """Leave a statement or a reason empty."""
    tree = copied(original(file))
    found = [p for p in places(tree) if set(p[-2:]) & set(WORDS) and isinstance(at(tree, p), str)]
    path = random.choice(found)
    at(tree, path[:-1])[path[-1]] = random.choice(["", " ", "\n\n", "\t"])
    return Change(file, dumped(tree), True, f"{path} is empty")


def compared(tree: Any) -> list[Any]:
    each = (
        comparison
        for claim in tree["claims"].values()
        for comparison in claim.get("comparisons", [])
    )
    return [comparison for comparison in each if isinstance(comparison.get("against"), str)]


def bad_test(random: Random, file: str) -> Change:
    """Compare two units, allow a margin that cannot fail, or name a metric in Python's way."""
    tree = copied(original(file))
    comparison = random.choice(compared(tree))
    kind = random.randrange(3)
    if kind == 0:
        comparison["metric"], comparison["against_metric"] = random.sample(METRICS, 2)
    elif kind == 1:
        margin = random.choice([11, 50, 1e3, 1e9, 1e300, float("inf")])
        comparison |= {"test": random.choice(["equivalence", "non-inferiority"]), "margin": margin}
        comparison.pop("effect", None)
    else:
        fraction = random.choice(["0_1", "1_0", " 0.5", "1e-1", "٠", "nan", "", "0x1", "+0.5"])
        comparison["metric"] = f"test_accuracy@{fraction}"
    return Change(file, dumped(tree), True, f"a comparison is {comparison!r:.300}")


def oversized(random: Random, file: str) -> Change:
    """Ask an arm for more than there can be."""
    tree = copied(original(file))
    change = random.choice([
        {"batch": 2**63}, {"batch": 9e18}, {"batch": 1e19}, {"epoch_images": 10**9, "batch": 1},
        {"epoch_images": 2**70}, {"epochs": 10**9}, {"mu": 10**9},
        {"model": {"name": "bn_mlp", "hidden": [10**12]}},
        {"model": {"name": "wrn", "width": 10**6}},
        {"model": {"name": "bn_mlp", "hidden": [10**5] * 50}}, {"threads": 10**6},
        {"model": {"name": "resnet_b", "depth": 200, "widths": [10**4] * 4}},
        {"method": {"name": "supervised", "temperature": "range.max"}},
        {"method": {"name": "supervised",
                    "temperature": {"kind": "constant", "value": "range.base"}}},
    ])  # fmt: skip
    exp = random.choice(list(tree["experiments"].values()))
    tier = random.choice(list(exp["tiers"]))
    arm = random.choice((exp["tiers"][tier] or {}).get("arms") or list(exp["arms"]))
    exp["arms"][arm] = {**exp["arms"][arm], **change}
    return Change(file, dumped(tree), True, f"arm {arm} has {change!r:.200}", tier)


ANY = (replaced, replaced, replaced, several, dropped, renamed, moved, doubled, raw, raw, garbled)


def changed(seed: int) -> Change:
    random = Random(seed)
    file = random.choice(FILES)
    kinds: list[Callable[[Random, str], Change]] = [*ANY]
    if file.startswith("config/papers/"):
        kinds += [wordless, bad_test, bad_test, oversized, oversized]
    return random.choice(kinds)(random, file)
