"""A fitting problem: what a method is given, whether it can be run on it, and its hyperparameters as stored."""

from __future__ import annotations

import dataclasses

import torch

from bench.metrics import TrueModel
from bench.store.records import RunSpec
from datasets.base import DataSource, Observations, Problem, Split, stream
from methods.contract.decoder import build_model
from methods.contract.method import Ledger, Method, Task
from methods.likelihoods import Gaussian, PerCoordinateGaussian


def make_task(method: Method, source: DataSource, split: Split, spec: RunSpec, ledger: Ledger) -> Task:
    """The task of a run: every method at a seed gets the same data, initial weights and random stream.

    Args:
        method: The method, which gets the true model only if it sets `sees_truth`.
        source: What the data come from.
        split: The data.
        spec: The run.
        ledger: Where the method's work is accounted for; it watches the decoder.

    Raises:
        ValueError: For data that no method is given, such as data that are not finite.
    """
    noise = source.noise_variance if isinstance(source, Problem) and spec.observation_noise == "known" else None
    weights, family = stream("initial weights", spec.seed, "decoder"), modelled_family(source, spec)
    train, validation = (x.float().to(spec.device) for x in (split.train, split.validation))
    model = build_model(train.cpu(), source.latent_dim, noise, weights, spec.hidden, spec.activation, family).to(
        spec.device
    )
    ledger.watch(decoder=model.network)
    truth = TrueModel(source) if method.sees_truth and isinstance(source, Problem) else None
    draws = torch.Generator(spec.device).manual_seed(stream("training", spec.seed, "draws").initial_seed())
    return Task(train, validation, model, draws, ledger, truth)


def reason_to_skip(source: DataSource, method: Method, spec: RunSpec) -> str | None:
    """Why a method cannot be run on a data source; None if it can.

    Args:
        source: What the data come from.
        method: The method.
        spec: The run, for its size and its observation noise.
    """
    if isinstance(source, Observations):
        if method.sees_truth:
            return f"{source.name} has no known true model, which {spec.method} needs"
        if spec.observation_noise == "known" and source.family == Gaussian.name:
            return f"{source.name} has no known noise variance: use --observation-noise learned or per-coordinate"
    reason = method.skip_likelihood(modelled_family(source, spec), source.latent_dim) or method.skip(
        source.latent_dim, source.data_dim, spec.n_train
    )
    return None if reason is None else str(reason)


def modelled_family(source: DataSource, spec: RunSpec) -> str:
    """The family of the model's p(x | z): that of the data, or a Gaussian with a noise variance for each coordinate."""
    per_coordinate = source.family == Gaussian.name and spec.observation_noise == "per-coordinate"
    return PerCoordinateGaussian.name if per_coordinate else source.family


def hyperparameters(method: Method) -> dict[str, bool | int | float | str | None]:
    """All hyperparameters of a method, as they are stored."""
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def _plain(value: object) -> bool | int | float | str | None:
    """A hyperparameter as it is stored: as text, unless it is a number."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
