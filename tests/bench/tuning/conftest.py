"""A method with a price whose score is known without quadrature, and `tune` of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from bench.fit import runner
from bench.metrics import BaseEvaluator
from bench.metrics.measurement import Measurement
from bench.registry import fingerprints
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method
from methods.contract.search_space import Range, Uniform


@dataclass(frozen=True)
class Priced(Method):
    """The initial weights with a shift of the decoder, at a price in FLOPs that grows with the shift by `slope`."""

    price: float = 10.0
    slope: float = 0.0
    shift: float = 0.5
    breaks: bool = False

    search: ClassVar[Mapping[str, Range]] = {"shift": Uniform(-1, 1)}

    def fit(self, task):
        for last in (False, False, True):  # only a fit that is not cut short pays and has its score
            if last:
                task.ledger.charge("price", self.price + self.slope * abs(self.shift))
                task.model.network[-1].bias.data.fill_(self.shift)
            if self.breaks:
                task.ledger.charge("price", self.price)
                raise ArithmeticError("no")
            yield Fitted(task.model, Prior(task.latent_dim))


class ByShift(BaseEvaluator):
    """Scores a model by how far it is shifted, so that what is dearer is better."""

    def __init__(self, *_):
        pass

    def evaluate_checkpoint(self, fitted, draws):
        return [Measurement("validation_ll", float(fitted.model.network[-1].bias.detach().abs().mean()), 0.0, "nats")]


@pytest.fixture
def tune(cli, in_process, offer, monkeypatch):
    """`tune` of priced methods on small data, run here, without quadrature; --budget and --trials are given."""
    monkeypatch.setattr(runner, "ValidationEvaluator", ByShift)
    monkeypatch.setattr(runner, "_warm_up", lambda *_: None)
    monkeypatch.setattr(fingerprints.Fingerprints, "of", lambda *_: fingerprints.Fingerprint("code", ()))
    offer("cheap", Priced())
    offer("costly", Priced(price=100.0))
    offer("uneven", Priced(price=20.0, slope=100.0))

    def run(out, methods, budget, *more, trials=16, datasets="circle"):
        args = ("--budget", budget, "--trials", trials, "--n-train", 20, "--seeds", 3, "--jobs", 1, "--out", out)
        return cli("tune", "-m", methods, "-d", datasets, *args, *more)

    return run


@pytest.fixture(scope="session")
def priced():
    """The class of priced methods."""
    return Priced
