"""Duties on what a fit leaves behind: parameters that have learned, and a state that can be kept."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.check.errors import FailedError
from bench.check.fingerprint import differing, fingerprint
from bench.check.method_under_test import Subject
from bench.check.short_fit import LONG
from methods.contract.method import Fitted


def gradient(subject: Subject) -> str:
    """Every parameter that is to be learned moves, the noise among them, and stays finite."""
    trial = subject.trial(subject.home, noise="learned")
    moves = _Moves(trial.begun)
    fitted = trial.drive(LONG, moves.look)
    yields = len(trial.flops)
    if still := moves.still(yields):
        raise FailedError(f"{', '.join(still)} as at the start after {yields} yields; expected every parameter to move")
    last = _parameters("model", fitted.model) | _parameters("posterior", fitted.posterior)
    if broken := [name for name, value in last.items() if not bool(torch.isfinite(value).all())]:
        raise FailedError(f"{', '.join(broken)} not finite after {yields} yields; expected finite parameters")
    return f"{len(moves.moved)} parameters have all moved after {yields} yields, and are finite"


class _Moves:
    """Which parameters have moved from where they began: the model's before the fit, others where first seen."""

    def __init__(self, model: nn.Module) -> None:
        self.begun = _parameters("model", model)
        self.moved: set[str] = set()

    def look(self, number: int, fitted: Fitted) -> bool:
        """Take note of what was yielded; whether all has moved."""
        now = _parameters("model", fitted.model) | _parameters("posterior", fitted.posterior)
        self.moved |= {name for name in now.keys() & self.begun.keys() if not torch.equal(now[name], self.begun[name])}
        self.begun = now | self.begun
        return number > 1 and not self.still(number)

    def still(self, yields: int) -> list[str]:
        """What has not moved; of a fit of one yield no posterior is told, which began out of sight."""
        names = (name for name in self.begun if name not in self.moved)
        return [name for name in names if yields > 1 or not name.startswith("posterior.")]


def _parameters(part: str, module: object) -> dict[str, Tensor]:
    """Copies of the parameters that are to be learned, by name."""
    named = module.named_parameters() if isinstance(module, nn.Module) else ()
    return {f"{part}.{name}": p.detach().clone() for name, p in named if p.requires_grad}


def saving(subject: Subject) -> str:
    """What has been learned is in the state of the model, and of the posterior if that is a module.

    It is written to an .npz file, read without pickle, and loaded into what a fit at another seed gave.
    """
    first, second = (subject.trial(subject.home, seed) for seed in (0, 1))
    fitted, other = first.drive(subject.as_plain), second.drive(subject.as_plain)
    if not isinstance(fitted.model, nn.Module):
        raise FailedError(f"the model is a {type(fitted.model).__name__}; expected a torch.nn.Module, to be saved")
    parts = [name for name in ("model", "posterior") if isinstance(getattr(fitted, name), nn.Module)]
    arrays = sum(_transfer(getattr(fitted, name), getattr(other, name)) for name in parts)
    numbers = [fingerprint(each, first.problem)[: 2 * len(parts)] for each in (fitted, other)]
    if differ := differing(*numbers):
        raise FailedError(f"{' and '.join(parts)} loaded from a file differ in {differ} numbers; expected none")
    return f"{arrays} arrays of {' and '.join(parts)}, written to .npz and read without pickle, give the same numbers"


def _transfer(source: nn.Module, target: Any) -> int:
    """Load the state of one module into another by way of a file; the number of arrays in it."""
    state = source.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise FailedError(f"{', '.join(odd)} in the state of {type(source).__name__}; expected tensors alone")
    file = io.BytesIO()
    np.savez(file, **{name: value.cpu().numpy() for name, value in state.items()})
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        target.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return len(state)
