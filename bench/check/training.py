"""Checks of the state that a fit leaves: parameters that have learned and can be saved."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor, nn

from bench.check.errors import FailedError
from bench.check.fingerprint import differing, fingerprint
from bench.check.method_under_test import MethodUnderTest
from bench.check.short_fit import LONG
from methods.contract.method import Fitted


def gradient(under_test: MethodUnderTest) -> str:
    """Every trainable parameter, the noise variance included, moves and stays finite.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If a parameter of the model or the posterior never moves, or is not finite at the end.
    """
    fit = under_test.fit(under_test.default_dataset, observation_noise="learned")
    moves = _Moves(fit.initial_model)
    fitted = fit.run(LONG, moves.look)
    yields = len(fit.flops)
    if still := moves.still(yields):
        raise FailedError(f"{', '.join(still)} unchanged after {yields} yields; expected every parameter to move")
    last = _parameters("model", fitted.model) | _parameters("posterior", fitted.posterior)
    if broken := [name for name, value in last.items() if not bool(torch.isfinite(value).all())]:
        raise FailedError(f"{', '.join(broken)} not finite after {yields} yields; expected finite parameters")
    return f"{len(moves.moved)} parameters have all moved after {yields} yields, and are finite"


class _Moves:
    """Which parameters have moved from their first value: the model's before the fit, others at their first yield."""

    def __init__(self, model: nn.Module) -> None:
        self.first = _parameters("model", model)
        self.moved: set[str] = set()

    def look(self, number: int, fitted: Fitted) -> bool:
        """Record what has moved up to a yield. Returns whether everything has."""
        now = _parameters("model", fitted.model) | _parameters("posterior", fitted.posterior)
        self.moved |= {name for name in now.keys() & self.first.keys() if not torch.equal(now[name], self.first[name])}
        self.first = now | self.first
        return number > 1 and not self.still(number)

    def still(self, yields: int) -> list[str]:
        """What has not moved. After one yield this is unknown for the posterior, whose start was not seen."""
        names = (name for name in self.first if name not in self.moved)
        return [name for name in names if yields > 1 or not name.startswith("posterior.")]


def _parameters(part: str, module: object) -> dict[str, Tensor]:
    """Copies of the trainable parameters, by name."""
    named = module.named_parameters() if isinstance(module, nn.Module) else ()
    return {f"{part}.{name}": p.detach().clone() for name, p in named if p.requires_grad}


def saving(under_test: MethodUnderTest) -> str:
    """The state of the model, and of a posterior that is a module, holds everything that was learned.

    The state is written to an .npz file, read without pickle, and loaded into the result of a fit at another seed.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If the model is no module, or the loaded state gives other numbers.
    """
    first, second = (under_test.fit(under_test.default_dataset, seed) for seed in (0, 1))
    fitted, other = first.run(under_test.as_short), second.run(under_test.as_short)
    if not isinstance(fitted.model, nn.Module):
        raise FailedError(
            f"the model is a {type(fitted.model).__name__}; expected a torch.nn.Module, which has a state"
        )
    parts = [name for name in ("model", "posterior") if isinstance(getattr(fitted, name), nn.Module)]
    arrays = sum(_transfer(getattr(fitted, name), getattr(other, name)) for name in parts)
    numbers = [fingerprint(each, first.problem)[: 2 * len(parts)] for each in (fitted, other)]
    if differ := differing(*numbers):
        names = " and ".join(parts)
        raise FailedError(f"{names} loaded from a file differ from the original in {differ} numbers; expected none")
    return f"{arrays} arrays of {' and '.join(parts)}, written to .npz and read without pickle, give the same numbers"


def _transfer(source: nn.Module, target: nn.Module) -> int:
    """Load the state of one module into another through a file. Returns the number of arrays."""
    state = source.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise FailedError(f"{', '.join(odd)} in the state of {type(source).__name__}; expected only tensors")
    file = io.BytesIO()
    np.savez(file, **{name: value.cpu().numpy() for name, value in state.items()})
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        target.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return len(state)
