"""What `python -m bench list NAME` shows of one method or dataset."""

import dataclasses

import pytest

import datasets
import methods
from bench.config import labels
from bench.registry.declared import search
from bench.registry.describe import description
from bench.registry.registry import registry

SETTABLE = '''
from dataclasses import dataclass
from typing import ClassVar

from methods.contract.method import Method
from methods.contract.search_space import Choice, LogUniform


@dataclass(frozen=True)
class Parent(Method):
    """A parent.

    Args:
        width: A width,
            in units.
    """

    width: float = 1.5


@dataclass(frozen=True)
class Settable(Parent):
    """Learns nothing.

    It has all kinds of hyperparameters.

    Args:
        depth: Layers; none for as many as it takes.
        kind: A shape: round or square.
    """

    depth: int | None = 3
    kind: str = "round"
    exact: bool = False

    search: ClassVar = {"width": LogUniform(0.5, 2.0), "kind": Choice(("round", "square"))}
    ablation: ClassVar = {"depth": (1, 2)}

    def fit(self, task):
        yield


METHODS = {"settable": Settable}
'''


def listed(cli, *args):
    """The lines that `list` prints, without the space between columns."""
    end = cli("list", *args)
    assert (end.code, end.err) == (0, "")
    return [" ".join(line.split()) for line in end.out.splitlines()]


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('{"width": LogUniform(0.5, 2.0), "kind": Choice(("round", "square"))}', '{"width": (0.5, 2.0)}', "search of"),
        ('{"width": LogUniform(0.5, 2.0), "kind": Choice(("round", "square"))}', "3", "search of"),
        ('{"depth": (1, 2)}', '{"depth": 3}', "ablation of"),
    ],
)
def test_what_a_method_declares_wrongly_is_told_in_a_line(cli, tmp_path, right, wrong, told):
    path = tmp_path / "settable.py"
    path.write_text(SETTABLE.replace(right, wrong))
    command = ("tune",) if "search" in told else ("sweep",)
    for args in (("list", "settable"), (*command, "-m", "settable", "-d", "circle", "--out", tmp_path / "out")):
        end = cli(*args, "--plugin", path)
        assert (end.code, end.out) == (2, "")
        assert f"error: {told} method 'settable' must map names of hyperparameters to" in end.err


def test_a_method_is_listed_with_its_hyperparameters(cli, tmp_path):
    path = tmp_path / "settable.py"
    path.write_text(SETTABLE)
    lines = listed(cli, "settable", "--plugin", path)
    assert lines[0] == "settable Learns nothing"
    assert {"source: plugin settable.py", "It has all kinds of hyperparameters."} <= {*lines}
    assert lines[-5:] == [
        "name type default tune tries sweep tries meaning",
        "width float 1.5 0.5 to 2, evenly in log A width, in units",
        "depth int | None 3 1, 2 Layers; none for as many as it takes",
        "kind str round round, square A shape: round or square",
        "exact bool false",
    ]


def test_a_dataset_is_listed_with_its_parameters(cli):
    lines = listed(cli, "manifold")
    for name in ("data_dim int 50 ", "n_train 500 ", "latent_dim ", "activation ", "hidden ", "noise_variance "):
        assert any(line.startswith(name) for line in lines), name


@pytest.mark.parametrize("name", methods.BUILTIN)
def test_each_hyperparameter_has_a_default_and_a_meaning(name):
    known = registry()
    made = known.make_method(name)
    found = description(known, name, ())
    assert found.about
    assert {each.name: each.default for each in found.parameters} == {
        field.name: labels.spell_value(getattr(made, field.name)) for field in dataclasses.fields(made)
    }
    assert {each.name for each in found.parameters if each.searched} == set(search(known, name))
    assert {each.name for each in found.parameters if each.ablated} == set(made.ablation)
    assert [each.name for each in found.parameters if not each.meaning] == []


@pytest.mark.parametrize("name", datasets.BUILTIN)
def test_each_parameter_of_a_dataset_has_a_meaning(name):
    found = description(registry(), name, ())
    assert found.about
    assert {"n_train", "noise_variance"} <= {each.name for each in found.parameters}
    assert [each.name for each in found.parameters if not each.meaning] == []
