"""CES-KD/op: every sample is taught by the one expert that suits its difficulty.

OWN DEFINITION. Of CES-KD (I. Amara et al., arXiv 2209.07606) only the abstract could be read: there
are a teacher and assistants of decreasing size (experts), each image has a difficulty and one
expert, smaller ones for easy images and larger ones for hard images, in a curriculum. How
difficulty is measured, who is chosen and when is ours; results are those of "CES-KD/op" and say
nothing of the paper's numbers.

Experts are the parents ``expert-1`` (the smallest) to ``expert-n`` (the teacher). Samples are
ranked by their difficulty and cut into n strata of equal size, g = 0 to n - 1. With m experts
unlocked a sample of stratum g is taught by expert e = min(g, m - 1) + 1 and

    loss = mean_i (1 - soft) CE(y_i, z_i) + soft T^2 KL(softmax(z_e / T) || softmax(z_i / T))

``unlocking``: ``gradual`` gives the experts n equal turns over the first ``rho`` of the epochs and
unlocks one at the start of each, so all teach after rho (n - 1) / n of them; ``static`` has all
from the start, ``easy_first`` teaches by labels alone what is not unlocked yet. The
difficulty is measured once, on images that are not augmented:

- ``cv_loss``: the cross-entropy of the network among the parents ``fold-0`` to ``fold-4`` that was
  not trained on the sample, so that memorising cannot make everything easy;
- ``teacher_loss``: the cross-entropy of the largest expert;
- ``student_loss``: that of the parent ``student``, a student trained on labels;
- ``first_correct``: the first expert whose answer is right is the stratum itself.

Controls (``assignment``): ``random`` deals the same strata to samples at random, ``reversed`` turns
them round, ``single`` takes the expert ``expert`` for all, ``mean`` the mean of all experts'
probabilities, ``all`` the mean of the losses to every expert.

Every expert sees the whole batch, though each sample takes one answer: in evaluation mode the
answers are the same as those of a pass for its own samples, and a step of fixed shapes can be
captured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods.kd import Settings as KdSettings
from cyclery.methods.kd import soft_losses
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "CES-KD/op"
OWN_DEFINITION = "Only the abstract of CES-KD could be read; score, strata and schedule are ours."
FOLDS = 5


def _progress() -> Any:
    """Return the share of the epochs that are done, held through an epoch."""
    return {"kind": "linear", "start": 0.0, "end": 1.0, "clock": "epoch"}


@dataclass(frozen=True)
class Settings:
    """Settings of the assignment and of the loss."""

    temperature: Quantity = field(
        default=4.0,
        metadata={"doc": "divides the logits of expert and student in the soft loss", "above": 0},
    )
    soft: Quantity = field(
        default=0.9,
        metadata={"doc": "weight of the soft loss; labels have the rest", "low": 0.0, "high": 1.0},
    )
    progress: Quantity = field(
        default_factory=_progress,
        metadata={"doc": "share of the run that is done, for unlocking", "low": 0.0, "high": 1.0},
    )
    experts: int = field(default=3, metadata={"doc": "how many there are", "low": 2, "high": 16})
    difficulty: Literal["cv_loss", "teacher_loss", "student_loss", "first_correct"] = field(
        default="cv_loss", metadata={"doc": "what ranks the samples"}
    )
    assignment: Literal["curriculum", "random", "reversed", "single", "mean", "all"] = field(
        default="curriculum", metadata={"doc": "which expert teaches which sample"}
    )
    expert: int = field(
        default=1, metadata={"doc": "the expert of `single`, 1 is the smallest", "low": 1}
    )
    unlocking: Literal["gradual", "static", "easy_first"] = field(
        default="gradual", metadata={"doc": "when experts begin to teach"}
    )
    rho: float = field(
        default=0.5,
        metadata={
            "doc": "share of the run that the turns of the n experts take; one is unlocked at the "
            "start of each, so all are unlocked after rho (n - 1) / n",
            "above": 0,
            "high": 1,
        },
    )

    def __post_init__(self) -> None:
        if self.expert > self.experts:
            raise UserError(
                f"expert: must be at most {self.experts}, as many as there are experts "
                f"(found {self.expert})."
            )

    @property
    def by_stratum(self) -> bool:
        """Say whether a sample's stratum chooses its expert."""
        return self.assignment in ("curriculum", "random", "reversed")


def _names(settings: Settings) -> list[str]:
    return [f"expert-{number}" for number in range(1, settings.experts + 1)]


def ignored(settings: Settings) -> dict[str, str]:
    """Return what nothing reads, by name, and why; ``experts`` always bounds ``expert``."""
    assignment = f"assignment: {settings.assignment}"
    found: dict[str, str] = {}
    if settings.assignment != "single":
        found["expert"] = assignment
    if not settings.by_stratum:
        found |= dict.fromkeys(("difficulty", "unlocking", "rho", "progress"), assignment)
    elif settings.unlocking == "static":
        found |= dict.fromkeys(("rho", "progress"), "unlocking: static")
    return found


def parents(settings: Settings) -> tuple[str, ...]:
    """Return the experts, and the networks that the difficulty is measured with."""
    if settings.assignment == "single":
        return (f"expert-{settings.expert}",)
    by_student = settings.by_stratum and settings.difficulty == "student_loss"
    return (*_names(settings), *judges(settings), *(("student",) if by_student else ()))


