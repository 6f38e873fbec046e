"""Checks of numbers and choices that the command line and the Python function share."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bench.common.errors import UsageError

if TYPE_CHECKING:
    from bench.execution.scheduler import Execution
    from bench.registry.registry import Registry
    from bench.study.execute import Settings

CHOICES = {"noise": ("known", "learned"), "device": ("cpu", "cuda")}
WHOLE = ("seeds", "size", "test_size", "latent_dim", "trials")
LEAST = {"first_seed": 0}
POSITIVE = ("max_flops", "max_seconds", "budget")
ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:[0-9]+")


def check_numbers(settings: Settings, jobs: int) -> None:
    """Raise UsageError for numbers that are not positive, choices that there are not, and nothing to compare."""
    whole = [(name, getattr(settings, name), LEAST.get(name, 1)) for name in (*WHOLE, *LEAST)]
    for name, value, least in [*whole, ("jobs", jobs, 1)]:
        if value is not None and (not isinstance(value, int) or value < least):
            raise UsageError(f"{flag(name)} must be a whole number of at least {least}, got {value}")
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


def dataset_groups(known: Registry) -> dict[str, tuple[str, ...]]:
    """The datasets that a word stands for."""
    from datasets import CURVES, SURFACES

    return {"curves": CURVES, "surfaces": SURFACES, "all": tuple(known.datasets)}


def check_execution(how: Execution) -> None:
    """Raise UsageError for limits that are not positive, and an address that is none."""
    for name in ("run_timeout", "run_memory"):
        value = getattr(how, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag(name)} must be a positive number, got {value}")
    if how.scheduler is not None and not ADDRESS.fullmatch(how.scheduler):
        raise UsageError(f"--scheduler must be tcp://HOST:PORT, got {how.scheduler!r}")


def flag(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
