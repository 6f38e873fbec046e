"""The fit: with the posterior fixed, the bound over the generative model is weighted least squares.

    sum_n sum_i p(i | x_n) log N(x_n; f(z_i), s2 I) = const - sum_i w_i |f(z_i) - t_i|^2 / (2 s2)

It has no encoder, no sampling and no noise, so full-batch L-BFGS takes the place of stochastic steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from methods.common.lbfgs import lbfgs, until_slow
from methods.common.training import Objective, adam, ascend
from methods.contract.decoder import GaussianModel
from methods.contract.method import Ledger

PATIENCE = 50
ADAM_RATE = 1e-2


@dataclass(frozen=True)
class Regression:
    """The weighted least squares that MAPA solves: codes (N, L), targets (N, D), weights (N,), in data units.

    noise: s2, which turns squared distances to nats per datum.
    """

    codes: Tensor
    targets: Tensor
    weights: Tensor
    noise: float

    def nats(self, model: GaussianModel) -> Tensor:
        """What is lost of the bound to imperfect fit, nats per datum."""
        squared = (model.decode(self.codes) - self.targets).square().sum(1)
        return (self.weights * squared).sum() / (2 * self.noise * self.weights.sum())


def fit(
    model: GaussianModel,
    regression: Regression,
    ledger: Ledger,
    history: int,
    tolerance: float,
    optimiser: str = "lbfgs",
) -> Iterator[float]:
    """Fit the decoder in place, yielding the loss after each step, until 50 steps gain less than `tolerance` nats.

    optimiser: 'lbfgs', or 'adam' on the same full batch, to tell what the former brings; raises ValueError for another.
    """
    if optimiser not in ("lbfgs", "adam"):
        raise ValueError(f"optimiser must be lbfgs or adam, got {optimiser!r}")
    network = list(model.network.parameters())
    objective = partial(regression.nats, model)
    steps = lbfgs(network, objective, ledger, history) if optimiser == "lbfgs" else _adam(network, objective, ledger)
    return until_slow(steps, PATIENCE, tolerance)


def _adam(parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], ledger: Ledger) -> Iterator[float]:
    optimiser = adam(parameters, ADAM_RATE)
    while True:
        yield -float(ledger.run("loss", ascend, lambda: Objective.of(-loss()), optimiser))
