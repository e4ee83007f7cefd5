"""The one reader of settings: what a field's declaration allows, what is said of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from cyclery.common.errors import UserError
from cyclery.common.settings import checked, json_schema, plain, read, read_layer


@dataclass(frozen=True)
class Pair:
    kind: Literal["pair"]
    ratio: tuple[int, int] = field(metadata={"low": 1})


@dataclass(frozen=True)
class Tail:
    kind: Literal["tail"]
    ratio: float = field(metadata={"above": 0, "high": 1})


def _curve(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _curve(each, f"{where}.{key}") for key, each in value.items()}
    if not isinstance(value, int | float):
        raise UserError(f"{where}: must be a curve (found {value!r}).")
    return float(value)


Curve = Annotated[Any, checked(_curve)]


@dataclass(frozen=True)
class Every:
    """A field of each type that settings have."""

    count: int = field(metadata={"doc": "how many", "low": 1, "high": 5})
    rate: float | None = field(default=None, metadata={"above": 0.0})
    shares: tuple[float, ...] = field(default=(), metadata={"low": 0.0})
    sides: tuple[int, int] = (1, 2)
    word: Literal["all", "rest"] | None = None
    mean: Literal[False, "average"] = False
    value: float | Literal["low", "high"] = field(default=0.0, metadata={"low": 0.0})
    flag: bool = True
    name: str = "x"
    imbalance: Pair | Tail | None = None
    parts: tuple[Tail, ...] = ()
    curve: Curve = 0.0
    curves: tuple[Curve, ...] = ()

    def __post_init__(self) -> None:
        if self.sides[0] > self.sides[1]:
            raise UserError(f"sides: must rise (found {list(self.sides)}).")


def test_values_are_converted_to_what_a_field_means() -> None:
    found = read(
        Every,
        {
            "count": 2, "rate": 1, "shares": [0, 0.5], "sides": [3, 4], "word": "all", "value": 3,
            "imbalance": {"kind": "pair", "ratio": [5, 3]}, "parts": [{"kind": "tail", "ratio": 1}],
            "curve": {"of": 1}, "curves": [1, 2],
        },
        "here",
    )  # fmt: skip
    assert found == Every(
        2, 1.0, (0.0, 0.5), (3, 4), "all", value=3.0, imbalance=Pair("pair", (5, 3)),
        parts=(Tail("tail", 1.0),), curve={"of": 1.0}, curves=(1.0, 2.0),
    )  # fmt: skip
    assert [type(v) for v in (found.rate, found.value, found.shares[0])] == [float] * 3
    assert read(Every, plain(found), "here") == found
    assert plain(found)["imbalance"] == {"kind": "pair", "ratio": [5, 3]}
    assert plain(found)["parts"] == [{"kind": "tail", "ratio": 1.0}]


def test_a_layer_has_what_was_given_and_no_more() -> None:
    assert read_layer(Every, {"rate": 1, "name": 3}, "here", skip=("name",)) == {
        "rate": 1.0,
        "name": 3,
    }
    assert read_layer(Every, {"word": None}, "here") == {"word": None}
    assert read_layer(Every, {}, "here") == {}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"count": True}, "here.count: must be a whole number (found True)."),
    ({"count": 2.0}, "here.count: must be a whole number (found 2.0)."),
    ({"count": "2"}, "here.count: must be a whole number (found '2'). This is text; leave out the "
     "quotes."),
    ({"count": 0}, "here.count: must be at least 1 and at most 5 (found 0)."),
    ({"count": None}, "here.count: must be a whole number (found None)."),
    ({"rate": 0}, "here.rate: must be above 0.0 (found 0)."),
    ({"rate": float("nan")}, "here.rate: must be a finite number (found nan)."),
    ({"rate": float("inf")}, "here.rate: must be a finite number (found inf)."),
    ({"rate": "fast"}, "here.rate: must be a number (found 'fast')."),
    ({"shares": [1, -1]}, "here.shares[1]: must be at least 0.0 (found -1)."),
    ({"shares": 1}, "here.shares: must be a list, each element a number (found 1)."),
    ({"sides": [1]}, "here.sides: must be a list of 2, each element a whole number (found [1])."),
    ({"sides": [1, 2, 3]}, "here.sides: must be a list of 2, each element a whole number (found "
     "[1, 2, 3])."),
    ({"sides": [1, "2"]}, "here.sides[1]: must be a whole number (found '2'). This is text; leave "
     "out the quotes."),
    ({"sides": [2, 1]}, "here.sides: must rise (found [2, 1])."),
    ({"word": "rset"}, "here.word: must be one of all, rest (found 'rset'). Did you mean 'rest'?"),
    ({"mean": 0}, "here.mean: must be one of average, false (found 0)."),
    ({"mean": "averag"}, "here.mean: must be one of average, false (found 'averag'). Did you mean "
     "'average'?"),
    ({"value": -1}, "here.value: must be a number at least 0.0, low or high (found -1)."),
    ({"value": "mid"}, "here.value: must be a number at least 0.0, low or high (found 'mid')."),
    ({"flag": 1}, "here.flag: must be true or false (found 1)."),
    ({"name": 3}, "here.name: must be text (found 3). Put it in quotes."),
    ({"imbalance": {"kind": "pear"}}, "here.imbalance: must be keys and values with `kind`: pair "
     "or tail (found {'kind': 'pear'}). Did you mean 'pair'?"),
    ({"imbalance": {"kind": "pair"}}, "here.imbalance.ratio: missing; it has no default."),
    ({"imbalance": {"kind": "pair", "ratio": [1, 0]}}, "here.imbalance.ratio[1]: must be at least "
     "1 (found 0)."),
    ({"parts": [{"kind": "tail", "ratio": 1, "rate": 2}]}, "here.parts[0]: unknown key 'rate'. Did "
     "you mean 'ratio'? Allowed: kind, ratio."),
    ({"parts": [3]}, "here.parts[0]: must be keys and values (found 3)."),
    ({"curve": {"of": {"of": "x"}}}, "here.curve.of.of: must be a curve (found 'x')."),
    ({"curves": [1, "x"]}, "here.curves[1]: must be a curve (found 'x')."),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[text for _, text in WRONG])
def test_one_style_of_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(Every, {"count": 1} | given, "here")
    assert str(caught.value) == message


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        read(Every, {"cuont": 1, "rate": 0, "shares": ["x", -1]}, "here")
    assert str(caught.value).splitlines() == [
        "here: unknown key 'cuont'. Did you mean 'count'? Allowed: count, curve, curves, flag, "
        "imbalance, mean, name, parts, rate, shares, sides, value, word.",
        "here.rate: must be above 0.0 (found 0).",
        "here.shares[0]: must be a number (found 'x').",
        "here.shares[1]: must be at least 0.0 (found -1).",
    ]
    with pytest.raises(UserError, match=r"^here\.count: missing; it has no default\.$"):
        read(Every, {}, "here")
    with pytest.raises(UserError, match=r"^here: must be keys and values \(found \[1\]\)"):
        read(Every, [1], "here")


def test_the_schema_says_what_the_reader_does() -> None:
    found = json_schema(Every)
    keys = found["properties"]
    assert found["required"] == ["count"] and found["additionalProperties"] is False
    assert keys["count"] == {
        "type": "integer", "minimum": 1, "maximum": 5, "description": "how many",
    }  # fmt: skip
    assert keys["shares"] == {
        "type": "array", "items": {"type": "number", "minimum": 0.0}, "default": [],
    }  # fmt: skip
    assert keys["mean"] == {"enum": [False, "average"], "default": False}
    pair, tail, null = keys["imbalance"]["anyOf"]
    assert pair["properties"]["kind"]["const"] == "pair" and null == {"type": "null"}
    assert tail["required"] == ["kind", "ratio"]
