"""The comparison as a Python function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METHODS = ("mapa", "vae", "iterative")
DEFAULT_OUT = "results/compare"


def compare(  # noqa: PLR0913 - the flags of the command line, one by one
    methods: Sequence[str] = DEFAULT_METHODS,
    datasets: Sequence[str] | None = None,
    seeds: int = 3,
    *,
    first_seed: int = 0,
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
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    tuned: str | Path | None = None,
    run_timeout: float | None = None,
    run_memory: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    report: bool = True,
) -> pd.DataFrame:
    """Compare methods on datasets and return the tidy table of measurements.

    Does what `python -m bench compare` does: results go to the folder `out`, and what is there already is not run
    again. methods, datasets: names, or labels as "vae[steps=8000]" and "circle[size=1000]". size, test_size: numbers of
    training and held-out data. seeds: how many, from first_seed on. max_flops, max_seconds: the budget of one fit.
    plugins: paths of Python files. settings: hyperparameters of every use of a method, as {"vae": {"steps": 8000}}.
    tuned: the path of a tuned.json; labels win over settings, which win over it. run_timeout, run_memory: seconds and
    bytes beyond which a run is killed. scheduler: the address of a Dask cluster's. retry_failed: whether runs that
    failed before are run again.

    Raises bench.common.errors.UsageError for names, numbers, files or folders that do not fit.
    """
    import datasets as registry_of_datasets
    from bench.execution.scheduler import Execution
    from bench.registry.registry import registry
    from bench.store import tables
    from bench.study import execute
    from bench.study import hyperparameters as tuned_file
    from bench.study.log import Record
    from bench.study.options import check_execution, check_numbers

    asked = execute.Settings(
        methods=_names(methods),
        datasets=_names(datasets or registry_of_datasets.CURVES),
        seeds=seeds,
        first_seed=first_seed,
        size=size,
        validation_size=size,
        test_size=test_size,
        latent_dim=latent_dim,
        noise=noise,
        device=device,
        max_flops=None if max_flops is None else float(max_flops),
        max_seconds=None if max_seconds is None else float(max_seconds),
        plugins=tuple(str(Path(p).resolve()) for p in plugins),
        parameters=settings or {},
        tuned=None if tuned is None else tuned_file.read(tuned),
    )
    how = Execution(jobs, run_timeout, run_memory, scheduler, retry_failed)
    check_numbers(asked, jobs)
    check_execution(how)
    asked = execute.checked(asked, registry(asked.plugins))
    call = f"bench.compare(methods={list(asked.methods)}, datasets={list(asked.datasets)}, seeds={seeds}, ...)"
    with Record(Path(out), asked, call, execute.Silent()) as record:
        execute.run(asked, Path(out), how, record, call)
    if report:
        from bench.report.page import write

        write(Path(out))
    return tables.read_table(Path(out), "measurements")


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """Names in order; a single string, which is a sequence of letters too, is one name."""
    return (names,) if isinstance(names, str) else tuple(names)
