"""Whatever a method does to its process: the next run has the same values, to the bit, and the culprit is named."""

import os

import pytest

from bench.execution.job import Job
from bench.execution.pool import RunServer
from bench.registry.plugins import PluginFile

CULPRITS = '''
import builtins, os, resource, shutil, subprocess, sys, time
from dataclasses import dataclass

import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import BaseTorchDispatchMode

from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


def patches(owner, name):
    plain = getattr(owner, name)
    return lambda: setattr(owner, name, lambda *args, **kwargs: plain(*args, **kwargs) * 1.01)


def raises(error):
    def act():
        raise error
    return act


def forks():
    os.fork()


def leaves_a_grandchild():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)


def deletes_its_directory():
    os.rmdir(os.getcwd())


def closes_stderr():
    os.close(2)
    raise ArithmeticError("said aloud")


ACTS = {
    "clock": patches(time, "perf_counter"),
    "tanh": patches(torch, "tanh"),
    "linear": patches(torch.nn.functional, "linear"),
    "sum": patches(builtins, "sum"),
    "hook": lambda: register_module_forward_hook(lambda module, x, y: y * 1.01),
    "function-mode": lambda: BaseTorchFunctionMode().__enter__(),
    "dispatch-mode": lambda: BaseTorchDispatchMode().__enter__(),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "fork": forks,
    "grandchild": leaves_a_grandchild,
    "directory": deletes_its_directory,
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "interrupt": raises(KeyboardInterrupt("typed")),
    "generator-exit": raises(GeneratorExit("left")),
    "base-exception": raises(BaseException("at the base")),
    "unspeakable": raises(Unspeakable()),
    "stderr": closes_stderr,
}


def culprit(act):
    @dataclass(frozen=True)
    class Culprit(Method):
        """Does one thing that it should not."""

        def fit(self, task):
            yield Fitted(task.model, Prior(task.latent_dim))
            if len(task.train) > 32:  # not while warming up
                act()
            yield Fitted(task.model, Prior(task.latent_dim))

    return Culprit


METHODS = {name: culprit(act) for name, act in ACTS.items()}
'''
NAMED = {
    "clock": "replaced time.perf_counter",
    "tanh": "replaced torch.tanh",
    "linear": "replaced torch.nn.functional.linear",
    "sum": "replaced builtins.sum",
    "hook": "left global hooks on torch's modules",
    "function-mode": "left a function mode of torch open",
    "dispatch-mode": "left a dispatch mode of torch open",
    "limit": "changed resource limits",
    "fork": "ended after it: a copy of itself",
    "grandchild": "ended after it: python",
    "directory": "changed the working directory",
    "dtype": "changed torch's default dtype",
}
FAILED = {
    "interrupt": "KeyboardInterrupt: typed",
    "generator-exit": "GeneratorExit: left",
    "base-exception": "BaseException: at the base",
    "unspeakable": "Unspeakable: its message cannot be read (ValueError)",
    "stderr": "ArithmeticError: said aloud",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory, run_spec):
    """The results of all culprits, each followed by a run of vae, by one server; the first is vae's alone."""
    plugin = PluginFile(str(tmp_path_factory.mktemp("plugin") / "culprits.py"), (("culprits.py", CULPRITS.encode()),))
    home = os.getcwd()  # noqa: PTH109
    small = {"n_train": 40, "seed": 1, "max_flops": 1e6, "scored_on": "validation"}
    polite = Job((run_spec(**small),))
    os.chdir(tmp_path_factory.mktemp("working_directory"))
    server, found = RunServer(), {}

    def run(job):
        (result,) = server.run(job)
        return result

    try:
        found[""] = None, run(polite)
        for name in (*NAMED, *FAILED):
            spec = run_spec(method=name, plugins=(plugin.path,), **small)
            found[name] = run(Job((spec,), plugins=(plugin,), timeout=60.0)), run(polite)
    finally:
        server.end()
        os.chdir(home)
    return found


def values(result):
    return [(row.checkpoint, row.metric, row.value, row.stderr, row.cost.flops) for row in result.rows]


@pytest.mark.parametrize("name", [*NAMED, *FAILED])
def test_the_next_run_has_the_same_values(ran, name):
    alone, after = ran[""][1], ran[name][1]
    assert (after.status, after.notes) == ("done", "")
    assert len(values(after)) == 1
    assert values(after) == values(alone)


@pytest.mark.parametrize("name", NAMED)
def test_who_changes_the_process_is_named(ran, name):
    assert ran[name][0].status == "done", ran[name][0].message
    assert NAMED[name] in ran[name][0].notes


@pytest.mark.parametrize("name", FAILED)
def test_the_reason_of_a_failure_is_kept(ran, name):
    assert ran[name][0].status == "failed"
    assert ran[name][0].message.startswith(FAILED[name])
