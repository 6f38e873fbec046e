"""The fit with codes from an embedding (`rff_lvm.py`): least squares on a few nodes for the posterior of each point."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from methods.common.posteriors import Prior
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
    points has not fallen for 60 steps. The decoder with the least validation loss is kept.

    Args:
        task: The fitting problem. Its model is trained in place.
        x: Training points, (N, D), float64.
        steps: Most L-BFGS steps.
        history: Number of pairs that L-BFGS remembers.

    Yields:
        What has been learned, before the embedding, after each step, and at the end with the kept decoder and, if it
        is learned, the noise variance.

    Raises:
        ValueError: If L is not below both D and N.
    """
    model = task.model
    yield Fitted(model, Prior(task.latent_dim))
    found = embed(x, task.latent_dim, None if model.learns_noise else model.variance(), task.ledger)
    if model.learns_noise:
        model.set_variance(found.noise)
    fitted = Fitted(model, LearnedPosterior(found.posterior, model))
    train = _regression(task, found.codes, x)
    held_out = _regression(task, found.posterior.gaussian(task.validation), task.validation)
    best, best_step, kept = math.inf, 0, copy.deepcopy(model.state_dict())
    for step, _ in zip(range(steps), fit(model, train, task.ledger, history, tolerance=0.0)):  # noqa: B905
        yield fitted
        if step % EVERY == 0:
            with torch.no_grad():
                value = float(held_out.nats(model))
            if value < best:
                best, best_step, kept = value, step, copy.deepcopy(model.state_dict())
            elif step - best_step >= PATIENCE:
                break
    model.load_state_dict(kept)
    if model.learns_noise:
        with torch.no_grad():
            noise = float(train.likelihood.dispersion)
            model.set_variance(2 * noise * float(train.nats(model)) / x.shape[1])
    yield fitted


def _regression(task: Task, codes: Codes, x: Tensor) -> Regression:
    """Least squares of x (n, D) on nodes of the posteriors of their codes."""
    nodes = codes.nodes(PAIRS, task.ledger).to(task.train)
    targets = x.to(task.train).repeat(len(nodes), 1)
    return Regression(nodes.flatten(0, 1), targets, torch.ones_like(targets[:, 0]), task.model.likelihood)
