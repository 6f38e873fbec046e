"""Methods and datasets from a file or an installed package, and the comparison as a Python function."""

import dataclasses
import json
import subprocess
import sys
from importlib import metadata

import pandas as pd
import pytest

import bench
import methods
from bench.common.errors import UsageError
from bench.registry import labels
from bench.registry.describe import details, explained
from bench.registry.registry import code_version, registry
from bench.store import tables

COLUMNS = (
    *("dataset", "method", "seed", "checkpoint", "metric", "value", "stderr", "unit"),
    *("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes", "concurrent"),
)

METHOD = '''
from dataclasses import dataclass

import torch

from methods.contract.method import Fitted
from methods.common.posteriors import build_encoder


@dataclass(frozen=True)
class Mine:
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


def sheet(latent_dim=None):
    """A bent sheet in space."""
    return Problem("sheet", 2, 3, 0.05, lambda z: torch.cat([z, z[..., :1].square()], -1))


DATASETS = {"parabola": parabola, "sheet": sheet}
'''


@pytest.fixture
def plugins(tmp_path):
    paths = tmp_path / "mine.py", tmp_path / "own.py"
    for path, code in zip(paths, (METHOD, DATASET), strict=True):
        path.write_text(code)
    return paths


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")


def test_a_method_and_a_dataset_of_ones_own(cli, plugins, tmp_path):
    small = ("--size", 30, "--test-size", 30, "--max-flops", 2e7, "--jobs", 1, "--seeds", 1)
    files = ("--plugin", plugins[0], "--plugin", plugins[1])
    end = cli("compare", "-m", "untrained,mine", "-d", "parabola,sheet", *small, *files, "--out", tmp_path / "out")
    assert end.code == 1
    assert "one step more" not in end.out + end.err
    assert "sheet / mine / seed 0: failed - ValueError: three dimensions are too many" in end.err
    runs = tables.read_table(tmp_path / "out", "runs").set_index(["dataset", "method"])
    assert runs["status"].to_dict() == {
        ("parabola", "untrained"): "done",
        ("parabola", "mine"): "done",
        ("sheet", "untrained"): "done",
        ("sheet", "mine"): "failed",
    }
    assert runs.loc[("parabola", "mine"), "p_steps"] == 30
    assert runs.loc[("parabola", "mine"), "encoder_passes"] > 0
    rows = tables.read_table(tmp_path / "out", "measurements").query("metric == 'test_ll' and dataset == 'parabola'")
    last = rows.groupby("method")["value"].last()
    assert last["mine"] > last["untrained"] + 1
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    assert info["methods"]["mine"]["summary"] == "A plain variational autoencoder"
    assert "mine" in (tmp_path / "out" / "report.md").read_text()


def test_a_plugin_is_listed(cli, plugins):
    end = cli("list", "--plugin", plugins[0], "--plugin", plugins[1])
    assert end.code == 0
    for text in ("mine", "A plain variational autoencoder", "plugin mine.py", "parabola", "A bent sheet in space"):
        assert text in end.out


def test_a_plugin_of_a_folder_need_not_be_named_again(compare, in_process, plugins, tmp_path):
    assert compare(tmp_path / "out", "mine", "circle", 1, "--plugin", plugins[0]).code == 0
    end = compare(tmp_path / "out", "untrained", "circle", 1)
    assert (end.code, end.err) == (0, "")
    assert in_process == ["circle / mine / seed 0", "circle / untrained / seed 0"]


def test_a_plugin_of_a_folder_that_is_gone_is_named(compare, in_process, plugins, tmp_path):
    assert compare(tmp_path / "out", "mine", "circle", 1, "--plugin", plugins[0]).code == 0
    plugins[0].rename(tmp_path / "renamed.py")
    bench.registry.registry.load_plugin.cache_clear()
    end = compare(tmp_path / "out", "untrained", "circle", 1)
    assert end.code == 2
    assert str(plugins[0]) in end.err


