"""Re-initialisation: a fixed budget in stages, between which weights are drawn anew, or in part.

S. Zaidi et al., When Does Re-initialization Work? (arXiv 2206.10011). The updates of a run are
divided into T stages of equal length. Before each stage but the first a map R changes the weights
that the last one reached, the optimiser's state and the averages of weights are made new, and
``lr: {kind: repeated}`` begins its schedule again. Nothing is drawn after the last stage, and with
one stage this is `supervised`, bit for bit. The loss is the cross-entropy. R is, as `reset`,

- ``shrink_perturb`` (J. T. Ash, R. P. Adams, arXiv 1910.08475): w <- lambda w + gamma w', where w'
  is a new draw of the parameter's own initialiser, so that of a scale of batch norm it is 1. As in
  the code JordanAsh/warm_start all parameters are treated alike, and running statistics are those
  of a new network; without ``norms`` the scales and shifts of norms stay. With lambda 1 and gamma
  0, a warm start, nothing changes, running statistics among it, which is ``none``; with lambda 0
  and gamma 1 it is ``full``.
- ``layerwise`` (I. Alabdulmohsin, H. Maennel, D. Keysers, arXiv 2109.00267, as the code
  hlml/fortuitous_forgetting has it): stage g, counted from 0, of a network of L blocks has l =
  floor(g L / T). Each tensor of a block before l is kept and scaled to the norm that it had when
  the run began (one that had none becomes 0), with its running statistics; later blocks and the
  head are drawn anew. Between blocks l - 1 and l a normalisation is switched on for good, whose
  constants are those of the first batch that is trained on afterwards (`_frozen_norms`).
- ``last_block`` (H. Zhou et al., arXiv 2202.00155): the last ``last`` blocks and the head are drawn
  anew, the others stay as they are.
- ``full``: all weights are drawn anew.
- ``none``: no weight is changed. The control, since the schedule and the optimiser begin again.

With ``distil`` the network as it was before R, frozen and in evaluation mode, teaches the next
stage, on the same augmented images:

    (1 - beta) CE(y, p) + beta tau^2 KL(q_tau || p_tau)

which after a full restart is a born-again network (T. Furlanello et al., arXiv 1805.04770) at a
fixed budget. What is drawn before a stage comes from the run's seed and that stage.

OWN DEFINITIONS. The text of the paper could not be read beyond its abstract, and there is no code:

- The frame (equal stages, a new optimiser, restarts of the schedule) and the form of distillation
  are ours; lambda and gamma are those of the code named above, beta and tau neutral ones.
- Blocks are those of `cyclery.models._classifier.blocks`: residual blocks, or layers of weights
  where there are none. A normalisation stays on when later stages keep more blocks; where several
  stages have the same l it is switched on at the first of them.
- ``early_stopping``, of one stage, is the cheap alternative: after every epoch the accuracy on the
  validation split is measured, and at the end the weights are those of the best epoch, the first of
  equals. The budget counts whole, as if it had not stopped; looking at the validation split costs
  passes that are not counted. Figures on the way are of the present weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import _frozen_norms
from cyclery.methods._frozen_norms import BEFORE, CONSTANTS
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Re-initialisation"
OWN_DEFINITION = "Beyond the abstract the paper could not be read: stages and constants are ours."

Models = dict[str, "torch.nn.Module"]
# Below this a tensor's norm counts as none, as in the code of `layerwise`.
NONE = 1e-6


@dataclass(frozen=True)
class Settings:
    """Settings of stages and of what happens between them."""

    stages: int = field(default=2, metadata={"doc": "stages of equal length (T)", "low": 1})
    reset: Literal["shrink_perturb", "layerwise", "last_block", "full", "none"] = field(
        default="shrink_perturb", metadata={"doc": "what happens to weights between stages (R)"}
    )
    shrink: float = field(
        default=0.4,
        metadata={"doc": "share of a weight that stays (lambda)", "low": 0.0, "high": 1.0},
    )
    perturb: float = field(
        default=0.1, metadata={"doc": "factor of the new draw (gamma)", "low": 0.0, "high": 10.0}
    )
    norms: bool = field(
        default=True,
        metadata={"doc": "whether scales and shifts of norms are shrunk and perturbed, too"},
    )
    last: int = field(default=1, metadata={"doc": "blocks that `last_block` draws anew", "low": 1})
    distil: bool = field(
        default=False, metadata={"doc": "whether the network of the last stage teaches the next"}
    )
    beta: Quantity = field(
        default=0.5,
        metadata={"doc": "share of what is taught in the loss", "low": 0.0, "high": 1.0},
    )
    tau: float = field(
        default=1.0, metadata={"doc": "temperature of what is taught", "above": 0.0, "high": 100.0}
    )
    early_stopping: bool = field(
        default=False,
        metadata={"doc": "whether the weights of the best validation epoch stand at the end"},
    )

    def __post_init__(self) -> None:
        if self.early_stopping and self.stages > 1:
            raise UserError(
                f"early_stopping: must be false where there are stages (found {self.stages}); it "
                "is an alternative to them."
            )

    @property
    def taught(self) -> bool:
        """Say whether a network teaches."""
        return self.distil and self.stages > 1

    @property
    def layerwise(self) -> bool:
        """Say whether there are normalisations between blocks."""
        return self.reset == "layerwise" and self.stages > 1

    @property
    def unchanged(self) -> bool:
        """Say whether no weight is changed between stages."""
        warm = self.reset == "shrink_perturb" and self.shrink == 1 and self.perturb == 0
        return warm or self.reset == "none"


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that say nothing beside the others."""
    found = {}
    if settings.reset != "shrink_perturb":
        found = dict.fromkeys(("shrink", "perturb", "norms"), f"reset: {settings.reset}")
    if settings.reset != "last_block":
        found["last"] = f"reset: {settings.reset}"
    if not settings.distil:
        found |= dict.fromkeys(("beta", "tau"), "distil: false")
    if settings.stages == 1:
        names = ("reset", "shrink", "perturb", "norms", "last", "distil", "beta", "tau")
        found |= dict.fromkeys(names, "stages: 1")
    return found


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass a network: those that are taught pass the frozen one, too."""
    return sum(images.values()) * (2 if settings.taught else 1)


# Stages.


def events(settings: Settings, clock: Any) -> list[int]:
    """Return the first update of each later stage; to stop early, the end of every epoch."""
    if settings.early_stopping:
        return [*clock.starts[1:], clock.updates]
    if settings.stages > clock.updates:
        raise UserError(
            f"method.stages: must be at most the {clock.updates} updates of the run (found "
            f"{settings.stages})."
        )
    return [round(clock.updates * g / settings.stages) for g in range(1, settings.stages)]


def kept_blocks(stage: int, settings: Settings, blocks: int) -> int:
    """Return how many blocks a stage, counted from 0, keeps, of so many that a network has."""
    if settings.reset == "last_block":
        return max(0, blocks - settings.last)
    return stage * blocks // settings.stages


def modules(settings: Settings, made: Any) -> Models:
    """Return what is remembered: the last stage's network, first norms, constants, best weights."""
    if settings.early_stopping:
        memory = torch.nn.Module()
        memory.register_buffer("accuracy", torch.tensor(-1.0))
        return {"best": made.fresh().requires_grad_(False), "memory": memory}
    found: Models = {}
    if settings.taught or settings.layerwise:
        found["memory"] = memory = torch.nn.Module()
        memory.register_buffer("begun", torch.zeros(()))
    if settings.taught:
        found["before"] = made.fresh().requires_grad_(False)
    if settings.stages > 1 and settings.reset in ("layerwise", "last_block"):
        count = len(_frozen_norms.blocks_of(made.net))
        _check_blocks(settings, count)
    if settings.layerwise:
        norms = [parameter.detach().norm() for parameter in made.net.parameters()]
        memory.register_buffer("norms", torch.stack(norms))
        after = {kept_blocks(g, settings, count) - 1 for g in range(1, settings.stages)}
        names = (CONSTANTS, BEFORE) if settings.taught else (CONSTANTS,)
        _frozen_norms.add(memory, made, after, names)
    return found


