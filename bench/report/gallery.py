"""Every figure of a study, each drawn once: with its caption, and in words for who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bench.common import units
from bench.report.figures import decomposition, densities, index_posteriors, ranking, signal_posteriors, style
from bench.report.figures.inline import inlined
from bench.report.figures.palette import styles
from bench.stats.cost_to_target import profile
from bench.stats.estimates import aggregate, ranks
from bench.stats.summary import ORACLE, final, finished, fitted, oracle_levels
from bench.store.study_tables import Study

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Picture:
    """A figure: its file's stem, its dataset if it is of one, its caption, and what it shows in words."""

    stem: str
    dataset: str
    caption: str
    words: str
    figure: Any

    @cached_property
    def inline(self) -> Markup:
        """As a part of the page."""
        return inlined(self._svg, self.stem, self.words)

    @cached_property
    def _svg(self) -> bytes:
        with style.look():
            return style.image(self.figure, "svg")

    def image(self, kind: str) -> bytes:
        """As 'svg', 'png' or 'pdf'; what is not asked for is not drawn, which takes most of a report's time."""
        if kind == "svg":
            return self._svg
        with style.look():
            return style.image(self.figure, kind)


def pictures(study: Study, table: pd.DataFrame) -> dict[str, list[Picture]]:
    """The figures of a study by kind, in the order of its datasets; table is its summary."""
    kinds = {
        "overview": _overview,
        "standing": _standing,
        "curves": _curves,
        "parts": _parts,
        "densities": _densities,
        "overlays": _overlays,
        "signals": _signals,
    }
    with style.look():
        return {kind: list(draw(study, table)) for kind, draw in kinds.items()}


def stems(datasets: list[str]) -> dict[str, str]:
    """A file name for each dataset: safe in a path and in a link, and distinct."""
    found: dict[str, str] = {}
    for dataset in datasets:
        base = re.sub(r"[^A-Za-z0-9]+", "-", dataset).strip("-").lower()[:60] or "dataset"
        taken = set(found.values())
        candidates = chain([base], (f"{base}-{i}" for i in count(2)))
        found[dataset] = next(stem for stem in candidates if stem not in taken)
    return found


def _ended(table: pd.DataFrame, dataset: str, metric: str) -> str:
    """Where each fitted method ended on a dataset, in words."""
    column = f"{metric}_median"
    rows = table[(table["dataset"] == dataset) & table["method"].isin(fitted(list(table["method"])))]
    ends = zip(rows["method"], rows.reindex(columns=[column])[column], strict=True)
    return units.listed([f"{method} {units.number(value)}" for method, value in ends])


