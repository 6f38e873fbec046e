"""The duties of every registered method."""

import dataclasses
import functools
import inspect
import math
from itertools import chain

import docstring_parser
import numpy as np
import pytest
import torch

import datasets
import methods
from bench.metrics import Evaluator, TrueModel
from bench.metrics.likelihood import learned_likelihood
from datasets.base import draw
from methods.common.posteriors import Prior
from methods.contract.decoder import gaussian_log_prob, standard_normal_log_prob
from methods.contract.method import DecoderModel, Fitted, Method, NullLedger, Task

NAMES = list(methods.BUILTIN)
REFERENCES = ("oracle", "untrained")
TRAINED = [name for name in NAMES if name not in REFERENCES]
PROBLEMS = {"circle": 60, "s_curve": 40}  # data of each
STEPS = 30
LOOKS = (1, 20, 48)


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return datasets.load(request.param)


@pytest.fixture(scope="module")
def start(make_task, short):
    """A function that gives a method's task and its fit, not yet begun."""

    def begin(name, problem, n=None, **options):
        method = short(methods.load(name)(), STEPS)
        task = make_task(problem.name, n or PROBLEMS[problem.name], **options)
        if method.sees_truth:
            task = dataclasses.replace(task, truth=TrueModel(problem))
        return task, method.fit(task)

    return begin


def last(fit):
    for fitted in fit:
        final = fitted
    return final


def fingerprint(fitted, problem):
    """What has been learned: decoded codes, noise, and draws of the posterior with their densities."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        codes = torch.randn(20, problem.latent_dim, generator=generator)
        z, log_q = fitted.posterior.sample(draw(problem, 9, 1, 1, 10).test.float(), 4, generator)
        return [t.double() for t in (fitted.model.decode(codes), torch.tensor(fitted.model.variance()), z, log_q)]


def held_out(problem):
    return draw(problem, 4, 1, 1, 25).test


def likelihood(fitted, problem):
    return learned_likelihood(fitted, held_out(problem), problem.latent_dim, 0)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole short fit, and what there was before it."""

    name: str
    task: Task
    data: tuple[torch.Tensor, torch.Tensor]
    first: DecoderModel
    fitted: Fitted
    fingerprint: list[torch.Tensor]

    @functools.cached_property
    def likelihood(self):
        """That of held-out data, by quadrature."""
        return likelihood(self.fitted, datasets.load(self.name))


