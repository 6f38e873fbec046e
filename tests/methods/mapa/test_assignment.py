"""Shares of the data: their codes and parts of the prior, the bound that a fit raises, and placing them anew."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch
from torch.distributions import Independent, Normal

import datasets
from datasets.base import draw
from methods.common.latent_grid import LatentGrid
from methods.contract.method import NullLedger
from methods.likelihoods import Gaussian
from methods.mapa.assignment import Attempt, Shares, nearest_codes, released, steepened
from methods.mapa.deconvolution import estimate, sharpened
from methods.mapa.fit import PATIENCE, Regression, fit
from methods.mapa.placement import path_order

LEDGER = NullLedger()
NOISE = 0.01


def shares_of(x, latent_dim, atoms=None, noise=NOISE):
    """The shares of data x, under a mixture for the signals that is estimated from the first `atoms` of them."""
    x = x.double()
    mixture = estimate(x[:atoms], noise, 6.0, 5 if latent_dim == 1 else 0, 1, LEDGER)
    mixture = mixture if atoms is None else sharpened(mixture, x, noise, LEDGER)
    return Shares.of(mixture, x, latent_dim, LEDGER)


def random_place(shares, seed=0):
    return torch.randperm(len(shares.targets), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[(1, None), (2, None), (1, 40), (2, 40)], ids=["path", "plane", "path, few", "plane, few"])
def problem(request, make_task):
    """Data, shares of them and a model in double precision, for as many atoms as data and for fewer."""
    latent_dim, atoms = request.param
    x = draw(datasets.load("circle"), 0, 80, 1, 1).train
    model = make_task(x, noise=NOISE, latent_dim=latent_dim).model.double()
    model.units.double()
    return x.float().double(), shares_of(x.float(), latent_dim, atoms), model


def rows(*columns):
    """A set of rows, in an order that does not depend on the order of data."""
    return sorted(torch.cat([column.reshape(len(column), -1) for column in columns], 1).tolist())


def log_density(x, means, noise):
    return Independent(Normal(means, math.sqrt(noise)), 1).log_prob(x[:, None])


def test_weights_of_the_shares_are_those_of_all_data_and_targets_have_their_mean(problem):
    x, shares, _ = problem
    assert float(shares.weights.sum()) == pytest.approx(len(x))
    torch.testing.assert_close(shares.weights @ shares.targets / len(x), x.float().mean(0))


def test_hard_shares_of_all_data_are_the_data():
    x = draw(datasets.load("figure8"), 0, 80, 1, 1).train
    soft = shares_of(x, 2)
    hard = soft.hard(x, x)
    assert torch.equal(hard.targets, x.float())
    assert torch.equal(hard.weights, torch.ones(80))
    assert hard.log_index is soft.log_index
    assert hard.mixture is soft.mixture


@pytest.mark.parametrize("scale", [None, [1.0, 100.0]])
def test_hard_shares_of_some_data_are_means_of_the_nearest(scale):
    """In units of the noise of each coordinate; a point that is nearest to none but a copy of it keeps its place."""
    x = draw(datasets.load("figure8"), 0, 80, 1, 1).train
    units = x.new_tensor(scale or [1.0, 1.0])
    few = torch.cat([x[:30], x[:1]])
    soft = shares_of(x, 2, 31)
    soft = dataclasses.replace(soft, mixture=dataclasses.replace(soft.mixture, scale=units if scale else None))
    hard = soft.hard(few, x)
    owner = [min(range(31), key=lambda k: float(((few[k] - row) / units).square().sum())) for row in x]
    for k, (target, weight) in enumerate(zip(hard.targets, hard.weights, strict=True)):
        own = x[[k == each for each in owner]]
        assert float(weight) == len(own)
        torch.testing.assert_close(target, (own.mean(0) if len(own) else few[k]).float())
    assert float(hard.weights[-1]) == 0
    assert (scale is None) == torch.equal(hard.targets, shares_of(x, 2, 31).hard(few, x).targets)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_permuting_the_data_leaves_the_set_of_shares(latent_dim):
    x = draw(datasets.load("figure8"), 0, 80, 1, 1).train
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    first, second = shares_of(x, latent_dim), shares_of(x[order], latent_dim)
    found, expected = (torch.tensor(rows(s.targets, s.weights)) for s in (second, first))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(second.targets, first.targets[order])


def test_bound_of_the_placed_shares_falls_short_by_the_stated_kl(problem):
    x, shares, model = problem
    posterior = shares.on_grid(random_place(shares)).posterior
    with torch.no_grad():
        each = log_density(x, model.decode(posterior.grid.codes), NOISE)
    log_p, log_mass = posterior.log_index(x), posterior.grid.mass.log()
    p = log_p.exp()
    bound = (p * each).sum(1) - torch.where(p > 0, p * (log_p - log_mass), 0.0).sum(1)
    exact = torch.logsumexp(each + log_mass, 1)
    gap = torch.where(p > 0, p * (log_p - torch.log_softmax(each + log_mass, 1)), 0.0).sum(1)
    assert gap.min() > 0.1
    torch.testing.assert_close(exact - bound, gap, atol=1e-6, rtol=1e-9)


def test_regression_loses_what_the_bound_loses(problem):
    """Between two decoders; the regression's targets are in single precision."""
    x, shares, model = problem
    cells = random_place(shares)
    posterior = shares.on_grid(cells).posterior
    regression = Regression(
        posterior.grid.codes[cells], shares.targets.double(), shares.weights.double(), Gaussian(NOISE)
    )
    bounds, losses = [], []
    for _ in range(2):
        with torch.no_grad():
            each = log_density(x, model.decode(posterior.grid.codes), NOISE)
            bounds.append(float((posterior.log_index(x).exp() * each).sum(1).mean()))
            losses.append(float(regression.nats(model)))
            for parameter in model.network.parameters():
                parameter.mul_(1.7)
    assert abs(losses[0] - losses[1]) > 0.1
    assert bounds[1] - bounds[0] == pytest.approx(losses[0] - losses[1], rel=1e-6)


