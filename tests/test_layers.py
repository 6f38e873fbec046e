"""Who may import whom, and what must not be imported before it is needed."""

import ast
import importlib
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From bottom to top. A package imports from itself and from lines before its own, never across or up.
LAYERS = (
    ("methods.likelihoods",),
    ("datasets", "methods.contract"),
    ("methods.common",),
    ("methods.mapa",),
    ("methods",),
    ("bench.common",),
    ("bench.config",),
    ("bench.store",),
    ("bench.stats",),
    ("bench.report.figures",),
    ("bench.report",),
    ("bench.publish",),
    ("bench.process", "bench.metrics"),
    ("bench.registry",),
    ("bench.fit",),
    ("bench.execution",),
    ("bench.study",),
    ("bench.check", "bench.scoring", "bench.timing", "bench.tuning"),
    ("bench.cli",),
    ("bench",),
)
# What the layers alone would allow.
FORBIDDEN = {
    "datasets": ("tests", "benchmarks"),
    "methods": ("datasets", "tests", "benchmarks"),
    "bench": ("tests", "benchmarks"),
    **dict.fromkeys(
        ("bench.store", "bench.stats", "bench.report", "bench.publish"), ("torch", "sklearn", "methods", "datasets")
    ),
}
HEAVY = ("torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "distributed", "rich", "matplotlib", "seaborn")
PACKAGES = [package for layer in LAYERS for package in layer]


def dotted(path):
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    dotted(path): path
    for package in ("bench", "datasets", "methods")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in SOURCES.items()}


def package_of(module):
    """The folder that a module lies in, as a package."""
    return module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def imports(tree):
    """Dotted names of all that a file imports, wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name):
    """The project's module that an imported name is, or stands in; None for anything else."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in SOURCES), None)


MODULES = {module: {*filter(None, map(module_of, imports(tree)))} - {module} for module, tree in TREES.items()}
FOLDERS = {
    package: {package_of(each) for module in MODULES if package_of(module) == package for each in MODULES[module]}
    - {package}
    for package in {*map(package_of, SOURCES)}
}


def test_each_package_is_in_one_layer():
    assert sorted(PACKAGES) == sorted(FOLDERS)
    assert len(SOURCES) > 80


def test_imports_go_down():
    layer = {package: number for number, packages in enumerate(LAYERS) for package in packages}
    upward = [
        f"{module} imports {found}"
        for module, used in MODULES.items()
        for found in used
        if package_of(found) != package_of(module) and layer[package_of(found)] >= layer[package_of(module)]
    ]
    assert upward == []


def circle(graph):
    """A circle in a graph of imports; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_there_are_no_circles():
    assert circle(MODULES) == []
    assert circle(FOLDERS) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_not_import(package):
    found = {module: set(imports(tree)) for module, tree in TREES.items() if within(module, package)}
    assert any(found.values())
    assert [
        (module, name)
        for module, names in found.items()
        for name in names
        if any(within(name, each) for each in FORBIDDEN[package])
    ] == []


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_that_vanishes_under_optimisation_or_runs_what_it_reads(module):
    tree = TREES[module]
    nodes = list(ast.walk(tree))
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)]
    assert not {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)} & {"torch.load"}
    assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    assert not {"eval", "exec"} & calls


# Runs each program in a process of its own, forked before anything is imported, and says what that process imported.
PROBE = """
import contextlib, json, os, sys
programs, watched = map(json.loads, sys.argv[1:])
for program in programs:
    if not os.fork():
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            try:
                exec(program)
            except SystemExit as end:
                pass
        print(json.dumps([name for name in watched if name in sys.modules]), flush=True)
        os._exit(0)
    os.wait()
"""


def loaded(programs, watched=HEAVY):
    """Which of `watched` a fresh interpreter has imported after each program, those with any."""
    arguments = [json.dumps(list(each)) for each in (programs, watched)]
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, cwd=ROOT, check=True
    )
    found = dict(zip(programs, map(json.loads, run.stdout.splitlines()), strict=True))
    return {program: names for program, names in found.items() if names}


def command(line):
    return f"import sys\nfrom bench.cli.app import main\nsys.argv = {['bench', *line.split()]!r}\nmain()"


COMMANDS = "compare tune sweep run merge report publish status timing check submit-check list".split()  # noqa: SIM905


def test_answers_without_heavy_imports():
    lines = ["--help", "--version", *(f"{name} --help" for name in COMMANDS), "compere", "compare --seeds many"]
    lines += ["compare --metric x", "compare --seeds 0", "compare --run-memory much", "run missing.toml"]
    lines += ["compare -m map", "compare -d circel", "tune -m map", "sweep map --vary n_train=250"]
    imported = ["import bench", "import bench.cli.app", "import bench; bench.__version__"]
    assert loaded([*imported, *map(command, lines)]) == {}


def test_list_prints_without_imports_that_are_heavier_than_rich():
    lines = ["list", *(f"list {kind}" for kind in ("methods", "datasets", "metrics", "costs", "circel"))]
    assert loaded([*map(command, lines)], [name for name in HEAVY if name != "rich"]) == {}


def test_reading_tables_never_loads_torch():
    program = "import bench.publish.site, bench.report.figures.sweep, bench.store.tables"
    assert "torch" not in loaded([program])[program]


NAMED = {
    (name, str(path.relative_to(ROOT)))
    for path in [*SOURCES.values(), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for name in re.findall(r"`((?:bench|methods|datasets)(?:\.\w+)+)`", path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("name", sorted({name for name, _ in NAMED}))
def test_what_texts_name_by_its_dotted_name_is_there(name):
    """A module, or something within one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[length:]:
        assert hasattr(found, part), [path for each, path in NAMED if each == name]
        found = getattr(found, part)
