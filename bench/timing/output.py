"""Writes timings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.common.errors import UsageError
from bench.store import files
from bench.timing.ratios import comparisons, self_ratios

if TYPE_CHECKING:
    from bench.timing.run import Result

SCHEMA = 1


def write(result: Result, folder: Path, command: str) -> None:
    """Write timings.csv, timings.parquet and timing.json.

    Raises:
        UsageError: If the folder cannot be written to.
    """
    import pandas as pd

    table = pd.DataFrame([asdict(timing) for timing in result.timings])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "timing.json", _described(result, command))
        for name, save in (("timings.csv", table.to_csv), ("timings.parquet", table.to_parquet)):
            with files.replacing(folder / name) as temporary:
                save(temporary, index=False)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None


def _described(result: Result, command: str) -> dict[str, Any]:
    """The content of timing.json."""
    times, seed = result.times, result.settings.seed
    return {
        "schema": SCHEMA,
        "command": command,
        "settings": msgspec.to_builtins(result.settings),
        "ratios": [{**asdict(c), "verdict": c.verdict} for c in comparisons(times, seed)],
        "self_ratios": {name: asdict(ratio) for name, ratio in self_ratios(times, seed).items()},
        "provenance": result.provenance,
    }
