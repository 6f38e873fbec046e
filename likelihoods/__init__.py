"""The families of p(x | z): what the outputs of a decoder say of the data."""

from likelihoods.base import Likelihood
from likelihoods.bernoulli import Bernoulli
from likelihoods.gaussian import Gaussian, gaussian_log_prob
from likelihoods.poisson import Poisson

DISCRETE: dict[str, Likelihood] = {each.name: each for each in (Bernoulli(), Poisson())}
FAMILIES = (Gaussian.name, *DISCRETE)

__all__ = ["DISCRETE", "FAMILIES", "Bernoulli", "Gaussian", "Likelihood", "Poisson", "gaussian_log_prob"]
