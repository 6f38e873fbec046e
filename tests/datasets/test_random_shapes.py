"""Curves and surfaces drawn by a seed: each kind is what it says, the same everywhere, and has a certified truth."""

import math

import numpy as np
import pytest
import torch
from torch.special import ndtri

from datasets.base import draw, stream
from datasets.random_shapes import (
    CURVE_KINDS,
    SURFACE_KINDS,
    WAVES,
    _smooth,
    _staircase,
    crosses,
    random_curve,
    random_surface,
)

FAMILIES = {"random_curve": random_curve, "random_surface": random_surface}
MEMBERS = [(family, seed) for family in FAMILIES for seed in range(8)]
SEEDS = range(24)
# The decoded code 0.5, or (0.5, -1).
PINNED = {
    ("random_curve", 0): [1.014739447496, -0.026563451300],
    ("random_curve", 1): [0.263685966124, 0.525238831122],
    ("random_curve", 2): [-0.757160844367, 0.919647535662],
    ("random_curve", 3): [0.268263956139, -1.093232460046],
    ("random_curve", 1234): [-0.180601403211, -0.936294013683],
    ("random_surface", 0): [0.832621618645, -0.219404288162, -1.262511645482],
    ("random_surface", 1): [0.527019672070, 0.551890974986, -0.203396767142],
    ("random_surface", 2): [-0.590649731908, -0.534611140429, -0.962073731906],
    ("random_surface", 3): [-0.650575727491, -1.022014420999, 0.402888740901],
    ("random_surface", 1234): [-0.462738854850, -1.278375042841, -0.560671657060],
}


def kind(seed, kinds=CURVE_KINDS):
    return list(kinds)[seed % 4]


def at(problem, u):
    """The signal where the codes have quantiles u: (n, L) -> (n, D)."""
    return problem.decoder(ndtri(torch.as_tensor(u, dtype=torch.float64)))


def middles(n):
    return (np.arange(n) + 0.5) / n


def curve(seed, n):
    """n points of a curve at equal steps of its quantile, (n, 2)."""
    return at(random_curve(seed=seed), middles(n)[:, None]).numpy()


