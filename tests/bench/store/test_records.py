"""The key of a run: a hash of all that can change its values, and of nothing else."""

import subprocess
import sys

import msgspec
import pytest

from bench.config.schema import CONDITIONS
from bench.store.records import RunSpec

# Conditions are in tests/bench/config/test_schema.py.
CHANGES = {
    "dataset": "figure8",
    "method": "mapa",
    "seed": 1,
    "parameters": (("steps", 3),),
    "scored_on": "validation",
    "code": "other",
    "versions": ("torch 1",),
    "data": "other",
}
WITHOUT_EFFECT = {"plugins": ("/elsewhere/a.py",), "columns": ("a",), "role": "floor"}


def test_each_field_changes_the_key_or_is_known_not_to(run_spec):
    assert {*CHANGES, *WITHOUT_EFFECT, *CONDITIONS} == {*RunSpec.__struct_fields__}
    keys = {run_spec(**{name: value}).key for name, value in CHANGES.items()}
    assert len(keys | {run_spec().key}) == 1 + len(CHANGES)


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_paths_and_roles_do_not_change_the_key(run_spec, name):
    assert run_spec(**{name: WITHOUT_EFFECT[name]}).key == run_spec().key


def test_the_key_is_the_same_in_every_process(run_spec):
    code = "import msgspec, sys; from bench.store.records import RunSpec as R"
    code += "; print(msgspec.json.decode(sys.argv[1], type=R).key)"
    spec = run_spec(**CHANGES)
    command = [sys.executable, "-c", code, msgspec.json.encode(spec)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == spec.key


def test_runs_of_one_block_are_one_program_and_others_are_not(run_spec):
    runs = [run_spec(seed=seed, block=3) for seed in range(7)]
    assert [run.program.seed for run in runs] == [0, 0, 0, 3, 3, 3, 6]
    assert len({run.program for run in runs}) == 3
    assert run_spec(seed=1, block=3, method="mapa").program not in {run.program for run in runs}
    assert run_spec(seed=4, block=1).program == run_spec(seed=4, block=1)
