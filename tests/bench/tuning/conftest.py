"""A method with a price whose score is known without quadrature, and `tune` of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from bench.fit import block, runner
from bench.metrics import BaseEvaluator
from bench.metrics.measurement import Measurement
from bench.registry import fingerprints, registry
from bench.store.records import Cost, Row, RunResult
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


def outcome_of(spec):
    """What the fit of a priced method is known to give."""
    method = registry.registry().make_method(spec.method, dict(spec.parameters))
    cost = Cost(flops=method.price + (0 if method.breaks else method.slope * abs(method.shift)))
    result = RunResult(spec, "failed" if method.breaks else "done", cost=cost, parameters=dataclasses.asdict(method))
    if not method.breaks:
        result.rows = [Row(0, "validation_ll", abs(method.shift), 0.0, "nats", cost)]
    return result


@pytest.fixture
def fits(offer, monkeypatch):
    """Offer priced methods, and let fits of them be scored without quadrature."""
    monkeypatch.setattr(block, "ValidationEvaluator", ByShift)
    monkeypatch.setattr(runner, "_warm_up", lambda *_: None)
    offer("cheap", Priced())
    offer("costly", Priced(price=100.0))
    offer("uneven", Priced(price=20.0, slope=100.0))


@pytest.fixture
def ran(run_here):
    """Give each fit of a priced method what it is known to give; the list of the runs asked for."""
    return run_here(lambda block, _: map(outcome_of, block), lambda _: [], lambda specs: [[spec] for spec in specs])


@pytest.fixture
def tune(cli, ran, fits, monkeypatch):
    """`tune` of priced methods on small data, whose fits are not made; --budget and --trials are given."""
    monkeypatch.setattr(fingerprints.Fingerprints, "of", lambda *_: fingerprints.Fingerprint("code", ()))

    def run(out, methods, budget, *more, trials=16, datasets="circle"):
        args = ("--budget", budget, "--trials", trials, "--n-train", 20, "--seeds", 3, "--jobs", 1, "--out", out)
        return cli("tune", "-m", methods, "-d", datasets, *args, *more)

    return run


@pytest.fixture(scope="session")
def known_outcome():
    """What a fit of a priced method is known to give, from its specification."""
    return outcome_of


@pytest.fixture(scope="session")
def priced():
    """The class of priced methods."""
    return Priced
