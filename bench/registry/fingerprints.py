"""What the values of a run depend on, as digests: code, versions of packages, and the data drawn.

Code is read, never run: the imports of a module are followed through its syntax tree. Comments and docstrings do not
count, so that editing them repeats no run.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from bench.common.errors import describe
from bench.registry.own_data import is_data
from bench.registry.plugins import Entry, PluginFile

if TYPE_CHECKING:
    from datasets.base import DataSource

ROOT = Path(__file__).parents[2]
PROJECT = ("bench", "methods", "datasets", "likelihoods")
EVALUATION = "bench.fit.runner"
DRAWN = 200  # points of each set, for a digest
# These hold names, help texts and messages, and read data. What they say that matters to a run is in its key by value.
NO_VALUES = ("bench", "bench.common", "bench.config", "bench.registry.own_data", "methods", "datasets")
# These packages print, parse or show progress; they compute nothing.
WITHOUT_VALUES = ("click", "msgspec", "rich", "tqdm")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
INSTALLED = "site-packages"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "pyro": "pyro-ppl"}


@dataclass(frozen=True)
class Fingerprint:
    """What the values of a run depend on beside its settings.

    Args:
        code: A digest of the method's, the dataset's and the evaluation's modules and all they import from the
            project, or from beside a plugin.
        versions: Each package that this code imports, with its version.
    """

    code: str
    versions: tuple[str, ...]


class Fingerprints:
    """Fingerprints of methods on datasets; each module is followed once, when it is first needed."""

    def __init__(self) -> None:
        self._modules: dict[str | Path, dict[Path, _Module]] = {}
        self._versions: dict[str, str] = {}

    def of(self, method: Entry, dataset: Entry) -> Fingerprint:
        """The fingerprint of a method on a dataset."""
        entries = (method, dataset)
        modules: dict[Path, _Module] = {}
        for root in (EVALUATION, *(root for entry in entries for root in _roots(entry))):
            if root not in self._modules:
                self._modules[root] = _closure(root)
            modules |= self._modules[root]
        code = "".join(sorted(module.digest for module in modules.values()))
        packages = {name.partition(".")[0] for module in modules.values() for name in module.imports}
        used = packages - set(sys.stdlib_module_names) - {*PROJECT, *WITHOUT_VALUES}
        for package in used - self._versions.keys():
            self._versions[package] = _version(package)
        versions = {entry.distribution for entry in entries} | {self._versions[package] for package in used}
        return Fingerprint(hashlib.sha256(code.encode()).hexdigest()[:16], tuple(sorted(versions - {""})))


def _version(package: str) -> str:
    """A package with its version; empty for one that is not installed as a distribution."""
    name = DISTRIBUTIONS.get(package, package)
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""


def _roots(entry: Entry) -> Iterator[str | Path]:
    """Where the code of an entry begins: a module of the project, or a file."""
    if entry.file is not None:
        yield Path(entry.file)
    elif entry.module.partition(".")[0] in PROJECT:
        yield entry.module
    elif entry.module:
        top = PathFinder.find_spec(entry.module.partition(".")[0])
        if top is not None and top.origin is not None:
            folder = Path(top.origin).parent
            yield from _files(folder.parent if top.submodule_search_locations else folder, entry.module)


@dataclass(frozen=True)
class _Module:
    """A module's digest, without comments and docstrings, and the dotted names that it imports."""

    digest: str
    imports: frozenset[str]


def _closure(root: str | Path) -> dict[Path, _Module]:
    """The modules that a root leads to, by file: of the project, and from beside files of third parties."""
    pending = [root] if isinstance(root, Path) else _project_files(root)
    found: dict[Path, _Module] = {}
    followed: set[str] = set()  # names within the project
    while pending:
        file = pending.pop().resolve()
        if file in found:
            continue
        try:
            found[file] = module = _parsed(file.read_bytes(), _package(file))
        except OSError:
            continue
        of_project = {name for name in module.imports if name.partition(".")[0] in PROJECT}
        for name in of_project - followed:
            pending += _project_files(name)
        followed |= of_project
        if not _in_project(file):
            for name in module.imports - of_project:
                pending += _beside(file, name)
    return found


