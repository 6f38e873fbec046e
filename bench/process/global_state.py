"""The global state of the process that a method or dataset can change: read, restored and compared."""

from __future__ import annotations

import builtins
import contextlib
import gc
import math
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from operator import is_
from typing import Any, cast

SHOWN = 5
CUDNN_FLAGS = ("enabled", "benchmark", "deterministic", "allow_tf32")


@dataclass(frozen=True, eq=False)
class Setting:
    """A part of the global state.

    Args:
        change: What messages say if it was changed.
        get: Reads its value.
        put: Sets its value.
        which: The names of what differs between two values, to be added to `change`.
    """

    change: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    which: Callable[[Any, Any], str] = lambda before, after: ""  # noqa: ARG005

    def named(self, before: Any, after: Any) -> str:
        """The change from one value to another, in words."""
        return " ".join(filter(None, (self.change, self.which(before, after))))


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
            if value != setting.get():  # in the order of `changes`: the earlier value compares
                setting.put(value)

    def changes(self, since: GlobalState) -> tuple[str, ...]:
        """What has changed since an earlier state, in words."""
        before = dict(since.values)
        pairs = ((each, before[each], value) for each, value in self.values if each in before)
        return tuple(each.named(earlier, value) for each, earlier, value in pairs if earlier != value)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, for code that draws from them in spite of the contract."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is meant
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():  # where not, torch.manual_seed would note the whole call stack for later
        torch.cuda.manual_seed_all(seed)


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


def _set_directory(directory: str | None) -> None:
    with contextlib.suppress(OSError):  # it was deleted
        os.chdir(directory or "/")


LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple(map(resource.getrlimit, LIMITS))


def _set_limits(limits: tuple[tuple[int, int], ...]) -> None:
    for limit, values in zip(LIMITS, limits, strict=True):
        with contextlib.suppress(OSError, ValueError):  # a hard limit that was lowered stays so
            resource.setrlimit(limit, values)


class Namespaces:
    """The functions of modules and classes that all code in a process shares.

    Two are equal unless a name stands for something else in the later one, or is gone.

    Args:
        owners: The modules and classes.
    """

    def __init__(self, owners: tuple[Any, ...]):
        self.found = tuple((owner, vars(owner).copy()) for owner in owners)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Namespaces) and not self.replaced(other))

    __hash__ = None  # type: ignore[assignment]

    def hold(self) -> bool:
        """Whether every name still stands for what it did, and there is no other."""
        return all(
            len(before) == len(now := vars(owner)) and all(map(is_, before.values(), now.values()))
            for owner, before in self.found
        )

    def replaced(self, later: Namespaces) -> list[tuple[Any, str]]:
        """The owners and names of functions that stand for something else later."""
        return [
            (owner, name)
            for (owner, before), (_, after) in zip(self.found, later.found, strict=False)
            for name, value in before.items()
            if after.get(name) is not value and callable(value) and not isinstance(value, type)
        ]

    def restore(self) -> None:
        """Let each name stand for what it did."""
        for owner, name in self.replaced(Namespaces(tuple(owner for owner, _ in self.found))):
            setattr(owner, name, dict(self.found)[owner][name])


def _replaced(owners: Callable[[], tuple[Any, ...]]) -> Setting:
    def which(before: Namespaces, after: Namespaces) -> str:
        names = [f"{owner.__name__}.{name}" for owner, name in before.replaced(after)]
        return ", ".join(names[:SHOWN]) + (" and more" if len(names) > SHOWN else "")

    last: list[Namespaces] = []

    def get() -> Namespaces:
        if not (last and last[0].hold()):  # a copy is made only where something changed, as it takes long
            last[:] = [Namespaces(owners())]
        return last[0]

    return Setting("replaced", get, Namespaces.restore, which)


FILTERS = Setting("changed the warning filters", lambda: tuple(warnings.filters), _set_filters)
ENVIRONMENT = Setting("changed environment variables", lambda: dict(os.environ), _set_environment)
OF_PYTHON = (
    Setting("drew from Python's global generator", random.getstate, random.setstate),
    FILTERS,
    ENVIRONMENT,
    Setting("changed the working directory", _directory, _set_directory),
    Setting("changed resource limits", _limits, _set_limits),
    Setting("changed Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("switched Python's garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    _replaced(lambda: (builtins, math, os, random, time)),
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
        _replaced(lambda: (np, np.linalg, np.random)),
    )


@cache
def _of_torch() -> tuple[Setting, ...]:
    import torch
    from torch.utils import _device, _python_dispatch

    def anomaly() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def set_anomaly(value: tuple[bool, bool]) -> None:
        torch.autograd.set_detect_anomaly(*value)

    def set_gradients(on: bool) -> None:
        torch.set_grad_enabled(on)

    def device() -> torch.device | None:
        return _device.CURRENT_DEVICE  # None if it was never set: calls are then faster than with "cpu"

    def owners() -> tuple[Any, ...]:
        nn = torch.nn
        return (
            torch,
            torch.Tensor,
            torch.linalg,
            torch.autograd,
            torch.distributions,
            nn,
            nn.functional,
            nn.Module,
            nn.Linear,
        )

    return (
        _replaced(owners),
        _of_modes("function", torch.overrides),
        _of_modes("dispatch", _python_dispatch),
        Setting("left global hooks on torch's modules", _hooks, _set_hooks),
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


def _of_modes(kind: str, module: Any) -> Setting:
    """The modes that see every call of torch, outermost first, but for the one of the default device."""
    from torch.utils._device import DeviceContext

    def stack() -> list[Any]:
        return cast(list[Any], getattr(module, f"_get_current_{kind}_mode_stack")())

    def get() -> tuple[Any, ...]:
        return tuple(mode for mode in stack() if not isinstance(mode, DeviceContext))

    def put(modes: tuple[Any, ...]) -> None:
        devices = [mode for mode in stack() if isinstance(mode, DeviceContext)]
        while stack():
            module._pop_mode()
        for mode in (*devices, *modes):
            module._push_mode(mode)

    return Setting(f"left a {kind} mode of torch open", get, put)


def _hooks() -> tuple[dict[Any, Any], ...]:
    """The hooks on all modules, of each kind."""
    from torch.nn.modules import module

    return tuple(dict(vars(module)[name]) for name in _kinds_of_hooks())


def _set_hooks(hooks: tuple[dict[Any, Any], ...]) -> None:
    from torch.nn.modules import module

    for name, kept in zip(_kinds_of_hooks(), hooks, strict=True):
        found = vars(module)[name]
        found.clear()
        found.update(kept)


@cache
def _kinds_of_hooks() -> tuple[str, ...]:
    from torch.nn.modules import module

    return tuple(
        name for name, value in vars(module).items() if name.startswith("_global_") and isinstance(value, dict)
    )


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