def test_an_edited_plugin_runs_its_runs_anew(compare, in_process, plugins, tmp_path):
    for _ in range(2):
        assert compare(tmp_path / "out", "mine,untrained", "circle", 1, "--plugin", plugins[0]).code == 0
    assert len(in_process) == 2
    plugins[0].write_text(METHOD.replace("1e-2", "2e-2"))
    assert compare(tmp_path / "out", "mine,untrained", "circle", 1, "--plugin", plugins[0]).code == 0
    assert in_process[2:] == ["circle / mine / seed 0"]


def test_code_of_a_plugin_counts_by_content(plugins, tmp_path):
    moved = tmp_path / "elsewhere.py"
    moved.write_text(METHOD)
    versions = [code_version([str(path)]) for path in (plugins[0], moved, plugins[1])]
    assert versions[0] == versions[1] != versions[2]
    assert code_version() not in versions


def point(name, value, group):
    return metadata.EntryPoint(name, value, group)


@pytest.fixture
def install(monkeypatch):
    """Pretend that packages are installed which offer these entry points."""
    plain = metadata.entry_points

    def put(*points):
        def entry_points(**wanted):
            mine = [p for p in points if p.group == wanted.get("group")]
            return mine if str(wanted.get("group", "")).startswith("mapa_bench.") else plain(**wanted)

        monkeypatch.setattr(metadata, "entry_points", entry_points)

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
    assert "from nowhere:Mine, which is not there" in end.out


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

from methods.contract.method import Fitted
from methods.common.posteriors import Prior
from methods.contract.search_space import LogUniform

print("imported")
os.write(2, b"imported")