def judges(settings: Settings) -> tuple[str, ...]:
    """Return the networks of which each sample is judged by the one that did not see it."""
    if not settings.by_stratum or settings.difficulty != "cv_loss":
        return ()
    return tuple(f"fold-{fold}" for fold in range(FOLDS))


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images of an update that pass the student and the experts that are asked."""
    asked = 1 if settings.assignment == "single" else settings.experts
    return (1 + asked) * images["labelled"]


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the memory of every sample's stratum, by its id."""
    if not settings.by_stratum:
        return {}
    memory = torch.nn.Module()
    memory.register_buffer("strata", torch.zeros(made.samples, dtype=torch.int64))
    return {"curriculum": memory}


def begin(models: dict[str, torch.nn.Module], moment: Any, settings: Settings) -> None:
    """Measure the difficulty of the training samples and assign their strata."""
    if not settings.by_stratum:
        return
    if settings.difficulty == "first_correct":
        right = [moment.answers(name).argmax(1) == moment.y for name in _names(settings)]
        # A sample that none gets right goes to the last one.
        right[-1] = torch.ones_like(right[-1])
        strata = torch.stack(right).to(torch.uint8).argmax(0)
    else:
        strata = quantiles(_difficulty(moment, settings), settings.experts)
    if settings.assignment == "reversed":
        strata = settings.experts - 1 - strata
    elif settings.assignment == "random":
        # Drawn on the CPU, where it is the same for every device.
        order = torch.randperm(len(strata), generator=moment.generator("strata"))
        strata = strata[order.to(strata.device)]
    models["curriculum"].get_buffer("strata").index_copy_(0, moment.ids, strata)


def _difficulty(moment: Any, settings: Settings) -> torch.Tensor:
    """Return the cross-entropy [N] that ranks the samples."""

    def loss(name: str) -> torch.Tensor:
        return F.nll_loss(moment.answers(name), moment.y, reduction="none")

    if settings.difficulty == "teacher_loss":
        return loss(_names(settings)[-1])
    if settings.difficulty == "student_loss":
        return loss("student")
    found = torch.full(moment.ids.shape, math.nan, device=moment.ids.device)
    for fold in range(FOLDS):
        name = f"fold-{fold}"
        found = torch.where(moment.left_out(name), loss(name), found)
    if found.isnan().any():
        raise UserError(
            "parents: the folds leave some training samples out of none of their networks; "
            f"fold-0 to fold-{FOLDS - 1} need this arm's split with `folds: {FOLDS}` and `fold` "
            "0 to 4."
        )
    return found


def quantiles(difficulty: torch.Tensor, count: int) -> torch.Tensor:
    """Return the stratum [N], 0 to count - 1, of each difficulty [N]: bins of equal size.

    Of equal difficulties the earlier sample is the easier one.
    """
    total = len(difficulty)
    ranks = torch.empty(total, dtype=torch.int64, device=difficulty.device)
    places = torch.arange(total, device=difficulty.device)
    ranks[difficulty.argsort(stable=True)] = places
    return ranks * count // total


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and the mean number of the expert are logged."""
    student = models["main"](batch.x).float()
    hard = F.cross_entropy(student, batch.y, reduction="none")
    temperature = row["temperature"]

    def soft(answer: torch.Tensor) -> torch.Tensor:
        return soft_losses(student, (answer / temperature).softmax(1), temperature, KdSettings())

    weight = row["soft"]
    number = torch.zeros_like(hard)
    if settings.assignment == "single":
        losses = soft(models[f"expert-{settings.expert}"](batch.x))
        number = number + settings.expert
    else:
        answers = torch.stack([models[name](batch.x) for name in _names(settings)])
        if settings.assignment == "all":
            losses = torch.stack([soft(answer) for answer in answers]).mean(0)
        elif settings.assignment == "mean":
            losses = soft(answers.logsumexp(0) - math.log(len(answers)))
        else:
            memory = models["curriculum"].get_buffer("strata")
            stratum = memory.index_select(0, batch.ids)
            unlocked = unlocked_experts(row["progress"], settings)
            chosen = torch.minimum(stratum, unlocked - 1)
            index = chosen[None, :, None].expand(1, -1, answers.shape[2])
            losses = soft(answers.gather(0, index)[0])
            number = chosen + 1.0
            if settings.unlocking == "easy_first":
                weight = weight * (stratum < unlocked)
    loss_hard, loss_soft = ((1 - weight) * hard).mean(), (weight * losses).mean()
    return loss_hard + loss_soft, {
        "loss_hard": hard.mean(),
        "loss_soft": losses.mean(),
        "expert": number.mean(),
    }


def unlocked_experts(progress: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return how many teach in epoch k, int64 []: min(n, 1 + floor(n (k - 1) / (rho E)))."""
    if settings.unlocking == "static":
        return torch.full_like(progress, settings.experts).long()
    # float32 may be a hair below a whole number.
    steps = (settings.experts * progress / settings.rho + 1e-4).floor().long()
    return (steps + 1).clamp(max=settings.experts)
