"""Every registered problem against its definition, and against the table of its mean log-density."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm

import datasets
from datasets.base import draw

ROOT = Path(__file__).parents[2]

# E log p(x) in nats and its standard error, computed once from 20,000 draws (6,000 for surfaces) by other code.
BY_OTHER_CODE = {
    "figure8": (-0.8826, 0.0048),
    "circle": (-0.9442, 0.0049),
    "absolute": (-0.2370, 0.0071),
    "clusters": (-2.2723, 0.0057),
    "spiral_dots": (-2.8591, 0.0112),
    "swiss_roll": (-3.217, 0.010),
    "s_curve": (-2.146, 0.010),
    "torus": (-2.210, 0.010),
}

ANY_DIMENSION = ("linear_gaussian", "manifold", "digits", "mnist5k")
TRUTHS = [name for name in datasets.BUILTIN if name not in ("digits", "mnist5k")]

SHAPES = {
    "figure8": lambda x, y: (x**2 + y**2 / 4) ** 2 - (x**2 - y**2 / 4) / 2,
    "circle": lambda x, y: x**2 + y**2 - 1,
    "absolute": lambda x, y: (x - y) + (x - abs(x)),
    "clusters": lambda x, y: x**2 + y**2 - 1,
    "spiral_dots": lambda x, y: np.hypot(x, y) * np.exp(1j * np.hypot(x, y)) - (x + 1j * y),
    "swiss_roll": lambda x, _, z: np.hypot(x, z) * np.exp(6j * np.hypot(x, z)) - (x + 1j * z),
    "s_curve": lambda x, _, z: x**2 + (abs(z) - 1) ** 2 - 1,
    "torus": lambda x, y, z: (np.hypot(x, y) - 1.2) ** 2 + z**2 - 0.25,
}


@pytest.mark.parametrize("name", [*datasets.CURVES, *datasets.SURFACES, *datasets.DISCRETE])
def test_mean_log_density_is_the_tabulated_one(name):
    problem = datasets.load(name)
    n = 4_000 if problem.latent_dim == 1 else 1_000 if problem.family == "gaussian" else 200
    found = problem.log_prob(draw(problem, 41, 1, 1, n).test)
    value, error = float(found.value.mean()), float(found.error.mean())
    expected, stderr = datasets.BUILTIN[name].expected_log_prob
    assert abs(value - expected) < 4 * math.hypot(stderr, float(found.value.std()) / math.sqrt(n))
    assert stderr <= (0.005 if problem.family == "gaussian" else 0.03)
    assert error <= 1e-3


@pytest.mark.parametrize("name", BY_OTHER_CODE)
def test_the_table_agrees_with_other_code(name):
    expected, stderr = datasets.BUILTIN[name].expected_log_prob
    other, other_stderr = BY_OTHER_CODE[name]
    assert abs(expected - other) < 4 * math.hypot(stderr, other_stderr)


def test_pinwheel_agrees_with_an_integral_over_its_arms():
    """Given the radius r, x is Gaussian in closed form, which leaves a mean over arms and an integral over r."""
    problem = datasets.load("pinwheel")
    x = draw(problem, 42, 1, 1, 100).test.numpy()
    r = np.linspace(1 - 8 * 0.35, 1 + 8 * 0.35, 6_001)
    log_weight = -(((r - 1) / 0.35) ** 2) / 2 - math.log(0.35 * math.sqrt(2 * math.pi)) + math.log(r[1] - r[0])
    terms = []
    for arm in range(5):
        angle = 2 * math.pi * arm / 5 + np.exp(r) / 4
        along = x[:, :1] * np.cos(angle) + x[:, 1:] * np.sin(angle) - r
        across = -x[:, :1] * np.sin(angle) + x[:, 1:] * np.cos(angle)
        wide = 0.01 + problem.noise_variance
        quadratic = along**2 / problem.noise_variance + across**2 / wide
        log_density = -quadratic / 2 - math.log(2 * math.pi * math.sqrt(wide * problem.noise_variance))
        terms.append(np.logaddexp.reduce(log_density + log_weight, axis=1))
    expected = np.logaddexp.reduce(terms, axis=0) - math.log(5)
    found = problem.log_prob(torch.tensor(x))
    gap = abs(found.value.numpy() - expected)
    assert gap.mean() <= found.error.mean() <= 1e-3
    assert (gap <= found.error.numpy() + 1e-8).all()


@pytest.mark.parametrize("name", SHAPES)
def test_noiseless_data_lie_on_the_shape(name):
    problem = datasets.load(name)
    z = torch.randn(500, problem.latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(SHAPES[name](*problem.decoder(z).numpy().T)).max() < 1e-10


def step(z, length, jump, rise, start):
    """A staircase of fast jumps: t as a function of z."""
    u = length * expit(np.pi * z / 2)
    return jump * np.tanh(10 * u - 20 * (u // 2) - 10) + rise * (u // 2) + start


# The parameter of a curve, or the two of a surface, as they are read off noiseless data and as they follow from z.
PARAMETERS = {
    "figure8": (
        lambda x, y: x * (1 + (y / (2 * x)) ** 2),
        lambda z: np.cos(np.pi * (0.6 + 1.8 * norm.cdf(z))) / 2**0.5,
    ),
    "circle": (lambda x, y: np.arctan2(y, x) % (2 * np.pi), lambda z: 2 * np.pi * norm.cdf(z)),
    "absolute": (lambda x, _: x, np.abs),
    "clusters": (
        lambda x, y: np.arctan2(y, x) % (2 * np.pi),
        lambda z: step(z, 2 * np.pi, 2, 4, 2) % (2 * np.pi),
    ),
    "spiral_dots": (np.hypot, lambda z: step(z, 4 * np.pi, 1, 2, 1)),
    "swiss_roll": (lambda x, h, z: (6 * np.hypot(x, z), h), lambda a, b: (np.pi * (1.5 + 3 * a), 4 * b - 2)),
    "s_curve": (
        lambda x, h, z: (np.where(abs(z) > 1, np.sign(z) * -np.pi - np.arcsin(x), np.arcsin(x)), h),
        lambda a, b: (3 * np.pi * (a - 0.5), 2 * b - 1),
    ),
    "torus": (
        lambda x, y, z: (np.arctan2(y, x) % (2 * np.pi), np.arctan2(z, np.hypot(x, y) - 1.2) % (2 * np.pi)),
        lambda a, b: (2 * np.pi * a, 2 * np.pi * b),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_noiseless_data_lie_where_their_code_says(name):
    problem = datasets.load(name)
    z = torch.randn(500, problem.latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    read, stated = PARAMETERS[name]
    codes = z[:, 0].numpy() if problem.latent_dim == 1 else norm.cdf(z.numpy())
    found, expected = read(*problem.decoder(z).numpy().T), stated(*np.atleast_2d(codes.T))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in datasets.BUILTIN if name not in ANY_DIMENSION])
def test_entry_has_the_dimensions_of_its_problem(name):
    entry, problem = datasets.BUILTIN[name], datasets.load(name)
    assert problem.name == (f"{name}[seed=0]" if name in datasets.HELD_OUT else name)
    assert (problem.latent_dim, problem.data_dim) == (entry.latent_dim, entry.data_dim)
    z = torch.zeros(4, 3, problem.latent_dim, dtype=torch.float64)
    assert problem.decoder(z).shape == (4, 3, problem.data_dim)
    assert problem.decoder(z).dtype == torch.float64
    assert datasets.load(name, entry.latent_dim).latent_dim == entry.latent_dim


@pytest.mark.parametrize("name", [name for name in datasets.BUILTIN if name not in ANY_DIMENSION])
def test_another_latent_dimension_is_refused_with_both_named(name):
    own = datasets.BUILTIN[name].latent_dim
    with pytest.raises(ValueError, match=rf"'{name}'.*\b{own}\b.*\b5\b"):
        datasets.load(name, 5)


def test_groups_those_held_out_and_those_of_any_dimension_are_all_there_is():
    groups = {*datasets.CURVES, *datasets.SURFACES, *datasets.DISCRETE}
    assert {*groups, *datasets.HELD_OUT, *ANY_DIMENSION} == set(datasets.BUILTIN)
    assert {datasets.load(name).latent_dim for name in datasets.CURVES} == {1}
    assert {datasets.load(name).latent_dim for name in datasets.SURFACES} == {2}


def test_unknown_names_are_key_errors():
    with pytest.raises(KeyError, match="nonesuch"):
        datasets.load("nonesuch")


@pytest.mark.parametrize("code", [40.0, -40.0, 8.5])
@pytest.mark.parametrize("name", TRUTHS)
def test_decoders_are_finite_far_out_in_latent_space(name, code):
    problem = datasets.load(name)
    assert torch.isfinite(problem.decoder(torch.full((1, problem.latent_dim), code, dtype=torch.float64))).all()


HEAVY = "sum(m.split('.')[0] in ('torch', 'sklearn', 'scipy') for m in sys.modules)"


def test_registries_are_importable_without_torch():
    """Listing must be instant; and the check sees torch where it is, as in this process."""
    command = [sys.executable, "-c", f"import datasets, methods, sys; print({HEAVY})"]
    assert int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) == 0
    assert eval(HEAVY) > 0