def _in_project(file: Path) -> bool:
    return file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PROJECT


def _project_files(name: str) -> list[Path]:
    """The file of a module of the project, or of the module that an imported name stands in."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        dotted = ".".join(parts[:length])
        if any(dotted == each or (each in NO_VALUES[1:3] and dotted.startswith(f"{each}.")) for each in NO_VALUES):
            return []
        stem = ROOT.joinpath(*parts[:length])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return [file]
    return []


def _beside(file: Path, name: str) -> Iterator[Path]:
    """The files of a module that a third party's file imports, if it lies beside the file or on the path.

    Of installed packages only the file's own is followed; the others are told by their versions.
    """
    package, top = _package(file), name.partition(".")[0]
    home = file.parents[len(package.split("."))] if package else file.parent
    own = top == package.partition(".")[0]
    folders = [str(each) for each in (file.parent, home) if own or each.name != INSTALLED]
    found = PathFinder.find_spec(top, [*folders, *_own_path()])
    if found is None:
        return
    if found.submodule_search_locations:
        for folder in found.submodule_search_locations:
            yield from _files(Path(folder).parent, name)
    elif found.origin is not None:
        yield Path(found.origin)


def _own_path() -> list[str]:
    """The folders of sys.path that hold neither installed packages nor the standard library."""
    library = Path(ast.__file__).parent
    found = [Path(each or ".").resolve() for each in sys.path]
    return [
        str(each)
        for each in found
        if INSTALLED not in each.parts and not each.is_relative_to(library) and each != ROOT and each.is_dir()
    ]


def _files(folder: Path, name: str) -> Iterator[Path]:
    """The files of a dotted name below a folder: its packages and its module."""
    stem = folder
    for part in name.split("."):
        stem = stem / part
        for file in (stem / "__init__.py", stem.with_suffix(".py")):
            if file.is_file():
                yield file


def _package(file: Path) -> str:
    """The dotted package that a file of a third party lies in, for its relative imports."""
    parts: list[str] = []
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


@lru_cache(maxsize=1024)
def _parsed(source: bytes, package: str) -> _Module:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _Module(hashlib.sha256(source).hexdigest(), frozenset())
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join(filter(None, [*base, node.module or ""]))
            imports |= {f"{stem}.{alias.name}" if stem else alias.name for alias in node.names}
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return _Module(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(imports))


def plugin_file(path: str) -> PluginFile:
    """A file of data, or a plugin with the modules beside it that it imports, to be sent to another machine."""
    if is_data(path):
        return PluginFile(path, ((Path(path).name, Path(path).read_bytes()),))
    home = Path(path).resolve().parent
    beside = sorted(file for file in _closure(Path(path)) if file.is_relative_to(home) and not _in_project(file))
    return PluginFile(path, tuple((str(file.relative_to(home)), file.read_bytes()) for file in beside))


def data_digest(source: DataSource) -> str:
    """A digest of a source's data, to six significant digits, so that it is the same on other machines.

    It covers all observations, or draws at one seed: whatever changes a true model changes these.

    Args:
        source: What the data come from.
    """
    import numpy as np

    from datasets.base import Observations, draw

    digest = hashlib.sha256()
    try:
        if isinstance(source, Observations):
            parts = [source.data]
        else:
            split = draw(source, 0, DRAWN, DRAWN, 0)  # no test set, which `tune` must not see
            parts = [split.train, split.validation]
        for part in parts:
            bits = np.ascontiguousarray(part.detach().double().numpy().astype(np.float32)).view(np.int32)
            digest.update(repr(part.shape).encode() + ((bits.astype(np.int64) + 8) >> 4).tobytes())
    except (Exception, SystemExit) as error:  # the run itself will fail, with this reason
        digest.update(describe(error).encode())
    return digest.hexdigest()[:16]


def project_digest() -> str:
    """A digest of the project's files, which a worker must share with the process that starts a study."""
    files = [file for package in PROJECT for file in sorted((ROOT / package).rglob("*.py"))]
    return _digest_of(tuple((file, (found := file.stat()).st_mtime_ns, found.st_size) for file in files))


@cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """A digest of files, which are read again once their time or size has changed."""
    digest = hashlib.sha256()
    for file, *_ in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
