"""The peak memory of fitting, without the memory of evaluation."""

from __future__ import annotations

import contextlib
import ctypes
import math
from pathlib import Path
from typing import Protocol

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


class PeakMemory:
    """Peak memory over the intervals between `begin` and `end`, in bytes above the level at the first `begin`.

    On a CPU it is the resident memory of the process (Linux only); on a GPU, what torch has allocated. Memory allocated
    between `end` and the next `begin` does not count, even if it stays allocated. Both calls return freed heap to the
    system, so that memory counts when it is used again. They take milliseconds: call them at checkpoints, not at steps.

    Args:
        device: The device whose memory is measured.

    Attributes:
        peak: Bytes; 0 before the first `end`, and NaN where the system does not report memory.
    """

    def __init__(self, device: str = "cpu"):
        self._gauge = _gauge(device)
        self.peak = math.nan if self._gauge is None else 0.0
        self._base = 0.0
        self._left = 0.0

    def begin(self) -> None:
        """Start an interval of fitting."""
        if self._gauge is not None:
            _trim()
            self._base += self._gauge.level() - self._left
            self._gauge.reset()

    def end(self) -> None:
        """End an interval of fitting."""
        if self._gauge is not None:
            self.peak = max(self.peak, self._gauge.peak() - self._base)
            _trim()
            self._left = self._gauge.level()


class _Gauge(Protocol):
    def level(self) -> float:
        """Bytes held now."""
        ...

    def peak(self) -> float:
        """The largest number of bytes held since `reset`."""
        ...

    def reset(self) -> None: ...


class _Resident:
    """The resident memory of this process, as Linux counts it (proc(5): VmRSS, VmHWM, clear_refs)."""

    def level(self) -> float:
        return self._read("VmRSS")

    def peak(self) -> float:
        return self._read("VmHWM")

    def reset(self) -> None:
        CLEAR_REFS.write_text(RESET_PEAK)

    def _read(self, field: str) -> float:
        lines = (line.split() for line in STATUS.read_text().splitlines())
        return next(1024.0 * int(words[1]) for words in lines if words[0] == f"{field}:")


class _Cuda:
    """The GPU memory that torch has allocated for tensors."""

    def __init__(self, device: str):
        self.device = device

    def level(self) -> float:
        import torch

        return float(torch.cuda.memory_allocated(self.device))

    def peak(self) -> float:
        import torch

        return float(torch.cuda.max_memory_allocated(self.device))

    def reset(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)


def _gauge(device: str) -> _Gauge | None:
    """The gauge of a device's memory; None where the system does not report it."""
    if device.startswith("cuda"):
        return _Cuda(device)
    resident = _Resident()
    try:
        resident.reset()
        resident.level(), resident.peak()
    except (OSError, StopIteration):
        return None
    return resident if device == "cpu" else None


def _trim() -> None:
    """Return free heap to the system, if the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
