"""The fit of the decoder: under a fixed posterior, maximising the ELBO is weighted regression.

    sum_n sum_i p(i | x_n) log p(x_n | z_i) = const - sum_i w_i deviance(t_i, f(z_i)) / (2 phi)

For Gaussian data the deviance is |f(z_i) - t_i|^2, and phi = s2: weighted least squares.

There is no encoder and no sampling, so the objective is deterministic, and full-batch L-BFGS replaces stochastic
gradient steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from likelihoods import Likelihood
from methods.common.lbfgs import lbfgs, until_slow
from methods.common.training import Objective, adam, ascend
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Ledger

PATIENCE = 50
ADAM_RATE = 1e-2


@dataclass(frozen=True)
class Regression:
    """A weighted regression problem for the decoder.

    Args:
        codes: The inputs z_i, (M, L).
        targets: The targets t_i, (M, D), in data units.
        weights: The weights w_i, (M,).
        likelihood: p(x | z), which converts errors to nats.
    """

    codes: Tensor
    targets: Tensor
    weights: Tensor
    likelihood: Likelihood

    def nats(self, model: GenerativeModel) -> Tensor:
        """The loss: how much the errors of the decoder lower the ELBO, in nats per training point.

        Args:
            model: The generative model.

        Returns:
            A scalar, differentiable in the decoder's weights.
        """
        deviance = self.likelihood.deviance(self.targets, model.decode(self.codes))
        return (self.weights * deviance).sum() / (2 * self.likelihood.dispersion * self.weights.sum())


def fit(
    model: GenerativeModel,
    regression: Regression,
    ledger: Ledger,
    history: int,
    tolerance: float,
    optimiser: str = "lbfgs",
) -> Iterator[float]:
    """Fit the decoder in place until 50 steps gain less than `tolerance` nats.

    Args:
        model: The generative model.
        regression: The weighted regression problem.
        ledger: Where the work is accounted for.
        history: Number of pairs that L-BFGS remembers.
        tolerance: Least gain of 50 steps, in nats per training point.
        optimiser: 'lbfgs', or 'adam' on the same full batch, for ablation.

    Returns:
        An iterator that takes one step at a time and yields its loss, in nats per training point.

    Raises:
        ValueError: If the optimiser is unknown.
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
