"""Changes that methods and datasets make to the process are undone or reported, and affect no other result."""

import contextlib
import gc
import os
import random
import resource
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import BaseTorchDispatchMode

from bench import metrics
from bench.common.errors import UsageError
from bench.fit import block
from bench.fit.runner import run_one
from bench.metrics.measurement import Measurement
from bench.process import containment
from bench.process.containment import Containment, contained, importing, silenced
from bench.process.global_state import GlobalState
from bench.registry.plugins import load_plugin
from bench.report import study_notes
from bench.stats.summary import work_shares
from bench.store.study_tables import Study
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method


def lower(limit):
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft - 1, hard))


CHANGES = {
    "drew from Python's global generator": random.random,
    "drew from numpy's global generator": np.random.rand,
    "drew from torch's global generator": lambda: torch.rand(1),
    "changed the warning filters": lambda: warnings.simplefilter("ignore"),
    "changed environment variables": lambda: os.environ.update(MAPA_BENCH_TEST="1"),
    "changed the working directory": lambda: os.chdir("/"),
    "changed numpy's error handling": lambda: np.seterr(all="raise"),
    "changed torch's default device": lambda: torch.set_default_device("meta"),
    "changed torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "changed torch's number of threads": lambda: torch.set_num_threads(3),
    "left torch's gradient mode changed": lambda: torch.set_grad_enabled(False),
    "changed torch's deterministic mode": lambda: torch.set_deterministic_debug_mode("warn"),
    "changed torch's matrix precision": lambda: torch.set_float32_matmul_precision("medium"),
    "changed torch's anomaly mode": lambda: torch.autograd.set_detect_anomaly(True, False),
    "left torch's autocast changed on the cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "left torch's autocast changed on the cuda": lambda: torch.set_autocast_dtype("cuda", torch.bfloat16),
    "changed cudnn.enabled": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "changed cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "changed cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "changed cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "changed resource limits": lambda: lower(resource.RLIMIT_NOFILE),
    "changed Python's recursion limit": lambda: sys.setrecursionlimit(5000),
    "switched Python's garbage collection": gc.disable,
    "replaced time.perf_counter": lambda: setattr(time, "perf_counter", lambda: 0.0),
    "replaced numpy.where": lambda: setattr(np, "where", np.dot),
    "replaced torch.nn.functional.linear": lambda: setattr(torch.nn.functional, "linear", torch.add),
    "left a function mode of torch open": lambda: BaseTorchFunctionMode().__enter__(),
    "left a dispatch mode of torch open": lambda: BaseTorchDispatchMode().__enter__(),
    "left global hooks on torch's modules": lambda: register_module_forward_hook(lambda *_: None),
}


NOW = GlobalState.capture()


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_named_alone_and_undone(change):
    before = GlobalState.capture()
    with contained() as changed:
        CHANGES[change]()
    now = GlobalState.capture()
    assert changed == [change]
    assert now.changes(before) == ()


@pytest.mark.parametrize(
    "replace", [lambda: setattr(time, "ctime", str), lambda: delattr(time, "ctime")], ids=["by a class", "by nothing"]
)
def test_a_function_is_put_back_whatever_replaced_it(replace):
    before = time.ctime
    with contained() as changed:
        replace()
    assert changed == ["replaced time.ctime"]
    assert time.ctime is before


def test_every_setting_is_tried():
    tried = [setting.change for change in CHANGES for setting, _ in NOW.values if change.startswith(setting.change)]
    assert set(tried) == {setting.change for setting, _ in NOW.values}


def test_changes_are_undone_if_code_raises():
    def breaks():
        with contained():
            torch.set_default_dtype(torch.float64)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        breaks()
    assert torch.get_default_dtype() == torch.float32


def test_nothing_is_changed_where_nothing_changes():
    with contained() as changed:
        torch.rand(3, generator=torch.Generator())
        np.random.default_rng(0).random()
    assert changed == []


@pytest.mark.parametrize("draw", [random.random, lambda: float(np.random.rand()), lambda: float(torch.rand(()))])  # noqa: NPY002
def test_global_generators_can_be_seeded(draw):
    def drawn(seed):
        with contained(seed):
            return draw()

    assert drawn(1) == drawn(1) != drawn(2)


def talk():
    print("printed")  # noqa: T201
    sys.stderr.write("written\n")
    os.write(1, b"out, beneath Python\n")
    os.write(2, b"error, beneath Python\n")
    subprocess.run(["echo", "from a child"], check=True)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True, stdout=sys.stdout, stderr=sys.stderr)


def test_silenced_discards_all_output(capfd):
    print("before")  # noqa: T201
    with silenced() as said:
        talk()
    print("after")  # noqa: T201
    assert capfd.readouterr() == ("before\nafter\n", "")
    assert said.last_line() == "written"


