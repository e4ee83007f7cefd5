"""PATE: teachers of disjoint private parts vote, with noise, on the labels of public images.

N. Papernot et al., Scalable Private Learning with PATE (arXiv 1802.08908), algorithm 1, as MixMatch
(arXiv 1905.02249, section 4.3) uses it. Of query j let n be the votes of the teachers by class. If

    max_c n_c + N(0, threshold_noise^2) >= threshold

the label is argmax_c (n_c + N(0, answer_noise^2)), else there is none (Confident-GNMax). Answered
images are the student's labelled ones, with these labels, right or not; all other public images are
its unlabelled ones (all, where every one is answered). Private images, those with labels in the
split, reach it through votes alone.

One private image changes one teacher, so two counts by one each: in order a, the Renyi divergence
of a label is a / answer_noise^2, of a test a / (2 threshold_noise^2), answered or not. This bound
does not depend on the data; the paper's smaller one does, and would have to be made private itself.
Neither the choice of constants nor anything else that is measured of private images is counted, and
numbers of floating point are taken for real ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._accounting import epsilon
from cyclery.methods._streams import OWN, SHORT

TEACHERS = "teachers"
# In the place of a label.
NOT_ASKED, NO_ANSWER = -2, -1
# Beyond these an epsilon is no finite number.
NOISE = {"low": 1e-3, "high": 1e6}


@dataclass(frozen=True)
class Votes:
    """Settings of the votes."""

    queries: int = field(
        default=100,
        metadata={"doc": "public images asked about; all where there are fewer", "low": 1},
    )
    threshold: float | None = field(
        default=None,
        metadata={"doc": "votes for the first class, with noise, that an answer needs; null: none"},
    )
    threshold_noise: float = field(
        default=1.0, metadata={"doc": "deviation of the noise of that test", **NOISE}
    )
    answer_noise: float = field(
        default=1.0, metadata={"doc": "deviation of the noise of each class's votes", **NOISE}
    )
    balanced: bool = field(
        default=False,
        metadata={"doc": "answered images are drawn so that each class of answers is as likely"},
    )
    delta: float = field(
        default=1e-5, metadata={"doc": "delta of the epsilon", "above": 0.0, "below": 1.0}
    )


def ignored(settings: Votes) -> dict[str, str]:
    """Return what nothing reads, by name, and why."""
    return {"threshold_noise": "threshold: null"} if settings.threshold is None else {}


def parents(settings: Votes) -> tuple[str, ...]:
    """Return the teachers."""
    return (TEACHERS,)


voters = parents


def streams(declared: Mapping[str, tuple[str, ...] | Stream], settings: Votes) -> dict[str, Stream]:
    """Return the streams of a method, each of which takes public images alone."""
    found = {
        name: replace(each, pool=OWN)
        if isinstance(each, Stream)
        else replace(SHORT[name], views=each, pool=OWN)
        for name, each in declared.items()
    }
    if settings.balanced:
        found["labelled"] = replace(found["labelled"], sampler="balanced")
    return found


def modules(settings: Votes, made: Any) -> dict[str, torch.nn.Module]:
    """Return the memory of what was answered, by the ids of samples."""
    memory = torch.nn.Module()
    memory.register_buffer("labels", torch.full((made.samples,), NOT_ASKED))
    return {"votes": memory}


def begin(
    models: Mapping[str, torch.nn.Module], moment: Any, settings: Votes, names: Collection[str]
) -> None:
    """Ask the teachers, and fill the stream ``labelled`` with answers, other ones with the rest."""
    hidden = moment.pool("unlabelled")
    public = hidden[~torch.isin(hidden, moment.ids)]
    if not len(public):
        raise UserError(
            "split.unlabelled: must be so that the pool has samples besides the labelled ones, "
            f"which are private (found {len(hidden)} unlabelled samples, and none of these)."
        )
    # Drawn on the CPU, where it is the same for every device.
    order = torch.randperm(len(public), generator=moment.generator("queries"))
    asked = public[order.to(public.device)][: settings.queries]
    counts = moment.outputs(tally(models[TEACHERS]), asked).cpu()
    # For all images, so that more queries leave the noise of the first ones.
    noise = [
        torch.randn(shape, generator=moment.generator(purpose))[: len(asked)]
        for purpose, shape in (
            ("threshold noise", (len(public),)),
            ("answer noise", (len(public), counts.shape[1])),
        )
    ]
    labels = answers(counts, noise[0], noise[1], settings).to(asked.device)
    models["votes"].get_buffer("labels").index_copy_(0, asked, labels)
    known = labels != NO_ANSWER
    if not known.any():
        raise UserError(
            f"method.threshold: must be so low that some query is answered; none of {len(asked)} "
            f"was (found {settings.threshold}, and at most {counts.amax():g} equal votes)."
        )
    moment.fill("labelled", asked[known], labels[known])
    rest = public[~torch.isin(public, asked[known])]
    for name in names:
        if name != "labelled":
            moment.fill(name, rest if len(rest) else public)


def tally(teachers: Any) -> Any:
    """Return a function from images [B, C, H, W] to the votes of a parent's members, [B, K]."""

    def counted(x: torch.Tensor) -> torch.Tensor:
        logits = [member(x) for member in teachers.members]
        return torch.stack([F.one_hot(z.argmax(1), z.shape[1]) for z in logits]).sum(0)

    return counted


def answers(
    counts: torch.Tensor, first: torch.Tensor, second: torch.Tensor, settings: Votes
) -> torch.Tensor:
    """Return the labels [Q], -1 without an answer, of votes [Q, K].

    ``first`` [Q] and ``second`` [Q, K] are standard normal.
    """
    labels = (counts + settings.answer_noise * second).argmax(1)
    if settings.threshold is None:
        return labels
    sure = counts.amax(1) + settings.threshold_noise * first >= settings.threshold
    return torch.where(sure, labels, NO_ANSWER)


def multipliers(asked: int, answered: int, settings: Votes) -> list[tuple[float, int]]:
    """Return the noise multipliers of the Gaussian mechanisms, each with how often it was used.

    One teacher's other vote moves two counts by 1, a distance of sqrt(2), and the largest by 1.
    """
    test = [(settings.threshold_noise, asked)] if settings.threshold is not None else []
    return [(settings.answer_noise / sqrt(2), answered), *test]


def measures(settings: Votes) -> tuple[str, ...]:
    """Return the names of the figures."""
    return ("train_epsilon", "train_answers", "train_vote_accuracy")


def evaluate(
    models: Mapping[str, torch.nn.Module], measured: Any, settings: Votes
) -> dict[str, float]:
    """Return the epsilon spent, the number of answers and the share of right ones, at the end."""
    if not measured.last:
        return {}
    labels = models["votes"].get_buffer("labels")
    ids = (labels >= 0).nonzero()[:, 0]
    right = measured.true_labels(ids) == labels[ids]
    asked = int((labels != NOT_ASKED).sum())
    return {
        "train_epsilon": epsilon(multipliers(asked, len(ids), settings), settings.delta),
        "train_answers": float(len(ids)),
        "train_vote_accuracy": right.double().mean().item(),
    }
