"""Probes that record what a method does: calls of other packages, rows through networks, and random draws."""

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
    """A context that records calls of some packages by a profiler. Calls by torch or by these packages do not count.

    Args:
        *packages: Names of packages.

    Attributes:
        into: How often each function was called.
        left: How many numbers were converted from tensors to arrays or lists.
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
            self._called(frame.f_globals.get("__name__"), frame.f_code.co_name, caller)
        elif event == "c_call":
            self._left(called)
            self._called(getattr(called, "__module__", ""), called.__name__, frame.f_globals.get("__name__"))

    def _called(self, module: object, function: str, caller: object) -> None:
        if _package(module) in self.packages and _package(caller) not in (*self.packages, "torch"):
            self.into[f"{module}.{function}"] += 1

    def _left(self, called: Any) -> None:
        values = getattr(called, "__self__", None)
        if called.__name__ in LEAVING and isinstance(values, Tensor) and values.numel() > 1:
            self.left += values.numel()


class Passes:
    """A context that counts the rows that pass forward through each network, by hooks of its own."""

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
        """Rows through modules.

        Args:
            modules: The modules of interest.

        Returns:
            Rows by module, without calls of a module by another one of them.
        """
        found: Counter[nn.Module] = Counter()
        for (*outer, module), rows in self.rows.items():
            if module in modules and not any(each in modules for each in outer):
                found[module] += rows
        return found


class Draws(TorchDispatchMode):
    """A context that counts the operators of torch that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default would import torch._dynamo, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        if name in PER_DRAW:
            self.operators[name] += 1
        return func(*args, **(kwargs or {}))