def test_the_last_line_is_short_and_not_blank():
    with silenced() as said:
        sys.stderr.write("x" * 10_000 + "\nthe  last one " + "y" * 300 + "\n\n  \n")
    assert said.last_line() == ("the last one " + "y" * 300)[: containment.SHOWN]


def test_a_stream_kept_from_within_can_be_written_to_later(capfd):
    with silenced():
        kept = sys.stderr
    kept.write("late\n")
    kept.flush()
    assert capfd.readouterr() == ("", "")


def test_a_slow_import_is_named(capsys, monkeypatch):
    monkeypatch.setattr(containment, "SLOW_IMPORT_S", 0.1)
    with importing("plugin slow.py"):
        time.sleep(0.15)
    with importing("plugin quick.py"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("plugin slow.py took 0.")
    assert err.endswith(" s to import\n")
    assert err.count("\n") == 1


RUDE_IMPORT = """
import os, random, sys, torch
print("hello"); sys.stderr.write("hello"); os.write(1, b"hello")
torch.set_default_dtype(torch.float64)
WEIGHT = torch.rand(3).tolist()
METHODS = {}
"""


def test_a_rude_import_is_contained_named_and_always_the_same(tmp_path, capfd):
    loaded = []
    for name in ("one", "two"):
        torch.rand(1)
        (tmp_path / f"{name}.py").write_text(RUDE_IMPORT)
        loaded.append(load_plugin(str(tmp_path / f"{name}.py")))
    assert loaded[0].WEIGHT == loaded[1].WEIGHT
    assert torch.get_default_dtype() == torch.float32
    out, err = capfd.readouterr()
    assert out == ""
    changes = "changed torch's default dtype, drew from torch's global generator"
    assert err == "".join(f"plugin {n}.py was contained when it was imported: it {changes}\n" for n in ("one", "two"))


def test_an_import_that_exits_is_an_error(tmp_path):
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    with pytest.raises(UsageError, match=r"leaves\.py cannot be imported: SystemExit: 3"):
        load_plugin(str(tmp_path / "leaves.py"))


@dataclass(frozen=True)
class Drift(Method):
    """Moves the decoder's last bias by draws from all global generators, each step a checkpoint."""

    steps: int = 4

    def fit(self, task):
        bias = task.model.network[-1].bias.data.numpy()
        for step in range(self.steps):
            bias += float(torch.rand(()) / 3) + random.random() + np.random.rand()  # noqa: NPY002
            task.ledger.charge("drift", 10.0**step)
            self.step(step, task)
            yield Fitted(task.model, Prior(task.latent_dim))

    def step(self, step, task):
        pass


class Rude(Drift):
    """Does on each step all that it should not."""

    def step(self, step, task):
        talk()
        for change in CHANGES.values():
            change()
        torch.set_default_device(None)


@pytest.fixture
def scored(monkeypatch):
    """Evaluation that takes no time, and depends on the default dtype and a global generator; the scores given."""
    given = []

    def evaluate_checkpoint(self, fitted, draws):
        value = float(fitted.model.decode(torch.ones(1, 1)).detach().sum()) + float(torch.ones(()) / 3)
        given.append((value, torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        torch.rand(1), np.random.rand()  # noqa: NPY002
        return [Measurement("test_ll", value, 0.0, "nats")]

    monkeypatch.setattr(metrics.Evaluator, "evaluate_checkpoint", evaluate_checkpoint)
    monkeypatch.setattr(metrics.Evaluator, "evaluate_final", lambda self, fitted: [])  # noqa: ARG005
    return given


def values(result):
    return [(row.checkpoint, row.metric, row.value) for row in result.rows]


def test_a_rude_neighbour_changes_nothing_and_is_reported(run_spec, offer, scored, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offer("rude", Rude())
    offer("polite", Drift())
    before = GlobalState.capture()
    first, rude, second = (run_one(run_spec(method=name)) for name in ("polite", "rude", "polite"))
    assert GlobalState.capture().changes(before) == ()
    assert values(first) == values(second)
    assert (rude.status, second.status) == ("done", "done")
    named = rude.notes.partition("undone: it ")[2].split(", ")
    assert set(named) == set(CHANGES) - {"changed torch's default device"}
    assert all(state[1:] == (torch.float32, True, False) for state in scored)
    assert capfd.readouterr() == ("", "")


def test_global_draws_come_from_the_seed_of_the_run(run_spec, offer, scored):
    offer("drift", Drift())
    results = []
    for seed in (0, 0, 1):
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        results.append(run_one(run_spec(method="drift", seed=seed)))
    drawn = [values(result)[-1][2] - values(result)[0][2] for result in results]
    assert drawn[0] == drawn[1] != drawn[2]
    drew = "undone: it drew from Python's global generator, drew from numpy's global generator, "
    assert results[0].notes == drew + "drew from torch's global generator"


class Double(Drift):
    """Sets the default dtype once, and relies on it."""

    def step(self, step, task):
        if step == 0:
            torch.set_default_dtype(torch.float64)
        elif torch.ones(()).dtype != torch.float64:
            raise ArithmeticError("its own setting was lost")


def test_evaluation_does_not_change_training_though_settings_do(run_spec, offer, scored, monkeypatch):
    offer("double", Double())
    often = run_one(run_spec(method="double"))
    monkeypatch.setattr(block, "CHECKPOINTS_PER_DECADE", 0.1)
    seldom = run_one(run_spec(method="double"))
    assert (often.status, seldom.status) == ("done", "done")
    assert len(often.rows) == 4
    assert len(seldom.rows) == 2
    assert often.rows[-1].value == seldom.rows[-1].value
    assert {state[1] for state in scored} == {torch.float32}


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_yield_from_within_a_mode_leaves_evaluation_out_of_it(run_spec, offer, scored, within):
    class Within(Drift):
        def fit(self, task):
            for fitted in super().fit(task):
                with within():
                    yield fitted
                    inside = (
                        torch.is_grad_enabled(),
                        torch.is_inference_mode_enabled(),
                        torch.is_autocast_enabled("cpu"),
                    )
                with within():
                    fresh = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
                if inside != fresh:
                    raise ArithmeticError("its own mode was lost")

    modes = []
    evaluate_checkpoint = metrics.Evaluator.evaluate_checkpoint

    def watched(self, fitted, draws):
        modes.append(torch.is_autocast_enabled("cpu"))
        return evaluate_checkpoint(self, fitted, draws)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.Evaluator, "evaluate_checkpoint", watched)
        assert run_one(run_spec(method=offer("within", Within()))).status == "done"
    assert {state[2:] for state in scored} == {(True, False)}
    assert modes == [False] * len(scored)


def test_what_is_left_running_is_named(run_spec, offer, scored):
    end, started = threading.Event(), []

    class Leaves(Drift):
        def step(self, step, task):
            if step == 0:
                threading.Thread(target=end.wait, name="poll", daemon=True).start()
                started.append(subprocess.Popen(["sleep", "60"]))

    try:
        result = run_one(run_spec(method=offer("leaves", Leaves())))
    finally:
        end.set()
        for process in started:
            process.kill()
            process.wait()
    assert result.notes.endswith("it left running: threads (poll (daemon)), child processes (sleep)")


def test_what_ends_with_the_fit_is_not_named(run_spec, offer, scored):
    class Tidy(Drift):
        def fit(self, task):
            end = threading.Event()
            thread = threading.Thread(target=end.wait)
            thread.start()
            try:
                yield from super().fit(task)
            finally:
                end.set()
                thread.join()

    result = run_one(run_spec(method=offer("tidy", Tidy()), max_flops=5.0))
    assert result.message.startswith("stopped by --max-flops")
    assert "left running" not in result.notes


def test_a_failed_run_tells_the_last_line_on_standard_error(run_spec, offer, scored):
    class Fails(Drift):
        def step(self, step, task):
            sys.stderr.write("Traceback\n  it was the sampler\n")
            raise ArithmeticError("no")

    result = run_one(run_spec(method=offer("fails", Fails())))
    assert result.message == "ArithmeticError: no (last on standard error: it was the sampler)"
    assert result.notes.startswith("undone: it drew from")


def test_the_report_names_what_finished_runs_did(tmp_path):
    notes = {
        "a": ("undone: it changed cudnn.enabled", "undone: it changed cudnn.enabled"),
        "b": ("", "it left running: threads (poll)"),
        "c": ("", None),
    }
    rows = [{"method": name, "status": "done", "notes": text} for name, texts in notes.items() for text in texts]
    runs = pd.DataFrame([*rows, {"method": "d", "status": "failed", "notes": "undone: all"}])
    study = Study(tmp_path, *[runs] * 7, info={})
    found = study_notes._side_effects(study)
    assert found == [
        "a, undone: it changed cudnn.enabled (2 runs).",
        "b, it left running: threads (poll) (1 run).",
    ]


def test_a_method_that_counts_nothing_does_not_break_the_report():
    work = pd.DataFrame({"method": ["free"], "name": ["other operators"], "by": ["operators"], "flops": [0.0]})
    assert work_shares(work.astype({"method": "string"})).empty
    assert work_shares(work[:0].astype({"method": "str"})).empty


def test_entering_and_leaving_a_method_is_cheap():
    held = Containment()

    def seconds():
        start = time.process_time()
        for _ in range(20):
            with held.method():
                pass
        return (time.process_time() - start) / 20

    assert min(seconds() for _ in range(5)) < 5e-3


def test_a_closed_standard_stream_is_no_obstacle():
    kept = os.dup(1)
    os.close(1)
    try:
        with silenced(), contextlib.suppress(OSError):
            os.write(1, b"nowhere")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
