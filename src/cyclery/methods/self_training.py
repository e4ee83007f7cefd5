"""Iterative self-training in stages: FIST, RIST and GIST, and their controls.

E. W. Teh et al., The GIST and RIST of Iterative Self-Training for Semi-Supervised Segmentation
(arXiv 2103.17105), a part of E. W. Teh's thesis (arXiv 2212.00470). Stage 0 trains a teacher on the
labelled samples, those of human labels. Before each of S refinement stages the network as it is
labels the unlabelled pool, by its likeliest class on images that are not augmented, and these
pseudo-labels stand for the whole stage. Then it trains on with the cross-entropy

    mean_b CE(y_b, p_b),   y_b a human label for a share alpha of the batch, else a pseudo-label

- ``fist`` (fixed): alpha is the same in all stages, ``alpha``;
- ``rist`` (random): alpha is 0 or 1, by a fair coin for each stage;
- ``gist`` (greedy): each stage is trained twice from the same weights, with alpha 1 and with alpha
  0, and the one that is better on validation images is kept (a beam of 1);
- ``pseudo``: alpha is 0 in all stages after the teacher; ``human``: it is 1 (controls).

The updates of a run are divided into turns of equal length: one for the teacher, then one for each
stage, two with ``gist``: 1 + S or 1 + 2 S. So at equal updates a stage of GIST is about half as
long; at stages of equal length it trains nearly twice as much, and its budget says so. At each turn
the optimiser is new, and ``lr: {kind: repeated}`` with as many times as there are turns begins its
schedule again. With ``teacher: given`` there is no stage 0: the network that the run starts with
(`init`) is the teacher, such as one of another semi-supervised method.

At the end it is measured what the network of each stage was: ``test_stage_<i>_accuracy``, i = 0 to
S, the slope of the least-squares line through them, ``test_accuracy_slope`` (per stage), and
``unlabelled_stage_<i>_accuracy``, the share of right pseudo-labels that stage i >= 1 was given.

OWN DEFINITIONS. The papers segment images; here images are classified, a surrogate: a failure here
does not refute the claim on segmentation. The lengths of stages could not be read. Stages are of
equal length and go on from the weights before them, every pseudo-label counts (no threshold), GIST
trains the human candidate first and keeps the first of equals. What the pool and the validation
images pass at the beginning of a stage is counted in no budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION = 1
TITLE = "Iterative self-training"
OWN_DEFINITION = (
    "A classification surrogate of a method for segmentation; lengths of stages are ours."
)

Models = dict[str, "torch.nn.Module"]


@dataclass(frozen=True)
class Settings:
    """Settings of the stages."""

    kind: Literal["fist", "rist", "gist", "pseudo", "human"] = field(
        default="gist", metadata={"doc": "whose labels a stage is trained on"}
    )
    stages: int = field(
        default=3,
        metadata={"doc": "refinement stages after the teacher's (S)", "low": 1, "high": 100},
    )
    alpha: float = field(
        default=0.5,
        metadata={"doc": "share of human labels in a batch of `fist`", "above": 0.0, "below": 1.0},
    )
    teacher: Literal["trained", "given"] = field(
        default="trained",
        metadata={"doc": "whether stage 0 is trained, or is what the run starts with (`init`)"},
    )


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that say nothing beside the others."""
    return {} if settings.kind == "fist" else {"alpha": f"kind: {settings.kind}"}


def streams(settings: Settings) -> dict[str, Any]:
    """Return the streams: as many samples of each, of which a batch takes one or the other."""
    return {"labelled": ("weak",), "unlabelled": Stream(("weak",), "unlabelled")}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass a network: a pseudo-labelled one stands in for a labelled one."""
    return images["labelled"]


def averages(settings: Settings) -> bool:
    """Say that averaged weights are not what is evaluated: stages go on from the network's own."""
    return False


# Turns.


def turns(settings: Settings) -> list[tuple[int, str]]:
    """Return the stage of each turn, and whose labels it trains on.

    They are ``human``, ``pseudo``, ``mixed`` or, by the coin of that stage, ``coin``.
    """
    labels = {
        "fist": ["mixed"],
        "rist": ["coin"],
        "gist": ["human", "pseudo"],
        "pseudo": ["pseudo"],
        "human": ["human"],
    }[settings.kind]
    stages = range(1, settings.stages + 1)
    first = [(0, "human")] if settings.teacher == "trained" else []
    return first + [(stage, whose) for stage in stages for whose in labels]


def events(settings: Settings, clock: Any) -> list[int]:
    """Return the first update of each turn, and the end of the run."""
    count = len(turns(settings))
    if count > clock.updates:
        raise UserError(
            f"method.stages: must make at most as many turns as the run has updates, "
            f"{clock.updates} (found {settings.stages}, which make {count})."
        )
    return [round(clock.updates * turn / count) for turn in range(count + 1)]


