"""The fit with codes from an embedding (`rff_lvm.py`): least squares on a few nodes for the posterior of each point."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from methods.common.posteriors import Prior
from methods.contract.decoder import GenerativeModel, PerCoordinateModel
from methods.contract.method import Fitted, Task
from methods.mapa.fit import Regression, fit
from methods.mapa.rff_lvm import Codes, LearnedPosterior, embed, signal_subspace

PAIRS = 1
EVERY = 10
PATIENCE = 60
FEW = 2000


def signals_span(task: Task, x: Tensor) -> int:
    """The number of dimensions in which training points vary more than noise alone could.

    Args:
        task: The fitting problem.
        x: Training points, (N, D), of which at most the first 2,000 are used.

    Returns:
        At least L + 1 where D allows it; D itself if D <= L + 1.
    """
    if x.shape[1] <= task.latent_dim + 1:
        return x.shape[1]
    noise = None if task.model.learns_noise else task.model.variance()
    return signal_subspace(x[:FEW], task.latent_dim, noise, task.ledger)[0].axes.shape[1]


def fit_embedded(task: Task, x: Tensor, steps: int, history: int) -> Iterator[Fitted]:
    """Embed the training points, and then fit the decoder to the posteriors of their codes.

    The posteriors are fixed before the decoder is trained. The fit ends after `steps`, or when the loss on validation
    points has not fallen for 60 steps. The decoder with the least validation loss of those seen every ten steps is
    kept, so that a fit that a budget ends has it too.

    Args:
        task: The fitting problem. Its model is trained in place.
        x: Training points, (N, D), float64.
        steps: Most L-BFGS steps.
        history: Number of pairs that L-BFGS remembers.

    Yields:
        What has been learned, before the embedding, and after each step with the kept decoder.

    Raises:
        ValueError: If L is not below both D and N.
    """
    model = task.model
    yield Fitted(model, Prior(task.latent_dim))
    found = embed(x, task.latent_dim, None if model.learns_noise else model.variance(), task.ledger)
    if model.learns_noise:
        model.set_variance(found.noise)
    train = _regression(task, found.codes, x)
    held_out = _regression(task, found.posterior.gaussian(task.validation), task.validation)
    kept = copy.deepcopy(model)
    fitted = Fitted(kept, LearnedPosterior(found.posterior, kept))
    best, best_step = math.inf, 0
    for step, _ in zip(range(steps), fit(model, train, task.ledger, history, tolerance=0.0)):  # noqa: B905
        if step % EVERY == 0:
            with torch.no_grad():
                value = float(held_out.nats(model))
            if value < best:
                best, best_step = value, step
                _keep(kept, model, train)
            elif step - best_step >= PATIENCE:
                break
        yield fitted
    model.load_state_dict(kept.state_dict())
    yield fitted


@torch.no_grad()
def _keep(kept: GenerativeModel, model: GenerativeModel, train: Regression) -> None:
    """Keep the present decoder, with the noise variance that the errors on training points have, if it is learned."""
    kept.load_state_dict(model.state_dict())
    if isinstance(kept, PerCoordinateModel):
        kept.set_variances((train.targets - kept.means(train.codes)).square().mean(0))
    elif kept.learns_noise:
        kept.set_variance(2 * float(train.likelihood.dispersion) * float(train.nats(kept)) / kept.data_dim)


def _regression(task: Task, codes: Codes, x: Tensor) -> Regression:
    """Least squares of x (n, D) on nodes of the posteriors of their codes."""
    nodes = codes.nodes(PAIRS, task.ledger).to(task.train)
    targets = x.to(task.train).repeat(len(nodes), 1)
    return Regression(nodes.flatten(0, 1), targets, torch.ones_like(targets[:, 0]), task.model.likelihood)