@dataclass(frozen=True)
class Settable:
    """Learns nothing.

    width: a width, in units. depth: layers; none for as many as it takes.
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

    def skip(self, latent_dim, data_dim, size):
        return "too few data" if size < 30 else None

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
def test_values_that_will_not_do_are_refused(compare, in_process, settable, tmp_path, assignment, message):
    end = compare(tmp_path / "out", "settable", "circle", 1, "--plugin", settable, "--set", assignment)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert message in end.err
    assert in_process == []


def test_a_plugin_may_decline(compare, in_process, settable, tmp_path):
    label = "circle[size=20]"
    assert compare(tmp_path / "out", "settable", label, 1, "--plugin", settable).code == 0
    runs = tables.read_table(tmp_path / "out", "runs")
    assert runs[["status", "message"]].iloc[0].tolist() == ["skipped", "too few data"]


def test_one_method_is_listed_with_all_that_it_takes(cli, settable):
    end = cli("list", "settable", "--plugin", settable)
    assert (end.code, end.err) == (0, "")
    lines = [" ".join(line.split()) for line in end.out.splitlines()]
    assert lines[0] == "settable Learns nothing"
    assert "source: plugin settable.py" in lines
    assert "width float 1.5 0.5 to 2, evenly in log a width, in units" in lines
    assert "depth int | None 3 1, 2 layers; none for as many as it takes" in lines
    assert "kind str round" in lines
    assert "exact bool false" in lines


@pytest.mark.parametrize("name", sorted(methods.BUILTIN))
def test_every_hyperparameter_that_is_built_in_is_listed(name):
    known = registry()
    found = details(known, name, ())
    fields = {
        field.name: getattr(known.make_method(name), field.name)
        for field in dataclasses.fields(known.make_method(name))
    }
    assert {each.name: each.default for each in found.parameters} == {
        name: labels.spell_value(value) for name, value in fields.items()
    }
    assert {each.name for each in found.parameters if each.searched} == set(known.search(name))


def test_one_dataset_is_listed_with_all_that_it_takes(cli):
    end = cli("list", "manifold")
    lines = [" ".join(line.split()) for line in end.out.splitlines()]
    assert "data_dim int 50 10 to 784, more than L" in lines
    assert "size --size number of training data" in lines


@pytest.mark.parametrize(
    ("text", "about", "meanings"),
    [
        (
            "A claim.\n\na: one,\n  two. b, c: three.\n\nMore.",
            "A claim.",
            {"a": "one, two", "b": "three", "c": "three"},
        ),
        ("a: one. b,\nc: two", "", {"a": "one", "b": "two", "c": "two"}),
        ("noise s2: a variance", "", {"noise": "a variance"}),
        ("Args:\n    a: one\n    b: two", "Args:", {"a": "one", "b": "two"}),
        ("the a: of `b: c`", "the", {"a": "of `b: c`"}),
        ("nothing", "nothing", {}),
    ],
)
def test_meanings_are_read_off_docstrings(text, about, meanings):
    assert explained(text, ["a", "b", "c", "noise"]) == (about, meanings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("ours", "nowhere:Mine"), "cannot be imported: ModuleNotFoundError"),
        (("ours", "json:Mine"), "cannot be imported: AttributeError"),
        (("vae", "json:loads"), "offers 'vae', which is taken"),
    ],
)
def test_an_installed_package_that_will_not_do(install, compare, in_process, tmp_path, given, message):
    install(point(*given, "mapa_bench.methods"))
    end = compare(tmp_path / "out", given[0], "circle", 1)
    assert end.code == 2
    assert message in end.err
    assert end.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_comparing_from_python(in_process, no_report, tmp_path):
    table = bench.compare(["vae", "untrained"], ["circle"], 2, size=40, max_flops=1e7, out=tmp_path / "out")
    assert tuple(table.columns) == COLUMNS
    assert len(in_process) == 4
    assert set(table["method"]) == {"vae", "untrained"}
    assert {"test_ll", "oracle_gap", "elbo", "inference_gap", "signal_w2", "sample_w2"} <= set(table["metric"])
    pd.testing.assert_frame_equal(table, tables.read_table(tmp_path / "out", "measurements"))


def test_python_and_the_command_line_share_their_results(cli, in_process, no_report, tmp_path):
    small = {"size": 40, "max_flops": 10**7, "out": tmp_path / "out"}
    bench.compare(["untrained"], ["circle"], 1, **small)
    args = ("-m", "untrained", "-d", "circle", "--seeds", 1, "--size", 40, "--max-flops", "1e7", "--out", small["out"])
    assert cli("compare", *args, "--quiet").code == 0
    assert len(in_process) == 1


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((["mpaa"],), {}, "did you mean 'mapa'"),
        ((["vae"], ["circel"]), {}, "did you mean 'circle'"),
        (([],), {}, "--methods names nothing"),
        ((["vae"], ["circle"], 0), {}, "--seeds must be"),
        ((["vae"], ["circle"], 1.5), {}, "--seeds must be"),
        ((["vae"],), {"size": -1}, "--size must be"),
        ((["vae"],), {"max_flops": float("nan")}, "--max-flops must be"),
        ((["vae"],), {"noise": "x"}, "--noise must be"),
        ((["vae"],), {"jobs": 0}, "--jobs must be"),
        ((["vae"],), {"plugins": ["nowhere.py"]}, r"nowhere\.py is not a file"),
    ],
)
def test_mistakes_from_python(in_process, unchanged, tmp_path, monkeypatch, args, options, message):
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path), pytest.raises(UsageError, match=message):
        bench.compare(*args, **options)
    assert in_process == []


SCRIPT = """
import bench
table = bench.compare(["untrained"], ["circle"], 2, size=20, jobs=2, out="out", report=False)
print("rows", len(table))
"""


def test_a_script_without_a_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    end = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout == "rows 18\n"


def test_the_names_that_bench_has():
    assert bench.compare.__module__ == "bench.api"
    assert bench.__version__ == metadata.version("mapa-bench")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bench.nothing  # noqa: B018


def test_the_registry_lists_built_in_names_first():
    known = registry()
    assert list(known.methods)[: len(methods.BUILTIN)] == list(methods.BUILTIN)
    assert all(item.summary and item.source for item in [*known.methods.values(), *known.datasets.values()])
