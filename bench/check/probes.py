"""What is noted while a method works: calls out of torch, rows through networks, random draws."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bench.fit.cost_model import PER_DRAW

LEAVING = ("numpy", "tolist", "__dlpack__")


def _package(name: object) -> str:
    return str(name).partition(".")[0]


class Calls:
    """Calls into some packages while it is entered, other than by torch or within them, as a profiler sees them.

    into: how often each function was called. left: how many numbers have left torch, as arrays or lists.
    """

    def __init__(self, *packages: str) -> None:
        self.packages = packages
        self.into: Counter[str] = Counter()
        self.left = 0

    def __enter__(self) -> Calls:
        self._before = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _note(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            caller = frame.f_back and frame.f_back.f_globals.get("__name__")
            self._call(frame.f_globals.get("__name__"), frame.f_code.co_name, caller)
        elif event == "c_call":
            self._leave(called)
            self._call(getattr(called, "__module__", ""), called.__name__, frame.f_globals.get("__name__"))

    def _call(self, module: object, function: str, caller: object) -> None:
        if _package(module) in self.packages and _package(caller) not in (*self.packages, "torch"):
            self.into[f"{module}.{function}"] += 1

    def _leave(self, called: Any) -> None:
        values = getattr(called, "__self__", None)
        if called.__name__ in LEAVING and isinstance(values, Tensor) and values.numel() > 1:
            self.left += values.numel()


class Passes:
    """Rows that pass forward through networks while it is entered, as hooks see them, whoever else counts."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[nn.Module, ...]] = Counter()
        self._open: list[nn.Module] = []

    def __enter__(self) -> Passes:
        self._hooks = (
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end, always_call=True),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._open.append(module)
        rows = args[0].shape[:-1].numel() if args and isinstance(args[0], Tensor) else 0
        self.rows[tuple(self._open)] += rows

    def _end(self, *_: object) -> None:
        self._open.pop()

    def through(self, modules: Collection[nn.Module]) -> Counter[nn.Module]:
        """Rows through each of the modules that was not called by another one of them."""
        found: Counter[nn.Module] = Counter()
        for (*outer, module), rows in self.rows.items():
            if module in modules and not any(each in modules for each in outer):
                found[module] += rows
        return found


class Draws(TorchDispatchMode):
    """Random numbers that torch draws while it is entered, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        if name in PER_DRAW:
            self.operators[name] += 1
        return func(*args, **(kwargs or {}))