def test_each_share_has_the_probability_of_its_atom(problem):
    x, shares, _ = problem
    place = random_place(shares)
    posterior = shares.on_grid(place).posterior
    p = posterior.log_index(x).exp()
    assert (p.sum(1) - 1).abs().max() < 1e-12
    torch.testing.assert_close(p[:, place], shares.mixture.log_posterior(x).exp())


def test_each_share_has_the_code_of_its_cell(problem):
    _, shares, _ = problem
    place = random_place(shares)
    placed = shares.on_grid(place)
    codes, posterior = placed.posterior.grid.codes[place], placed.posterior
    assert torch.equal(placed.codes, codes.float())
    assert placed.cells is place
    assert posterior.grid.mass.sum() == pytest.approx(1)
    if shares.latent_dim == 2:
        assert rows(codes) == rows(LatentGrid.equal(len(codes), 2).codes)
    torch.testing.assert_close(posterior.grid.mass[place], shares.mixture.log_weight.softmax(0))


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_codes_have_the_moments_of_the_prior(latent_dim):
    """But for the variance within grid, 0.3 % for these intervals and up to 8 % for these boxes."""
    shares = shares_of(draw(datasets.load("circle"), 0, 400, 1, 1).train, latent_dim)
    grid = shares.on_grid(random_place(shares)).posterior.grid
    assert (grid.mass @ grid.codes).abs().max() < 0.01
    assert (grid.mass @ grid.codes.square() - 1).abs().max() < {1: 0.01, 2: 0.09}[latent_dim]
    if latent_dim == 1:
        assert (float(grid.low[0]), float(grid.high[-1])) == (0.0, 1.0)
        assert torch.equal(grid.high[:-1], grid.low[1:])


@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_intervals_have_the_masses_asked_for_in_order(n):
    mass = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + 0.01
    grid = LatentGrid.intervals(3 * mass)
    torch.testing.assert_close(grid.mass, mass / mass.sum())
    assert (grid.codes[:, 0].diff() > 0).all()
    assert (float(grid.low[0]), float(grid.high[-1])) == (0.0, 1.0)
    assert torch.equal(grid.high[:-1], grid.low[1:])


