"""The command `check`, and the built-in methods under it."""

import re
import shlex
from pathlib import Path

import pytest

from bench.check import CHECKS, MethodUnderTest, chosen, conformance, cost, method_under_test, ppca, run, short_fit

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
    def skip(self, latent_dim, data_dim, n_train):
        return "no data are far enough"


class Misspelt(Mine):
    exceptions: ClassVar = {"gradients": "its decoder is given"}


METHODS = {"mine": Mine, "fixed": Fixed, "crash": Crash, "distant": Distant, "misspelt": Misspelt}
"""
SLOW = ("bound", "learning", "budget", "optimum")


@pytest.fixture
def check(cli, tmp_path):
    """A function that runs `check` on a method of the plugin, with two fast checks unless others are given."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    def run(name, *checks):
        args = [arg for check in checks or ("determinism", "gradient") for arg in ("--check", check)]
        return cli("check", name, "--plugin", tmp_path / "mine.py", *args)

    return run


def test_each_check_prints_one_line_in_order(check):
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


def test_an_exception_of_a_method_fails_the_check_and_names_its_place(check):
    end = check("crash")
    assert end.code == 1
    assert "fail     determinism   raised IndexError: list index out of range (mine.py:" in end.out
    assert end.out.splitlines()[-1] == "2 failed"


def test_a_method_that_accepts_no_data_is_skipped(check):
    end = check("distant", "bound", "optimum")
    assert end.code == 0
    assert "no data are far enough" in end.out
    assert end.out.splitlines()[-1] == "2 skipped"


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("mien", "cost", "unknown method 'mien' - did you mean 'mine'?"),
        ("mine", "costs", "unknown check 'costs' - did you mean 'cost'? (available: contract, "),
        ("misspelt", "cost", "unknown check 'gradients' - did you mean 'gradient'?"),
        ("mine[stepz=3]", "cost", "stepz"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(check, name, asked, message):
    end = check(name, asked)
    assert end.code == 2
    assert end.out == ""
    assert message in end.err
    assert end.err.count("\n") == 1


def test_a_bad_plugin_is_bad_usage(cli, tmp_path):
    (tmp_path / "bad.py").write_text("import nonesuch")
    end = cli("check", "vae", "--plugin", tmp_path / "bad.py")
    assert end.code == 2
    assert "nonesuch" in end.err


@pytest.mark.parametrize("name", ["vae[steps=12]", "mapa", "oracle", "untrained"])
def test_built_in_methods_pass_the_fast_checks(name):
    under_test = MethodUnderTest.of(name)
    fast = [check.name for check in CHECKS if check.name not in SLOW]
    found = {outcome.check: outcome for outcome in run(under_test, chosen(fast, under_test))}
    skipped = {check for check, outcome in found.items() if outcome.status == "skipped"}
    assert {outcome.status for outcome in found.values()} <= {"pass", "skipped"}, found
    assert skipped == ({"gradient", "saving"} if name in ("oracle", "untrained") else set())


PAGE = (Path(__file__).parents[3] / "docs" / "check.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_command_prints(cli):
    (command, expected), *_ = re.findall(r"```console\n\$ python -m bench (.*)\n([^`]*)```", PAGE)
    printed, shown = (re.sub(r"\d+\.\d s", "", text) for text in (cli(*shlex.split(command)).out, expected))
    assert printed == shown


def test_the_page_explains_each_check_in_order():
    assert re.findall(r"^- \*\*([a-z-]+)\*\*: ", PAGE, re.MULTILINE) == [check.name for check in CHECKS]


def test_the_page_states_the_limits_in_force():
    def spell(limit):
        flops = f"{limit.flops:.0e}".replace("+", "").replace("e0", "e")
        return f"{flops} FLOPs or {limit.seconds:g} CPU seconds"

    facts = (
        f"{method_under_test.N_TRAIN} training points and stops after {short_fit.SHORT.yields} yields",
        spell(short_fit.SHORT),
        f"{method_under_test.LONG_N_TRAIN} training points and stops after {spell(short_fit.LONG)}",
        f"{ppca.N_TRAIN} training points and stops after {ppca.WHOLE.seconds:g} CPU seconds",
        f"more than {cost.HIDDEN_S} s of CPU",
        f"after {conformance.TIMEOUT_S:.0f} s",
    )
    text = " ".join(PAGE.split())
    assert [fact for fact in facts if fact not in text] == []
