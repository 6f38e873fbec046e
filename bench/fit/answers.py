"""What a fitted model answers: asked, timed and checked before it is scored, and asked again afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from bench.fit.flop_counter import CountingLedger
from bench.metrics import Measurement
from methods.contract.method import Fitted, likelihood_of

POINTS = 100
DRAWS = 3
INDEX_ERROR = 1e-3
BOUND_ERRORS, BOUND_SLACK = 6.0, 1e-3  # standard errors, and nats for rounding


class BadAnswerError(Exception):
    """A model or posterior whose answers break the contract."""


@dataclass(frozen=True)
class Query:
    """The cost of one query: a draw of q(z | x) for one x, and its decoding.

    Args:
        flops: FLOPs.
        seconds: Seconds.
    """

    flops: float = 0.0
    seconds: float = 0.0

    def most(self, other: Query) -> Query:
        """The larger of both costs."""
        return Query(max(self.flops, other.flops), max(self.seconds, other.seconds))


class Answers:
    """The answers of one fitted model, which must be the same before and after it is scored.

    Args:
        fitted: What the method has learned so far.
        x: Points to ask about, (n, D); at most the first 100 are used.
        latent_dim: L, the dimension of z.
        seed: The seed of the draws.

    Attributes:
        cost: The cost of a query, work that is done at the first one included.

    Raises:
        BadAnswerError: For answers of another shape or kind, and for a decoder that changes when it is asked.
    """

    def __init__(self, fitted: Fitted, x: Tensor, latent_dim: int, seed: int):
        x = x[:POINTS]
        self.fitted, self.x, self.latent_dim, self.seed = fitted, x, latent_dim, seed
        self.weights = _weights(fitted.model)
        ledger, start = CountingLedger(), perf_counter()
        ledger.start()
        try:
            self._decode(self._sample(1)[0])
        finally:
            ledger.stop()
        self.cost = Query(ledger.flops / len(x), (perf_counter() - start - ledger.overhead_s) / len(x))
        self.z, log_q = self._sample(DRAWS)
        if broken := int((~torch.isfinite(self.z)).any(2).sum()):
            raise BadAnswerError(f"posterior.sample: {broken} of {DRAWS * len(x)} draws are not finite")
        density = fitted.posterior.log_prob(self.z[0], x)
        if density is not None:
            _check("posterior.log_prob", density, (len(x), len(x)))
        self.decoded = self._decode(self.z)
        self.variance = _variance(likelihood_of(fitted.model).dispersion)
        again, log_q_again = self._sample(DRAWS)
        if not (_same(self.z, again) and _same(log_q, log_q_again)):
            raise BadAnswerError("posterior.sample gives other draws for the same generator; expected the same")
        self.check_unchanged("asked twice")

    def check_unchanged(self, when: str = "evaluated") -> None:
        """Ask the decoder again.

        Args:
            when: What has happened meanwhile.

        Raises:
            BadAnswerError: If it answers otherwise than before, or its parameters have changed.
        """
        model = self.fitted.model
        if not _same(self._decode(self.z), self.decoded):
            raise BadAnswerError(f"model.decode gives other values when it is {when}; expected the same")
        variance = _variance(likelihood_of(model).dispersion)
        if variance != self.variance and not math.isnan(variance + self.variance):
            raise BadAnswerError(f"model.variance() changes when it is {when}; expected the same")
        now = _weights(model)
        if len(now) != len(self.weights) or not all(map(_same, now, self.weights)):
            raise BadAnswerError(f"the model's parameters change when it is {when}; expected that it only answers")

    def _sample(self, count: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(self.x.device).manual_seed(self.seed)
        z, log_q = self.fitted.posterior.sample(self.x, count, generator)
        _check("posterior.sample: z", z, (count, len(self.x), self.latent_dim))
        _check("posterior.sample: log q(z | x)", log_q, (count, len(self.x)))
        return z.detach().clone(), log_q.detach().clone()

    def _decode(self, z: Tensor) -> Tensor:
        decoded = self.fitted.model.decode(z)
        _check("model.decode", decoded, (*z.shape[:-1], self.x.shape[-1]))
        return decoded.detach().clone()


def check_log_index(fitted: Fitted, x: Tensor, count: int) -> None:
    """Check an index posterior, if there is one: were it no distribution, its divergence would mean nothing.

    Args:
        fitted: What the method has learned.
        x: Points to ask about, (n, D).
        count: N, the number of training points.

    Raises:
        BadAnswerError: For one of another shape or kind, and for probabilities that do not sum to 1.
    """
    if fitted.log_index is None:
        return
    log_index = fitted.log_index(x)
    _check("log_index", log_index, (len(x), count))
    off = float((log_index.double().logsumexp(1).exp() - 1).abs().max())
    if not off <= INDEX_ERROR:  # also true for nan
        raise BadAnswerError(f"exp(log_index) must sum to 1 for each x, got a sum that is {off:.2g} off")


def check_bound(measurements: list[Measurement]) -> None:
    """Check that a lower bound is not above what it bounds.

    Args:
        measurements: The scores of a model whose log p(x) is exact up to its standard error.

    Raises:
        BadAnswerError: If the ELBO is above log p(x) by more than its error.
    """
    for gap in measurements:
        if gap.metric == "inference_gap" and gap.value < -BOUND_ERRORS * gap.stderr - BOUND_SLACK:
            raise BadAnswerError(
                f"the ELBO is {-gap.value:.3g} nats above log p(x), whose error is {gap.stderr:.1g}: "
                "log q(z | x) is not the density of the draws"
            )


def _check(what: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, Tensor):
        raise BadAnswerError(f"{what} must be a torch.Tensor, got {type(found).__name__}")
    if not found.dtype.is_floating_point:
        raise BadAnswerError(f"{what} must have real numbers, got {str(found.dtype).removeprefix('torch.')}")
    if found.shape != shape:
        raise BadAnswerError(f"{what} must have shape {shape}, got {tuple(found.shape)}")


def _variance(found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, Real):
        raise BadAnswerError(f"model.variance() must be a number, got {type(found).__name__}")
    value = float(found)
    if not 0 < value < math.inf and not math.isnan(value):  # NaN is a failed fit, which evaluation names
        raise BadAnswerError(f"model.variance() must be above 0 and finite, got {value}")
    return value


def _weights(model: Any) -> list[Tensor]:
    """Copies of the tensors of a model's networks, and of its own."""
    parts = [model, *vars(model).values()] if hasattr(model, "__dict__") else [model]
    own = [part for part in parts if isinstance(part, Tensor)]
    kept = [each for part in parts if isinstance(part, nn.Module) for each in part.state_dict().values()]
    return [each.detach().clone() for each in (*own, *kept) if isinstance(each, Tensor)]


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN included."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
