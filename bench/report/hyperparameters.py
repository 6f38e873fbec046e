"""Which tuned hyperparameters a study ran with, method by method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

UNTUNED = "at its defaults, though it can be tuned"


def settings_used(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each method of study.json with its tuned hyperparameters and their datasets, after the file that they are from.

    Empty if the study took no tuned hyperparameters.
    """
    tuned = info.get("tuned")
    if not tuned:
        return []
    given = (info.get("settings") or {}).get("parameters") or {}
    origin = (tuned["file"], f"sha256 {tuned['sha256']}; {tuned['budget']}")
    return [origin, *((label, _told(label, each, given)) for label, each in tuned["methods"].items())]


def _told(label: str, by_dataset: Mapping[str, Mapping[str, Any] | None], given: Mapping[str, Any]) -> str:
    """The settings of one method; the datasets are named where they differ."""
    stated = "[" in label or label in given
    groups: dict[str, list[str]] = {}
    for dataset, parameters in by_dataset.items():
        groups.setdefault(_spelled(parameters, stated), []).append(dataset)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{text} ({', '.join(datasets)})" for text, datasets in groups.items())


def _spelled(parameters: Mapping[str, Any] | None, stated: bool) -> str:
    if parameters:
        return ", ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in parameters.items())
    if stated:
        return "as stated, nothing tuned"
    return "at its defaults" if parameters is not None else UNTUNED
