"""MAPA as a whole: what each of its stages yields, what it must not depend on, and data that are hard on it."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

import datasets
from datasets.base import draw
from methods.common.latent_grid import GridPosterior
from methods.contract.method import NullLedger
from methods.mapa import MAPA, method
from methods.mapa.assignment import Attempt, nearest_codes, released, steepened
from methods.mapa.held_out import Kept
from methods.mapa.method import POOR_FIT
from methods.vae import VAE

NOISE = 0.01


def last(fit):
    for fitted in fit:
        final = fitted
    return final


def codes_of(fitted, x):
    """The mean code of each x under the posterior."""
    return fitted.posterior.index.log_index(x.double()).exp() @ fitted.posterior.index.grid.codes


def attempts_of(mapa, task):
    x = task.train.double()
    return mapa._attempts(task, task.model, mapa._shares(task, x, x), x)


class Watched(Attempt):
    """Attempts, which are kept in the order they were begun."""

    begun: list = []  # noqa: RUF012

    def __init__(self, *args):
        super().__init__(*args)
        self.placements = [self.placed]
        self.losses_seen = []
        self.begun_at = [each.detach().clone() for each in self.model.parameters()]
        Watched.begun.append(self)

    def advance(self, steps):
        for _ in super().advance(steps):
            self.losses_seen.append(self.loss)
            yield

    def place_anew(self):
        super().place_anew()
        self.placements.append(self.placed)


@pytest.fixture
def looks(monkeypatch):
    """Attempt, steps taken, log-likelihood of validation points and parameters at each look, in order."""
    found, plain = [], Kept.look

    def look(self, attempt):
        plain(self, attempt)
        value = self.log_likelihood(attempt.model)
        found.append((attempt, attempt.steps, value, [each.detach().clone() for each in attempt.model.parameters()]))

    monkeypatch.setattr(Kept, "look", look)
    return found


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(method, "Attempt", Watched)
    monkeypatch.setattr(Watched, "begun", [])
    return Watched.begun


@pytest.mark.parametrize("change", ["turned and shifted", "scaled"])
def test_units_and_axes_of_the_data_change_nothing_but_the_decoder(change, make_task, short):
    x = draw(datasets.load("circle"), 0, 100, 1, 1).train
    angle = torch.tensor(0.7).double()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    moved, noise = (x @ turn.T + torch.tensor([5.0, -3.0]), NOISE) if change != "scaled" else (8 * x, 64 * NOISE)
    first, second = (
        last(short(MAPA(), 20).fit(make_task(data, noise=variance, latent_dim=1)))
        for data, variance in ((x, NOISE), (moved, noise))
    )
    torch.testing.assert_close(second.log_index(moved).exp(), first.log_index(x).exp(), rtol=1e-3, atol=1e-6)
    found, expected = codes_of(second, moved), codes_of(first, x)
    assert min(float((found - expected).abs().max()), float((found + expected).abs().max())) < 1e-3
    assert expected.std() > 0.9


def test_permuting_the_data_permutes_their_codes(make_task, short):
    """Up to reversal, and but for the random start of k-means, which takes the data in order."""
    angle = torch.linspace(0, math.pi, 151).double()[1:]
    x = torch.stack([angle.cos(), angle.sin()], 1)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    first, second = (last(short(MAPA(), 20).fit(make_task(data, noise=1e-4, latent_dim=1))) for data in (x, x[order]))
    torch.testing.assert_close(second.log_index(x[order]).exp(), first.log_index(x).exp()[order][:, order])
    found, expected = codes_of(second, x[order]), codes_of(first, x)[order]
    assert min(float((found - expected).abs().max()), float((found + expected).abs().max())) < 1e-6


@pytest.mark.parametrize(("name", "starts"), [("circle", [1]), ("spiral_dots", [1, MAPA().steepness])])
def test_a_poor_fit_along_a_path_begins_again_more_steeply(name, starts, make_task):
    task = make_task(name, 120)
    first = task.model.network[0].weight.detach().clone()
    found, losses = [], []
    for attempt in attempts_of(MAPA(), task):
        found.append(float((attempt.model.network[0].weight.detach() / first).median()))
        list(attempt.advance(100))
        losses.append(attempt.loss)
    assert found == pytest.approx(starts)
    assert torch.equal(task.model.network[0].weight, first)
    assert (losses[0] < POOR_FIT) == (name == "circle")
    assert losses[-1] < 0.8 * losses[0] or len(losses) == 1


def test_a_fit_of_a_surface_begins_a_quarter_as_steeply(make_task):
    task = make_task("s_curve", 40)
    attempt = next(attempts_of(MAPA(), task))
    weight = task.model.network[0].weight
    torch.testing.assert_close(attempt.model.network[0].weight, MAPA().steepness / 4 * weight)


@pytest.mark.parametrize("replacements", [0, 2])
def test_the_placement_that_is_best_on_validation_goes_on(replacements, make_task, short, watched, looks):
    """Half of five placements are left behind half way; the best of the others is tried once more, on hard shares.

    Each that goes on is placed anew once within its trial. What is learned is the state that was best at any look.
    """
    mapa = dataclasses.replace(
        short(MAPA(), 50), trial_steps=20, replacements=replacements, replacement_steps=9, releases=0
    )
    task = make_task("s_curve", 40)
    fitted = last(mapa.fit(task))

    def seen(attempt, until):
        return max(value for each, steps, value, _ in looks if each is attempt and steps <= until)

    *soft, hard = watched
    assert len(soft) == 5
    ahead = sorted(soft, key=lambda attempt: seen(attempt, 10), reverse=True)[:3]
    first = max(ahead, key=lambda attempt: seen(attempt, 20))
    chosen = max((*ahead, hard), key=lambda attempt: seen(attempt, 20))
    for attempt in watched:
        expected = 50 if attempt is chosen else 20 if attempt in (*ahead, hard) else 10
        assert attempt.steps == expected
        times = {10: 1, 20: 2, 50: 2}[expected]  # there are two replacements at most
        assert len(attempt.placements) == 1 + min(replacements, times)
        assert all(sorted(each.cells.tolist()) == list(range(40)) for each in attempt.placements)
    at_trial_end = first.placements[min(replacements, 2)]
    assert hard.placements[0] is at_trial_end
    assert torch.equal(hard.shares.targets, task.train)
    assert all(attempt.shares is soft[0].shares for attempt in soft)
    assert fitted.model is task.model
    *_, expected = max(looks, key=lambda look: look[2])
    for own, other in zip(task.model.parameters(), expected, strict=True):
        assert torch.equal(own, other)
    assert (replacements == 0) == (len(chosen.placements) == 1)


@pytest.mark.parametrize("hard", [0, 1])
def test_codes_leave_the_grid_half_way(hard, make_task, short, watched, looks, monkeypatch):
    """One fit goes on from the state that is best on validation points, then another begins anew.

    Both have the means under the kernel as targets, and begin at the codes nearest under the best decoder by then.
    """
    seen, plain = [], method.released
    monkeypatch.setattr(
        method, "released", lambda model, *rest: (seen.append(copy.deepcopy(model)), plain(model, *rest))[1]
    )
    mapa = dataclasses.replace(short(MAPA(), 40), hard_trial=hard, releases=2, replacement_steps=6)
    task = make_task("s_curve", 60)
    start = steepened(task.model, 2.0)
    fitted = last(mapa.fit(task))
    *on, goes_on, anew = watched
    assert len(on) == 5 + hard
    assert max(attempt.steps for attempt in on) == 20
    assert [attempt.steps for attempt in (goes_on, anew)] == [20, 20]
    assert [len(attempt.placements) for attempt in (goes_on, anew)] == [3, 3]
    assert not any(
        sorted(placed.cells.tolist()) == list(range(60)) for each in (goes_on, anew) for placed in each.placements
    )
    assert goes_on.shares is anew.shares is on[0].shares
    assert len(seen) == 2 * (1 + 2)
    for fits, decoder in ((on, seen[0]), ([*on, goes_on], seen[3])):
        *_, best = max((look for look in looks if look[0] in fits), key=lambda look: look[2])
        assert all(torch.equal(own, other) for own, other in zip(decoder.parameters(), best, strict=True))
    assert torch.equal(anew.placements[0].codes, nearest_codes(seen[3], anew.shares.targets))
    for attempt, begun in ((goes_on, seen[0]), (anew, start)):
        first = attempt.begun_at
        assert all(torch.equal(own, other) for own, other in zip(first, begun.parameters(), strict=True))
    *_, expected = max(looks, key=lambda look: look[2])
    assert all(torch.equal(own, other) for own, other in zip(fitted.model.parameters(), expected, strict=True))


def test_there_is_no_hard_trial_and_no_release_without_them_or_on_a_curve(make_task, short, watched):
    last(dataclasses.replace(short(MAPA(), 30), hard_trial=0, releases=0).fit(make_task("s_curve", 40)))
    assert len(watched) == 5
    del watched[:]
    last(short(MAPA(), 30).fit(make_task("circle", 40)))
    assert all(attempt.shares is watched[0].shares for attempt in watched)


def test_a_path_is_never_placed_anew(make_task, short, watched):
    last(short(MAPA(), 30).fit(make_task("circle", 40)))
    assert [len(attempt.placements) for attempt in watched] == [1] * len(watched)


@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_the_index_posterior_never_changes_during_a_fit(name, make_task, short):
    task = make_task(name, 40)
    found = [fitted.log_index(task.train) for fitted in short(MAPA(), 30).fit(task) if fitted.log_index is not None]
    assert len(found) > 20
    assert all(torch.equal(later, found[0]) for later in found)


def test_one_may_stop_before_the_codes_are_placed(make_task, short):
    """Each placement and each step is a unit of work; what stands is the untrained model, and then the best so far."""
    task = make_task("s_curve", 40)
    yielded = list(short(MAPA(), 30).fit(task))
    placed = [isinstance(fitted.posterior, GridPosterior) for fitted in yielded]
    assert placed == sorted(placed)
    assert placed.count(False) == 1
    # Five trials of 5 steps after a yield, three of 5 more, one of 10, 5 of the best on the grid and twice 15 off it,
    # each with a look; and the end.
    assert len(yielded) == 5 * (1 + 5 + 1) + 3 * (5 + 1) + (10 + 1) + (5 + 1) + 2 * (15 + 1) + 1
    changes = sum(first.model is not second.model for first, second in itertools.pairwise(yielded[1:-1]))
    assert changes < 12
    assert yielded[-1].model is task.model


@pytest.mark.parametrize("name", ["circle", "s_curve"])
@pytest.mark.parametrize("steps", [5, 12, 40])
def test_the_attempt_that_stands_has_taken_no_more_steps_than_asked_for(name, steps, make_task, short, watched):
    """Trials take 10 steps, and so does the one placement anew."""
    last(short(MAPA(), steps).fit(make_task(name, 40)))
    kinds = [[attempt.steps for attempt in watched if (attempt.anew is released) == free] for free in (False, True)]
    assert 0 < sum(max(kind, default=0) for kind in kinds) <= steps
    assert bool(kinds[1]) == (name == "s_curve" and steps > 10)


@pytest.mark.parametrize(
    ("method", "seed"), [(MAPA(steps=100), 1), (MAPA(steps=100), 2), (VAE(steps=2000), 1)], ids=["m1", "m2", "vae"]
)
def test_noise_is_learned(method, seed, make_task):
    task = make_task("circle", 300, noise="learned", seed=seed)
    assert task.model.variance() > 3 * NOISE
    last(method.fit(task))
    assert NOISE / 1.6 < task.model.variance() < 1.6 * NOISE


def test_noise_of_a_surface_is_learned(make_task):
    """Rounds that each begin more steeply than the last would follow the noise ever more closely."""
    task = make_task("s_curve", 200, noise="learned")
    last(MAPA(steps=300).fit(task))
    assert NOISE / 1.6 < task.model.variance() < 1.6 * NOISE


@pytest.mark.parametrize("name", ["circle", "pinwheel"])
def test_more_data_than_atoms_are_all_used(name, make_task, short):
    task = make_task(name, 200)
    fitted = last(dataclasses.replace(short(MAPA()), atoms=50).fit(task))
    assert len(fitted.posterior.index.grid.low) == 50
    log_index = fitted.log_index(task.validation)
    assert log_index.shape == (200, 200)
    assert (log_index.exp().sum(1) - 1).abs().max() < 1e-12
    nearest = torch.cdist(task.validation, task.train).argsort(1)[:, :20]
    assert log_index.exp().gather(1, nearest).sum(1).median() > 0.6
    with torch.no_grad():
        decoded = fitted.model.decode(codes_of(fitted, task.train))
    assert (decoded - task.train).square().mean() < 0.25 * task.train.var(0).mean()


def sensible(fitted, x):
    """Whether what a fit says of x is finite, and its probabilities are some."""
    z, log_q = fitted.posterior.sample(x, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = fitted.model.decode(z)
    finite = all(torch.isfinite(each).all() for each in (z, log_q, decoded))
    return finite and float((fitted.log_index(x).exp().sum(1) - 1).abs().max()) < 1e-12


def brief(short):
    """A method that does all that MAPA does, few times; two rounds of a learned noise."""
    return dataclasses.replace(short(MAPA(), 8), trial_steps=3, noise_rounds=2)


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["circle", "pinwheel", "s_curve"])
def test_few_data_can_be_fitted(name, n, noise, make_task, short):
    task = make_task(name, n, noise=noise)
    assert sensible(last(brief(short).fit(task)), task.train)
    assert task.model.variance() > 0


@pytest.mark.parametrize("noise", [NOISE, "learned"])
@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("kind", ["pairs", "tens", "equal", "zeros", "constant column", "two far groups", "outlier"])
def test_degenerate_data_can_be_fitted(kind, latent_dim, noise, make_task, short):
    x = draw(datasets.load("s_curve"), 0, 40, 1, 1).train
    if kind == "constant column":
        x[:, 0] = 1.5
    elif kind == "two far groups":
        x[20:] += 100
    elif kind == "outlier":
        x[0] = 1e6
    else:
        count = {"pairs": 2, "tens": 10, "equal": 1, "zeros": 1}[kind]
        x = (0 if kind == "zeros" else 1) * x[:count].repeat(40 // count, 1)
    task = make_task(x, noise=noise, latent_dim=latent_dim)
    assert sensible(last(brief(short).fit(task)), task.train)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_an_outlier_leaves_the_index_posterior_of_all_others_alone(latent_dim, make_task, short):
    """The decoder is another matter: it is shared by all methods, and its units grow with the outlier."""
    x = draw(datasets.load("s_curve"), 0, 60, 1, 1).train.float()
    far = torch.cat([x, torch.full((1, 3), 1e6)])
    without, fitted = (last(short(MAPA(), 30).fit(make_task(d, noise=NOISE, latent_dim=latent_dim))) for d in (x, far))
    found = fitted.log_index(x).exp()
    assert found[:, 60].max() < 1e-12
    # In the plane, weights are rounded to whole shares along an axis on which the outlier bears.
    total_variation = (found[:, :60] - without.log_index(x).exp()).abs().sum(1) / 2
    assert total_variation.mean() < {1: 1e-12, 2: 0.03}[latent_dim]
    assert float(fitted.log_index(far[60:]).exp()[0, 60]) == pytest.approx(1)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_an_outlier_leaves_the_fit_of_all_others_within_a_hundredth_of_its_units(latent_dim, make_task):
    """Codes drawn for x decode to x. Their mean need not: it may lie between two modes of q(z | x)."""
    x = draw(datasets.load("s_curve"), 0, 60, 1, 1).train.float()
    task = make_task(torch.cat([x, torch.full((1, 3), 1e3)]), noise=NOISE, latent_dim=latent_dim)
    task = dataclasses.replace(task, validation=x)
    fitted = last(MAPA(steps=250).fit(task))
    with torch.no_grad():
        z, _ = fitted.posterior.sample(x, 100, torch.Generator().manual_seed(0))
        away = (fitted.model.decode(z) - x).square().mean().sqrt()
    assert float(away) < 0.01 * float(task.model.units.scale)


def test_the_posterior_of_a_datum_finds_its_neighbours(make_task):
    """Codes drawn for x decode to the neighbourhood of x, which ties weights, codes and fit together."""
    task = make_task("circle", 200)
    fitted = last(MAPA(steps=300).fit(task))
    new = draw(datasets.load("circle"), 3, 1, 1, 50).test.float()
    with torch.no_grad():
        z, _ = fitted.posterior.sample(new, 100, torch.Generator().manual_seed(0))
        away = (fitted.model.decode(z) - new).square().sum(-1).mean()
    assert away < 8 * NOISE


class Charges(NullLedger):
    """A ledger that keeps every charge."""

    def __init__(self):
        self.made = {}

    def charge(self, name, flops):
        self.made.setdefault(name, []).append(flops)


def test_paths_of_a_curve_are_charged(make_task, short):
    """12 starts of a path through 45 centres, and at least one sweep of 2-opt for each."""
    ledger = Charges()
    last(short(MAPA()).fit(make_task("circle", ledger=ledger)))
    assert ledger.made["nearest neighbours"] == [12 * 45**2]
    assert len(ledger.made["2-opt"]) >= 12
    assert set(ledger.made["2-opt"]) == {2.5 * 45**2}


def test_optimal_transport_of_a_surface_is_charged(make_task, short):
    """Once for each of five layouts, and once for each time that codes are reassigned; never for a release.

    That is in the second half of four trials, and after one.
    """
    ledger = Charges()
    mapa = dataclasses.replace(short(MAPA()), replacements=2, replacement_steps=5)
    last(mapa.fit(make_task("s_curve", ledger=ledger)))
    assert ledger.made["transport"] == [60.0**3] * (5 + 4 + 1)
    assert ledger.made["distances"] == [3 * 60.0**2 * 2] * 5