def _check_blocks(settings: Settings, count: int) -> None:
    if settings.reset == "last_block" and settings.last >= count:
        raise UserError(
            f"method.last: must be below the {count} blocks of the network (found "
            f"{settings.last}); to draw all anew, take `reset: full`."
        )
    if settings.reset == "layerwise" and count < 2:
        raise UserError(
            "method.reset: layerwise needs a network of two blocks or more (found one), or "
            "nothing is ever kept."
        )


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what the network cannot be evaluated without."""
    return ("memory",) if settings.layerwise else ()


# Between stages.


def event(models: Models, moment: Any, settings: Settings) -> None:
    """Begin a stage; or look whether an epoch was the best one."""
    if settings.early_stopping:
        _keep_best(models, moment)
        return
    stage = 1 + events(settings, moment.clock).index(moment.update)
    with torch.no_grad():
        if settings.taught or settings.layerwise:
            models["memory"].get_buffer("begun").fill_(1.0)
        if settings.taught:
            models["before"].load_state_dict(models["main"].state_dict())
            _frozen_norms.keep(models["memory"])
        if not settings.unchanged:
            reset(models, moment.drawn_again()["main"], stage, settings)
    moment.forget()
    moment.restart_average()


def reset(models: Models, fresh: torch.nn.Module, stage: int, settings: Settings) -> None:
    """Change the weights before a stage, counted from 0, by what a new network has."""
    net = models["main"]
    still, kept = _at_rest(net), set()
    if settings.reset in ("layerwise", "last_block"):
        blocks = _frozen_norms.blocks_of(net)
        count = kept_blocks(stage, settings, len(blocks))
        kept = {id(x) for block in blocks[:count] for module in block for x in _tensors(module)}
        if settings.layerwise and count > kept_blocks(stage - 1, settings, len(blocks)):
            _frozen_norms.switch_on(models["memory"], count - 1)
    elif settings.reset == "shrink_perturb" and not settings.norms:
        kept = _of_norms(net)
    for index, (name, own) in enumerate(net.named_parameters()):
        if id(own) in still:
            continue
        new = fresh.get_parameter(name).to(own.device)
        if id(own) in kept:
            if settings.layerwise:
                first = float(models["memory"].get_buffer("norms")[index])
                own.mul_(first / max(float(own.norm()), NONE) if first > NONE else 0.0)
        elif settings.reset == "shrink_perturb":
            own.mul_(settings.shrink).add_(new * settings.perturb)
        else:
            own.copy_(new)
    for name, buffer in net.named_buffers():
        if id(buffer) not in still | kept:
            buffer.copy_(fresh.get_buffer(name))


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _at_rest(net: torch.nn.Module) -> set[int]:
    """Return the ids of tensors that an arm freezes: those parts are in evaluation mode."""
    found = {id(p) for p in net.parameters() if not p.requires_grad}
    for module in net.modules():
        if not module.training:
            found |= {id(x) for x in (*module.parameters(False), *module.buffers(False))}
    return found


def _of_norms(net: torch.nn.Module) -> set[int]:
    """Return the ids of scales and shifts; running statistics are not among them."""
    nn = torch.nn
    kinds = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    norms = [module for module in net.modules() if isinstance(module, kinds)]
    return {id(parameter) for norm in norms for parameter in norm.parameters()}


def _keep_best(models: Models, moment: Any) -> None:
    """Keep the weights that are evaluated if none were better; at the end go back to the best."""
    found, best = moment.accuracy("validation"), models["memory"].get_buffer("accuracy")
    nets = [models[name] for name in ("ema", "main") if name in models]
    if found > float(best):
        best.fill_(found)
        models["best"].load_state_dict(nets[0].state_dict())
    if moment.update == moment.clock.updates:
        for net in nets:
            net.load_state_dict(models["best"].state_dict())


# The network and its loss.


def predict(models: Models, x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return the logits [B, K] that are evaluated."""
    net: Any = models["main"]
    return net.head(_features(models, x)) if settings.layerwise else net(x)


