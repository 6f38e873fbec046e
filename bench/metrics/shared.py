"""What all runs of a dataset and seed are scored with, computed once: no method changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.store.files import replacing

REMEMBERED = 16


@dataclass(frozen=True)
class Shared:
    """A folder in which the runs of a study share what they are scored with; without one, this process remembers it.

    Args:
        folder: Its path; empty if there is none.
        adds: Whether this run may add to it. One whose method is not built in only reads.
    """

    folder: str = ""
    adds: bool = False

    def found(
        self, what: str, of: Sequence[Tensor], compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """What an earlier run found, or else what is computed here.

        Args:
            what: What it is, with all that it depends on besides `of`, such as the problem and the seed.
            of: The data that it depends on, on the CPU.
            compute: Computes it: tensors on the CPU, by name.
        """
        digest = hashlib.sha256(f"{what} {[tuple(each.shape) for each in of]}".encode())
        for each in of:
            digest.update(each.contiguous().numpy().tobytes())
        asked = _Asked(digest.hexdigest()[:32], compute)
        if not self.folder:
            return _computed(asked)
        path = Path(self.folder, f"{asked.key}.npz")
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return {name: torch.from_numpy(kept[name]) for name in kept.files}
        found = _computed(asked)
        if self.adds:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **{name: each.numpy() for name, each in found.items()})
        return found


UNSHARED = Shared()


@dataclass(frozen=True)
class _Asked:
    """What is computed; two are equal if their keys are."""

    key: str
    compute: Callable[[], Mapping[str, Tensor]] = field(compare=False)


@lru_cache(maxsize=REMEMBERED)
def _computed(asked: _Asked) -> Mapping[str, Tensor]:
    return asked.compute()
