"""L-BFGS as a generator, in a few large operations per step.

torch's optimiser launches hundreds of tiny operations for a step with long memory, evaluates again each time it is
resumed, and cannot be accounted for piece by piece. scipy's cannot be resumed. The direction here is the compact
form of Byrd, Nocedal & Schnabel (1994, eq. 3.1). The line search is the weak Wolfe bisection of Lewis & Overton
(2013, algorithm 4.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from methods.contract.method import Ledger

SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9
MAX_TRIALS = 25


def lbfgs(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[], Tensor],
    ledger: Ledger,
    history: int = 30,
    name: str = "loss",
) -> Iterator[float]:
    """Minimise a deterministic loss over parameters, in place.

    It ends when no step along the direction lowers the loss: in exact arithmetic, at a stationary point.

    Args:
        parameters: The parameters. They become views of one vector.
        loss: The loss at the present parameters, a scalar.
        ledger: Where the work is accounted for.
        history: Number of remembered pairs of steps and gradient changes.
        name: What an evaluation is called in the ledger.

    Yields:
        The loss after each step.
    """
    position, gradient = _flatten(parameters)
    memory = _Memory(position, history)
    point = position.clone()

    def evaluate(direction: Tensor, length: float) -> tuple[float, float]:
        """The loss at point + length * direction, and its slope along the direction."""
        position.copy_(point + length * direction)
        gradient.zero_()
        value = loss()
        value.backward()
        return value.item(), float(gradient @ direction)

    counted = partial(ledger.run, name, evaluate)
    value, _ = counted(torch.zeros_like(point), 0.0)
    slope = gradient.clone()
    while True:
        direction, along, size = ledger.run("direction" if memory.size else "steepest", memory.descent, slope)
        found = None
        if along < 0:
            first = 1.0 if memory.size else min(1.0, 1.0 / size)
            found = _line_search(counted, direction, value, along, first)
        if found is None:
            position.copy_(point)
            if not memory.size:
                return
            memory.forget()
            continue
        value = found
        step, change, bends = ledger.run("move", _move, point, position, slope, gradient)
        if bends:
            ledger.run("remember", memory.add, step, change)
        yield value


def until_slow(losses: Iterator[float], patience: int, tolerance: float) -> Iterator[float]:
    """The losses until progress is slow.

    Args:
        losses: Losses of successive steps.
        patience: Number of steps between the losses that are compared.
        tolerance: The losses end at the first that is less than this below the loss `patience` steps earlier.
    """
    seen: list[float] = []
    for loss in losses:
        seen.append(loss)
        yield loss
        if len(seen) > patience and seen[-1 - patience] - loss < tolerance:
            return


def _line_search(
    evaluate: Callable[[Tensor, float], tuple[float, float]],
    direction: Tensor,
    value: float,
    along: float,
    length: float,
) -> float | None:
    """The loss at the first trial that meets the weak Wolfe conditions, or at the last one if it lowers the loss."""
    low, high = 0.0, float("inf")
    for _ in range(MAX_TRIALS):
        trial_value, trial_along = evaluate(direction, length)
        if not trial_value <= value + SUFFICIENT_DECREASE * length * along:
            high = length
        elif trial_along < CURVATURE * along:
            low = length
        else:
            return trial_value
        length = 2 * low if high == float("inf") else (low + high) / 2
    return trial_value if trial_value < value else None


def _move(point: Tensor, position: Tensor, slope: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Copy position and gradient to point and slope; return step, change of slope, and whether it bends.

    It bends if the curvature along the step is positive beyond rounding.
    """
    step, change = position - point, gradient - slope
    point.copy_(position)
    slope.copy_(gradient)
    return step, change, float(step @ change) > 1e-10 * float(step.norm() * change.norm())


def _flatten(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Two vectors, of which the parameters and their gradients become views."""
    position = torch.cat([p.detach().flatten() for p in parameters])
    gradient = torch.zeros_like(position)
    start = 0
    for p in parameters:
        part = slice(start, start + p.numel())
        p.data = position[part].view_as(p)
        p.grad = gradient[part].view_as(p)
        start += p.numel()
    return position, gradient


class _Memory:
    """The last steps s and gradient changes y with their inner products. Rows are reused in a ring.

    Rows without a pair are zero and take part in every product, so that each direction costs the same.
    """

    def __init__(self, like: Tensor, history: int):
        self.steps = like.new_zeros(history, len(like))
        self.changes = like.new_zeros(history, len(like))
        self.step_change = torch.zeros(history, history, dtype=torch.float64, device=like.device)
        self.change_change = torch.zeros_like(self.step_change)
        self.size, self.newest = 0, -1

    def forget(self) -> None:
        """Drop all pairs."""
        for each in (self.steps, self.changes, self.step_change, self.change_change):
            each.zero_()
        self.size = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Store a pair in place of the oldest."""
        self.size = min(self.size + 1, len(self.steps))
        self.newest = row = (self.newest + 1) % len(self.steps)
        self.steps[row], self.changes[row] = step, change
        self.step_change[row] = self.changes @ step
        self.step_change[:, row] = self.steps @ change
        self.change_change[row] = self.change_change[:, row] = self.changes @ change

    def descent(self, gradient: Tensor) -> tuple[Tensor, float, float]:
        """The quasi-Newton direction, the slope along it, and the sum of |g|."""
        direction = self.direction(gradient)
        return direction, float(direction @ gradient), float(gradient.abs().sum())

    def direction(self, gradient: Tensor) -> Tensor:
        """The quasi-Newton direction -H g."""
        if not self.size:
            return -gradient
        oldest_first = (torch.arange(len(self.steps)) + self.newest + 1) % len(self.steps)
        inner = self.change_change[oldest_first][:, oldest_first]
        upper = self.step_change[oldest_first][:, oldest_first].triu()
        diagonal = upper.diagonal()
        diagonal[: len(diagonal) - self.size] = 1.0  # any number, since it divides zeros
        scale = diagonal[-1] / inner[-1, -1]
        along_steps = (self.steps @ gradient)[oldest_first].double()
        along_changes = (self.changes @ gradient)[oldest_first].double()
        u = torch.linalg.solve_triangular(upper, along_steps[:, None], upper=True)[:, 0]
        right = diagonal * u + scale * (inner @ u - along_changes)
        v = torch.linalg.solve_triangular(upper.T, right[:, None], upper=False)[:, 0]
        combined_steps = self.steps[oldest_first].T @ v.to(gradient.dtype)
        combined_changes = self.changes[oldest_first].T @ (scale * u).to(gradient.dtype)
        return combined_changes - combined_steps - scale.to(gradient.dtype) * gradient
