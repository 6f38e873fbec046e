"""What the tests of the harness share: runs and studies small enough to run in a moment, and the command line."""

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import select
import shutil
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

import bench.registry.registry
from bench.cli.app import main
from bench.execution.scheduler import blocks
from bench.fit.runner import run_block, time_alone
from bench.registry.plugins import Entry
from bench.registry.registry import Registry
from bench.store import tables
from bench.store.records import Cost, Diagnostic, Row, RunResult, RunSpec

OF_THE_MACHINE = (
    *("wall_s", "cpu_s", "evaluation_s", "overrun_s", "query_s"),
    *("peak_memory_mb", "concurrent", "timed_seed"),
)
SMALL = ("--n-train", "40", "--n-test", "50", "--max-flops", "1e7")


@pytest.fixture(scope="session")
def run_spec():
    """A small run, with the fields given changed."""
    small = RunSpec(dataset="circle", method="vae", seed=0, n_train=40, n_test=50)
    return lambda **fields: msgspec.structs.replace(small, **fields)


@pytest.fixture
def offer(monkeypatch):
    """Put a class among the methods, or a factory among the datasets, under a name."""
    plain = bench.registry.registry.registry
    added = {"methods": {}, "datasets": {}}

    def registry(*files):
        known = plain(*files)
        return Registry({**known.methods, **added["methods"]}, {**known.datasets, **added["datasets"]})

    for module in ("bench.registry.registry", "bench.study.plan", "bench.fit.runner"):
        monkeypatch.setattr(f"{module}.registry", registry)

    def put(name, target, kind="methods"):
        added[kind][name] = Entry(name, "", "", "a test", lambda: target)
        return name

    return put


@pytest.fixture
def full_evaluation():
    """Evaluate as studies do."""


@pytest.fixture(autouse=True)
def small_evaluation(request, monkeypatch):
    """Evaluate with coarse plots and few draws, unless `full_evaluation` is asked for."""
    if "full_evaluation" in request.fixturenames:
        return
    monkeypatch.setattr("bench.metrics.evaluator.GRID_POINTS", 20)
    monkeypatch.setattr("bench.metrics.samples.DRAWS", 100)


@pytest.fixture
def run_here(monkeypatch):
    """Let runs be carried out here by the functions given; the list of the runs made."""

    def put(run, time, together):
        ran = []

        def run_all(specs, how, folder):
            for block in together(specs):
                ran.extend(spec.name for spec in block)
                yield from run(block, (how.jobs or 1) > 1)

        def time_all(specs):
            return (timed for spec in specs for timed in time(spec))

        monkeypatch.setattr("bench.execution.scheduler.run_all", run_all)
        monkeypatch.setattr("bench.execution.scheduler.time_alone", time_all)
        return ran

    return put


@pytest.fixture
def in_process(run_here):
    """Carry out runs here rather than in workers, which take seconds to start; the list of the runs made."""
    return run_here(run_block, time_alone, blocks)


def made_up(spec, concurrent):
    chance = random.Random(spec.key)
    rows = [Row(0, "test_ll", chance.gauss(0, 1), 0.1, "nats", Cost(0.5, 0.5, 5.0, 1, 1))]
    rows += [Row(1, name, chance.gauss(0, 1), 0.1, "nats", Cost(1.0, 1.0, 10.0, 2, 2)) for name in ("test_ll", "elbo")]
    method = bench.registry.registry.registry(spec.plugins, spec.columns).make_method(
        spec.method, dict(spec.parameters)
    )
    return RunResult(
        spec,
        cost=Cost(1.0, 1.0, 10.0, 2, 2),
        evaluation_s=2.0,
        rows=rows,
        diagnostics=[Diagnostic(1, "test_ll", "quadrature_error", chance.random())],
        concurrent=concurrent,
        parameters=dataclasses.asdict(method),
    )


@pytest.fixture
def invented(run_here):
    """Make results up, each run's own and always the same, rather than run runs; the list of the runs asked for."""
    return run_here(
        lambda block, concurrent: [made_up(spec, concurrent) for spec in block],
        lambda spec: [RunResult(spec, alone=[(10.0, 1.0, 1.0)])],
        lambda specs: [(spec,) for spec in specs],
    )


@pytest.fixture
def cli(monkeypatch, capsys):
    """The command line: exit code and what it wrote to standard output and error."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code or 0, out=out, err=err)

    return run


@pytest.fixture
def compare(cli):
    """`compare` on small data with the report left out, as it takes longer than all else."""

    def run(out, methods="vae,untrained", datasets="circle", seeds=1, *more):
        args = ("-m", methods, "-d", datasets, "--seeds", seeds, *SMALL, "--jobs", 1, "--out", out, "--quiet")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
            return cli("compare", *args, *more)

    return run


def _values(folder):
    runs, rows = (tables.read_table(Path(folder), name) for name in ("runs", "measurements"))
    by = ["dataset", "method", "seed"]
    return (
        runs.drop(columns=list(OF_THE_MACHINE)).sort_index(axis=1).sort_values(by, ignore_index=True),
        rows.drop(columns=["wall_s", "cpu_s", "concurrent"]).sort_values(
            [*by, "checkpoint", "metric"], ignore_index=True
        ),
    )


@pytest.fixture(scope="session")
def values():
    """The tables of a study without what differs from run to run, in an order of their own."""
    return _values


@pytest.fixture(scope="session")
def tree():
    """What lies under a folder: paths, and the bytes of files; Python's caches aside."""

    def look(folder):
        paths = [path for path in Path(folder).rglob("*") if "__pycache__" not in path.parts]
        return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}

    return look


