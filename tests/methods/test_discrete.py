"""Methods on binary data and counts."""

from dataclasses import dataclass
from itertools import islice

import pytest
import torch
from torch import nn

import datasets
import methods
from bench.fit.task import make_task, reason_to_skip
from bench.metrics.likelihood import learned_likelihood, true_likelihood
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import Observations, draw
from methods.common.latent_grid import LatentGrid
from methods.common.mixture_likelihood import _FamilyLogLikelihood, maximise_likelihood
from methods.contract.decoder import DiscreteModel, build_model
from methods.contract.method import Method, NullLedger
from methods.likelihoods import Bernoulli, Gaussian, Poisson
from methods.mapa import MAPA, families
from methods.mapa.index import log_index_posterior

LEARNERS = [name for name in methods.BUILTIN if name not in ("oracle", "untrained")]
STEPS = 120


def task_of(method, name, seed=0):
    problem = datasets.load(name)
    split = draw(problem, seed, 80, 80, 150)
    spec = RunSpec(dataset=name, method="any", seed=seed, n_train=80, n_test=150)
    return make_task(method, problem, split, spec, NullLedger()), problem, split.test


@pytest.fixture(scope="module", params=["binary_curve", "count_curve"])
def problem(request):
    return datasets.load(request.param)


@pytest.mark.parametrize(("number", "name"), [*enumerate(LEARNERS)])
def test_a_short_fit_is_better_than_none_and_no_better_than_the_truth(number, name):
    method = methods.load(name)()
    task, problem, x = task_of(method, ("count_curve", "binary_curve")[number % 2])
    untrained = learned_likelihood(next(methods.load("untrained")().fit(task)), x, 1, 0).value.mean()
    for fitted in islice(method.fit(task), STEPS):  # noqa: B007 - the last one
        pass
    found = learned_likelihood(fitted, x, 1, 0).value.mean()
    assert untrained + 0.05 < found < true_likelihood(problem, x, 0).value.mean()


@pytest.mark.parametrize("name", ["binary_curve", "count_curve"])
def test_several_seeds_as_one_program_have_the_values_that_each_has_alone(name):
    method = methods.load("vae")(steps=30)
    alone = [list(method.fit(task_of(method, name, seed)[0]))[-1] for seed in (0, 1)]
    together = list(method.fit_together([task_of(method, name, seed)[0] for seed in (0, 1)]))[-1]
    z = torch.linspace(-2, 2, 9)[:, None]
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.model.decode(z), other.model.decode(z), atol=1e-4)


@dataclass(frozen=True)
class Plain(Method):
    """A method that declares nothing."""

    def fit(self, task):
        yield from ()


@pytest.mark.parametrize(
    ("method", "latent_dim", "reason"),
    [
        (Plain(), 2, "it fits gaussian data only, got poisson"),
        (MAPA(), 3, "mapa fits gaussian data only above two latent dimensions, got poisson"),
        (MAPA(), 2, None),
    ],
)
def test_a_method_that_cannot_declines_with_a_reason(method, latent_dim, reason):
    source = Observations("mine", latent_dim, torch.ones(300, 5).double(), family="poisson")
    spec = RunSpec(dataset="mine", method="any", seed=0, n_train=50, n_test=50)
    assert reason_to_skip(source, method, spec) == reason


def test_the_initial_model_has_the_mean_of_the_data_and_no_variance(problem):
    x = draw(problem, 0, 200, 1, 1).train.float()
    network = nn.Sequential(nn.Linear(1, problem.data_dim))
    for p in network.parameters():
        nn.init.zeros_(p)
    model = DiscreteModel(network, x, 1, problem.likelihood)
    mean = model.likelihood.mean(model.decode(torch.zeros(1, 1)))[0]
    assert torch.allclose(mean, x.mean(0), atol=0.01)
    with pytest.raises(TypeError, match=f"a {problem.family} likelihood has no noise variance"):
        model.variance()


