"""Checks of numbers and choices that the command line and the Python function share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.study import Settings

NOISE = ("known", "learned")
DEVICES = ("cpu", "cuda")
WHOLE = ("seeds", "size", "latent_dim")
POSITIVE = ("max_flops", "max_seconds")


def check_numbers(settings: Settings, jobs: int) -> None:
    """Raise UsageError for numbers that are not positive, choices that there are not, and nothing to compare."""
    for name in WHOLE:
        value = getattr(settings, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"--{name.replace('_', '-')} must be a whole number of at least 1, got {value}")
    for name in POSITIVE:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"--{name.replace('_', '-')} must be a positive number, got {value}")
    if jobs < 1:
        raise UsageError(f"--jobs must be a whole number of at least 1, got {jobs}")
    for name, value, available in (("noise", settings.noise, NOISE), ("device", settings.device, DEVICES)):
        if value not in available:
            raise UsageError(f"--{name} must be one of {', '.join(available)}, got {value!r}")
    for name in ("methods", "datasets"):
        if not getattr(settings, name):
            raise UsageError(f"--{name} names nothing; see `python -m bench list {name}`")
    if settings.device == "cuda":
        _require_cuda()


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
