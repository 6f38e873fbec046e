"""How far a mean rests on its extreme points: against another implementation, and its errors against simulation."""

import math

import pytest
import torch
from scipy.stats import mstats, trim_mean

from bench.metrics.measurement import mean, tails


def measured(each, error=None):
    found = tails("gap", each, torch.zeros_like(each) if error is None else error)
    return {m.metric: m for m in found}


def heavy(n, seed):
    """Values of Student's t with 3 degrees of freedom, moved to the right."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(4, n, generator=generator, dtype=torch.float64)
    return 0.5 + normal[0] / (normal[1:].square().sum(0) / 3).sqrt()


@pytest.mark.parametrize("n", [100, 199, 350, 2000])
def test_the_trimmed_mean_and_its_error_are_those_of_scipy(n):
    each = heavy(n, n)
    found, share = measured(each)["gap_trimmed"], n // 100 / n
    assert found.value == pytest.approx(trim_mean(each.numpy(), share), rel=1e-12)
    expected = mstats.trimmed_stde(each.numpy(), limits=(share, share), inclusive=(True, True))
    assert found.stderr == pytest.approx(float(expected), rel=1e-9)


def test_the_worst_points_contribute_their_sum_over_all():
    each = torch.arange(250, dtype=torch.float64).flip(0) / 10
    found = measured(each)
    assert found["gap_worst"].value == pytest.approx((24.9 + 24.8) / 250)
    assert found["gap_trimmed"].value == pytest.approx(float(each.mean()))
    assert found["gap_worst"].value + float(each.sort().values[:-2].sum()) / 250 == pytest.approx(float(each.mean()))


def test_a_few_points_that_make_the_mean_show():
    """Ten of 2,000 points of 140 nats: they make 88 % of the mean, and none of what is typical."""
    each = 0.1 + 0.05 * torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each[torch.arange(10) * 171] = 140.0
    found, whole = measured(each), mean("gap", each)
    assert whole.value == pytest.approx(0.8, abs=0.01)
    assert found["gap_trimmed"].value == pytest.approx(0.1, abs=0.005)
    assert found["gap_worst"].value / whole.value == pytest.approx(0.88, abs=0.01)
    assert found["gap_trimmed"].stderr < 0.01 * whole.stderr


@pytest.mark.parametrize("name", ["gap_trimmed", "gap_worst"])
def test_errors_are_the_spread_over_test_sets(name):
    found = [measured(heavy(2000, seed))[name] for seed in range(400)]
    spread = torch.tensor([m.value for m in found]).std()
    claimed = torch.tensor([m.stderr for m in found]).square().mean().sqrt()
    assert abs(float(spread / claimed) - 1) < 4 * 0.036  # the deviation of 400 values is known to 3.6 %


def test_numerical_errors_are_those_of_the_points_that_count():
    each, error = torch.arange(200, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)
    error[-2:] = 5.0
    plain, found = measured(each), measured(each, error)
    assert found["gap_trimmed"].stderr == plain["gap_trimmed"].stderr
    assert found["gap_worst"].stderr == pytest.approx(math.hypot(plain["gap_worst"].stderr, 10 / 200))


def test_below_a_hundred_points_there_are_no_tails():
    assert measured(heavy(99, 0)) == {}
    assert len(measured(heavy(100, 0))) == 2
