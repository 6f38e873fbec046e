"""Methods and datasets of third parties, from a file or an installed package."""

import json
from importlib import metadata

import pandas as pd
import pytest

import methods
from bench.registry.plugins import load_plugin
from bench.registry.registry import registry
from bench.store import tables

METHOD = '''
from dataclasses import dataclass

import torch

from methods.contract.method import Fitted, Method
from methods.common.posteriors import build_encoder


@dataclass(frozen=True)
class Mine(Method):
    """A plain variational autoencoder."""

    steps: int = 30

    def fit(self, task):
        if task.train.shape[1] == 3:
            raise ValueError("three dimensions are too many")
        model, encoder = task.model, build_encoder(task.model, task.generator)
        task.ledger.watch(encoder=encoder.network)
        adam = torch.optim.Adam([*model.network.parameters(), *encoder.parameters()], lr=1e-2)
        for _ in range(self.steps):
            z, log_q = encoder.sample(task.train, 1, task.generator)
            log_joint = model.log_likelihood(task.train, z[0]) - z[0].square().sum(-1) / 2
            adam.zero_grad()
            (log_q[0] - log_joint).mean().backward()
            adam.step()
            print("one step more")
            yield Fitted(model, encoder)


METHODS = {"mine": Mine}
'''
DATASET = '''
import torch

from datasets.base import Problem


def parabola(latent_dim=None):
    """A parabola."""
    return Problem("parabola", 1, 2, 0.05, lambda z: torch.cat([z, z.square()], -1))


def cubic(latent_dim=None):
    """A cubic curve in space."""
    return Problem("cubic", 1, 3, 0.05, lambda z: torch.cat([z, z.square(), z**3], -1))


DATASETS = {"parabola": parabola, "cubic": cubic}
'''


@pytest.fixture
def plugins(tmp_path):
    paths = tmp_path / "mine.py", tmp_path / "own.py"
    for path, code in zip(paths, (METHOD, DATASET), strict=True):
        path.write_text(code)
    return paths


def test_a_method_and_a_dataset_of_ones_own(compare, in_process, plugins, tmp_path):
    files = ("--plugin", plugins[0], "--plugin", plugins[1])
    end = compare(tmp_path / "out", "untrained,mine", "parabola,cubic", 1, *files)
    assert end.code == 1
    assert "one step more" not in end.out + end.err
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "cubic / mine / seed 0: failed - ValueError: three dimensions are too many" in log
    runs = tables.read_table(tmp_path / "out", "runs").set_index(["dataset", "method"])
    assert runs["status"].to_dict() == {
        ("parabola", "untrained"): "done",
        ("parabola", "mine"): "done",
        ("cubic", "untrained"): "done",
        ("cubic", "mine"): "failed",
    }
    assert runs.loc[("parabola", "mine"), "p_steps"] == 30
    assert runs.loc[("parabola", "mine"), "encoder_passes"] > 0
    rows = tables.read_table(tmp_path / "out", "measurements").query("metric == 'test_ll' and dataset == 'parabola'")
    last = rows.groupby("method")["value"].last()
    assert last["mine"] > last["untrained"] + 1
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    assert info["methods"]["mine"]["summary"] == "A plain variational autoencoder"


@pytest.mark.parametrize("command", [("list", "methods"), ("check", "vae"), ("compare", "--methods", "vae")])
def test_a_plugin_that_interrupts_its_import_ends_the_command_in_a_line(cli, tmp_path, command):
    (tmp_path / "mine.py").write_text('raise KeyboardInterrupt("enough\\nof this")')
    end = cli(*command, "--plugin", tmp_path / "mine.py")
    assert (end.code, end.out) == (130, "")
    assert end.err.strip() == f"interrupted while plugin {tmp_path / 'mine.py'} was imported"


