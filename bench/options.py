"""Checks of numbers and choices that the command line and the Python function share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.study import Settings

CHOICES = {"noise": ("known", "learned"), "device": ("cpu", "cuda")}
WHOLE = ("seeds", "size", "test_size", "latent_dim", "trials")
POSITIVE = ("max_flops", "max_seconds", "budget")


def check_numbers(settings: Settings, jobs: int) -> None:
    """Raise UsageError for numbers that are not positive, choices that there are not, and nothing to compare."""
    for name, value in [*((name, getattr(settings, name)) for name in WHOLE), ("jobs", jobs)]:
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"{flag(name)} must be a whole number of at least 1, got {value}")
    for name in POSITIVE:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag(name)} must be a positive number, got {value}")
    for name, available in CHOICES.items():
        if getattr(settings, name) not in available:
            raise UsageError(f"{flag(name)} must be one of {', '.join(available)}, got {getattr(settings, name)!r}")
    for name in ("methods", "datasets"):
        if not getattr(settings, name):
            raise UsageError(f"{flag(name)} names nothing; see `python -m bench list {name}`")
    if settings.device == "cuda":
        _require_cuda()


def flag(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
