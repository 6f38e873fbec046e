"""Optimisers of the parameters of several replicas at once. Each replica takes its own steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SECOND_MOMENT = 0.999
FIRST_MOMENT = 0.9
EPSILON = 1e-8
Coefficient = float | Tensor


class Optimiser(ABC):
    """Steps of some columns of the parameters, (R, P).

    Args:
        weights: Where gradients are taken, which a step changes in place, (R, P).
        evaluated: What is evaluated, which a step changes in place, (R, P).
        learning_rate: The learning rate.
    """

    def __init__(self, weights: Tensor, evaluated: Tensor, learning_rate: float):
        self.weights, self.evaluated, self.learning_rate = weights, evaluated, learning_rate
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = [0] * len(weights)

    @property
    def rows(self) -> list[Any]:
        """All that steps change: tensors and lists with a row for each replica."""
        return [each for each in vars(self).values() if isinstance(each, Tensor | list)]

    def step(
        self, gradient: Tensor, active: Sequence[bool], progress: float, partial: Sequence[bool] | None = None
    ) -> None:
        """One step down the gradient.

        Args:
            gradient: The gradient of the loss at the weights, (R, P).
            active: The replicas that take the step.
            progress: The share of all steps that are taken, in [0, 1).
            partial: The replicas whose other parameters do not move in this step; by default none.
        """
        self.steps = [steps + on for steps, on in zip(self.steps, active, strict=True)]
        self.take(gradient, active, progress, [False] * len(active) if partial is None else partial)

    @abstractmethod
    def take(self, gradient: Tensor, active: Sequence[bool], progress: float, partial: Sequence[bool]) -> None:
        """Change the state of the active replicas; `steps` counts this step already."""

    def momentum(self, gradient: Tensor, active: Sequence[bool]) -> None:
        """Adam's first moment with this gradient where active."""
        self.first.lerp_(gradient, self.each([(1 - FIRST_MOMENT) * on for on in active]))

    def each(self, values: Sequence[float]) -> Coefficient:
        """One coefficient for each replica: a number if they are equal, else (R, 1)."""
        if len({*values}) == 1:
            return values[0]
        return torch.tensor(values, dtype=self.weights.dtype, device=self.weights.device)[:, None]

    def descend(
        self, values: Tensor, direction: Tensor, gradient: Tensor, active: Sequence[bool], rates: Sequence[float]
    ) -> None:
        """values -= rate * direction / (sqrt(v / bias) + eps), Adam's step, with v and its bias updated.

        Kingma & Ba 2015, algorithm 1, with the root of the bias in the rate.
        """
        self.second.lerp_(gradient.square(), self.each([(1 - SECOND_MOMENT) * on for on in active]))
        bias = [math.sqrt(1 - SECOND_MOMENT ** max(steps, 1)) for steps in self.steps]
        scale = self.second.sqrt().add_(self.each([EPSILON * each for each in bias]))
        rate = self.each([rate * each for rate, each in zip(rates, bias, strict=True)])
        if isinstance(rate, float):
            values.addcdiv_(direction, scale, value=-rate)
        else:
            values.addcdiv_(direction * rate, scale, value=-1)


class Anytime(Optimiser):
    """Adam without a schedule: a mean of its iterates is evaluated (Defazio et al. 2024, arXiv 2405.15682, alg. 1).

    The gradient is taken between the iterates z and their mean x, at y = (1 - beta) z + beta x. The k-th iterate has
    the weight k^2, so that the first ones are soon forgotten. Because no learning rate depends on the number of steps
    to come, a fit can be stopped at any time. The package `schedulefree` takes the same steps for one network whose
    parts never pause; tests compare both.

    Steps that train only a part of a model are steps of Adam: z is evaluated, and the mean begins when all parts move
    together. A mean over turns would lag behind the other parts, which move meanwhile.
    """

    beta = 0.95
    power = 2

    def __init__(self, weights: Tensor, evaluated: Tensor, learning_rate: float):
        super().__init__(weights, evaluated, learning_rate)
        self.iterate = weights.clone()
        self.averaged = [0] * len(weights)  # iterates that the mean is of

    def take(self, gradient: Tensor, active: Sequence[bool], progress: float, partial: Sequence[bool]) -> None:  # noqa: ARG002
        """One step of z, which then enters the mean x."""
        rates = [self.learning_rate * on for on in active]
        self.averaged = [
            (1 if part else k + 1) if on else k for k, on, part in zip(self.averaged, active, partial, strict=True)
        ]
        # k^2 / (1 + 4 + ... + k^2)
        share = self.each([on * 6 * k / ((k + 1) * (2 * k + 1)) for k, on in zip(self.averaged, active, strict=True)])
        self.descend(self.iterate, self._direction(gradient, active, partial), gradient, active, rates)
        self.evaluated.lerp_(self.iterate, share)
        torch.lerp(self.iterate, self.evaluated, self.beta, out=self.weights)

    def _direction(self, gradient: Tensor, active: Sequence[bool], partial: Sequence[bool]) -> Tensor:
        """The gradient; for a part alone, its first moment over the moment's bias."""
        if not any(partial):
            return gradient
        self.momentum(gradient, [on and part for on, part in zip(active, partial, strict=True)])
        bias = self.each([1 - FIRST_MOMENT ** max(k, 1) for k in self.steps])
        return torch.where(torch.tensor(partial, device=gradient.device)[:, None], self.first / bias, gradient)


def cosine(progress: float) -> float:
    """The factor of a learning rate that falls from 1 to 0 along half a cosine, at a share of all steps."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class Cosine(Optimiser):
    """Adam (Kingma & Ba 2015, algorithm 1) whose learning rate falls to zero along half a cosine, over all steps."""

    def take(self, gradient: Tensor, active: Sequence[bool], progress: float, partial: Sequence[bool]) -> None:  # noqa: ARG002
        """One step of the weights, which are evaluated as they are."""
        self.momentum(gradient, active)
        rate = self.learning_rate * cosine(progress)
        corrected = [rate * on / (1 - FIRST_MOMENT ** max(k, 1)) for k, on in zip(self.steps, active, strict=True)]
        self.descend(self.weights, self.first, gradient, active, corrected)
        self.evaluated.copy_(self.weights)


class Plain(Optimiser):
    """The weights move by the negative gradient, for an objective that states the whole step. No rate applies."""

    def take(self, gradient: Tensor, active: Sequence[bool], progress: float, partial: Sequence[bool]) -> None:  # noqa: ARG002
        """One step of the weights, which are evaluated as they are."""
        self.weights.sub_(gradient * self.each([float(on) for on in active]))
        self.evaluated.copy_(self.weights)
