"""The families of p(x | z): what the outputs of a decoder say of the data."""

from methods.likelihoods.base import Likelihood
from methods.likelihoods.bernoulli import Bernoulli
from methods.likelihoods.gaussian import Gaussian, gaussian_log_prob
from methods.likelihoods.per_coordinate import PerCoordinateGaussian
from methods.likelihoods.poisson import Poisson

DISCRETE: dict[str, Likelihood] = {each.name: each for each in (Bernoulli(), Poisson())}
FAMILIES = (Gaussian.name, *DISCRETE)

__all__ = [
    "DISCRETE",
    "FAMILIES",
    "Bernoulli",
    "Gaussian",
    "Likelihood",
    "PerCoordinateGaussian",
    "Poisson",
    "gaussian_log_prob",
]
