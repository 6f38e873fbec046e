"""The tuned hyperparameters that each method of a study used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

UNTUNED = "at its defaults, although it can be tuned"


def settings_used(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The file of tuned hyperparameters, then each method with those that it used.

    Args:
        info: The content of study.json.

    Returns:
        Names and texts; empty if the study used no tuned hyperparameters.
    """
    tuned = info.get("tuned")
    if not tuned:
        return []
    given = (info.get("settings") or {}).get("set") or {}
    origin = (tuned["file"], f"sha256 {tuned['sha256']}; {tuned['budget']}")
    return [origin, *((label, _used(label, each, given)) for label, each in tuned["methods"].items())]


def _used(label: str, by_dataset: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The hyperparameters of one method; datasets are named where they differ."""
    stated = "[" in label or label in given
    groups: dict[str, list[str]] = {}
    for dataset, choices in by_dataset.items():
        groups.setdefault(_of_tunings(choices, stated), []).append(dataset)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{text} ({', '.join(datasets)})" for text, datasets in groups.items())


def _of_tunings(choices: Any, stated: bool) -> str:
    """The choices of all tunings. Older studies state one choice by itself; None is a method that was not tuned."""
    each = choices if isinstance(choices, list) else [choices]
    return " or ".join(dict.fromkeys(_spelled(choice, stated) for choice in each))


def _spelled(parameters: Mapping[str, Any] | None, stated: bool) -> str:
    if parameters:
        return ", ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in parameters.items())
    if stated:
        return "as given, nothing tuned"
    return "at its defaults" if parameters is not None else UNTUNED
