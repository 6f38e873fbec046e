"""What is measured of a fitted model. Likelihoods are in nats per point, with standard errors over the test points."""

from bench.metrics.evaluator import DRAWS, LAST_DRAWS, BaseEvaluator, Evaluator
from bench.metrics.likelihood import TrueModel, density_grid
from bench.metrics.measurement import Measurement, NotFiniteError

__all__ = [
    "DRAWS",
    "LAST_DRAWS",
    "BaseEvaluator",
    "Evaluator",
    "Measurement",
    "NotFiniteError",
    "TrueModel",
    "density_grid",
]
