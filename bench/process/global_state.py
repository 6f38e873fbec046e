"""The global state of the process that a method or dataset can change: read, restored and compared."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

CUDNN_FLAGS = ("enabled", "benchmark", "deterministic", "allow_tf32")


@dataclass(frozen=True)
class Setting:
    """A part of the global state.

    Args:
        change: What messages say if it was changed.
        get: Reads its value.
        put: Sets its value.
    """

    change: str
    get: Callable[[], Any]
    put: Callable[[Any], None]


@dataclass(frozen=True)
class GlobalState:
    """The random generators and settings that all code in a process shares, at one moment.

    Args:
        values: Each setting with its value.
    """

    values: tuple[tuple[Setting, Any], ...]

    @staticmethod
    def capture() -> GlobalState:
        """The state now: that of Python and, if they are imported, of numpy and torch."""
        return GlobalState(tuple((setting, setting.get()) for setting in _settings()))

    def restore(self) -> None:
        """Set every changed value back."""
        for setting, value in self.values:
            if setting.get() != value:
                setting.put(value)

    def changes(self, since: GlobalState) -> tuple[str, ...]:
        """What has changed since an earlier state, in words."""
        before = dict(since.values)
        return tuple(each.change for each, value in self.values if each in before and before[each] != value)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, for code that draws from them in spite of the contract."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is meant
    torch.manual_seed(seed)


def _settings() -> tuple[Setting, ...]:
    """All settings, in the order in which they are set: torch's default device before its generators."""
    numpy = _of_numpy() if "numpy" in sys.modules else ()
    return (*OF_PYTHON, *numpy, *(_of_torch() if "torch" in sys.modules else ()))


def _directory() -> str | None:
    try:
        return str(os.getcwd())  # noqa: PTH109 - as os.chdir takes it
    except FileNotFoundError:
        return None


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _set_filters(filters: tuple[Any, ...]) -> None:
    warnings.resetwarnings()
    cast(list[Any], warnings.filters)[:] = filters


FILTERS = Setting("changed the warning filters", lambda: tuple(warnings.filters), _set_filters)
ENVIRONMENT = Setting("changed environment variables", lambda: dict(os.environ), _set_environment)
OF_PYTHON = (
    Setting("drew from Python's global generator", random.getstate, random.setstate),
    FILTERS,
    ENVIRONMENT,
    Setting("changed the working directory", _directory, os.chdir),
)


@cache
def _of_numpy() -> tuple[Setting, ...]:
    import numpy as np

    def state() -> tuple[Any, ...]:
        found: Any = np.random.get_state()  # noqa: NPY002 - the global generator is meant
        kind, key, *rest = found
        return kind, key.tobytes(), *rest

    def set_state(state: tuple[Any, ...]) -> None:
        kind, key, *rest = state
        np.random.set_state((kind, np.frombuffer(key, np.uint32), *rest))  # noqa: NPY002

    def set_errors(how: dict[str, Any]) -> None:
        np.seterr(**how)

    return (
        Setting("drew from numpy's global generator", state, set_state),
        Setting("changed numpy's error handling", np.geterr, set_errors),
    )


@cache
def _of_torch() -> tuple[Setting, ...]:
    import torch
    from torch.utils import _device

    def anomaly() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def set_anomaly(value: tuple[bool, bool]) -> None:
        torch.autograd.set_detect_anomaly(*value)

    def set_gradients(on: bool) -> None:
        torch.set_grad_enabled(on)

    def device() -> torch.device | None:
        return _device.CURRENT_DEVICE  # None if it was never set: calls are then faster than with "cpu"

    return (
        Setting("changed torch's default device", device, torch.set_default_device),
        Setting("changed torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("changed torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        Setting("left torch's gradient mode changed", torch.is_grad_enabled, set_gradients),
        Setting(
            "changed torch's deterministic mode", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
        ),
        Setting("changed torch's matrix precision", _precision, torch.set_float32_matmul_precision),
        Setting("changed torch's anomaly mode", anomaly, set_anomaly),
        *(_of_autocast(device) for device in ("cpu", "cuda")),
        *(_of_cudnn(flag) for flag in CUDNN_FLAGS),
        Setting("drew from torch's global generator", _generators, _set_generators),
    )


def _precision() -> str | None:
    """None where torch cannot tell, because its older and newer interfaces were mixed."""
    import torch

    with contextlib.suppress(RuntimeError):
        return torch.get_float32_matmul_precision()
    return None


def _of_autocast(device: str) -> Setting:
    import torch

    def put(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    def get() -> tuple[bool, torch.dtype]:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    return Setting(f"left torch's autocast changed on the {device}", get, put)


def _of_cudnn(flag: str) -> Setting:
    from torch.backends import cudnn

    return Setting(f"changed cudnn.{flag}", partial(getattr, cudnn, flag), partial(setattr, cudnn, flag))


def _generators() -> tuple[bytes, ...]:
    """The states of the generators of the CPU and of each GPU in use."""
    import torch

    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return tuple(state.numpy().tobytes() for state in (torch.get_rng_state(), *gpus))


def _set_generators(states: tuple[bytes, ...]) -> None:
    import torch

    own, *gpus = (torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states)
    torch.set_rng_state(own)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
