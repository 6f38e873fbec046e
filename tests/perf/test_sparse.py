"""What a k-d tree saves where few atoms matter to a point, as a ratio within one run."""

import time

import numpy as np
import pytest
import torch

from bench.registry.registry import registry
from datasets.base import stream
from methods.contract.method import NullLedger
from methods.mapa import MAPA, deconvolution

SIZE = 12_000
LIMIT = 0.5


@pytest.fixture(scope="module")
def surface():
    """Data of a surface, and the mixture that MAPA makes of some of them."""
    problem, mapa = registry().make_problem("swiss_roll", None), MAPA()
    x = problem.sample(SIZE, stream("swiss_roll", 0, "sparse")).double()
    few = deconvolution.thinned(x, mapa.atoms, torch.Generator().manual_seed(0))
    noise, steps = problem.noise_variance, mapa.atom_steps
    return deconvolution.estimate(few, noise, mapa.smoothing, 0, steps, NullLedger()), x


def test_sums_over_the_nearest_atoms_take_half_of_the_time_of_sums_over_all(surface, monkeypatch, fastest):
    mixture, x = surface
    assert len(x) * len(mixture.atoms) > deconvolution.DENSE

    def seconds(dense):
        with monkeypatch.context() as patch:
            patch.setattr(deconvolution, "DENSE", dense)
            start = time.perf_counter()
            deconvolution.sums(mixture, x, NullLedger())
            return time.perf_counter() - start

    nearest, full = fastest(
        lambda: [seconds(deconvolution.DENSE), seconds(np.inf)], lambda nearest, full: nearest <= LIMIT * full
    )
    assert nearest <= LIMIT * full
