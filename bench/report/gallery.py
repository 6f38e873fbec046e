"""Every figure of a study, drawn once, with its caption and with its content in words for screen readers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, count
from typing import TYPE_CHECKING

from markupsafe import Markup

from bench.common import units
from bench.common.beside import Beside
from bench.report.figures import decomposition, densities, images, index_posteriors, ranking, signal_posteriors, style
from bench.report.figures.inline import inlined
from bench.report.figures.palette import Style, styles
from bench.stats.cost_to_target import profile
from bench.stats.curves import mean_curves
from bench.stats.estimates import aggregate, ranks
from bench.stats.summary import final, finished, learners, oracle_levels
from bench.store.schema import LEARNS
from bench.store.study_tables import Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Drawings = Iterator[tuple[str, str, str, str, "Figure"]]  # the parts of a picture, and the figure to draw
Draw = Callable[[Study, "pd.DataFrame"], Drawings]

_KINDS = 3  # the most kinds of datasets with a panel each


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        stem: The name of its file, without an ending.
        dataset: The dataset that it is of; empty if it is of several.
        caption: Its caption.
        words: What it shows, in words.
        images: The figure as 'svg', 'png' or 'pdf'.
    """

    stem: str
    dataset: str
    caption: str
    words: str
    images: Mapping[str, bytes]

    @cached_property
    def inline(self) -> Markup:
        """The figure as an element of the page."""
        return inlined(self.images["svg"], self.stem, self.words)


def gallery(study: Study, table: pd.DataFrame, formats: Collection[str] = ("svg",)) -> dict[str, list[Picture]]:
    """The figures of a study by kind, in the order of its datasets. Half of them are drawn by a second process.

    Args:
        study: The study.
        table: Its summary, as `bench.stats.summary.summary` returns it.
        formats: As what they are drawn, 'svg' among them. This takes most of the time.
    """
    of_numbers = {"overview": _overview, "ranking": _ranking, "curves": _curves, "losses": _losses, "images": _images}
    of_posteriors = {
        "densities": _densities,
        "index_posteriors": _index_posteriors,
        "signal_posteriors": _signal_posteriors,
    }
    beside = Beside(partial(_pictures, of_posteriors, study, table, formats))
    return _pictures(of_numbers, study, table, formats) | beside.result()


def _pictures(
    kinds: Mapping[str, Draw], study: Study, table: pd.DataFrame, formats: Collection[str]
) -> dict[str, list[Picture]]:
    def drawn(stem: str, dataset: str, caption: str, words: str, figure: Figure) -> Picture:
        return Picture(stem, dataset, caption, words, {each: style.image(figure, each) for each in formats})

    with style.figure_style():
        return {kind: [drawn(*each) for each in draw(study, table)] for kind, draw in kinds.items()}


def stems(datasets: list[str]) -> dict[str, str]:
    """A distinct file name for each dataset that is safe in paths and links."""
    found: dict[str, str] = {}
    for dataset in datasets:
        base = re.sub(r"[^A-Za-z0-9]+", "-", dataset).strip("-").lower()[:60] or "dataset"
        taken = set(found.values())
        candidates = chain([base], (f"{base}-{i}" for i in count(2)))
        found[dataset] = next(stem for stem in candidates if stem not in taken)
    return found


def _ended(table: pd.DataFrame, dataset: str, metric: str) -> str:
    """The final median of each fitted method on a dataset, in words."""
    column = f"{metric}_median"
    rows = table[(table["dataset"] == dataset) & (table["role"].isin(LEARNS))]
    ends = zip(rows["method"], rows.reindex(columns=[column])[column], strict=True)
    return units.listed([f"{method} {units.number(value)}" for method, value in ends])


def _styles(study: Study) -> dict[str, Style]:
    return styles(study.roles, study.colour_groups)