def modules(settings: Settings, made: Any) -> Models:
    """Return what is remembered: pseudo-labels, coins and figures, and the network of each stage.

    Of `gist` also where a stage began, and its first candidate.
    """
    count, book = settings.stages + 1, torch.nn.Module()
    book.register_buffer("labels", torch.zeros(made.samples, dtype=torch.int64))
    book.register_buffer("right", torch.zeros(count, dtype=torch.float64))
    book.register_buffer("coins", torch.zeros(count))
    book.register_buffer("human", torch.zeros(()))
    # Doubles, or equal accuracies would differ.
    book.register_buffer("accuracy", torch.zeros((), dtype=torch.float64))
    reached = torch.nn.ModuleList(made.fresh() for _ in range(count))
    found: Models = {"book": book, "reached": reached.requires_grad_(False)}
    if settings.kind == "gist":
        for name in ("start", "candidate"):
            found[name] = made.fresh().requires_grad_(False)
    return found


def begin(models: Models, moment: Any, settings: Settings) -> None:
    """Draw the coins of all stages, by the seed: the same however long the stages are."""
    coins = models["book"].get_buffer("coins")
    drawn = torch.rand(len(coins), generator=moment.generator("coins")) < 0.5
    coins.copy_(drawn)


def event(models: Models, moment: Any, settings: Settings) -> None:
    """End a turn, and begin the next one."""
    turn, plan = events(settings, moment.clock).index(moment.update), turns(settings)
    before = plan[turn - 1] if turn else (0, "given")
    after = plan[turn] if turn < len(plan) else None
    main, book = models["main"], models["book"]
    with torch.no_grad():
        if after and after[0] == before[0] > 0:
            # The first candidate of a stage has ended, the second begins where it did.
            book.get_buffer("accuracy").fill_(moment.accuracy("validation"))
            models["candidate"].load_state_dict(main.state_dict())
            main.load_state_dict(models["start"].state_dict())
        elif turn or settings.teacher == "given":
            if settings.kind == "gist" and before[0]:
                _keep_better(models, moment)
            _reached(models, before[0]).load_state_dict(main.state_dict())
            if after:
                _label(models, moment, after[0], settings)
        if after:
            book.get_buffer("human").fill_(_share(book, *after, settings))
    if turn:
        moment.forget()


def _keep_better(models: Models, moment: Any) -> None:
    """Go back to the first candidate unless the second one is better on validation images."""
    if moment.accuracy("validation") <= float(models["book"].get_buffer("accuracy")):
        models["main"].load_state_dict(models["candidate"].state_dict())


def _label(models: Models, moment: Any, stage: int, settings: Settings) -> None:
    """Label the pool by the network as it is; its true labels are used for measuring alone."""
    book, ids = models["book"], moment.pool("unlabelled")
    found = moment.outputs(models["main"], ids).argmax(1)
    book.get_buffer("labels")[ids] = found
    book.get_buffer("right")[stage] = (found == moment.labels(ids)).double().mean()
    if settings.kind == "gist":
        models["start"].load_state_dict(models["main"].state_dict())


def _share(book: torch.nn.Module, stage: int, whose: str, settings: Settings) -> float:
    """Return the share of human labels in the batches of a turn."""
    if whose == "coin":
        return float(book.get_buffer("coins")[stage])
    return {"human": 1.0, "pseudo": 0.0, "mixed": settings.alpha}[whose]


def _reached(models: Models, stage: int) -> torch.nn.Module:
    nets: Any = models["reached"]
    net: torch.nn.Module = nets[stage]
    return net


# The loss.


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the cross-entropy on labels of both kinds.

    Logged are the shares of human labels, of pseudo-labels, and of right pseudo-labels in a batch.
    """
    book, unlabelled = models["book"], batch.unlabelled
    places = torch.arange(len(batch.y), device=batch.y.device)
    human = places < book.get_buffer("human") * len(batch.y)
    x = torch.where(human[:, None, None, None], batch.x, unlabelled.x)
    told = book.get_buffer("labels").index_select(0, unlabelled.ids)
    y = torch.where(human, batch.y, told)
    loss = F.cross_entropy(models["main"](x).float(), y)
    right = ((told == unlabelled.y) & ~human).to(loss.dtype)
    return loss, {
        "human": human.to(loss.dtype).mean(),
        "mask_rate": (~human).to(loss.dtype).mean(),
        "pseudo_correct": right.mean(),
    }


# What is measured.


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the accuracies of stages, of their slope, and of their pseudo-labels."""
    stages = range(settings.stages + 1)
    return (
        *(f"test_stage_{stage}_accuracy" for stage in stages),
        "test_accuracy_slope",
        *(f"unlabelled_stage_{stage}_accuracy" for stage in stages[1:]),
    )


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return these figures at the end of the run, as shares; nothing on the way.

    The last stage's network is the one that the run ends with.
    """
    if not measured.last:
        return {}
    ids, found, stages = measured.pool("test"), {}, range(settings.stages + 1)
    labels = measured.labels(ids)
    for stage in stages:
        net = _reached(models, stage)
        net.eval()
        right = measured.outputs(net, ids).argmax(1) == labels
        found[f"test_stage_{stage}_accuracy"] = float(right.double().mean())
    found["test_accuracy_slope"] = slope(list(found.values()))
    right = models["book"].get_buffer("right")
    for stage in stages[1:]:
        found[f"unlabelled_stage_{stage}_accuracy"] = float(right[stage])
    return found


def slope(accuracies: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the accuracies of stages 0 to S."""
    y = np.asarray(accuracies)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    return float(x @ y / (x @ x))
