"""Whether two results agree: any one number that is changed is noticed, unless it is the machine's."""

import copy
import json

import pytest

from bench.store import run_files
from bench.store.records import Cost, Diagnostic, Row, RunResult, Work
from bench.study.agreement import difference

MACHINE = {
    "wall_s",
    "cpu_s",
    "evaluation_s",
    "query_s",
    "overrun_s",
    "peak_memory_mb",
    "concurrent",
    "timed_seed",
    "alone",
    "message",
    "stopped_by",
    "notes",
    "source",
}


@pytest.fixture
def content(run_spec, tmp_path):
    """A result with something in every field, as JSON holds it."""
    cost = Cost(1.0, 2.0, 3.0, 4, 5)
    result = RunResult(
        run_spec(),
        rows=[Row(0, "test_ll", -1.0, 0.1, "nats", cost), Row(1, "test_ll", -0.5, 0.1, "nats", cost)],
        cost=cost,
        diagnostics=[Diagnostic(1, "test_ll", "ess", 9.0)],
        work=[Work("mm", 3, 2.0, "count")],
        parameters={"steps": 3},
        densities=[("vae", 0.0, 1.0, -2.0)],
        posteriors=[("vae", 0, 1, 0.5, [0.1, 0.2], 0.3)],
        signals=[("vae", 0, 1, [0.1, 0.2], [0.3, 0.4])],
        references=[(0, 1.0, 100.0, [0.4])],
        alone=[(3.0, 1.0, 2.0)],
    )
    (tmp_path / "runs").mkdir()
    run_files.write_run(tmp_path, result)
    return json.loads(run_files.run_path(tmp_path, result.spec).read_text())


def leaves(value, path=()):
    """The paths to everything in nested dicts and lists that is neither."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def test_what_is_the_same_agrees(content):
    assert difference(content, copy.deepcopy(content)) == ("", 0, 0)


def test_each_value_that_differs_is_noticed(content):
    paths = [path for path in leaves(content) if path[0] not in ("spec", "schema", "digest")]
    assert len(paths) > 40
    for path in paths:
        other = copy.deepcopy(content)
        *within, last = path
        inner = other
        for key in within:
            inner = inner[key]
        inner[last] = "another"
        noticed = difference(content, other)[0] != "" and difference(other, content)[0] != ""
        assert noticed == (not MACHINE & set(path)), path


@pytest.mark.parametrize("name", ["rows", "diagnostics", "work", "densities", "posteriors", "signals", "references"])
def test_entries_that_are_missing_are_noticed(content, name):
    fewer = {**copy.deepcopy(content), name: content[name][:-1]}
    assert difference(content, fewer)[0]
    assert difference(fewer, content)[0]
