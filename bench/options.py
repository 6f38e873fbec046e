"""Checks of numbers and choices that the command line and the Python function share."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.engine import Execution
    from bench.registry import Registry
    from bench.study import Settings

CHOICES = {"noise": ("known", "learned"), "device": ("cpu", "cuda")}
WHOLE = ("seeds", "size", "test_size", "latent_dim", "trials")
LEAST = {"first_seed": 0}
POSITIVE = ("max_flops", "max_seconds", "budget")
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(?P<number>[0-9]*\.?[0-9]+(?:e[0-9]+)?) *(?P<unit>[kmgt]b|)", re.IGNORECASE)
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
    for name in ("cell_timeout", "cell_memory"):
        value = getattr(how, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag(name)} must be a positive number, got {value}")
    if how.scheduler is not None and not ADDRESS.fullmatch(how.scheduler):
        raise UsageError(f"--scheduler must be tcp://HOST:PORT, got {how.scheduler!r}")


def in_bytes(text: str) -> int:
    """A number of bytes as people write it: 2GB, 512MB, 1.5e9; raises UsageError for anything else."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--cell-memory must be a number of bytes such as 512MB or 2GB, got {text!r}")
    return int(float(found["number"]) * UNITS[found["unit"].upper()])


def in_words(size: int) -> str:
    """A number of bytes in the largest unit of which it has one."""
    unit = next(unit for unit, least in reversed(UNITS.items()) if size >= least or not unit)
    return f"{size / UNITS[unit]:.4g} {unit or 'bytes'}"


def flag(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
