"""What the key of a run depends on: the code, packages and data behind its values, and nothing else."""

import ast
import shutil
import subprocess
import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from bench.config.schema import Settings
from bench.registry import fingerprints
from bench.registry.fingerprints import Fingerprints, plugin_file, project_digest
from bench.registry.plugins import load_plugin
from bench.registry.registry import registry
from bench.study.plan import resolve

METHODS = ("vae", "iterative", "mapa", "untrained")
DATASETS = ("circle", "torus", "manifold")
EVERY = {(method, dataset) for method in METHODS for dataset in DATASETS}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A copy of the project's files."""
    root = tmp_path_factory.mktemp("original")
    for package in fingerprints.PROJECT:
        shutil.copytree(fingerprints.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def root(original, tmp_path, monkeypatch):
    """A copy of the project's files, to be changed, in place of the project."""
    monkeypatch.setattr(fingerprints, "ROOT", shutil.copytree(original, tmp_path / "root"))
    return tmp_path / "root"


def found(methods=METHODS, datasets=DATASETS, plugins=()):
    """The fingerprints of methods on datasets."""
    known, made = registry(plugins), Fingerprints()
    return {(m, d): made.of(known.methods[m], known.datasets[d]) for m in methods for d in datasets}


def different(before, after):
    return {pair for pair in before if before[pair] != after[pair]}


def append(path, text="\nADDED = 1\n"):
    path.write_text(path.read_text() + text)


def with_other_words(source):
    """A module with other docstrings, other comments and another layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, fingerprints.DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Other words."))
    return f"# A comment\n{ast.unparse(ast.fix_missing_locations(tree))}\n"


def test_docstrings_comments_and_layout_do_not_count(root):
    before, digest = found(), project_digest()
    for path in root.rglob("*.py"):
        path.write_text(with_other_words(path.read_text()))
    assert found() == before
    assert project_digest() != digest


def test_a_new_method_or_dataset_changes_no_other_key(root):
    before = found()
    (root / "methods" / "new.py").write_text("from methods.vae import VAE\n")
    append(root / "methods" / "__init__.py", '\nBUILTIN["new"] = Entry("methods.new:VAE", "new", "here")\n')
    append(root / "datasets" / "__init__.py")
    assert found() == before


def of(*, methods=METHODS, datasets=DATASETS):
    return {(method, dataset) for method in methods for dataset in datasets}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("methods/vae.py", of(methods=("vae", "iterative"))),
        ("methods/mapa/deconvolution.py", of(methods=("mapa",))),
        ("methods/common/posteriors.py", EVERY),
        ("methods/common/lbfgs.py", of(methods=("mapa",))),
        ("methods/baselines.py", of(methods=("untrained",))),
        ("methods/iwae.py", set()),
        ("datasets/curves.py", of(datasets=("circle",))),
        ("datasets/manifold.py", of(datasets=("manifold",))),
        ("datasets/base.py", EVERY),
        ("bench/fit/cost_model.py", EVERY),
        ("bench/metrics/ais.py", EVERY),
        ("bench/registry/registry.py", EVERY),
        ("bench/config/schema.py", set()),
        ("bench/study/plan.py", set()),
        ("bench/report/page.py", set()),
        ("bench/cli/app.py", set()),
    ],
)
def test_code_counts_where_a_run_imports_it(root, file, changed):
    before = found()
    append(root / file)
    assert different(before, found()) == changed


LOADED = """
import sys
from bench.fit import runner
from bench.registry.registry import registry
known = registry()
for entry in (*known.methods.values(), *known.datasets.values()):
    entry.load()
print(*(name for name in sys.modules if name.partition(".")[0] in ("bench", "methods", "datasets")))
"""


def test_all_modules_that_runs_load_count_but_those_that_hold_no_values():
    command = [sys.executable, "-c", LOADED]
    end = subprocess.run(command, capture_output=True, text=True, check=True, cwd=fingerprints.ROOT)
    known = registry()
    roots = {entry.module for entries in (known.methods, known.datasets) for entry in entries.values()}
    files = {file for root in (fingerprints.EVALUATION, *roots) for file in fingerprints._closure(root)}
    followed = {".".join(file.relative_to(fingerprints.ROOT).with_suffix("").parts) for file in files}
    missing = set(end.stdout.split()) - {name.removesuffix(".__init__") for name in followed}
    of_words = ("bench.common", "bench.config")
    with_code = {name for name in missing if not name.startswith(of_words) and len(statements(name)) > 0}
    assert with_code == {"bench", "bench.registry.own_data", "methods", "datasets"}


def statements(name):
    """What a module does, its docstring and imports aside."""
    tree = ast.parse(Path(sys.modules[name].__file__).read_text())
    ignored = (ast.Import, ast.ImportFrom, ast.Expr)
    return [node for node in tree.body if not isinstance(node, ignored)]


MINE = '''
from dataclasses import dataclass

import helper
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method


@dataclass(frozen=True)
class Mine(Method):
    """A method."""

    def fit(self, task):
        from parts.deep import SCALE

        yield Fitted(task.model, Prior(task.latent_dim))


METHODS = {"mine": Mine}
'''
CURVE = '''
from pathlib import Path

import torch

from datasets.base import Observations


def points(latent_dim=None):
    """Points of a file."""
    rows = [line.split(",") for line in Path(__file__).with_name("points.csv").read_text().splitlines()]
    return Observations("points", 1, torch.tensor([[float(each) for each in row] for row in rows]).double())


DATASETS = {"points": points}
'''


def rows(scale):
    return "\n".join(f"{scale * i},{i * i % 7}" for i in range(300))


@pytest.fixture
def mine(tmp_path):
    """A plugin file with a method, one with a dataset, and what they import and read from beside them."""
    home = tmp_path / "home"
    (home / "parts").mkdir(parents=True)
    (home / "mine.py").write_text(MINE)
    (home / "helper.py").write_text("import far\n")
    (home / "far.py").write_text("VALUE = 1\n")
    (home / "parts" / "__init__.py").write_text("")
    (home / "parts" / "deep.py").write_text("from . import own\nSCALE = own.SCALE\n")
    (home / "parts" / "own.py").write_text("SCALE = 1\n")
    (home / "beside.py").write_text("NOT_IMPORTED = 1\n")
    (home / "curve.py").write_text(CURVE)
    (home / "points.csv").write_text(rows(0.1))
    before = set(sys.modules)
    yield home
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    sys.path[:] = [each for each in sys.path if str(tmp_path) not in each]
    load_plugin.cache_clear()


def files(home):
    return (str(home / "mine.py"), str(home / "curve.py"))


@pytest.mark.parametrize(
    "edited", ["mine.py", "helper.py", "far.py", "parts/__init__.py", "parts/deep.py", "parts/own.py"]
)
def test_what_a_plugin_imports_from_beside_it_changes_its_keys_alone(mine, edited):
    methods, datasets = ("mine", "vae"), ("circle", "points")
    before = found(methods, datasets, files(mine))
    append(mine / edited)
    assert different(before, found(methods, datasets, files(mine))) == of(methods=("mine",), datasets=datasets)
    append(mine / "beside.py")
    append(mine / "helper.py", "# a comment\n")
    assert different(before, found(methods, datasets, files(mine))) == of(methods=("mine",), datasets=datasets)


def test_a_plugin_travels_with_what_it_imports(mine):
    names = [name for name, _ in plugin_file(str(mine / "mine.py")).files]
    assert names == ["far.py", "helper.py", "mine.py", "parts/__init__.py", "parts/deep.py", "parts/own.py"]


def keys(home):
    settings = Settings(methods=("vae",), datasets=("circle", "points"), seeds=2, n_train=30, n_test=20,
                        observation_noise="learned", plugins=files(home))  # fmt: skip
    return {(spec.dataset, spec.seed): spec.key for spec in resolve(settings).runs}


def test_other_data_change_the_keys_of_their_dataset_alone(mine):
    before = keys(mine)
    (mine / "points.csv").write_text(rows(0.2))
    assert different(before, keys(mine)) == {("points", 0), ("points", 1)}
    (mine / "points.csv").write_text(rows(0.1))
    assert keys(mine) == before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package with a method under an entry point; its folder."""
    library = tmp_path / fingerprints.INSTALLED
    (library / "ours").mkdir(parents=True)
    (library / "ours" / "__init__.py").write_text("")
    (library / "ours" / "schemes.py").write_text(MINE.replace("import helper\n", "from ours import helper\n"))
    (library / "ours" / "helper.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(library))
    yield library
    for name in [name for name in sys.modules if name.partition(".")[0] == "ours"]:
        del sys.modules[name]


def install(library, version):
    for old in library.glob("*.dist-info"):
        shutil.rmtree(old)
    info = library / f"ours-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ours\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[mapa_bench.methods]\nours = ours.schemes:Mine\n")
    invalidate_caches()


def test_the_version_and_the_code_of_a_package_change_its_keys_alone(package):
    install(package, "1.0")
    methods, own = ("ours", "vae"), {("ours", "circle")}
    before = found(methods, ("circle",))
    assert "ours 1.0" in before["ours", "circle"].versions
    assert not any(each.startswith("ours") for each in before["vae", "circle"].versions)
    install(package, "2.0")
    upgraded = found(methods, ("circle",))
    assert different(before, upgraded) == own
    assert before["ours", "circle"].code == upgraded["ours", "circle"].code
    append(package / "ours" / "helper.py")
    edited = found(methods, ("circle",))
    assert different(upgraded, edited) == own
    assert upgraded["ours", "circle"].versions == edited["ours", "circle"].versions


def test_the_versions_are_those_of_the_packages_that_code_imports():
    versions = found(("vae", "flow"), ("circle",))
    names = {pair[0]: {each.split()[0] for each in each.versions} for pair, each in versions.items()}
    assert {"torch", "numpy", "scipy"} <= names["vae"]
    assert names["flow"] - names["vae"] == {"zuko"}
    assert not names["vae"] & {"click", "rich", "pytest"}


def moved(home, out, tmp_path, what):
    target = tmp_path / "elsewhere"
    target.mkdir()
    if "plugin" in what:
        home = home.rename(target / "plugins")
    if "study" in what:
        out = out.rename(target / "study")
    return home, out


@pytest.mark.parametrize("what", ["plugin", "study", "plugin and study"])
def test_moving_plugins_and_study_runs_nothing_again(mine, compare, invented, tmp_path, what):
    def study(home, out):
        plugins = [word for file in files(home) for word in ("--plugin", file)]
        more = ("--observation-noise", "learned", *plugins)
        end = compare(out, "mine,vae", "circle,points", 1, *more, "--n-train", 30, "--n-test", 20)
        assert (end.code, end.err) == (0, "")

    study(mine, tmp_path / "out")
    assert len(invented) == 4
    home, out = moved(mine, tmp_path / "out", tmp_path, what)
    study(home, out)
    assert len(invented) == 4
    append(home / "helper.py", "# A comment\n")
    append(home / "mine.py", "# A comment\n")
    load_plugin.cache_clear()
    study(home, out)
    assert len(invented) == 4
    append(home / "helper.py")
    study(home, out)
    assert invented[4:] == ["circle / mine / seed 0", "points / mine / seed 0"]
