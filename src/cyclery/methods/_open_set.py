"""Which unlabelled samples are of the known classes, found from few labels: OpenCoS' detection.

J. Park et al., OpenCoS (arXiv 2107.08943, section 3) and the official code alinlab/OpenCoS. u are
vectors of a network that was trained without labels (behind its projector), h those before it. The
prototype of a class is the mean of u over its labelled samples, not normalised, and the score of a
sample its largest cosine with a prototype.
"""

from __future__ import annotations

from cyclery.common.lazy import F, torch

# Half of this times all squared parameters, those of the bias too, is added to the cross-entropy.
PENALTY = 1e-4
ITERATIONS = 5000


def memory(samples: int, classes: int) -> torch.nn.Module:
    """Return what is found before training, by the ids of samples.

    ``soft`` labels [N, K], ``score`` [N], the largest probability that the linear classifier gives
    (``linear`` [N]), and its class where that is a label (``labels`` [N], else -1); the thresholds
    of both kinds of scores (``threshold`` [2]), and whether anything is out of class (``some`` []).
    """
    found = torch.nn.Module()
    found.register_buffer("soft", torch.zeros(samples, classes))
    found.register_buffer("score", torch.zeros(samples))
    found.register_buffer("linear", torch.zeros(samples))
    found.register_buffer("labels", torch.full((samples,), -1, dtype=torch.int64))
    found.register_buffer("threshold", torch.zeros(2))
    found.register_buffer("some", torch.zeros(()))
    return found


def sums(u: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the sum [K, D] of the vectors u [N, D] of each class; its direction is the mean's."""
    return u.new_zeros(classes, u.shape[1]).index_add_(0, y, u)


def cosines(u: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
    """Return the cosine [N, K] of vectors u [N, D] with each of [K, D].

    That with a class of which there is no sample, a vector of zeros, is minus infinity.
    """
    found = F.normalize(u) @ F.normalize(towards).T
    return found.masked_fill((towards == 0).all(1), float("-inf"))


def left_out(u: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
    """Return cosines [N, K] of labelled samples, each left out of the prototype of its class.

    A class that has no other sample is left out itself: minus infinity.
    """
    prototypes = sums(u, y, classes)
    others = prototypes.index_select(0, y) - u
    own = (F.normalize(u) * F.normalize(others)).sum(1)
    alone = y.bincount(minlength=classes).index_select(0, y) == 1
    own = own.masked_fill(alone, float("-inf"))
    return cosines(u, prototypes).scatter(1, y[:, None], own[:, None])


def threshold(scores: torch.Tensor, deviations: float) -> torch.Tensor:
    """Return mean - k standard deviations (divisor n - 1) [] of labelled samples' scores [N]."""
    return scores.mean() - deviations * scores.std()


def linear(h: torch.Tensor, y: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights [K, D] and bias [K] of a linear classifier of features h [N, D], by L-BFGS.

    It minimises the mean cross-entropy and ``PENALTY`` / 2 times the squares of all its parameters.
    The minimum is the only one, so a line search, which the official code has not, changes the way
    there alone.
    """
    weight = h.new_zeros(classes, h.shape[1], requires_grad=True)
    bias = h.new_zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        squares = weight.square().sum() + bias.square().sum()
        loss = F.cross_entropy(h @ weight.T + bias, y) + PENALTY / 2 * squares
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return weight.detach(), bias.detach()


def rates(remembered: torch.nn.Module, pool: torch.Tensor, known: torch.Tensor) -> dict[str, float]:
    """Return the shares of known and of unknown samples of a pool [N] that are told right.

    ``known`` [N] says which are; by the thresholds of both kinds of scores (``left_out_``).
    """
    found, score = {}, remembered.get_buffer("score")[pool]
    for kind, limit in zip(("", "left_out_"), remembered.get_buffer("threshold"), strict=True):
        taken = (score > limit).double()
        if known.any():
            found[f"{kind}tpr"] = float(taken[known].mean())
        if not known.all():
            found[f"{kind}tnr"] = float(1 - taken[~known].mean())
    return found
