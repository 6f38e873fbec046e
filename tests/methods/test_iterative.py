"""Aggressive training, step by step, against the algorithm of He et al. (2019)."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.special import ndtri

from methods import iterative
from methods.common.amortised import Trainer
from methods.common.posteriors import DiagonalGaussian
from methods.contract.decoder import Standardiser
from methods.contract.method import NullLedger
from methods.iterative import Iterative, mutual_information

METHOD = Iterative(steps=250, batch_size=20, learning_rate=5e-3, window=3, most_inner=14)
DATA = 60


def state(trainer):
    """What each part of the networks is and remembers: its weights, their mean, and all that its optimiser holds."""
    return {
        part: {name: each.clone() if isinstance(each, Tensor) else copy.copy(each) for name, each in vars(held).items()}
        for part, *_, held in trainer.stepper.parts
    }


def changes(before, after, row=0):
    """The names of what changed in each part of a replica, among what is kept for each replica.

    How many iterates a mean is of, `averaged`, is looked at by itself: it changes where a mean begins or grows.
    """
    return {
        part: {
            name
            for name, value in after[part].items()
            if isinstance(value, Tensor | list)
            and name != "averaged"
            and not np.array_equal(value[row], before[part][name][row])
        }
        for part in after
    }


ALL = {"weights", "evaluated", "second", "iterate", "steps"}
ALONE = ALL | {"first"}  # Adam's first moment, which schedule-free Adam has not
CHANGES = {
    "encoder step": {"encoder": ALONE, "decoder": set()},
    "decoder step": {"encoder": set(), "decoder": ALONE},
    "joint step": {"encoder": ALL, "decoder": ALL},
    "mutual information": {"encoder": set(), "decoder": set()},
}


class Recorder(NullLedger):
    """A ledger that notes each step and each estimate: its name, what it returned, and what it changed."""

    def __init__(self):
        self.notes, self.trainer = [], None

    def charge(self, name, flops):
        raise AssertionError(f"nothing is done outside torch, yet {name} is charged")

    def run(self, name, work, *args):
        if name not in CHANGES:
            return work(*args)
        before = state(self.trainer)
        result = work(*args)
        value = result[0] if isinstance(result, tuple) else result  # the mean bound of a step of one seed
        self.notes.append((name, float(value), changes(before, state(self.trainer))))
        return result


def recorded(task, ledger):
    """Run METHOD; returns what it did and how often it yielded."""
    ledger.trainer = Trainer(METHOD, [task])
    yields = sum(1 for _ in ledger.trainer.run())
    return ledger.notes, yields


@pytest.fixture(scope="module", params=range(2))
def record(request, make_task):
    """What a run of 250 steps did: (name, value, changes) of each piece of work; and how often it yielded."""
    ledger = Recorder()
    return recorded(make_task("circle", DATA, seed=request.param, ledger=ledger), ledger)


def inner_length(bounds):
    """How many encoder steps the algorithm takes, given the bound of each that was taken."""
    before = -math.inf
    for end in range(METHOD.window, len(bounds) + 1, METHOD.window):
        now = np.float32(bounds[end - METHOD.window : end]).mean()
        if now < before:
            return end
        before = now
    return METHOD.most_inner


def test_every_step_is_charged_and_yielded_once(record):
    notes, yields = record
    steps = [name for name, *_ in notes if name.endswith("step")]
    assert len(steps) == yields == METHOD.steps
    assert set(steps) == {"encoder step", "decoder step", "joint step"}


def test_a_step_changes_the_networks_that_it_is_named_for_and_what_their_optimiser_holds(record):
    *notes, (last, _, _) = record[0]
    assert last == "joint step"
    for name, _, changed in notes:
        assert changed == CHANGES[name]


def test_inner_loops_end_where_the_window_mean_falls_or_at_the_limit(record):
    notes, _ = record
    lengths = []
    bounds = []
    for name, value, _ in notes:
        if name == "encoder step":
            bounds.append(value)
        elif name == "decoder step":
            assert len(bounds) == inner_length(bounds)
            lengths.append(len(bounds))
            bounds = []
    assert max(lengths) <= METHOD.most_inner
    assert min(lengths) >= 2 * METHOD.window
    assert len(set(lengths)) > 1


def test_training_is_joint_for_good_after_the_first_fall_of_mutual_information(record):
    notes, _ = record
    names = [name for name, *_ in notes]
    information = [value for name, value, _ in notes if name == "mutual information"]
    falls = [now < before for before, now in itertools.pairwise(information)]
    assert falls[-1]
    assert not any(falls[:-1])
    first_joint = names.index("joint step")
    assert names[first_joint - 1] == "mutual information"
    assert set(names[first_joint:]) == {"joint step"}


def test_mutual_information_is_estimated_after_each_pass_of_decoder_steps(record):
    names = [name for name, *_ in record[0]]
    passes = " ".join(names).split("mutual information")[:-1]
    assert [part.count("decoder step") for part in passes] == [DATA // METHOD.batch_size] * len(passes)


def test_held_networks_are_free_again_afterwards(make_task):
    task = make_task("circle", DATA)
    fit = Iterative(steps=40, window=2, most_inner=4).fit(task)
    for fitted in fit:
        assert all(p.requires_grad for p in fitted.posterior.parameters())
        assert all(p.requires_grad for p in fitted.model.network.parameters())
        assert not fitted.model.log_noise.requires_grad


def test_replicas_in_different_phases_change_each_what_its_phase_trains(make_task):
    """He et al. have an optimiser for each network, which joint training goes on with."""
    trainer = Trainer(METHOD, [make_task("circle", DATA, seed=seed) for seed in range(3)])
    phases = [("joint",) * 3, ("encoder", "decoder", "joint"), ("encoder",) * 3, ("decoder", "encoder", "decoder")]
    for step, kinds in enumerate(phases):
        before = state(trainer)
        trainer.stepper.step(step, kinds, next(trainer.batches))
        for row, kind in enumerate(kinds):
            assert changes(before, state(trainer), row) == CHANGES[f"{kind} step"]
    taken = {part: optimiser.steps for part, *_, optimiser in trainer.stepper.parts}
    assert taken == {"encoder": [3, 3, 3], "decoder": [2, 2, 3]}
    averaged = {part: optimiser.averaged for part, *_, optimiser in trainer.stepper.parts}
    assert averaged == {"encoder": [1, 1, 1], "decoder": [1, 1, 1]}


def test_means_begin_with_joint_training(make_task):
    """Of encoder and decoder alike, whatever steps each took before."""
    trainer = Trainer(METHOD, [make_task("circle", DATA)])
    joint = sum(trainer.kinds == ["joint"] for _ in trainer.run())
    for *_, optimiser in trainer.stepper.parts:
        assert optimiser.averaged == [1 + joint]  # the last iterate before is the first of the mean
        assert 1 < joint < optimiser.steps[0]


def test_mutual_information_is_that_of_all_validation_data(make_task, monkeypatch):
    seen = []

    def noted(posterior, x, generator):
        seen.append(x)
        return mutual_information(posterior, x, generator)

    monkeypatch.setattr(iterative, "mutual_information", noted)
    task = make_task("circle", DATA)
    assert not torch.equal(task.train, task.validation)
    for _ in METHOD.fit(task):
        pass
    assert len(seen) > 1
    assert all(x is task.validation for x in seen)


def test_joint_training_stays_though_mutual_information_would_rise_again(make_task, monkeypatch):
    """It is estimated no more once it has fallen, here at the third time."""
    values = iter([1.0, 2.0, 1.5])
    monkeypatch.setattr(iterative, "mutual_information", lambda *_: next(values))
    ledger = Recorder()
    names = [name for name, *_ in recorded(make_task("circle", DATA, ledger=ledger), ledger)[0]]
    assert names.count("mutual information") == 3
    last = len(names) - names[::-1].index("mutual information")
    assert set(names[last:]) == {"joint step"}
    assert "joint step" not in names[:last]


@pytest.mark.parametrize(
    ("patience", "values", "passes"),
    [
        (1, [1.0, 2.0, 2.0, 1.9, 9.0], 4),
        (2, [1.0, 3.0, 2.0, 2.5, 9.0], 4),
        (2, [1.0, 3.0, 2.0, 4.0, 3.0, 3.5, 9.0], 6),
        (3, [3.0, 2.0, 2.5, 2.9, 9.0], 4),
    ],
)
def test_with_patience_training_is_joint_once_so_many_passes_are_below_the_best(
    make_task, monkeypatch, patience, values, passes
):
    """With a patience of 1 at the first fall, as He et al. do; a pass that is as good as the best counts anew."""
    given = iter(values)
    monkeypatch.setattr(iterative, "mutual_information", lambda *_: next(given))
    ledger = Recorder()
    method = Iterative(steps=400, batch_size=20, window=2, most_inner=4, patience=patience)
    ledger.trainer = Trainer(method, [make_task("circle", DATA, ledger=ledger)])
    for _ in ledger.trainer.run():
        pass
    names = [name for name, *_ in ledger.notes]
    assert names.count("mutual information") == passes
    assert names[names.index("joint step") - 1] == "mutual information"


def test_a_patience_below_one_is_refused():
    with pytest.raises(ValueError, match="patience must be positive"):
        Iterative(patience=0)


def gaussian_encoder(slope, variance, latent=1):
    """q(z | x) = N(slope x, variance I) for x in one dimension."""
    layer = nn.Linear(1, 2 * latent)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[slope]] * latent + [[0.0]] * latent))
        layer.bias.copy_(torch.tensor([0.0] * latent + [math.log(variance) / 2] * latent))
    return DiagonalGaussian(nn.Sequential(layer), Standardiser(torch.tensor([[-1.0], [1.0]])))


def estimate(posterior, x, repeats=60):
    with torch.no_grad():
        values = [mutual_information(posterior, x, torch.Generator().manual_seed(seed)) for seed in range(repeats)]
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(repeats)


@pytest.mark.parametrize(("slope", "variance"), [(1.0, 1.0), (1.0, 0.1), (-2.0, 0.5)])
def test_mutual_information_of_a_gaussian_channel(slope, variance):
    """x ~ N(0, 1), z | x ~ N(a x, v): I = log(1 + a^2 / v) / 2."""
    x = ndtri((torch.arange(500) + 0.5) / 500)[:, None]
    mean, stderr = estimate(gaussian_encoder(slope, variance), x)
    assert stderr < 0.01
    assert abs(mean - 0.5 * math.log(1 + slope**2 / variance)) < 4 * stderr + 2e-3


def test_mutual_information_of_a_two_dimensional_channel_counts_its_one_source():
    """Both codes see the same x, which is as good as one code of half the variance."""
    x = ndtri((torch.arange(500) + 0.5) / 500)[:, None]
    mean, stderr = estimate(gaussian_encoder(1.0, 0.4, latent=2), x)
    assert abs(mean - 0.5 * math.log(1 + 2 / 0.4)) < 4 * stderr + 2e-3


def test_mutual_information_is_nil_where_the_code_ignores_the_data():
    value, _ = estimate(gaussian_encoder(0.0, 0.3), torch.randn(100, 1), repeats=3)
    assert abs(value) < 1e-5


def test_mutual_information_is_at_most_the_log_of_the_sample_size():
    value, _ = estimate(gaussian_encoder(1.0, 1e-10), torch.linspace(-2, 2, 50)[:, None], repeats=3)
    assert value == pytest.approx(math.log(50), abs=1e-4)
