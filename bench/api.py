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
    """Compare methods on datasets and return the tidy table of measurements (the columns are in docs and README).

    Does what `python -m bench compare` does: results go to the folder `out`, what is there already is not run
    again. size: training data. seeds: runs with seeds 0..seeds-1. max_flops, max_seconds: budget of one fit.
    Raises bench.errors.UsageError for names, numbers or folders that do not fit.
    """
    import datasets as registry_of_datasets
    from bench import store, study
    from bench.options import check_numbers

    settings = study.Settings(
        methods=tuple(methods),
        datasets=tuple(datasets or registry_of_datasets.CURVES),
        seeds=seeds,
        size=size,
        validation_size=size,
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