@pytest.fixture(scope="module")
def whole(start):
    """A function that gives the whole short fit of a method to a problem, which is run once for all tests."""

    @functools.cache
    def run(name, data):
        problem = datasets.load(data)
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        task, fit = start(name, problem)
        data_before = task.train.clone(), task.validation.clone()
        first = next(fit)
        fitted = last(chain([first], fit))
        return Whole(data, task, data_before, first.model, fitted, fingerprint(fitted, problem))

    return lambda name, problem: run(name, problem.name)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_frozen_dataclass_of_defaults(name):
    cls = methods.load(name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    method = cls()
    assert isinstance(method, Method)
    assert method == cls()
    assert inspect.isgeneratorfunction(cls.fit)
    assert {type(getattr(method, f.name)) for f in dataclasses.fields(method)} <= {int, float, str, bool}


def documented(cls):
    parsed = docstring_parser.parse(inspect.getdoc(cls) or "").params
    return {each.arg_name for each in parsed if each.args[0] == "param"}


@pytest.mark.parametrize("name", NAMES)
def test_each_hyperparameter_is_documented(name):
    """`list NAME` reads the Args sections of the class and its bases."""
    cls = methods.load(name)
    fields = {field.name for field in dataclasses.fields(cls)}
    assert fields <= set().union(*map(documented, cls.__mro__))
    assert documented(cls) <= fields


class Watched(NullLedger):
    """A ledger that keeps the encoders."""

    def __init__(self):
        self.encoders = []

    def watch(self, *, decoder=None, encoder=None):
        self.encoders += [encoder] if encoder is not None else []


def widths(network):
    return [layer.out_features for layer in network if isinstance(layer, torch.nn.Linear)][:-1]


@pytest.mark.parametrize("name", TRAINED)
def test_decoder_and_encoder_have_the_hidden_layers_asked_for(name, start):
    ledger = Watched()
    _, fit = start(name, datasets.load("circle"), hidden=(7, 5, 3), activation="relu", ledger=ledger)
    network = next(fit).model.network
    assert widths(network) == [7, 5, 3]
    assert {type(layer) for layer in network[1::2]} == {torch.nn.ReLU}
    assert [widths(encoder) for encoder in ledger.encoders] == [[7, 5, 3]] * len(ledger.encoders)
    without = ("exact-mle", "gtm", "svi", "map-codes", "particles", "langevin")
    has_encoder = not name.startswith("mapa") and name not in without
    assert len(ledger.encoders) == has_encoder


@pytest.mark.parametrize("name", NAMES)
def test_yields_a_model_and_a_posterior_of_the_right_shapes(name, problem, start):
    _, fit = start(name, problem)
    fitted = next(fit)
    assert isinstance(fitted, Fitted)
    assert isinstance(fitted.model.variance(), float)
    assert fitted.model.variance() > 0
    for shape in ((7,), (3, 7), (2, 3, 7)):
        decoded = fitted.model.decode(torch.zeros(*shape, problem.latent_dim))
        assert decoded.shape == (*shape, problem.data_dim)
    for n, count in ((1, 1), (5, 1), (1, 3), (5, 3)):
        z, log_q = fitted.posterior.sample(
            draw(problem, 1, 1, 1, n).test.float(), count, torch.Generator().manual_seed(0)
        )
        assert z.shape == (count, n, problem.latent_dim)
        assert log_q.shape == (count, n)
        assert torch.isfinite(z).all()
        assert torch.isfinite(log_q).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_posterior_has_the_density_that_it_states(name, whole):
    """L = 1: integrating the stated density over the sorted draws gives the draws' own distribution function."""
    problem = datasets.load("circle")
    fitted = whole(name, problem).fitted
    count = 10_000
    with torch.no_grad():
        z, log_q = fitted.posterior.sample(
            draw(problem, 1, 1, 1, 2).test.float(), count, torch.Generator().manual_seed(3)
        )
    for point in range(2):
        code, order = z[:, point, 0].double().sort()
        density = log_q[order, point].double().exp()
        integral = torch.cumulative_trapezoid(density, code)
        empirical = torch.arange(1, count, dtype=torch.float64) / count
        assert (integral - empirical).abs().max() < 0.03
        off_by_a_tenth = 1.1 * integral
        assert (off_by_a_tenth - empirical).abs().max() > 0.03


@pytest.mark.parametrize("name", NAMES)
def test_the_density_of_any_code_is_known_and_that_of_a_draw_is_the_one_stated(name, problem, whole):
    posterior = whole(name, problem).fitted.posterior
    x = draw(problem, 1, 1, 1, 6).test.float()
    with torch.no_grad():
        z, log_q = posterior.sample(x, 1, torch.Generator().manual_seed(3))
        found = posterior.log_prob(z[0], x)
        assert found.shape == (6, 6)
        torch.testing.assert_close(found.diagonal(), log_q[0], atol=5e-3, rtol=1e-4)
        assert (found - found.diagonal()[:, None]).abs().max() > 1 or name == "untrained"
        assert posterior.log_prob(z[0, :4], x).shape == (4, 6)
        one = posterior.log_prob(z[0, 4:5], x[1:2])
        torch.testing.assert_close(found[4:5, 1:2], one, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_everything_whatever_the_global_generators_and_looks(name, problem, start, whole):
    """A second fit with other global generators, and evaluations in between, gives the same, and leaves them alone."""
    first = whole(name, problem)
    evaluator = Evaluator(problem, draw(problem, 3, 1, 1, 4), seed=0)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    looks = 0
    for step, fitted in enumerate(start(name, problem)[1]):
        if step in LOOKS or name in REFERENCES:
            evaluator.evaluate_checkpoint(fitted)
            looks += 1
    second = fingerprint(fitted, problem)
    assert looks > (name not in REFERENCES)
    assert torch.equal(before[0], torch.get_rng_state())
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after, strict=True))
    assert same(first.fingerprint, second)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_of_numpy_is_left_alone_above_200_data(name, start):
    """There scikit-learn takes another eigensolver, which draws."""
    before = np.random.get_state()  # noqa: NPY002
    _, fit = start(name, datasets.load("s_curve"), 210)
    next(fit)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_another_seed_gives_another_result(name, start, whole):
    problem = datasets.load("circle")
    other = fingerprint(last(start(name, problem, seed=1)[1]), problem)
    assert not torch.equal(whole(name, problem).fingerprint[0], other[0])


