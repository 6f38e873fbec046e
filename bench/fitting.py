"""One fit as a Python function: the trained generative model and its approximate posterior."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.fit.flop_counter import CountingLedger
    from methods.contract.method import Fitted, Method, Task


def fitted(method: str, dataset: str, seed: int = 0, **settings: Any) -> Fitted:
    """Fit one method to one dataset at one seed, and return what it learned. Nothing is scored or stored.

    The fit is that of `python -m bench compare --block 1`: the same data, initial weights and random draws.

    Args:
        method: A method's label, such as 'mapa' or 'vae[steps=3000]'.
        dataset: A dataset's label, such as 'circle' or 'circle[n_train=1000]'.
        seed: The seed of the data, of the initial weights and of the draws.
        **settings: Settings of `bench.compare` that concern a fit: n_train, hidden, max_flops, set, plugins, data and
            others. Those that name or count runs, and max_seconds, are refused. A DataFrame or an array as data is the
            dataset 'data'.

    Returns:
        The fit at its end: `model`, whose `decode` takes codes (n, L) to means (n, D), and `posterior`, q(z | x).

    Raises:
        bench.common.errors.UsageError: For names and values that do not fit, and where the method declines the dataset.
    """
    from bench.api import as_settings
    from bench.common.errors import UsageError
    from bench.config.schema import LARGEST, Settings
    from bench.fit.flop_counter import CountingLedger
    from bench.fit.task import make_task, reason_to_skip
    from bench.process.containment import contained
    from bench.registry.registry import registry
    from bench.scoring.arguments import whole_number
    from bench.study.own_data import stored
    from bench.study.plan import resolve
    from datasets.base import draw

    seed = whole_number("seed", seed, 0, LARGEST)
    own = {"methods": method, "datasets": dataset, "seeds": 1, "first_seed": seed, "block": 1}
    for name in (*own, "max_seconds", "tuned", "baseline"):
        if name in settings:
            raise UsageError(f"fitted takes one method, dataset and seed, and no {name}")
    with tempfile.TemporaryDirectory() as folder:
        if "data" in settings:
            settings["data"] = stored(settings["data"], settings.get("columns", ()), Path(folder))
        runs = resolve(as_settings(Settings, {**settings, **own})).runs
        if len(runs) != 1:
            raise UsageError(
                f"fitted takes one method and one dataset, got {method!r} and {dataset!r}: {len(runs)} fits"
            )
        (spec,) = runs
        known = registry(spec.plugins, spec.columns)
        made = known.make_method(spec.method, dict(spec.parameters))
        source = known.make_problem(spec.dataset, spec.latent_dim)
    if reason := reason_to_skip(source, made, spec):
        raise UsageError(f"{method} declines {dataset}: {reason}")
    ledger = CountingLedger()
    with contained(seed):
        split = draw(source, seed, spec.n_train, spec.n_train, 0)
        task = make_task(made, source, split, spec, ledger)
        found = last_state(made, task, ledger, math.inf if spec.max_flops is None else spec.max_flops)
    if found is None:
        raise UsageError(f"{method} yielded no state on {dataset}; `python -m bench check` says what a method must do")
    return found


def last_state(method: Method, task: Task, ledger: CountingLedger, budget: float) -> Fitted | None:
    """The state at which a fit ends, by itself or at a budget in FLOPs; None if it yields none.

    Args:
        method: The method.
        task: What it is fitted to; its ledger is `ledger`.
        ledger: Counts the fit.
        budget: The FLOPs from which on the fit is ended.
    """
    from bench.fit.block import begun_when_resumed, end

    fit, found = begun_when_resumed(method, task), None
    ledger.start()
    try:
        for state in fit:
            found = state
            if ledger.flops >= budget:
                break
    finally:
        ledger.stop()
        end(fit, ledger)
    return found