def test_a_plugin_is_listed(cli, plugins):
    end = cli("list", "--plugin", plugins[0], "--plugin", plugins[1])
    assert end.code == 0
    for text in ("mine", "A plain variational autoencoder", "plugin mine.py", "parabola", "A cubic curve in space"):
        assert text in end.out


def test_a_plugin_of_a_folder_need_not_be_named_again(compare, invented, plugins, tmp_path):
    assert compare(tmp_path / "out", "mine", "circle", 1, "--plugin", plugins[0]).code == 0
    end = compare(tmp_path / "out", "untrained", "circle", 1)
    assert (end.code, end.err) == (0, "")
    assert invented == ["circle / mine / seed 0", "circle / untrained / seed 0"]


def test_a_plugin_of_a_folder_that_is_gone_is_named(compare, invented, plugins, tmp_path):
    assert compare(tmp_path / "out", "mine", "circle", 1, "--plugin", plugins[0]).code == 0
    plugins[0].rename(tmp_path / "renamed.py")
    load_plugin.cache_clear()
    end = compare(tmp_path / "out", "untrained", "circle", 1)
    assert end.code == 2
    assert str(plugins[0]) in end.err


def test_an_edited_plugin_runs_its_runs_anew(compare, invented, plugins, tmp_path):
    edits = [METHOD, METHOD.replace("import torch", "import torch  # a comment"), METHOD.replace("1e-2", "2e-2")]
    for text, ran in zip(edits, (2, 2, 3), strict=True):
        plugins[0].write_text(text)
        assert compare(tmp_path / "out", "mine,untrained", "circle", 1, "--plugin", plugins[0]).code == 0
        assert len(invented) == ran
    assert invented[2:] == ["circle / mine / seed 0"]


def point(name, value, group):
    return metadata.EntryPoint(name, value, group)


@pytest.fixture
def install(monkeypatch):
    """Pretend that packages are installed which offer these entry points."""

    def put(*points):
        monkeypatch.setattr(
            "bench.registry.plugins._entry_points", lambda group, _: metadata.EntryPoints(points).select(group=group)
        )

    return put


