"""The families of p(x | z): what the outputs of a decoder say of the data."""

from likelihoods.base import Likelihood
from likelihoods.gaussian import Gaussian, gaussian_log_prob

__all__ = ["Gaussian", "Likelihood", "gaussian_log_prob"]