@pytest.mark.parametrize("member", PINNED)
def test_a_shape_is_the_same_on_every_machine(member):
    family, seed = member
    problem = FAMILIES[family](seed=seed)
    code = torch.tensor([0.5, -1.0], dtype=torch.float64)[: problem.latent_dim]
    assert problem.decoder(code).tolist() == pytest.approx(PINNED[member], abs=1e-9, rel=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_seed_gives_one_shape_and_another_seed_another(family):
    make = FAMILIES[family]
    u = torch.rand(50, make().latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for seed in SEEDS:
        assert torch.equal(at(make(seed=seed), u), at(make(seed=seed), u))
    shapes = torch.stack([at(make(seed=seed), u) for seed in SEEDS]).flatten(1)
    apart = torch.cdist(shapes, shapes) / math.sqrt(len(u))
    assert apart[~torch.eye(len(SEEDS), dtype=torch.bool)].min() > 0.3
    assert torch.equal(at(make(), u), at(make(seed=0), u))


@pytest.mark.parametrize("family", FAMILIES)
def test_members_have_names_and_streams_of_their_own(family):
    # The name seeds the data, so it is the same forever.
    assert [FAMILIES[family](seed=seed).name for seed in (0, 17)] == [f"{family}[seed=0]", f"{family}[seed=17]"]
    first, again, other = (draw(FAMILIES[family](seed=seed), 3, 20, 20, 20) for seed in (1, 1, 5))
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.codes, other.codes)


@pytest.mark.parametrize(("family", "seed"), MEMBERS)
def test_draws_have_the_stated_moments(family, seed):
    problem, n = FAMILIES[family](seed=seed), 40_000
    latent, data = problem.latent_dim, problem.data_dim
    x = problem.sample(n, stream(family, seed, "moments")).numpy()
    products = x[:, :, None] * x[:, None]
    expected = (latent / data + 0.01) * np.eye(data)
    assert (abs(x.mean(0)) < 4.5 * x.std(0) / n**0.5).all()
    assert (abs(products.mean(0) - expected) < 4.5 * products.std(0) / n**0.5).all()


@pytest.mark.parametrize(("family", "seed"), MEMBERS)
def test_the_truth_is_certified(family, seed):
    """The error is below the tolerance, and bounds the distance from a mean over quantiles of equal mass."""
    problem = FAMILIES[family](seed=seed)
    latent, data, variance = problem.latent_dim, problem.data_dim, problem.noise_variance
    x = draw(problem, 7, 1, 1, 1000).test
    found = problem.log_prob(x)
    assert found.error.mean() < 1e-3
    axis = torch.tensor(middles({1: 40_000, 2: 1_000}[latent]))
    u = torch.cartesian_prod(*[axis] * latent).reshape(-1, latent)
    parts = [torch.cdist(x[:20], at(problem, part)).square() / (-2 * variance) for part in u.split(20_000)]
    mean = torch.logsumexp(torch.stack([torch.logsumexp(part, 1) for part in parts]), 0) - math.log(len(u))
    gap = (found.value[:20] - mean + data / 2 * math.log(2 * math.pi * variance)).abs()
    assert (gap <= found.error[:20] + 1e-4).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_close_where_they_should(seed):
    problem = random_curve(seed=seed)
    ends = problem.decoder(torch.tensor([[-9.0], [9.0]], dtype=torch.float64))
    slopes = [at(problem, [[u + 1e-4]]) - at(problem, [[u]]) for u in (1e-9, 1 - 1e-4 - 1e-9)]
    if kind(seed) in ("closed", "crossing"):
        assert (ends[0] - ends[1]).norm() < 1e-9
        assert (slopes[0] - slopes[1]).norm() < 0.02 * slopes[0].norm()
    else:
        assert (ends[0] - ends[1]).norm() > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_surfaces_close_along_the_axes_where_they_should(seed):
    problem = random_surface(seed=seed)
    others = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for axis, periods in enumerate(SURFACE_KINDS[kind(seed, SURFACE_KINDS)]):
        low, high = (
            problem.decoder(torch.stack([torch.full_like(others, end), others][:: 1 - 2 * axis], 1))
            for end in (-9.0, 9.0)
        )
        gap = (low - high).norm(dim=1)
        assert gap.max() < 1e-9 if periods == 1.0 else gap.max() > 0.5


def meets(points, closed):
    """Whether sides of a polygon (n, 2) that are not neighbours meet: each pair of lines is solved for its crossing."""
    ends = np.vstack([points, points[:1]]) if closed else points
    start, side = ends[:-1], np.diff(ends, axis=0)
    n = len(start)
    between = start[None] - start[:, None]
    area = side[:, None, 0] * side[None, :, 1] - side[:, None, 1] * side[None, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (between[..., 0] * side[None, :, 1] - between[..., 1] * side[None, :, 0]) / area
        second = (between[..., 0] * side[:, None, 1] - between[..., 1] * side[:, None, 0]) / area
    apart = abs(np.subtract.outer(np.arange(n), np.arange(n)))
    both = (first >= 0) & (first <= 1) & (second >= 0) & (second <= 1)
    return bool((both & (apart > 1) & ((apart < n - 1) | (not closed))).any())


@pytest.mark.parametrize("seed", SEEDS)
def test_crossing_curves_cross_and_no_others(seed):
    """On a polygon of other corners, and by other means."""
    assert meets(curve(seed, 701), kind(seed) in ("closed", "crossing")) == (kind(seed) == "crossing")


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if kind(seed) == "crossing"])
def test_distant_codes_of_a_crossing_curve_have_the_same_mean(seed):
    points, n = torch.tensor(curve(seed, 2000)), 2000
    steps = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    distant = torch.minimum(steps, n - steps) > n / 25
    assert torch.cdist(points, points)[distant].min() < 0.01


