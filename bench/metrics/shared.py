"""What all methods are scored with at a dataset and seed, found once for all runs of a study."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.store.files import replacing


@dataclass(frozen=True)
class Shared:
    """A folder in which the runs of a study share what they are scored with.

    Args:
        folder: Its path; empty if nothing is shared.
        adds: Whether this run may add to it. One whose method is not built in only reads.
    """

    folder: str = ""
    adds: bool = False

    def found(self, what: str, of: bytes, find: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that another run has found, or that are found now.

        Args:
            what: What is found, in one word.
            of: All that it depends on.
            find: Finds it: tensors by name, on the CPU.
        """
        if not self.folder:
            return find()
        path = Path(self.folder, f"{what}-{hashlib.sha256(of).hexdigest()[:32]}.npz")
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return {name: torch.from_numpy(kept[name]) for name in kept.files}
        found = find()
        if self.adds:
            arrays: dict[str, Any] = {name: each.numpy() for name, each in found.items()}
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)
        return found


UNSHARED = Shared()
