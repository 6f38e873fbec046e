"""Draws of the learned model against draws of the true one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.metrics.measurement import Measurement, mean
from bench.metrics.transport import squared_w2
from datasets.base import Problem, stream
from methods.base import DecoderModel

SETS = 4
DRAWS = 500


def sample_quality(problem: Problem, model: DecoderModel, seed: int) -> list[Measurement]:
    """sample_w2, and sample_w2_floor: the same distance between two true sets, which a perfect model would show.

    The 2-Wasserstein distance between 500 draws of the model and 500 fresh true ones, the mean over 4 pairs of sets.
    """
    first, second = (_true_sets(problem, seed, name) for name in ("first samples", "second samples"))
    learned = _learned_sets(problem, model, seed)
    return [
        mean("sample_w2", squared_w2(learned, first).sqrt(), unit="data units"),
        mean("sample_w2_floor", squared_w2(second, first).sqrt(), unit="data units"),
    ]


def _true_sets(problem: Problem, seed: int, name: str) -> Tensor:
    return problem.sample(SETS * DRAWS, stream(problem.name, seed, name)).unflatten(0, (SETS, DRAWS))


def _learned_sets(problem: Problem, model: DecoderModel, seed: int) -> Tensor:
    generator = stream(problem.name, seed, "model samples")
    z = torch.randn(SETS * DRAWS, problem.latent_dim, generator=generator, dtype=torch.float64)
    signal = model.decode(z).double().cpu()
    noise = torch.randn(signal.shape, generator=generator, dtype=torch.float64)
    return (signal + math.sqrt(model.variance()) * noise).unflatten(0, (SETS, DRAWS))