def test_an_installed_package_may_offer_both(install, compare, in_process, plugins, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    install(point("ours", "mine:Mine", "mapa_bench.methods"), point("valley", "own:parabola", "mapa_bench.datasets"))
    assert compare(tmp_path / "out", "ours", "valley", 1).code == 0
    assert in_process == ["valley / ours / seed 0"]
    assert tables.read_table(tmp_path / "out", "runs")["status"].tolist() == ["done"]


def test_an_installed_package_is_not_imported_to_be_listed(install, cli):
    install(point("ours", "nowhere:Mine", "mapa_bench.methods"))
    end = cli("list", "methods")
    assert end.code == 0
    assert "from nowhere:Mine, which is not installed" in end.out


def test_a_broken_package_is_named_when_asked_for_and_stops_nothing_else(install, cli, compare, in_process, tmp_path):
    install(point("ours", "nowhere:Mine", "mapa_bench.methods"), point("theirs", "json:loads", "mapa_bench.methods"))
    assert compare(tmp_path / "out", "untrained", "circle", 1).code == 0
    end = cli("list", "ours")
    assert (end.code, end.out) == (2, "")
    assert end.err == "error: nowhere:Mine cannot be imported: ModuleNotFoundError: No module named 'nowhere'\n"


def test_a_package_that_exits_on_import_is_an_error(install, cli, tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    install(point("ours", "leaves:Mine", "mapa_bench.methods"))
    end = cli("list", "ours")
    assert (end.code, end.err) == (2, "error: leaves:Mine cannot be imported: SystemExit: 0\n")


def test_two_packages_that_clash(install, compare, in_process, tmp_path):
    install(point("ours", "json:loads", "mapa_bench.methods"), point("ours", "json:dumps", "mapa_bench.methods"))
    end = compare(tmp_path / "out", "untrained", "circle", 1)
    assert end.code == 2
    assert end.err == "error: json:dumps offers 'ours', which is taken (json:loads); rename it\n"
    assert in_process == []


SETTABLE = '''
import os, sys
from dataclasses import dataclass
from typing import ClassVar

from methods.contract.method import Fitted, Method
from methods.common.posteriors import Prior
from methods.contract.search_space import LogUniform

print("imported")
os.write(2, b"imported")


@dataclass(frozen=True)
class Settable(Method):
    """Learns nothing.

    Args:
        width: A width,
            in units.
        depth: Layers; none for as many as it takes.
    """

    width: float = 1.5
    depth: int | None = 3
    kind: str = "round"
    exact: bool = False

    search: ClassVar = {"width": LogUniform(0.5, 2.0)}
    ablation: ClassVar = {"depth": (1, 2)}

    def __post_init__(self):
        sys.stderr.write("made")
        if self.width < 0:
            raise ValueError("width is negative")

    def skip(self, latent_dim, data_dim, n_train):
        return "too few points" if n_train < 30 else None

    def fit(self, task):
        yield Fitted(task.model, Prior(task.latent_dim))


METHODS = {"settable": Settable}
'''


@pytest.fixture
def settable(tmp_path):
    path = tmp_path / "settable.py"
    path.write_text(SETTABLE)
    return path


def test_hyperparameters_of_a_plugin_can_be_set(compare, in_process, settable, tmp_path):
    given = ("settable.width=2", "settable.depth=none", "settable.kind=square", "settable.exact=true")
    more = [word for text in given for word in ("--set", text)]
    end = compare(tmp_path / "out", "settable", "circle", 1, "--plugin", settable, *more)
    assert (end.code, end.out, end.err) == (0, "", "")
    runs = tables.read_table(tmp_path / "out", "runs")
    assert runs[["p_width", "p_kind", "p_exact"]].iloc[0].tolist() == [2.0, "square", True]
    assert isinstance(float(runs["p_width"].iloc[0]), float)
    assert runs["p_width"].dtype == float
    assert pd.isna(runs["p_depth"].iloc[0])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("settable.width=wide", "settable.width must be a finite number, got 'wide'"),
        ("settable.depth=1.5", "settable.depth must be a whole number or none, got '1.5'"),
        ("settable.exact=2", "settable.exact must be true or false, got '2'"),
        ("settable.widht=2", "unknown parameter of 'settable' 'widht' - did you mean 'width'?"),
        ("settable.width=-1", "method 'settable' cannot be made: ValueError: width is negative"),
        ("other.width=1", "unknown method 'other'"),
    ],
)
def test_wrong_hyperparameters_are_refused(compare, in_process, settable, tmp_path, assignment, message):
    end = compare(tmp_path / "out", "settable", "circle", 1, "--plugin", settable, "--set", assignment)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert message in end.err
    assert in_process == []


def test_a_plugin_may_decline(compare, in_process, settable, tmp_path):
    label = "circle[n_train=20]"
    assert compare(tmp_path / "out", "settable", label, 1, "--plugin", settable).code == 0
    runs = tables.read_table(tmp_path / "out", "runs")
    assert runs[["status", "message"]].iloc[0].tolist() == ["skipped", "too few points"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("ours", "nowhere:Mine"), "cannot be imported: ModuleNotFoundError"),
        (("ours", "json:Mine"), "cannot be imported: AttributeError"),
        (("vae", "json:loads"), "offers 'vae', which is taken"),
    ],
)
def test_a_package_that_cannot_be_used(install, compare, in_process, tmp_path, given, message):
    install(point(*given, "mapa_bench.methods"))
    end = compare(tmp_path / "out", given[0], "circle", 1)
    assert end.code == 2
    assert message in end.err
    assert end.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_registry_lists_built_in_names_first():
    known = registry()
    assert list(known.methods)[: len(methods.BUILTIN)] == list(methods.BUILTIN)
    assert all(item.summary and item.source for item in [*known.methods.values(), *known.datasets.values()])