@pytest.mark.parametrize("name", NAMES)
def test_data_are_not_modified(name, problem, whole):
    run = whole(name, problem)
    assert same(run.data, (run.task.train, run.task.validation))


@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_below_the_likelihood(name, when, problem, start, whole):
    if when == "first":
        fitted = next(start(name, problem)[1])
        exact = likelihood(fitted, problem)
    else:
        fitted, exact = whole(name, problem).fitted, whole(name, problem).likelihood
    x, draws = held_out(problem), 800
    with torch.no_grad():
        z, log_q = fitted.posterior.sample(x.float(), draws, torch.Generator().manual_seed(1))
        log_noise = torch.tensor(math.log(fitted.model.variance()), dtype=torch.float64)
        joint = gaussian_log_prob(x - fitted.model.decode(z).double(), log_noise)
        terms = joint + standard_normal_log_prob(z.double()) - log_q.double()
    stderr = float(terms.mean(1).std()) / math.sqrt(draws)
    gap = float((exact.value - terms.mean(0)).mean())
    assert gap > -4 * stderr - float(exact.error.mean())
    assert torch.isfinite(terms).all()


@pytest.fixture(scope="module")
def untrained(make_task):
    """A function that gives the mean held-out likelihood of the initial weights, which all methods begin with."""

    @functools.cache
    def of(data):
        problem = datasets.load(data)
        fitted = Fitted(make_task(data, PROBLEMS[data]).model, Prior(problem.latent_dim))
        return likelihood(fitted, problem).value.mean()

    return of


@pytest.mark.parametrize("name", TRAINED)
def test_training_pays(name, problem, whole, untrained):
    """Few steps already raise the held-out likelihood far above that of the initial weights."""
    assert whole(name, problem).likelihood.value.mean() > untrained(problem.name) + 5


@pytest.mark.parametrize("name", NAMES)
def test_known_noise_stays_and_noise_to_be_learned_moves(name, start, whole):
    problem = datasets.load("circle")
    known = whole(name, problem).fitted.model.variance()
    assert known == pytest.approx(problem.noise_variance, rel=1e-6)
    task, fit = start(name, problem, noise="learned")
    before = task.model.variance()
    after = last(fit).model.variance()
    assert (after != before) == (name != "untrained")


@pytest.mark.parametrize("name", TRAINED)
def test_fitted_is_a_live_view_of_the_model_given(name, problem, whole):
    run = whole(name, problem)
    assert run.first is run.task.model
    assert run.fitted.model is run.task.model


def test_the_oracle_refuses_a_task_without_truth(make_task):
    with pytest.raises(ValueError, match="true model"):
        next(methods.load("oracle")().fit(make_task("circle")))


def test_only_the_oracle_sees_the_truth():
    assert [name for name in NAMES if methods.load(name)().sees_truth] == ["oracle"]


def test_the_oracle_has_hardly_any_inference_gap(start):
    for name, most in (("circle", 0.01), ("s_curve", 0.1)):
        problem = datasets.load(name)
        evaluator = Evaluator(problem, draw(problem, 4, 1, 1, 200), seed=0)
        scores = {m.metric: m.value for m in evaluator.evaluate_checkpoint(last(start("oracle", problem)[1]))}
        assert scores["oracle_gap"] == 0
        assert abs(scores["inference_gap"]) < most


def test_unknown_names_are_key_errors():
    with pytest.raises(KeyError, match="nonesuch"):
        methods.load("nonesuch")
