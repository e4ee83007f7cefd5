"""Which transformation was applied to an image, told from a frozen encoder's vectors.

T. Chen et al., SimCLR (arXiv 2002.05709), section 4.2 and table 3: a small network learns from h,
or from z = g(h) of the same length, how images were changed. Where z cannot tell, the projector
has thrown away what the views of an image differ in. Every image of a batch comes in all K forms:

- ``rotation``: turned by 0, 90, 180 and 270 degrees;
- ``noise``: as it is, and with Gaussian noise (``deviation``, as a share of the largest value);
- ``sobel``: as it is, and its edges;
- ``greyscale``: in colour, and without;
- ``inversion``: as it is, and as a negative.

Own definition: forms are equally frequent, so that chance is 1 / K (the paper's is 0.8 for colour
against grey); the paper prints neither the size of its network nor those of noise and edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.augment._colour import check_colour, grey
from cyclery.augment._edges import edges
from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._projection import mlp
from cyclery.methods._rotations import QUARTERS, check_square

VERSION = 1
TITLE = "Transformation probe"
OWN_DEFINITION = "forms of an image are equally frequent, so chance is 1 / K"

Task = Literal["rotation", "noise", "sobel", "greyscale", "inversion"]


@dataclass(frozen=True)
class Settings:
    """Settings of the probe."""

    of: Literal["features", "z"] = field(
        default="features", metadata={"doc": "vectors of the parent that it is told from"}
    )
    task: Task = field(default="rotation", metadata={"doc": "how images are changed"})
    deviation: float = field(
        default=0.1,
        metadata={
            "doc": "of the noise, as a share of the largest value",
            "above": 0.0,
            "high": 1.0,
        },
    )
    hidden: int | None = field(
        default=None,
        metadata={"doc": "units of the hidden layer; null: as many as features", "low": 1,
                  "high": 65_536},
    )  # fmt: skip
    pool: Literal["train", "unlabelled"] = field(
        default="train", metadata={"doc": "samples that it learns from"}
    )


def forms(settings: Settings) -> int:
    """Return how many forms an image has."""
    return QUARTERS if settings.task == "rotation" else 2


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the parent that makes the vectors."""
    return ("encoder",)


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the one stream."""
    return {"images": Stream(("weak",), settings.pool)}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass the encoder."""
    return forms(settings) * images["images"]


def classifies(settings: Settings) -> bool:
    """Say that no classes are learnt."""
    return False


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    return {} if settings.task == "noise" else {"deviation": f"task: {settings.task}"}


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the accuracies on held-out images."""
    return ("val_transformation_accuracy", "test_transformation_accuracy")


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the probe, and what images are normalised by."""
    if settings.task == "greyscale":
        check_colour(made.shape[0], "method.task: greyscale")
    if settings.task == "rotation":
        check_square(made.shape, "task: rotation", "another task")
    pixels = torch.nn.Module()
    for name in ("mean", "std"):
        value = torch.tensor(getattr(made, name), dtype=torch.float32)
        pixels.register_buffer(name, value[:, None, None])
    width = made.width
    return {"probe": mlp(width, settings.hidden or width, forms(settings)), "pixels": pixels}


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Raise a UserError where the vectors are not as long as the probe takes them."""
    encoder: Any = models["encoder"]
    found = moment.outputs(lambda x: encoder.features(x, settings.of), moment.ids[:1]).shape[1]
    probe: Any = models["probe"]
    if found != probe[0].in_features:
        raise UserError(
            f"method.of: {settings.of} must be as long as features, {probe[0].in_features} (found "
            f"{found}); let the parent's projector have `output: null`."
        )


def changed(
    x: torch.Tensor,
    form: int,
    pixels: Any,
    settings: Settings,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """Return normalised images [N, C, H, W] in one form, of which 0 leaves them as they are."""
    if form == 0:
        return x
    if settings.task == "rotation":
        return x.rot90(form, (2, 3))
    values = x * pixels.std + pixels.mean
    if settings.task == "noise":
        noise = torch.empty_like(x).normal_(generator=generator)
        values = values + settings.deviation * noise
    elif settings.task == "sobel":
        values = edges(values)
    elif settings.task == "greyscale":
        values = grey(values).expand_as(x)
    else:
        values = 1 - values
    normalised: torch.Tensor = (values.clamp(0, 1) - pixels.mean) / pixels.std
    return normalised


def _logits(models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings) -> Any:
    encoder: Any = models["encoder"]
    return models["probe"](encoder.features(x, settings.of)).float()


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the cross-entropy of all forms; the accuracy in training is logged."""
    x = batch["images"].x
    every = range(forms(settings))
    images = [changed(x, form, models["pixels"], settings, generator) for form in every]
    y = torch.arange(len(every), device=x.device).repeat_interleave(len(x))
    logits = _logits(models, torch.cat(images), settings)
    right = (logits.argmax(1) == y).to(logits.dtype).mean()
    return F.cross_entropy(logits, y), {"transformation_accuracy": right}


def evaluate(
    models: dict[str, torch.nn.Module], measured: Any, settings: Settings
) -> dict[str, float]:
    """Return how often the form of held-out images is told, all forms being as frequent."""
    found = {}
    for part, name in (("validation", "val"), ("test", "test")):
        ids = measured.pool(part)
        if not len(ids):
            continue
        generator = torch.Generator(ids.device).manual_seed(0)
        right = [
            _told(models, measured, ids, form, settings, generator)
            for form in range(forms(settings))
        ]
        found[f"{name}_transformation_accuracy"] = sum(right) / len(right)
    return found


def _told(
    models: dict[str, torch.nn.Module],
    measured: Any,
    ids: torch.Tensor,
    form: int,
    settings: Settings,
    generator: torch.Generator,
) -> float:
    """Return the share of samples in one form of which this is told."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        x = changed(x, form, models["pixels"], settings, generator)
        found: torch.Tensor = _logits(models, x, settings)
        return found

    return float((measured.outputs(logits, ids).argmax(1) == form).float().mean())