def _overview(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    rows = finished(study.measurements, study.runs)
    fig = style.overview(rows[rows["metric"] == "oracle_gap"], styles(study.methods))
    if fig is not None:
        ends = (f"{dataset}: {_ended(table, dataset, 'oracle_gap')}" for dataset in study.datasets)
        caption = "Oracle gap against FLOPs, per dataset: lower and further left is better"
        yield Picture("overview", "", caption, f"{caption}. Final medians in nats. {'. '.join(ends)}.", fig)


def _standing(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    tables = (study.measurements, study.runs)
    places, means = ranks(*tables), aggregate(*tables)
    if len(places) > 1 and means["iqm"].notna().any():
        fig = ranking.standing(profile(*tables), means, places, styles(study.methods))
        caption = "Over all datasets: performance profiles, interquartile mean oracle gaps, and mean ranks"
        told = [f"{method} {rank:.2f}" for method, rank in zip(places["method"], places["rank"], strict=True)]
        missing = len(table[table["seeds_done"] < table["seeds_total"]])
        words = f"{caption}. Mean ranks: {units.listed(told)}. Not all runs finished of {missing} rows of the table."
        yield Picture("standing", "", caption, words, fig)


def _curves(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    rows = finished(study.measurements, study.runs)
    rows = rows[rows["metric"] == "test_ll"]
    levels, known = oracle_levels(study.measurements, study.runs), styles(study.methods)
    for dataset, stem in stems(study.datasets).items():
        chosen = rows[rows["dataset"] == dataset]
        if len(chosen):
            fig = style.against_cost(chosen, known, levels.get(dataset), dataset)
            caption = f"{dataset}: test log-likelihood against cost"
            words = f"{caption}. Final medians in nats: {_ended(table, dataset, 'test_ll')}."
            yield Picture(f"{stem}-cost", dataset, caption, words, fig)


def _parts(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    ends = final(study.measurements, study.runs)
    parts = decomposition.parted(ends, study.datasets, study.methods)
    if len(parts):
        without = sorted(set(fitted(study.methods)) - set(parts.index.get_level_values("method")))
        caption = "What each method loses against the true model, in nats, part by part"
        caption += f"; nothing is known of {units.listed(without)}" if without else ""
        labels = {"oracle_gap": "oracle gap", "inference_gap": "inference gap"}
        told = [
            f"{dataset}, {label}: {_ended(table, dataset, metric)}"
            for dataset in study.datasets
            for metric, label in labels.items()
        ]
        fig = decomposition.decomposition(parts, styles(study.methods))
        yield Picture("decomposition", "", caption, f"{caption}. Medians. {'. '.join(told)}.", fig)


def _at_one_seed(table: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Each dataset of a table with the seed to show and its rows."""
    for dataset, every in table.groupby("dataset", sort=False):
        seed = densities.seed_shown(every)
        yield str(dataset), seed, every[every["seed"] == seed]


def _densities(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    named = stems(study.datasets)
    for name, seed, rows in _at_one_seed(study.densities):
        fig = densities.beside_truth(rows, study.methods, name)
        present = set(rows["method"].unique())
        absent = [m for m in study.methods if m not in present and m != ORACLE]
        caption = f"{name}: learned densities beside the true one, seed {seed}"
        caption += f"; none for {units.listed(absent)}" if absent else ""
        words = f"{caption}. Oracle gaps, medians in nats: {_ended(table, name, 'oracle_gap')}."
        yield Picture(f"{named.get(name, 'other')}-density", name, caption, words, fig)


def _overlays(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    named, known = stems(study.datasets), styles(study.methods)
    for name, seed, rows in _at_one_seed(study.posteriors):
        if names := index_posteriors.overlaid(rows, study.methods):
            fig = index_posteriors.over_truth(rows, names, known, name)
            absent = [m for m in fitted(study.methods) if m not in names]
            caption = f"{name}: the index posterior of {units.listed(names)} over the true one, seed {seed}"
            caption += f"; none is recorded for {units.listed(absent)}" if absent else ""
            words = f"{caption}. Index KL, medians in nats: {_ended(table, name, 'index_kl')}."
            yield Picture(f"{named.get(name, 'other')}-posterior", name, caption, words, fig)


def _signals(study: Study, table: pd.DataFrame) -> Iterator[Picture]:
    named, known = stems(study.datasets), styles(study.methods)
    for name, seed, rows in _at_one_seed(study.signals):
        if names := signal_posteriors.overlaid(rows, study.methods):
            fig = signal_posteriors.over_truth(rows, names, known, name)
            present = set(rows["method"].unique())
            absent = [m for m in fitted(study.methods) if m not in present]
            unseen = [m for m in fitted(study.methods) if m in present and m not in names]
            caption = f"{name}: the signal posterior of {units.listed(names)} over the true one, seed {seed}"
            caption += f"; left out: {units.listed(unseen)}" if unseen else ""
            caption += f"; none is recorded for {units.listed(absent)}" if absent else ""
            words = f"{caption}. Signal W2 over many x, medians in data units: {_ended(table, name, 'signal_w2')}."
            yield Picture(f"{named.get(name, 'other')}-signals", name, caption, words, fig)
