"""Who may import whom, and what must not be imported before it is needed: read off the sources, and off sys.modules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLOTTING = ("matplotlib", "seaborn")
HEAVY = ("torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "distributed", "rich", *PLOTTING)
MAY_NOT = {
    "datasets": ("methods", "bench"),
    "methods": ("datasets", "bench"),
    "bench": ("tests", "benchmarks"),
    "bench/report": ("torch", "methods", "datasets", "sklearn", "loky"),
}
SOURCES = sorted(path for package in ("bench", "datasets", "methods") for path in (ROOT / package).rglob("*.py"))


def imports(path):
    """Dotted names of all that a file imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def test_the_sources_are_found():
    assert len(SOURCES) > 25


@pytest.mark.parametrize(
    ("folder", "package"), [(folder, package) for folder, packages in MAY_NOT.items() for package in packages]
)
def test_does_not_import(folder, package):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert not [(str(f.relative_to(ROOT)), name) for f in files for name in imports(f) if within(name, package)]


def test_the_report_knows_nothing_else_of_the_harness():
    found = {name for f in (ROOT / "bench" / "report").rglob("*.py") for name in imports(f) if within(name, "bench")}
    assert found
    assert not {name for name in found if not within(name, "bench.report")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_vanishes_under_optimisation_or_runs_what_it_reads(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    loads = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) == "torch"
    ]
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not asserts
    assert not loads
    assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    assert not {"eval", "exec"} & set(calls)


def loaded(code, *watched):
    """Which of `watched` a fresh interpreter has imported after `code`, in the order of `watched`."""
    tail = f"\nimport sys\nprint('LOADED', *[m for m in {watched!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, cwd=ROOT, check=True)
    return run.stdout.splitlines()[-1].split()[1:]


def command(*args):
    return f"""
import sys
from bench.cli.app import main
sys.argv = ["bench", *{args!r}]
try:
    main()
except SystemExit as end:
    code = end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import bench",
        "import bench.cli.app",
        "import bench; bench.__version__",
        command("--help"),
        command("--version"),
        command("compare", "--help"),
        command("tune", "--help"),
        command("sweep", "--help"),
        command("run", "--help"),
        command("merge", "--help"),
        command("timing", "--help"),
        command("check", "--help"),
        command("list", "--help"),
        command("compere"),
        command("compare", "--seeds", "many"),
    ],
)
def test_answers_without_heavy_imports(code):
    assert loaded(code, *HEAVY) == []


@pytest.mark.parametrize(
    "args",
    [
        ("compare", "-m", "map"),
        ("compare", "--metric", "x"),
        ("compare", "--seeds", "0"),
        ("compare", "-d", "circel"),
        ("compare", "--run-memory", "much"),
        ("sweep", "map", "--vary", "size=250"),
        ("tune", "-m", "map"),
        ("run", "missing.toml"),
    ],
)
def test_usage_errors_come_before_heavy_imports(args):
    assert loaded(command(*args), *HEAVY) == []


@pytest.mark.parametrize("kind", [(), ("methods",), ("datasets",), ("metrics",), ("costs",), ("circel",)])
def test_list_prints_without_imports_that_are_heavier_than_rich(kind):
    assert loaded(command("list", *kind), *(name for name in HEAVY if name != "rich")) == []


def test_the_probe_sees_what_is_imported():
    assert loaded("import bench.metrics", "torch", "matplotlib") == ["torch"]


def test_reading_tables_never_loads_torch():
    assert loaded("import bench.report, bench.report.figures.sweep, bench.store.tables", "torch") == []