@pytest.fixture
def unchanged(tree):
    """A context within which nothing may be created, changed or removed under a folder."""

    @contextlib.contextmanager
    def hold(folder):
        before = tree(folder)
        yield
        assert tree(folder) == before

    return hold


@pytest.fixture(autouse=True)
def begun(monkeypatch):
    """Let no study start its server before the first run, which tests may make elsewhere; how many would be."""
    found = []
    monkeypatch.setattr("bench.execution.pool.RunServer.begin", lambda _: found.append(1))
    return found


# The program of a server whose runs do not import torch: they make results up from their keys, and do beside that what
# their parameters say.
INSTANT = """
import json, os, random, sys, time
sys.path[:] = json.loads(sys.argv[2])
from pathlib import Path
from bench.execution.server import serve
from bench.store.records import RunResult, Cost, Row

def act(how, value):
    if how == "kill" or how == "kill_once" and not Path(value).exists():
        Path(value).touch() if value else None
        os.kill(os.getpid(), 9)
    if how == "exit":
        os._exit(value)
    if how == "sleep":
        time.sleep(value)
    if how == "grow":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1000) * 2000))
    if how == "fork" and not os.fork():
        time.sleep(value)
    if how == "daemon" and not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(value)
        os._exit(0)
    if how == "copy":
        os.fork()
    if how == "count":
        with Path(value).open("a") as file:
            file.write("ran ")

def made_up(job, spec):
    result = RunResult(spec, concurrent=job.concurrent, message=f"process {os.getpid()}")
    for how, value in spec.parameters:
        if how in ("status", "notes"):
            setattr(result, how, value)
    value = random.Random(spec.key).random()
    result.rows = [Row(0, name, value, 0.1, "nats", Cost(1.0, 1.0, 10.0)) for name in ("test_ll", "oracle_gap")]
    return result

def carry_out(job):
    for how, value in job.specs[0].parameters:
        act(how, value)
    if job.timed:
        return [RunResult(spec, alone=[(10.0, 1.0, 1.0)]) for spec in job.specs]
    return [made_up(job, spec) for spec in job.specs]

serve(int(sys.argv[1]), carry_out, lambda: ("code of the test",))
"""


@pytest.fixture
def instant(monkeypatch):
    """Let child processes make results up, and do what a run's parameters say; the program that does so."""
    monkeypatch.setattr("bench.execution.pool.PROGRAM", INSTANT)
    return INSTANT


@pytest.fixture(scope="session")
def instant_program():
    """What `instant` makes children run, for processes that no fixture reaches."""
    return INSTANT


@pytest.fixture(scope="session")
def misplaced():
    """What of a drawn figure is cut off, and which panels with their labels, titles and legends lie over each other."""

    def look(fig):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        renderer, slack = FigureCanvasAgg(fig).get_renderer(), 1.5
        parts = [*fig.axes, *fig.legends, *(text for text in fig.texts if text.get_text())]
        boxes = [part.get_tightbbox(renderer) for part in parts]
        width, height = fig.bbox.size
        cut = [
            str(part)
            for part, box in zip(parts, boxes, strict=True)
            if min(box.x0, box.y0, width - box.x1, height - box.y1) < -slack
        ]
        over = [
            f"{parts[i]} over {parts[j]}"
            for i, one in enumerate(boxes)
            for j, other in enumerate(boxes[:i])
            if min(one.x1, other.x1) - max(one.x0, other.x0) > slack
            and min(one.y1, other.y1) - max(one.y0, other.y0) > slack
        ]
        return cut + over

    return look


CHROMIUM = shutil.which("chromium")
PATIENCE = 30  # seconds


NAVIGATED = "Inspected target navigated or closed"


class NavigatedError(Exception):
    """The page was replaced while it was asked."""


class Browser:
    """One page of a Chromium without a window, driven by its own DevTools protocol over a pair of pipes.

    `events` are what it told of requests and of the console.
    """

    def __init__(self, profile):
        theirs_in, self.to = os.pipe()
        self.from_, theirs_out = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]  # clear of 3 and 4
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
        silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
        ends = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
        command = [CHROMIUM, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[*silent, *ends])
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        self.ids, self.events, self.held, self.session = count(1), [], b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            self.events.append(answer)
        if answer.get("error", {}).get("message") == NAVIGATED:
            raise NavigatedError
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self):
        while b"\0" not in self.held:
            assert select.select([self.from_], [], [], PATIENCE)[0], "the browser does not answer"
            chunk = os.read(self.from_, 1 << 16)
            assert chunk, "the browser has ended"
            self.held += chunk
        message, self.held = self.held.split(b"\0", 1)
        return json.loads(message)

    def run(self, program):
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=program, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, program):
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(NavigatedError):  # it was asked while one page replaced another
                if self.run(program):
                    return
            assert time.monotonic() < end, program
            time.sleep(0.02)

    def open(self, address):
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else "",
                      windowsVirtualKeyCode={"Enter": 13, "Escape": 27, "Tab": 9}[key])  # fmt: skip

    def texts(self, selector):
        """What the elements that match show, those that are hidden left out."""
        shown = f"[...document.querySelectorAll({json.dumps(selector)})].filter((each) => each.checkVisibility())"
        return self.run(f"{shown}.map((each) => each.innerText.trim())")

    def told(self):
        """Addresses asked for, and what stands in the console."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        asked = [each["params"]["request"]["url"] for each in self.events if each["method"].endswith("WillBeSent")]
        return asked, [each["params"] for each in self.events if each["method"] in kinds]

    def close(self):
        self.call("Browser.close")
        os.waitpid(self.process, 0)
        os.close(self.to)
        os.close(self.from_)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that all tests of a file share; tests of other files may end processes that they did not begin."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path; Debian's package has it")
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()