def features(models: Models, x: torch.Tensor, settings: Settings) -> dict[str, torch.Tensor]:
    """Return the vectors [B, D] before the head."""
    net: Any = models["main"]
    return {"features": _features(models, x) if settings.layerwise else net.features(x)}


def _features(models: Models, x: torch.Tensor, learn: bool = False) -> torch.Tensor:
    return _frozen_norms.features(models["main"], x, models["memory"], learn=learn)


def step(
    models: Models,
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; with a teacher its two parts are logged, before their weights."""
    net: Any = models["main"]
    z = net.head(_features(models, batch.x, learn=True)) if settings.layerwise else net(batch.x)
    z = z.float()
    loss = F.cross_entropy(z, batch.y)
    if not settings.taught:
        return loss, {}
    told = _told(models, batch.x, z, settings)
    # Nobody teaches the first stage.
    share = row["beta"] * models["memory"].get_buffer("begun")
    return loss.lerp(told, share), {"loss_ce": loss, "told": told}


def _told(models: Models, x: torch.Tensor, z: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return tau^2 KL(q_tau || p_tau) [], the mean over the batch, q being the network before."""
    teacher: Any = models["before"]
    teacher.eval()
    with torch.no_grad():
        if settings.layerwise:
            q = teacher.head(_frozen_norms.features(teacher, x, models["memory"], BEFORE))
        else:
            q = teacher(x)
        q = (q.float() / settings.tau).softmax(1)
    p = (z / settings.tau).log_softmax(1)
    return F.kl_div(p, q, reduction="batchmean") * settings.tau**2


# What is measured.


def measures(settings: Settings) -> tuple[str, ...]:
    """Return the names of the accuracies on training samples, by whether their labels are right."""
    return ("train_corrupted_accuracy", "train_clean_accuracy")


def evaluate(models: Models, measured: Any, settings: Settings) -> dict[str, float]:
    """Return the share of given labels that are learnt, of wrong (memorised) and right ones.

    None where the split has no noise.
    """
    ids = measured.pool("train")
    given = measured.labels(ids)
    wrong = given != measured.true_labels(ids)
    if not wrong.any():
        return {}
    found = measured.outputs(lambda x: predict(models, x, settings), ids).argmax(1) == given
    parts = {"corrupted": found[wrong], "clean": found[~wrong]}
    return {
        f"train_{name}_accuracy": float(part.double().mean())
        for name, part in parts.items()
        if len(part)
    }