@pytest.mark.parametrize("n", [1, 2, 3, 64, 500])
def test_intervals_of_equal_masses_are_the_equal_boxes(n):
    found, expected = LatentGrid.intervals(torch.full((n,), 0.2)), LatentGrid.equal(n, 1)
    torch.testing.assert_close(found.low, expected.low)
    torch.testing.assert_close(found.high, expected.high)
    torch.testing.assert_close(found.codes, expected.codes, atol=1e-9, rtol=0)


def test_a_steep_copy_goes_over_z_what_the_model_does_over_more(make_task):
    model = make_task("circle").model
    z = torch.linspace(-1, 1, 9)[:, None]
    steep = steepened(model, 8.0)
    with torch.no_grad():
        bias = model.network[0].bias
        expected = copy.deepcopy(model)
        expected.network[0].bias.copy_(8 * bias)
        torch.testing.assert_close(steep.decode(z), expected.decode(8 * z))
        assert not torch.allclose(steep.decode(z), model.decode(z))


class Begun:
    """Begins fits, and keeps what was asked for."""

    def __init__(self):
        self.regressions = []

    def __call__(self, model, regression):
        self.regressions.append(regression)
        return fit(model, regression, LEDGER, history=30, tolerance=0.0)

    def loss(self, model):
        """That of the regression begun last."""
        with torch.no_grad():
            return float(self.regressions[-1].nats(model))


@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["s_curve", "pinwheel"])
def test_placing_anew_never_raises_the_loss_of_the_decoder(name, seed, shift, make_task):
    x = draw(datasets.load(name), seed, 80, 1, 1).train + shift
    task = make_task(x, noise=0.01, latent_dim=2, seed=seed)
    shares, begun = shares_of(task.train, 2), Begun()
    attempt = Attempt(steepened(task.model, 4.0), shares, shares.on_grid(random_place(shares, seed)), begun, LEDGER)
    before = attempt.fitted
    for steps in (0, 5, 20):
        list(attempt.advance(steps))
        old = begun.loss(attempt.model)
        attempt.place_anew()
        new = begun.loss(attempt.model)
        assert new <= old * (1 + 1e-5)
        assert sorted(attempt.placed.cells.tolist()) == list(range(80))
        assert steps > 0 or new < 0.9 * old
    assert len(begun.regressions) == 4
    torch.testing.assert_close(attempt.fitted.log_index(task.train), before.log_index(task.train))
    torch.testing.assert_close(rows(attempt.placed.codes), rows(begun.regressions[0].codes))


def test_an_attempt_takes_no_more_steps_than_asked_for(make_task):
    task = make_task("circle")
    shares = shares_of(task.train, 1)
    attempt = Attempt(task.model, shares, shares.on_grid(random_place(shares)), Begun(), LEDGER)
    assert attempt.loss == math.inf
    assert [len(list(attempt.advance(steps))) for steps in (3, 0, 4)] == [3, 0, 4]
    assert attempt.steps == 7
    assert math.isfinite(attempt.loss)


@pytest.mark.parametrize(("replacements", "at"), [(0, []), (2, [5, 10]), (9, [5, 10, 15])])
def test_codes_are_placed_anew_after_each_of_the_first_stretches(replacements, at, make_task, monkeypatch):
    task, found = make_task(draw(datasets.load("s_curve"), 0, 40, 1, 1).train, noise=0.01, latent_dim=2), []
    plain = Attempt.place_anew
    monkeypatch.setattr(Attempt, "place_anew", lambda self: (found.append(self.steps), plain(self)))
    shares = shares_of(task.train, 2)
    attempt = Attempt(task.model, shares, shares.on_grid(random_place(shares)), Begun(), LEDGER, replacements, 5)
    for steps in (7, 3, 0, 8):
        list(attempt.advance(steps))
    assert (found, attempt.steps) == (at, 18)


def test_codes_are_placed_anew_when_a_fit_ends_by_itself(make_task):
    task = make_task(draw(datasets.load("s_curve"), 0, 40, 1, 1).train, noise=0.01, latent_dim=2)
    shares, fits = shares_of(task.train, 2), []

    def three_steps(*_):
        fits.append(iter([3.0, 2.0, 1.0]))
        return fits[-1]

    attempt = Attempt(task.model, shares, shares.on_grid(random_place(shares)), three_steps, LEDGER, 2, 5)
    assert len(list(attempt.advance(100))) == 9
    assert len(fits) == 3


