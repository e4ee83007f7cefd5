"""Model of a run's settings, which tier, paper, experiment and arm may each set.

A layer is checked by itself as far as that goes: names, keys, types and limits. What depends on
several layers (a batch within its split, a network that suits the images) is checked once they
are merged, in ``cyclery.config.resolve``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
)

from cyclery import augment, schedules
from cyclery.common.errors import HERE, UserError, nearest
from cyclery.common.strict import Strict
from cyclery.config import components, parts
from cyclery.data import split_settings
from cyclery.data.registry import unknown_dataset
from cyclery.schedules import RANGE_WORDS

NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
# Lines of work that papers belong to.
Family = Literal[
    "training schedules", "semi-supervised", "self-supervised", "distillation", "small data",
    "private training", "other",
]  # fmt: skip
Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


def checked(check: Callable[[Any], Any]) -> BeforeValidator:
    """Return a validator that passes null on and turns the UserErrors of ``check`` into its own."""

    def validate(value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except UserError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate)


SCHEDULE = WithJsonSchema({"x-ref": "Quantity"})


def _quantity(name: str) -> BeforeValidator:
    """Return the validator of a quantity: a number or a schedule, whose values suit it."""

    def check(value: Any) -> Any:
        components.check_quantity(name, value, HERE)
        return value

    return checked(check)


_WORDS = ("range", *RANGE_WORDS)


def _rate(value: Any) -> Any:
    """Expand ``range``: three triangular cycles between the bounds of the range test."""
    if value == "range":
        value = {"kind": "triangular", "low": "range.base", "high": "range.max", "cycles": 3}
    elif isinstance(value, str) and value not in RANGE_WORDS and nearest(value, _WORDS):
        raise UserError(f"{HERE}: unknown word {value!r}.{nearest(value, _WORDS)}")
    components.check_quantity("lr", value, HERE)
    return value


def _batch(value: Any) -> Any:
    schedules.check_batch(value, HERE)
    if isinstance(value, float) and not value.is_integer():
        raise UserError(f"{HERE}: must be a whole number (found {value}).")
    return value


def _component(kind: str) -> BeforeValidator:
    """Return the validator of a component: its name, or a mapping with ``name`` and settings."""

    def check(value: Any) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, dict):
            raise UserError(
                f"{HERE}: must be a name, or keys and values with `name` (found {value!r:.80})."
            )
        components.check_layer(kind, given, HERE)
        return given

    return checked(check)


def _augment(value: Any) -> Any:
    augment.check(value, None, HERE)
    return value


def _views(value: Any) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{HERE}: must map names of views to lists (found {value!r:.80}).")
    for name, ops in value.items():
        if name in ("plain", "weak", "strong"):
            raise UserError(
                f"{HERE}.{name}: is a view that every run has; `augment` and `strong` say what it "
                "is made with. Choose another name."
            )
        augment.check(ops, None, f"{HERE}.{name}")
    return value


def _probes(value: Any) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{HERE}: must map labels to probes (found {value!r:.80}).")
    components.resolved_probes(value, HERE)
    return value


def _split(value: Any) -> Any:
    return split_settings.check_layer(value, HERE)


def _dataset(value: Any, info: ValidationInfo) -> Any:
    """Refuse the name of a dataset that the project does not have.

    ``info.context`` holds the names that it has; without them no name is refused.
    """
    known = (info.context or {}).get("datasets")
    if (
        known is not None
        and value is not None
        and (not isinstance(value, str) or value not in known)
    ):
        raise ValueError(f"{HERE}: {unknown_dataset(value, known)}")
    return value


_Start = Annotated[dict[str, Any], checked(parts.start), WithJsonSchema(parts.START)]
_Parts = Annotated[list[str], checked(parts.frozen), WithJsonSchema(parts.PARTS)]
_Rates = Annotated[dict[str, float], checked(parts.rates), WithJsonSchema(parts.RATES)]
_Bounds = Annotated[dict[str, float], checked(parts.clip_values), WithJsonSchema(parts.RATES)]


class Settings(Strict):
    """Settings of a run. Tier, paper, experiment and arm may each set any; the later one holds.

    A component (network, head, method, optimiser) that is named again keeps the settings below it;
    a split keeps the keys that are not set again. Null takes a setting back to its default.
    """

    dataset: (
        Annotated[str, BeforeValidator(_dataset), WithJsonSchema({"x-ref": "Dataset"})] | None
    ) = Field(None, description="a file of `config/datasets`")
    split: Annotated[dict[str, Any], checked(_split), WithJsonSchema({"x-ref": "Split"})] | None = (
        Field(None, description="training, validation and test samples")
    )
    model: (
        Annotated[dict[str, Any], _component("model"), WithJsonSchema({"x-ref": "Model"})] | None
    ) = Field(None, description="network: a name, or `name` with its settings")
    head: (
        Annotated[dict[str, Any], _component("head"), WithJsonSchema({"x-ref": "Head"})] | None
    ) = Field(
        None,
        description="what makes logits of the network's features: a name, or `name` with its "
        "settings",
    )
    method: (
        Annotated[dict[str, Any], _component("method"), WithJsonSchema({"x-ref": "Method"})] | None
    ) = Field(
        None, description="training method: a name, or `name` with its settings and quantities"
    )
    optimiser: (
        Annotated[dict[str, Any], _component("optimiser"), WithJsonSchema({"x-ref": "Optimiser"})]
        | None
    ) = Field(None, description="optimiser: a name, or `name` with its settings")
    lr: Annotated[
        Any,
        checked(_rate),
        WithJsonSchema({"anyOf": [{"const": "range"}, {"x-ref": "Quantity"}]}),
    ] = Field(
        None,
        description="learning rate; the word `range` runs three triangular cycles between the "
        "bounds of the range test",
    )
    momentum: Annotated[Any, _quantity("momentum"), SCHEDULE] = Field(
        None, description="momentum, or beta1 of Adam"
    )
    weight_decay: Annotated[Any, _quantity("weight_decay"), SCHEDULE] = Field(
        None, description="decay of weights"
    )
    weight_decay_norm: Annotated[Any, _quantity("weight_decay_norm"), SCHEDULE] = Field(
        None, description="decay of biases and normalisation parameters"
    )
    clip_norm: Annotated[Any, _quantity("clip_norm"), SCHEDULE] = Field(
        None, description="bound on the global gradient norm; null does not clip"
    )
    batch: Annotated[Any, checked(_batch), SCHEDULE] = Field(
        None, description="samples per update; may follow a schedule"
    )
    mu: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="unlabelled samples per labelled one, for methods that take any"
    )
    magnitude: Annotated[Any, _quantity("magnitude"), SCHEDULE] = Field(
        None, description="strength of `randaugment`, 0 to 10; may follow a schedule"
    )
    augment: (
        Annotated[
            list[dict[str, Any]],
            checked(_augment),
            WithJsonSchema({"type": "array", "items": {"x-ref": "Augmentation"}}),
        ]
        | None
    ) = Field(None, description="augmentations in order, each `{op: name, ...}`: the weak view")
    strong: (
        Annotated[
            list[dict[str, Any]],
            checked(_augment),
            WithJsonSchema({"type": "array", "items": {"x-ref": "Augmentation"}}),
        ]
        | None
    ) = Field(
        None,
        description="augmentations that follow those of `augment` in a strong view, for methods "
        "that ask for one",
    )
    views: (
        Annotated[
            dict[Name, list[dict[str, Any]]],
            checked(_views),
            WithJsonSchema(
                {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"x-ref": "Augmentation"}},
                }
            ),
        ]
        | None
    ) = Field(
        None,
        description="augmentations of further views by name, for methods that ask for them; each "
        "is a whole list of its own",
    )
    ema_decay: Annotated[Any, _quantity("ema_decay"), SCHEDULE] = Field(
        None,
        description="decay of the average of the weights, taken after every update; the averaged "
        "network is then the one that is evaluated; null averages nothing",
    )
    ema_buffers: Literal["shared", "average", "own"] | None = Field(
        None,
        description="running statistics of the averaged network: those of the trained one "
        "(`shared`), their `average`, or its `own`, from its own passes in training, which the "
        "method has to make",
    )
    probes: (
        Annotated[
            dict[str, dict[str, Any]],
            checked(_probes),
            WithJsonSchema({"type": "object", "additionalProperties": {"x-ref": "Probe"}}),
        ]
        | None
    ) = Field(
        None,
        description="what is measured of the final features: a label, of which claims have the "
        "figures as `test_<label>_accuracy`, to `name` of a probe, its settings, and `of`, which "
        "features (default `features`, those before the head)",
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="epochs; each is a pass over the samples, or `epoch_images` of them"
    )
    epoch_images: Count | None = Field(
        None,
        description="labelled samples in an epoch, from one shuffled pass after another; null is "
        "one pass",
    )
    precision: Literal["fp32", "bf16"] | None = Field(None, description="arithmetic of the network")
    compile: bool | None = Field(
        None, description="compile the network with torch.compile; on a GPU only"
    )
    deterministic: bool | None = Field(None, description="bitwise repeatable kernels on a GPU")
    threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="torch threads per run on a CPU; changes the last bits of results"
    )
    evaluations: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="evaluations on the way, spread evenly, the last at the end",
    )
    init: _Start | None = Field(
        None,
        description="the parent whose weights start the run: its name, or `from` (its name) with "
        "`parts` and `head`, which says whether its head comes along (`keep`) or a new one is "
        "drawn (`fresh`)",
    )
    init_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="share of the parent's weights and buffers at the start; the rest is fresh, "
        "and batch norm's statistics are then measured again (default 1)",
    )
    frozen: _Parts | None = Field(
        None,
        description="parts that are not trained, as `[features]`, and are in evaluation mode "
        "throughout",
    )
    rates: _Rates | None = Field(
        None,
        description="factors of the learning rate by part, as `{features: 0.1}`; decay follows, "
        "and of a part inside another the inner one counts",
    )
    clip_values: _Bounds | None = Field(
        None,
        description="bounds on every single entry of the gradient by part, as `{features: 10}`; "
        "after `clip_norm`, before any decay; parts that are not named have none",
    )
    draw: Annotated[str, Field(pattern=NAME)] | None = Field(
        None,
        description="a name for initial weights, order and random numbers of their own at every "
        "seed, on the same split; arms of one draw are paired (null is a draw, too)",
    )