CROSSINGS = {
    "circle": (lambda a: (torch.cos(a), torch.sin(a)), False),
    "ellipse turned": (lambda a: (torch.cos(a) + torch.sin(a), 0.1 * torch.cos(a) - 0.2 * torch.sin(a)), False),
    "figure eight": (lambda a: (torch.sin(a + 0.3), torch.sin(2 * a + 0.6)), True),
    "half a figure eight": (lambda a: (torch.sin(a / 2.1 + 0.1), torch.sin(a / 1.05 + 0.2)), False),
    "loop within a loop": (lambda a: (torch.cos(a) + torch.cos(2 * a), torch.sin(a) + torch.sin(2 * a)), True),
    "dent": (lambda a: (torch.cos(a) + 0.3 * torch.cos(2 * a), torch.sin(a) + 0.3 * torch.sin(2 * a)), False),
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_known_curves_cross_or_not(name):
    shape, expected = CROSSINGS[name]
    assert crosses(lambda u: torch.stack(shape(2 * math.pi * u[..., 0]), -1)) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_clustered_curves_have_most_mass_on_a_small_share_of_their_length(seed):
    points = curve(seed, 20_001)
    length = np.sort(np.hypot(*np.diff(points, axis=0).T))
    densest = length[:15_000].sum() / length.sum()  # three quarters of the mass, where the curve is slowest
    assert densest < 0.2 if kind(seed) == "clustered" else densest > 0.5


def test_that_the_ends_of_a_closed_curve_meet_is_no_crossing():
    """Wherever rounding puts them."""
    starts = torch.arange(100, dtype=torch.float64) / 7
    assert not any(
        crosses(lambda u, a=a: torch.cat([torch.cos(2 * math.pi * u + a), torch.sin(2 * math.pi * u + a)], -1))
        for a in starts
    )


def residual(points, columns):
    """What the span of some functions, (n, M), leaves of points (n, D)."""
    return abs(points - columns @ np.linalg.lstsq(columns, points, rcond=None)[0]).max()


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if kind(seed) != "clustered"])
def test_curves_are_fourier_series_of_four_harmonics(seed):
    angle = 2 * np.pi * CURVE_KINDS[kind(seed)] * middles(500)[:, None]

    def columns(harmonics):
        return np.concatenate([np.ones((500, 1)), np.cos(angle * harmonics), np.sin(angle * harmonics)], 1)

    assert residual(curve(seed, 500), columns(np.arange(1, 5))) < 1e-9
    assert residual(curve(seed, 500), columns(np.arange(1, 4))) > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_surfaces_are_their_kind_bent_by_a_fourier_series(seed):
    u = np.stack(np.meshgrid(middles(30), middles(30)), -1).reshape(-1, 2)
    shape = kind(seed, SURFACE_KINDS)
    angle = 2 * np.pi * (u * SURFACE_KINDS[shape]) @ np.transpose(WAVES)
    waves = np.concatenate([np.ones((900, 1)), np.cos(angle), np.sin(angle)], 1)
    points = at(random_surface(seed=seed), u).numpy()
    turns = 1 + 0.75 * float(torch.rand(1, generator=stream("random_surface", seed, "shape"), dtype=torch.float64))

    def left(waves, turns):
        return residual(points, np.concatenate([waves, _smooth(shape, turns, torch.tensor(u)).numpy()], 1))

    assert left(waves, turns) < 1e-9
    assert left(waves[:, :-1], turns) > 1e-3
    assert shape != "roll" or left(waves, turns + 0.05) > 1e-5


def test_kinds_of_surfaces_are_what_they_are_called():
    u = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y, z = _smooth("cylinder", 1.0, u).T
    torch.testing.assert_close(x**2 + y**2, torch.ones_like(x))
    torch.testing.assert_close(z, 2 * u[:, 1] - 1)
    x, y, z = _smooth("torus", 1.0, u).T
    torch.testing.assert_close((torch.hypot(x, y) - 1) ** 2 + z**2, torch.full_like(x, 0.45**2))
    x, y, z = _smooth("roll", 1.5, u).T
    torch.testing.assert_close(torch.hypot(x, y), 0.4 + u[:, 0])
    turned = torch.exp(3j * math.pi * u[:, 0])
    torch.testing.assert_close(torch.complex(x, y) / torch.hypot(x, y), turned)
    assert (_smooth("sheet", 1.0, u)[:, 2] == 0).all()


def test_staircases_rise_from_0_to_1_by_four_steps():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        height = _staircase(generator)(torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None])[:, 0]
        rise = height.diff()
        assert rise.min() > 0
        assert abs(float(height[0])) + abs(float(height[-1]) - 1) < 2e-3
        steepest = (rise[1:-1] > rise[:-2]) & (rise[1:-1] > rise[2:]) & (rise[1:-1] > 1 / 2000)
        assert int(steepest.sum()) == 4
        assert float((rise < 1 / 2000).double().mean()) > 0.7


@pytest.mark.parametrize("seed", [-1, 10_000, 2**70, 1.0, 0.5, "one", True, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_seeds_are_refused(family, seed):
    with pytest.raises(ValueError, match=rf"^{family} takes a whole number seed from 0 to 9999, got {seed}$"):
        FAMILIES[family](seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_seed_is_taken(family):
    assert FAMILIES[family](seed=9999).name == f"{family}[seed=9999]"