# Off the grid.


@pytest.mark.parametrize("atoms", [None, 40])
def test_cells_have_the_probabilities_of_the_codes_within(atoms):
    x = draw(datasets.load("s_curve"), 0, 80, 1, 1).train
    shares = shares_of(x, 2, atoms)
    count = len(shares.targets)
    codes = 0.5 * torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    placed = shares.off_grid(codes)
    grid, p = placed.posterior.grid, shares.mixture.log_posterior(x).exp()
    within = [
        [
            all(low <= Normal(0, 1).cdf(value) < high for low, high, value in zip(*corners, code, strict=True))
            for code in codes.double()
        ]
        for corners in zip(grid.low, grid.high, strict=True)
    ]
    assert max(map(sum, within)) > 2
    assert placed.cells.tolist() == [[row[k] for row in within].index(True) for k in range(count)]
    expected = torch.stack([p[:, torch.tensor(row)].sum(1) for row in within], 1)
    torch.testing.assert_close(placed.posterior.log_index(x).exp(), expected, atol=1e-9, rtol=1e-6)
    assert torch.isfinite(placed.posterior.log_index(x)).all()
    assert torch.equal(placed.codes, codes)


def test_the_nearest_code_is_that_at_which_the_decoder_is_nearest(make_task):
    task = make_task("s_curve", 20)
    found = nearest_codes(task.model, task.train)
    grid = LatentGrid.equal(2000, 2).codes.float()
    with torch.no_grad():
        decoded = task.model.decode(grid)
    for row, code in zip(task.train, found, strict=True):
        assert torch.equal(code, grid[(decoded - row).square().sum(1).argmin()])


def test_released_codes_are_the_nearest_and_the_posterior_is_that_of_their_cells(make_task):
    task = make_task("s_curve", 60)
    shares = shares_of(task.train, 2)
    placed = released(task.model, shares, shares.on_grid(random_place(shares)), LEDGER)
    expected = shares.off_grid(nearest_codes(task.model, shares.targets))
    assert torch.equal(placed.codes, expected.codes)
    assert torch.equal(placed.posterior.log_index(task.train), expected.posterior.log_index(task.train))
    with torch.no_grad():
        away = (task.model.decode(placed.codes) - shares.targets).square().sum(1)
        before = (task.model.decode(shares.on_grid(random_place(shares)).codes) - shares.targets).square().sum(1)
    assert (away < before).all()


# The fit.


@pytest.fixture
def regression(make_task):
    task = make_task("circle", 80)
    shares = shares_of(task.train, 1)
    placed = shares.on_grid(torch.from_numpy(path_order(shares.mixture.atoms.numpy(), 45, LEDGER)))
    return Regression(placed.codes, shares.targets, shares.weights, Gaussian(NOISE)), task.model


def test_a_decoder_through_the_targets_loses_nothing(regression):
    problem, model = regression
    model.decode = lambda _: problem.targets
    assert float(problem.nats(model)) == 0


def test_fit_lowers_the_loss_and_stops_once_it_gains_little(regression):
    problem, model = regression
    losses = list(fit(model, problem, LEDGER, history=30, tolerance=0.5))
    assert len(losses) > PATIENCE
    assert losses[-1 - PATIENCE] - losses[-1] < 0.5
    assert all(losses[i] - losses[i + PATIENCE] >= 0.5 for i in range(len(losses) - PATIENCE - 1))
    assert losses[-1] == pytest.approx(float(problem.nats(model).detach()), rel=1e-5)


def test_adam_takes_the_place_of_lbfgs_and_is_slower(regression):
    problem, model = regression
    reached = {}
    for optimiser in ("lbfgs", "adam"):
        begin = partial(fit, ledger=LEDGER, history=30, tolerance=-math.inf, optimiser=optimiser)
        steps = begin(copy.deepcopy(model), dataclasses.replace(problem))
        reached[optimiser] = [next(steps) for _ in range(60)]
    assert reached["lbfgs"][-1] < reached["adam"][-1] < reached["adam"][0] / 2
    with pytest.raises(ValueError, match="lbfgs or adam, got 'sgd'"):
        next(fit(model, problem, LEDGER, 30, 0.0, "sgd"))
