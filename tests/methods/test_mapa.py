"""MAPA's index posterior, its bound, its noise and its fit."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

import datasets
from datasets.base import draw
from methods.base import FreeLedger
from methods.cells import CellPosterior, PriorCells
from methods.mapa import MAPA
from methods.mapa.fit import PATIENCE, Regression, fit
from methods.mapa.index import denoise, log_index_posterior, mean_given_index, pilot_noise, refine_noise
from methods.mapa.method import POOR_FIT
from methods.vae import VAE

NOISE = 0.01


@pytest.fixture
def data():
    return draw(datasets.load("circle"), 0, 80, 1, 1).train


def turned(x):
    angle = torch.tensor(0.7, dtype=x.dtype)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return x @ turn.T + torch.tensor([5.0, -3.0], dtype=x.dtype)


def mixture_log_likelihood(x, atoms, noise):
    """Mean log-density of x under equal Gaussians at the atoms, by torch.distributions."""
    each = Independent(Normal(atoms, math.sqrt(noise)), 1).log_prob(x[:, None])
    return float((torch.logsumexp(each, 1) - math.log(len(atoms))).mean())


def test_index_posterior_is_bayes_rule(data):
    x, atoms = data[:10], data[10:40]
    density = Independent(Normal(atoms, math.sqrt(0.3)), 1).log_prob(x[:, None]).exp()
    found = log_index_posterior(x, atoms, 0.3).exp()
    torch.testing.assert_close(found, density / density.sum(1, keepdim=True))


@pytest.mark.parametrize("variance", [1e-6, 0.01, 1e6])
def test_rows_sum_to_one(data, variance):
    log_posterior = log_index_posterior(data, data, variance)
    torch.testing.assert_close(torch.logsumexp(log_posterior, 1), torch.zeros(len(data)).double())
    assert log_posterior.argmax(1).tolist() == list(range(len(data)))


def test_permuting_the_data_permutes_atoms_targets_and_weights(data):
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    atoms, shuffled = (denoise(x, NOISE, 2) for x in (data, data[order]))
    torch.testing.assert_close(shuffled, atoms[order])
    found, expected = (
        mean_given_index(log_index_posterior(x, a, NOISE).exp(), x) for x, a in ((data[order], shuffled), (data, atoms))
    )
    torch.testing.assert_close(found[0], expected[0][order])
    torch.testing.assert_close(found[1], expected[1][order])


def test_turning_and_shifting_the_data_turns_atoms_and_leaves_the_posterior(data):
    atoms, moved = denoise(data, NOISE, 2), denoise(turned(data), NOISE, 2)
    torch.testing.assert_close(moved, turned(atoms))
    torch.testing.assert_close(
        log_index_posterior(turned(data), moved, NOISE).exp(), log_index_posterior(data, atoms, NOISE).exp()
    )


def test_scaling_the_data_scales_the_atoms(data):
    torch.testing.assert_close(denoise(7 * data, 49 * NOISE, 2), 7 * denoise(data, NOISE, 2))


def test_no_step_of_denoising_leaves_the_data(data):
    assert torch.equal(denoise(data, NOISE, 0), data)


def test_the_first_step_takes_twice_the_noise(data):
    """Two noisy data of one code are twice the noise apart."""
    weight = (torch.cdist(data, data).square() / (-4 * NOISE)).exp()
    posterior = weight / weight.sum(1, keepdim=True)
    expected = (posterior.T @ data) / posterior.sum(0)[:, None]
    torch.testing.assert_close(denoise(data, NOISE, 1), expected)


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
def test_later_steps_of_denoising_raise_the_likelihood_of_the_atoms(data, noise):
    scores = np.array([mixture_log_likelihood(data, denoise(data, noise, steps), noise) for steps in range(1, 9)])
    assert (np.diff(scores) > -1e-12).all()
    assert scores[-1] > scores[0] + 1e-3


def test_denoising_brings_atoms_nearer_to_the_curve():
    x = draw(datasets.load("circle"), 0, 500, 1, 1).train
    off = [(denoise(x, NOISE, steps).norm(dim=1) - 1).square().mean() for steps in (0, 1)]
    assert off[1] < off[0] / 4


def test_an_index_that_explains_nothing_gets_no_weight_and_the_mean_for_a_target():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    posterior = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 1, 0]], dtype=torch.float64)
    targets, weights = mean_given_index(posterior, x)
    assert weights.tolist() == [1, 2, 0]
    expected = [[0.5, 0], [0.25, 1], [1 / 3, 2 / 3]]
    torch.testing.assert_close(targets, torch.tensor(expected, dtype=torch.float64))


@pytest.fixture
def problem(data, make_task):
    """Index posterior, codes, regression and model of a small problem, in double precision."""
    task = make_task(data, noise=NOISE, latent_dim=1)
    posterior = log_index_posterior(data, denoise(data, NOISE, 1), NOISE).exp()
    codes = PriorCells.equal(len(data), 1).codes
    targets, weights = mean_given_index(posterior, data)
    model = task.model.double()
    model.units.double()
    return posterior, codes, Regression(codes, targets, weights, NOISE), model


def test_bound_of_the_empirical_model_falls_short_by_the_stated_kl(problem, data):
    posterior, codes, _, model = problem
    with torch.no_grad():
        each = model.log_likelihood(data[:, None], codes)
    n = len(codes)
    bound = (posterior * each).sum(1) - (posterior * (posterior.log() + math.log(n))).nan_to_num().sum(1)
    exact = torch.logsumexp(each, 1) - math.log(n)
    theirs = torch.log_softmax(each, 1)
    gap = torch.special.xlogy(posterior, posterior).sum(1) - (posterior * theirs).sum(1)
    assert gap.min() > 1
    torch.testing.assert_close(exact - bound, gap, atol=1e-6, rtol=1e-9)


def test_regression_loses_what_the_bound_loses(problem, data):
    """Between two decoders, the difference of the bound is that of `nats`, to the last digit."""
    posterior, codes, regression, model = problem
    assert float(regression.weights.sum()) == pytest.approx(len(data))
    bounds, losses = [], []
    for _ in range(2):
        with torch.no_grad():
            bounds.append(float((posterior * model.log_likelihood(data[:, None], codes)).sum(1).mean()))
            losses.append(float(regression.nats(model)))
            for parameter in model.network.parameters():
                parameter.mul_(1.7)
    assert abs(losses[0] - losses[1]) > 0.1
    assert bounds[1] - bounds[0] == pytest.approx(losses[0] - losses[1], abs=1e-6)


def test_a_decoder_through_the_targets_loses_nothing(problem):
    *_, regression, model = problem
    model.decode = lambda _: regression.targets
    assert float(regression.nats(model)) == 0


def test_fit_lowers_the_loss_and_stops_once_it_gains_little(problem):
    *_, regression, model = problem
    losses = list(fit(model, regression, FreeLedger(), steps=2000, history=30, tolerance=0.5))
    assert PATIENCE < len(losses) < 2000
    assert losses[-1 - PATIENCE] - losses[-1] < 0.5
    assert all(losses[i] - losses[i + PATIENCE] >= 0.5 for i in range(len(losses) - PATIENCE - 1))
    assert losses[-1] == pytest.approx(float(regression.nats(model).detach()))


def test_fit_takes_at_most_its_steps(problem):
    *_, regression, model = problem
    assert len(list(fit(model, regression, FreeLedger(), steps=7, history=30, tolerance=0.0))) == 7


@pytest.mark.parametrize("truth", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("guess", [0.1, 10.0])
def test_noise_of_known_centres_is_found_from_any_start(truth, guess):
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    index = torch.randint(40, (6000,), generator=generator)
    x = centres[index] + math.sqrt(truth) * torch.randn(6000, 3, generator=generator, dtype=torch.float64)
    found = refine_noise(x, centres, guess * truth, steps=200)
    assert found == pytest.approx(truth, rel=0.08)
    scores = {factor: mixture_log_likelihood(x, centres, factor * found) for factor in (0.95, 1, 1.05)}
    assert max(scores, key=scores.get) == 1


def test_each_step_of_noise_estimation_raises_the_likelihood(data):
    noises = [refine_noise(data, data[:20], 1.0, steps) for steps in range(8)]
    scores = [mixture_log_likelihood(data, data[:20], noise) for noise in noises]
    assert noises[0] == 1.0
    assert (np.diff(scores) > 0).all()


def test_pilot_noise_goes_with_the_square_of_the_units(data):
    found = pilot_noise(data)
    assert 1e-3 < found < 0.1
    assert pilot_noise(10 * data) == pytest.approx(100 * found)
    assert pilot_noise(data[:1]) == 1
    assert pilot_noise(data[:1].repeat(5, 1)) == 1


@pytest.mark.parametrize(
    ("method", "seed"), [(MAPA(), 1), (MAPA(), 2), (VAE(steps=3000), 1)], ids=["mapa-1", "mapa-2", "vae"]
)
def test_noise_is_learned(method, seed, make_task):
    task = make_task("circle", 300, noise="learned", seed=seed)
    assert task.model.variance() > 3 * NOISE
    for _ in method.fit(task):
        pass
    assert NOISE / 1.6 < task.model.variance() < 1.6 * NOISE


# The likelihood of two data or fewer has no maximum in the noise.
@pytest.mark.parametrize(
    ("n", "noise"), [(1, "known"), (2, "known"), (3, "known"), (3, "learned"), (4, "known"), (4, "learned")]
)
@pytest.mark.parametrize("name", ["circle", "pinwheel"])
def test_few_data_can_be_fitted(name, n, noise, make_task, short):
    task = make_task(name, n, noise=noise)
    *_, fitted = short(MAPA()).fit(task)
    z, log_q = fitted.posterior.sample(task.train, 3, torch.Generator().manual_seed(0))
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_q).all()
    assert torch.isfinite(fitted.model.decode(z)).all()


@pytest.mark.parametrize("n", [1, 8])
def test_too_few_data_for_a_surface_are_refused(n, make_task):
    with pytest.raises(ValueError, match=f"more than 8 data in the plane, got {n}"):
        next(MAPA().fit(make_task("s_curve", n)))


def test_nine_data_are_enough_for_a_surface(make_task, short):
    *_, fitted = short(MAPA(), 5).fit(make_task("s_curve", 9))
    assert isinstance(fitted.posterior, CellPosterior)


def test_one_may_stop_before_the_codes_are_placed(make_task, short):
    """Each placement and each step is a unit of work; what stands is the untrained model, and then the best so far."""
    task = make_task("s_curve", 40)
    yielded = list(short(MAPA(), 30).fit(task))
    placed = [isinstance(fitted.posterior, CellPosterior) for fitted in yielded]
    assert placed == sorted(placed)
    assert placed.count(False) == 1
    assert len(yielded) > 30 + 2 * 10
    models = [id(fitted.model) for fitted in yielded[1:-1]]
    changes = sum(first != second for first, second in itertools.pairwise(models))
    assert 0 < changes < 12
    assert yielded[-1].model is task.model


@pytest.mark.parametrize(("name", "gains"), [("circle", [1]), ("spiral_dots", [1, MAPA().steepness])])
def test_a_poor_fit_along_a_path_begins_again_more_steeply(name, gains, make_task):
    task = make_task(name, 120)
    first = task.model.network[0].weight.detach().clone()
    found, losses = [], []
    for attempt in MAPA()._attempts(task, task.train.double()):
        found.append(float((attempt.model.network[0].weight.detach() / first).median()))
        list(attempt.go_on(100))
        losses.append(attempt.loss)
    assert found == pytest.approx(gains)
    assert torch.equal(task.model.network[0].weight, first)
    assert (losses[0] < POOR_FIT) == (name == "circle")
    assert losses[-1] < 0.8 * losses[0] or len(losses) == 1


def test_the_placement_that_fits_best_after_its_trial_goes_on(make_task, short):
    method = short(MAPA(), 30)
    task = make_task("s_curve", 40)
    attempts = list(method._attempts(task, task.train.double()))
    for attempt in attempts:
        list(attempt.go_on(method.trial_steps))
    chosen = min(attempts, key=lambda attempt: attempt.loss)
    list(chosen.go_on())
    *_, fitted = method.fit(task)
    assert len(attempts) > 2
    assert all(torch.equal(a, b) for a, b in zip(chosen.model.parameters(), fitted.model.parameters(), strict=True))


def test_three_latent_dimensions_are_refused(make_task):
    with pytest.raises(ValueError, match="1 or 2 latent dimensions, got 3"):
        next(MAPA().fit(make_task("linear_gaussian", 20, latent_dim=3)))


def test_more_data_than_a_dense_posterior_can_hold_are_refused(make_task):
    with pytest.raises(ValueError, match="at most 10000 data, got 10001"):
        next(MAPA().fit(make_task("circle", 10_001)))


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("kind", ["pairs", "tens", "constant column", "two far groups"])
def test_degenerate_data_can_be_fitted(kind, latent_dim, make_task, short):
    x = draw(datasets.load("s_curve"), 0, 60, 1, 1).train
    if kind == "pairs":
        x = x[:2].repeat(15, 1)
    elif kind == "tens":
        x = x[:10].repeat(6, 1)
    elif kind == "constant column":
        x[:, 0] = 1.5
    else:
        x[30:] += 100
    *_, fitted = short(MAPA(), 20).fit(make_task(x, noise=NOISE, latent_dim=latent_dim))
    assert torch.isfinite(fitted.model.decode(torch.zeros(1, latent_dim))).all()


def test_the_posterior_of_a_datum_finds_its_neighbours(make_task):
    """Codes drawn for x decode to the neighbourhood of x, which ties weights, codes and fit together."""
    task = make_task("circle", 200)
    *_, fitted = MAPA(steps=300).fit(task)
    new = draw(datasets.load("circle"), 3, 1, 1, 50).test.float()
    with torch.no_grad():
        z, _ = fitted.posterior.sample(new, 100, torch.Generator().manual_seed(0))
        away = (fitted.model.decode(z) - new).square().sum(-1).mean()
    assert away < 8 * NOISE