def _overview(study: Study, table: pd.DataFrame) -> Drawings:
    rows = finished(study.measurements, study.runs)
    rows = rows[rows["metric"] == "oracle_gap"]
    yield from _progress(study, rows)
    fig = style.overview(rows, _styles(study))
    if fig is not None:
        ends = (f"{dataset}: {_ended(table, dataset, 'oracle_gap')}" for dataset in study.datasets)
        caption = "Oracle gap against FLOPs, per dataset: lower and further left is better; earlier gaps are above"
        yield "overview", "", caption, f"{caption}. Final medians in nats. {'. '.join(ends)}.", fig


def _progress(study: Study, rows: pd.DataFrame) -> Drawings:
    """The mean gaps against cost, if the gaps `rows` are of several datasets and methods."""
    datasets, places = list(rows["dataset"].unique()), ranks(study.measurements, study.runs)
    if len(datasets) < 2 or len(places) < 2:
        return
    panels = {
        title: lines
        for title, names in _kinds(study, datasets).items()
        if (lines := mean_curves(rows[rows["dataset"].isin(names)], study.runs))
    }
    if not panels:
        return
    budgets = study.runs.reindex(columns=["max_flops"])["max_flops"].astype(float).unique()
    budget = float(budgets[0]) if len(budgets) == 1 and budgets[0] > 0 else None
    caption = (
        "Mean oracle gap over datasets against FLOPs, both on logarithmic axes that show the ends of the fits: lower "
        "and further left is better. Lines: the mean over datasets of the median over seeds. Bars: its 95% interval "
        "for these datasets, which resamples seeds. Right: the mean rank by test log-likelihood over all datasets, "
        "with an interval that resamples datasets too"
    )
    ends = (
        f"{title}: {units.listed([f'{line.method} {units.number(line.median[-1])}' for line in lines])}"
        for title, lines in panels.items()
    )
    words = f"{caption}. Final means in nats. {'. '.join(ends)}."
    yield "progress", "", caption, words, ranking.progress(panels, places, _styles(study), budget)


def _kinds(study: Study, datasets: list[str]) -> dict[str, list[str]]:
    """The datasets by their latent dimension, under titles; all together if it is not known or takes many values."""
    about = study.section("datasets")
    dims = [(about.get(name) or {}).get("latent_dim") for name in datasets]
    known = [dim for dim in dims if isinstance(dim, int)]
    if len(known) < len(dims) or len(set(known)) > _KINDS:
        return {units.plural(len(datasets), "dataset"): datasets}
    groups = {kind: [n for n, dim in zip(datasets, known, strict=True) if dim == kind] for kind in sorted(set(known))}
    return {f"latent dimension {dim}: {units.plural(len(names), 'dataset')}": names for dim, names in groups.items()}


def _ranking(study: Study, table: pd.DataFrame) -> Drawings:
    tables = (study.measurements, study.runs)
    places, means = ranks(*tables), aggregate(*tables)
    if len(places) > 1 and means["mean"].notna().any():
        fig = ranking.ranking(profile(*tables), means, places, _styles(study))
        caption = "Over all datasets: performance profiles, mean oracle gaps, and mean ranks"
        texts = [f"{method} {units.number(gap)}" for method, gap in zip(means["method"], means["mean"], strict=True)]
        missing = len(table[table["seeds_done"] < table["seeds_total"]])
        words = f"{caption}. Gaps in nats: {units.listed(texts)}. Rows of the table with unfinished runs: {missing}."
        yield "ranking", "", caption, words, fig


def _curves(study: Study, table: pd.DataFrame) -> Drawings:
    rows = finished(study.measurements, study.runs)
    rows = rows[rows["metric"] == "test_ll"]
    levels, known = oracle_levels(study.measurements, study.runs), _styles(study)
    for dataset, stem in stems(study.datasets).items():
        chosen = rows[rows["dataset"] == dataset]
        if len(chosen):
            fig = style.against_cost(chosen, known, levels.get(dataset), dataset)
            caption = f"{dataset}: test log-likelihood against cost"
            words = f"{caption}. Final medians in nats: {_ended(table, dataset, 'test_ll')}."
            yield f"{stem}-cost", dataset, caption, words, fig


