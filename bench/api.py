"""The comparison as a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METHODS = ("mapa", "vae", "iterative")
DEFAULT_OUT = "results/compare"


def compare(  # noqa: PLR0913 - the flags of the command line, one by one
    methods: Sequence[str] = DEFAULT_METHODS,
    datasets: Sequence[str] | None = None,
    seeds: int = 3,
    *,
    size: int = 500,
    test_size: int = 2000,
    latent_dim: int | None = None,
    noise: str = "known",
    device: str = "cpu",
    max_flops: float | None = None,
    max_seconds: float | None = None,
    jobs: int = 1,
    out: str | Path = DEFAULT_OUT,
    plugins: Sequence[str] = (),
    report: bool = True,
) -> pd.DataFrame:
    """Compare methods on datasets and return the tidy table of measurements.

    Does what `python -m bench compare` does: results go to the folder `out`, and what is there already is not run
    again. size, test_size: numbers of training and held-out data. seeds: runs with seeds 0 to seeds - 1.
    max_flops, max_seconds: the budget of one fit. plugins: paths of Python files.

    Raises bench.errors.UsageError for names, numbers or folders that do not fit.
    """
    import datasets as registry_of_datasets
    from bench import store, study
    from bench.options import check_numbers

    settings = study.Settings(
        methods=_names(methods),
        datasets=_names(datasets or registry_of_datasets.CURVES),
        seeds=seeds,
        size=size,
        validation_size=size,
        test_size=test_size,
        latent_dim=latent_dim,
        noise=noise,
        device=device,
        max_flops=None if max_flops is None else float(max_flops),
        max_seconds=None if max_seconds is None else float(max_seconds),
        plugins=tuple(str(Path(p).resolve()) for p in plugins),
    )
    check_numbers(settings, jobs)
    call = f"bench.compare(methods={list(settings.methods)}, datasets={list(settings.datasets)}, seeds={seeds}, ...)"
    study.run(settings, Path(out), jobs, study.Silent(), call)
    if report:
        from bench.report import write

        write(Path(out))
    return store.read_table(Path(out), "measurements")


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """Names in order; a single string, which is a sequence of letters too, is one name."""
    return (names,) if isinstance(names, str) else tuple(names)
