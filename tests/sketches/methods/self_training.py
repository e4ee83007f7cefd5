"""Self-training in stages: GIST keeps the better of two, RIST draws one, FIST mixes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.common.lazy import F, torch

streams = lambda settings: {"labelled": ("weak",), "unlabelled": ("weak",)}  # noqa: E731
VERSION, TITLE, STAGES = 1, "Iterative self-training (sketch)", 2


@dataclass(frozen=True)
class Settings:
    """Which of them."""

    kind: Literal["gist", "rist", "fist"] = field(default="gist", metadata={"doc": "which"})


def modules(settings, made):
    book = torch.nn.Module()
    book.register_buffer("labels", torch.zeros(made.samples, dtype=torch.int64))
    for name in ("turn", "human", "accuracy"):
        book.register_buffer(name, torch.zeros(()))
    start, other = made.fresh().requires_grad_(False), made.fresh().requires_grad_(False)
    return {"book": book, "start": start, "other": other}


def events(settings, clock):
    turns = STAGES * (2 if settings.kind == "gist" else 1)
    return [clock.updates * turn // turns for turn in range(turns + 1)]


def event(models, moment, settings):
    book, main, other = models["book"], models["main"], models["other"]
    again = settings.kind == "gist" and int(book.turn) % 2
    if again:
        book.accuracy.fill_(moment.accuracy("validation"))
        other.load_state_dict(main.state_dict())
        main.load_state_dict(models["start"].state_dict())
    elif settings.kind == "gist" and book.turn and book.accuracy > moment.accuracy("validation"):
        main.load_state_dict(other.state_dict())
    ids = moment.pool("unlabelled")
    book.labels[ids] = moment.outputs(main, ids).argmax(1)
    models["start"].load_state_dict(main.state_dict())
    coin = float(torch.rand((), generator=moment.generator("coin")) < 0.5)
    book.human.fill_({"gist": float(not again), "rist": coin, "fist": 0.5}[settings.kind])
    book.turn.add_(1)
    moment.forget()


def step(models, batch, row, settings, generator):
    human = torch.arange(len(batch.y), device=batch.y.device) < models["book"].human * len(batch.y)
    x = torch.where(human[:, None, None, None], batch.x, batch.unlabelled.x)
    y = torch.where(human, batch.y, models["book"].labels[batch.unlabelled.ids])
    return F.cross_entropy(models["main"](x).float(), y), {"human": human.float().mean()}
