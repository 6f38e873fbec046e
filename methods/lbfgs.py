"""L-BFGS as a generator, in a few large operations per step.

torch's own optimiser launches hundreds of tiny operations for a step of long memory, evaluates anew each time it is
resumed, and cannot be accounted for piece by piece; scipy's cannot be resumed. The direction here is the compact
form of Byrd, Nocedal & Schnabel (1994, eq. 3.1); the line search is the weak-Wolfe bisection of Lewis & Overton
(2013, algorithm 4.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from methods.base import Ledger

SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9
MAX_TRIALS = 25


def lbfgs(
    parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], ledger: Ledger, history: int = 30
) -> Iterator[float]:
    """Minimise a deterministic `loss` over parameters, in place; yields the loss after each step.

    Ends when no step along the direction lowers the loss, which in exact arithmetic is at a stationary point.
    """
    position, gradient = _flatten(parameters)

    def evaluate(point: Tensor) -> Tensor:
        position.copy_(point)
        gradient.zero_()
        value = loss()
        value.backward()
        return value.detach()

    memory = _Memory(position, history)
    point = position.clone()
    value, slope = float(ledger.run("evaluate", evaluate, point)), gradient.clone()
    while True:
        direction = ledger.run("direction", memory.direction, slope, memory.steps[: memory.size])
        along = float(direction @ slope)
        if not along < 0:
            if not memory.size:
                return
            memory.size = 0
            continue
        length = 1.0 if memory.size else min(1.0, 1.0 / float(slope.abs().sum()))
        found = _line_search(evaluate, gradient, ledger, point, direction, value, along, length)
        if found is None:
            position.copy_(point)
            if not memory.size:
                return
            memory.size = 0
            continue
        new_point, value = found
        ledger.run("remember", memory.add, new_point - point, gradient - slope)
        point, slope = new_point, gradient.clone()
        yield value


def _line_search(
    evaluate: Callable[[Tensor], Tensor],
    gradient: Tensor,
    ledger: Ledger,
    point: Tensor,
    direction: Tensor,
    value: float,
    along: float,
    length: float,
) -> tuple[Tensor, float] | None:
    """The first trial point that meets the weak Wolfe conditions, or at worst one that lowers the loss."""
    low, high = 0.0, float("inf")
    for _ in range(MAX_TRIALS):
        trial = point + length * direction
        trial_value = float(ledger.run("evaluate", evaluate, trial))
        if not trial_value <= value + SUFFICIENT_DECREASE * length * along:
            high = length
        elif float(gradient @ direction) < CURVATURE * along:
            low = length
        else:
            return trial, trial_value
        length = 2 * low if high == float("inf") else (low + high) / 2
    return (trial, trial_value) if trial_value < value else None


def _flatten(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """One vector that the parameters become views of, and one that their gradients become views of."""
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
    """The last steps s and gradient changes y, and their inner products; rows are reused in a ring."""

    def __init__(self, like: Tensor, history: int):
        self.steps = like.new_zeros(history, len(like))
        self.changes = like.new_zeros(history, len(like))
        self.step_change = torch.zeros(history, history, dtype=torch.float64, device=like.device)
        self.change_change = torch.zeros_like(self.step_change)
        self.size = self.newest = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair, unless its curvature is not positive beyond rounding."""
        curvature = float(step @ change)
        if curvature <= 1e-10 * float(step.norm() * change.norm()):
            return
        self.newest = (self.newest + 1) % len(self.steps) if self.size else 0
        self.size = min(self.size + 1, len(self.steps))
        row = self.newest
        self.steps[row], self.changes[row] = step, change
        self.step_change[row] = self.changes @ step
        self.step_change[:, row] = self.steps @ change
        self.change_change[row] = self.change_change[:, row] = self.changes @ change

    def direction(self, gradient: Tensor, _used: Tensor) -> Tensor:
        """The quasi-Newton direction -H g."""
        if not self.size:
            return -gradient
        rows = (torch.arange(self.size) + self.newest + 1) % self.size
        upper = self.step_change[rows][:, rows].triu()
        inner = self.change_change[rows][:, rows]
        scale = upper[-1, -1] / inner[-1, -1]
        along_steps = (self.steps @ gradient)[rows].double()
        along_changes = (self.changes @ gradient)[rows].double()
        u = torch.linalg.solve_triangular(upper, along_steps[:, None], upper=True)[:, 0]
        right = upper.diagonal() * u + scale * (inner @ u - along_changes)
        v = torch.linalg.solve_triangular(upper.T, right[:, None], upper=False)[:, 0]
        combined_steps = self.steps[rows].T @ v.to(gradient.dtype)
        combined_changes = self.changes[rows].T @ (scale * u).to(gradient.dtype)
        return combined_changes - combined_steps - scale.to(gradient.dtype) * gradient