def test_the_mixture_has_the_density_of_torch_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    log_weights = torch.log_softmax(torch.randn(6, generator=generator, dtype=torch.float64), 0)
    for likelihood, family in (
        (Bernoulli(), lambda o: torch.distributions.Bernoulli(logits=o)),
        (Poisson(), lambda o: torch.distributions.Poisson(o.exp())),
    ):
        x = likelihood.sample(outputs.detach()[:5], generator)
        value = _FamilyLogLikelihood.apply(outputs, likelihood, log_weights, x)
        expected = torch.logsumexp(family(outputs).log_prob(x[:, None]).sum(-1) + log_weights, 1).mean()
        assert torch.allclose(value, expected)
        assert torch.autograd.gradcheck(
            lambda o, f=likelihood, x=x: _FamilyLogLikelihood.apply(o, f, log_weights, x), (outputs,)
        )


def test_maximising_the_mixture_raises_the_likelihood(problem):
    x = draw(problem, 0, 60, 1, 1).train.float()
    model = build_model(x, 1, None, torch.Generator().manual_seed(0), family=problem.family)
    values = list(maximise_likelihood(model, x, LatentGrid.equal(40, 1), NullLedger(), 10, 0.0))
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.5


@pytest.fixture(scope="module")
def mixture(problem):
    x = draw(problem, 0, 60, 1, 1).train
    return families.estimate(x, problem.likelihood, 1.0, 6.0, 5), x


def test_atoms_are_inside_of_what_means_can_be(mixture):
    found, _ = mixture
    assert (found.atoms > 0).all()
    assert found.likelihood.name != "bernoulli" or (found.atoms < 1).all()
    assert torch.isfinite(found.in_units(found.atoms)).all()


def test_the_index_posterior_is_bayes_rule_over_the_atoms(mixture):
    found, x = mixture
    outputs = found.likelihood.outputs(found.atoms)
    joint = found.log_weight + found.likelihood.log_prob(x[:, None], outputs)
    assert torch.allclose(found.log_posterior(x), torch.log_softmax(joint, 1))
    of_index = log_index_posterior(found, x)(x[:5])
    assert torch.allclose(of_index.logsumexp(1), torch.zeros(5).double(), atol=1e-9)


def test_a_single_point_is_shrunk_and_many_are_not(mixture):
    found, x = mixture
    one = families.estimate(x[:1], found.likelihood, 1.0, 6.0, 5)
    middle = found.likelihood.interior(x[0], 1)
    assert torch.allclose(one.atoms[0], (x[0] + middle) / 2)
    many = found.sharpened(x[:1].repeat(4000, 1), NullLedger())
    assert torch.allclose(many.atoms[found.log_posterior(x[:1]).argmax()], x[0], atol=0.02)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    moved = families.estimate(x[order], found.likelihood, 1.0, 6.0, 5)
    assert torch.allclose(moved.atoms, found.atoms[order], atol=1e-9)


def test_a_kernel_that_explains_others_worse_is_not_chosen(mixture):
    """The strength of the prior has the highest leave-one-out likelihood of those tried."""
    found, x = mixture

    def left_out(strength):
        kernels = found.likelihood.outputs((x + strength * found.middle) / (1 + strength))
        each = found.likelihood.log_prob(x[:, None], kernels)
        return float(each[~torch.eye(len(x), dtype=torch.bool)].view(len(x), -1).logsumexp(1).mean())

    values = [left_out(strength) for strength in families.STRENGTHS.tolist()]
    assert left_out(found.strength) == pytest.approx(max(values))
    assert max(values) > values[0] + 0.1


def test_families_are_checked_when_a_dataset_is_made():
    known = registry()
    assert known.make_problem("binary_curve", None).likelihood == Bernoulli()
    assert known.make_problem("circle", None).likelihood == Gaussian(0.01)
    with pytest.raises(Exception, match="dataset 'binary_curve' has no true noise to be set"):
        known.make_problem("binary_curve[noise_variance=0.1]", None)