def _losses(study: Study, table: pd.DataFrame) -> Drawings:
    ends = final(study.measurements, study.runs)
    parts = decomposition.loss_parts(ends, study.datasets, learners(study.runs))
    if len(parts):
        without = sorted(set(learners(study.runs)) - set(parts.index.get_level_values("method")))
        caption = "The loss of each method against the true model, in nats, by part"
        caption += f"; not known for {units.listed(without)}" if without else ""
        labels = {"oracle_gap": "oracle gap", "inference_gap": "inference gap"}
        texts = [
            f"{dataset}, {label}: {_ended(table, dataset, metric)}"
            for dataset in study.datasets
            for metric, label in labels.items()
        ]
        fig = decomposition.decomposition(parts, _styles(study))
        yield "decomposition", "", caption, f"{caption}. Medians. {'. '.join(texts)}.", fig


def _at_one_seed(table: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Each dataset of a table with the seed to show and its rows."""
    for dataset, every in table.groupby("dataset", sort=False):
        seed = densities.seed_shown(every)
        yield str(dataset), seed, every[every["seed"] == seed]


def _densities(study: Study, table: pd.DataFrame) -> Drawings:
    named = stems(study.datasets)
    for name, seed, rows in _at_one_seed(study.densities):
        methods = [m for m, role in study.roles.items() if role != "ceiling"]  # a ceiling would be the truth again
        fig = densities.beside_truth(rows, methods, name)
        absent = [m for m in methods if m not in set(rows["method"].unique())]
        caption = f"{name}: learned densities beside the true one, seed {seed}"
        caption += f"; none for {units.listed(absent)}" if absent else ""
        words = f"{caption}. Oracle gaps, medians in nats: {_ended(table, name, 'oracle_gap')}."
        yield f"{named.get(name, 'other')}-density", name, caption, words, fig


def _index_posteriors(study: Study, table: pd.DataFrame) -> Drawings:
    named, known = stems(study.datasets), _styles(study)
    for name, seed, rows in _at_one_seed(study.posteriors):
        present = set(rows["method"].unique())
        # A ceiling would be the floor of the index posterior again.
        if names := [m for m, role in study.roles.items() if m in present and role != "ceiling"]:
            fig = index_posteriors.over_truth(rows, names, known, name)
            absent = [m for m in learners(study.runs) if m not in names]
            caption = f"{name}: the index posterior of {units.listed(names)} over the true one, seed {seed}"
            caption += f"; none is recorded for {units.listed(absent)}" if absent else ""
            words = f"{caption}. Index KL, medians in nats: {_ended(table, name, 'index_kl')}."
            yield f"{named.get(name, 'other')}-posterior", name, caption, words, fig


def _signal_posteriors(study: Study, table: pd.DataFrame) -> Drawings:
    named, known = stems(study.datasets), _styles(study)
    for name, seed, rows in _at_one_seed(study.signals):
        if names := signal_posteriors.overlaid(rows, learners(study.runs), study.colour_groups, study.baseline):
            fig = signal_posteriors.over_truth(rows, names, known, name)
            present = set(rows["method"].unique())
            absent = [m for m in learners(study.runs) if m not in present]
            unseen = [m for m in learners(study.runs) if m in present and m not in names]
            caption = f"{name}: the signal posterior of {units.listed(names)} over the true one, seed {seed}"
            caption += f"; not drawn: {units.listed(unseen)}" if unseen else ""
            caption += f"; none is recorded for {units.listed(absent)}" if absent else ""
            words = f"{caption}. Signal W2 over many x, medians in data units: {_ended(table, name, 'signal_w2')}."
            yield f"{named.get(name, 'other')}-signals", name, caption, words, fig


def _images(study: Study, table: pd.DataFrame) -> Drawings:
    named = stems(study.datasets)
    for name, seed, rows in _at_one_seed(study.images):
        methods = [m for m in study.roles if m in set(rows["method"].unique())]
        fig = images.beside_data(rows, methods, name)
        caption = f"{name}: test points, reconstructions and samples of {units.listed(methods)}, seed {seed}"
        words = f"{caption}. Test log-likelihoods, medians in nats: {_ended(table, name, 'test_ll')}."
        yield f"{named.get(name, 'other')}-images", name, caption, words, fig
