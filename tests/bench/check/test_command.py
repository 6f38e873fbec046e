"""The command `check`, and the built-in methods under it."""

import re
from pathlib import Path

import pytest

from bench.check import DUTIES, Subject, chosen, run

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

from methods.vae import VAE

print("imported")


@dataclass(frozen=True)
class Mine(VAE):
    steps: int = 10

    def fit(self, task):
        for fitted in super().fit(task):
            print("one step more")
            yield fitted


class Fixed(Mine):
    exceptions: ClassVar = {"gradient": "its decoder is given"}

    def fit(self, task):
        for parameter in task.model.network.parameters():
            parameter.requires_grad_(False)
        yield from super().fit(task)


class Crash(Mine):
    def fit(self, task):
        raise IndexError("list index out of range")


class Distant(Mine):
    def skip(self, latent_dim, data_dim, size):
        return "no data are far enough"


class Misspelt(Mine):
    exceptions: ClassVar = {"gradients": "its decoder is given"}


METHODS = {"mine": Mine, "fixed": Fixed, "crash": Crash, "distant": Distant, "misspelt": Misspelt}
"""
DEAR = ("bound", "better", "budget", "optimum")


@pytest.fixture
def check(cli, tmp_path):
    """`check` of a method of the plugin, by two fast duties unless others are given."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    def run(name, *duties):
        args = [arg for duty in duties or ("determinism", "gradient") for arg in ("--duty", duty)]
        return cli("check", name, "--plugin", tmp_path / "mine.py", *args)

    return run


def test_a_line_for_each_duty_in_order_with_what_was_seen(check):
    end = check("mine", "gradient", "determinism")
    lines = end.out.splitlines()
    assert end.code == 0
    assert [line.split()[:2] for line in lines[:2]] == [["pass", "determinism"], ["pass", "gradient"]]
    assert re.search(r"two fits at seed 0 agree in 201 numbers.*\(\d+\.\d s\)$", lines[0])
    assert lines[2:] == ["2 passed"]
    assert "one step more" not in end.out + end.err


def test_a_budget_is_kept_by_a_plugin_with_parameters(check):
    end = check("mine[steps=12]", "budget")
    assert end.code == 0
    assert "the largest of 12 steps" in end.out


def test_a_reason_excuses_a_failure(check):
    end = check("fixed")
    assert end.code == 0
    assert "excused  gradient      its decoder is given (model.network.0.weight" in end.out
    assert end.out.splitlines()[-1] == "1 passed, 1 excused"


def test_what_a_method_raises_is_a_failure_and_says_where(check):
    end = check("crash")
    assert end.code == 1
    assert "fail     determinism   raised IndexError: list index out of range (mine.py:" in end.out
    assert end.out.splitlines()[-1] == "2 failed"


def test_a_method_that_takes_no_data_is_skipped(check):
    end = check("distant", "bound", "optimum")
    assert end.code == 0
    assert "no data are far enough" in end.out
    assert end.out.splitlines()[-1] == "2 skipped"


@pytest.mark.parametrize(
    ("name", "duty", "told"),
    [
        ("mien", "cost", "unknown method 'mien' - did you mean 'mine'?"),
        ("mine", "costs", "unknown duty 'costs' - did you mean 'cost'? (available: contract, "),
        ("misspelt", "cost", "unknown duty 'gradients' - did you mean 'gradient'?"),
        ("mine[stepz=3]", "cost", "stepz"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(check, name, duty, told):
    end = check(name, duty)
    assert end.code == 2
    assert end.out == ""
    assert told in end.err
    assert end.err.count("\n") == 1


def test_a_bad_plugin_is_bad_usage(cli, tmp_path):
    (tmp_path / "bad.py").write_text("import nonesuch")
    end = cli("check", "vae", "--plugin", tmp_path / "bad.py")
    assert end.code == 2
    assert "nonesuch" in end.err


@pytest.mark.parametrize("name", ["vae[steps=100]", "mapa", "oracle", "untrained"])
def test_built_in_methods_meet_their_duties(name):
    """All but the dear ones."""
    subject = Subject.of(name)
    cheap = [duty.name for duty in DUTIES if duty.name not in DEAR]
    found = {outcome.duty: outcome for outcome in run(subject, chosen(cheap, subject))}
    skipped = {duty for duty, outcome in found.items() if outcome.status == "skipped"}
    assert {outcome.status for outcome in found.values()} <= {"pass", "skipped"}, found
    assert skipped == ({"gradient", "saving"} if name in ("oracle", "untrained") else set())


@pytest.mark.parametrize("duty", DUTIES, ids=lambda duty: duty.name)
def test_each_duty_is_documented(duty):
    table = (Path(__file__).parents[3] / "docs" / "check.md").read_text(encoding="utf-8")
    assert f"\n| {duty.name} | " in table
