"""The command line: what is wrong is told in a line that helps, with exit code 2 and nothing touched."""

import re

import pytest

PLUGIN = """
from dataclasses import dataclass
from datasets import load
from methods.contract.method import Method

@dataclass(frozen=True)
class Mine(Method):
    def fit(self, task):
        yield
"""
COMPARE = ("compare", "-m", "vae", "-d", "circle")

NAMES = [
    (("compere",), "unknown command 'compere' - did you mean 'compare'?"),
    (
        ("frobnicate",),
        "unknown command 'frobnicate' (available: compare, plan, run, merge, report, publish, status, tune, sweep, "
        "list, timing, check, submit-check)",
    ),
    (("compare", "-m", "mpaa"), "unknown method 'mpaa' - did you mean 'mapa'?"),
    (("compare", "-m", "mapa,MAPPA"), "unknown method 'MAPPA' - did you mean 'mapa'?"),
    (("compare", "-m", "vea", "-d", "nowhere"), "unknown method 'vea' - did you mean 'vae'?"),
    (("compare", "-m", "vae,zzz"), "unknown method 'zzz' (available: mapa, "),
    (("compare", "-d", "circel"), "unknown dataset 'circel' - did you mean 'circle'?"),
    (("compare", "-d", "qqq"), "unknown dataset 'qqq' (available: figure8, circle,"),
    (("compare", "--metric", "test_l"), "unknown metric 'test_l' - did you mean 'test_ll'?"),
    (("compare", "--metric", "wall_s"), "unknown metric 'wall_s'"),
    (("compare", "--margin", "-1"), "--margin must be a number of at least 0, got -1"),
    (("list", "method"), "unknown name 'method' - did you mean 'methods'?"),
    (("list", "mpaa"), "unknown name 'mpaa' - did you mean 'mapa'?"),
    (("list", "methods", "datasets"), "unexpected extra argument"),
    (("compare", "vae"), "unexpected extra argument"),
    (("compare", "--method", "vae"), "--methods"),
    (("compare", "--sead", "3"), "--seeds"),
    (("list", "--sizes"), "--sizes"),
    (("--frobnicate",), "--frobnicate"),
    (("compare", "-m", ""), "no methods are named"),
    (("compare", "-m", " , "), "no methods are named"),
    (("compare", "-d", ","), "no datasets are named"),
    (("compare", "-d", "figure8", "--latent-dim", "2"), "'figure8' has latent dimension 1, got --latent-dim 2"),
    (("compare", "-d", "circle,torus", "--latent-dim", "1"), "'torus' has latent dimension 2, got --latent-dim 1"),
    (("compare", "--seeds"), "requires an argument"),
    (("compare", "-m", "vae", "--baseline", "mpaa"), "unknown method 'mpaa' - did you mean 'mapa'?"),
    (("compare", "-m", "vae", "--baseline", "mapa"), "unknown baseline 'mapa'"),
    (("compare", "-m", "vea[steps=3]"), "unknown method 'vea' - did you mean 'vae'?"),
    (
        ("compare", "-m", "vae[stesp=3]"),
        "unknown parameter of 'vae' 'stesp' - did you mean 'steps'? (available: steps,",
    ),
    (("compare", "-m", "vae[steps=1.5]"), "vae.steps must be a whole number, got '1.5'"),
    (("compare", "-m", "vae[steps=3"), "'vae[steps=3' is not of the form NAME or NAME[parameter=value,...]"),
    (("compare", "-d", "circel[n_train=3]"), "unknown dataset 'circel' - did you mean 'circle'?"),
    (
        ("compare", "-d", "circle[n_train=0]"),
        "n_train of 'circle[n_train=0]' must be a whole number",
    ),
    (
        ("compare", "-d", "circle[noise_variance=-1]"),
        "must be a positive number, got -1",
    ),
    (
        ("compare", "-d", "circle[noise_variance=low]"),
        "must be a positive number, got low",
    ),
    (("compare", "-d", "circle[noise=1]"), "parameter of dataset 'circle' 'noise' - did you mean 'noise_variance'?"),
    (("compare", "-d", "circle[latent_dim=2]"), "dataset 'circle' has latent dimension 1, got 2"),
    (("compare", "-d", "random_curve[seed=-1]"), "random_curve takes a whole number seed from 0 to 9999, got -1"),
    (("compare", "-d", "random_curve[seed=10000]"), "random_curve takes a whole number seed from 0 to 9999, got 10000"),
    (("compare", "-d", "random_surface[seed=1.5]"), "takes a whole number seed from 0 to 9999, got 1.5"),
    (("compare", "-d", "random_surface[seed=9223372036854775808]"), "takes a whole number seed from 0 to 9999, got 9"),
    (("compare", "-d", "random_curve[seed=one]"), "takes a whole number seed from 0 to 9999, got one"),
    (("compare", "-d", "random_curve[sed=1]"), "parameter of dataset 'random_curve' 'sed' - did you mean 'seed'?"),
    (("compare", "-d", "random_surface[latent_dim=1]"), "'random_surface' has latent dimension 2, got 1"),
    (("compare", "--set", "vae"), "--set takes METHOD.PARAM=VALUE, each parameter once, got 'vae'"),
    (("compare", "--set", "vea.steps=3"), "unknown method 'vea' - did you mean 'vae'?"),
    (("compare", "-m", "vae", "--set", "mapa.steps=3"), "--set mapa.steps: 'mapa' is not among the methods (vae)"),
    (("compare", "--set", "vae.step=3"), "unknown parameter of 'vae' 'step' - did you mean 'steps'?"),
    (("compare", "--set", "vae.steps=few"), "vae.steps must be a whole number, got 'few'"),
    (("sweep", "-m", "vae"), "declares no ablation; give --vary"),
    (("sweep", "-m", "vae", "--vary", "steps"), "--vary takes FACTOR=LEVEL,LEVEL,..., each factor once, got 'steps'"),
    (("sweep", "-m", "vae", "--vary", "steps=1", "--vary", "steps=2"), "each factor once, got 'steps=2'"),
    (("sweep", "-m", "vae", "--vary", "stps=3"), "unknown parameter of 'vae' 'stps' - did you mean 'steps'?"),
    (
        ("sweep", "-m", "vae", "--vary", "n_train=0"),
        "a whole number of at least 1 and at most 100,000,000, got 0",
    ),
    (
        ("sweep", "-m", "vae", "--vary", "noise_variance=ax"),
        "the multiple in noise_variance=ax must be a finite number",
    ),
    (
        ("sweep", "-m", "vae", "--vary", "noise_variance=1x,0.1"),
        "multiples of the dataset's own such as 2x",
    ),
    (("sweep", "-m", "vae,mapa", "--vary", "steps=2"), "--method takes exactly one method, got vae, mapa"),
]
PLUGINS = {
    "": "offers nothing",
    "x = 1": "offers nothing",
    "METHODS = {}": "offers nothing",
    "METHODS = None": "offers nothing",
    "def broken(:": "cannot be imported: SyntaxError",
    "1 / 0": "cannot be imported: ZeroDivisionError: division by zero",
    "raise RuntimeError('a\\n\\n b')": "cannot be imported: RuntimeError: a b",
    "import sys; sys.exit(3)": "cannot be imported: SystemExit: 3",
    "import nowhere": "cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
    "METHODS = ['mine']": "METHODS must map names to classes, got list",
    "METHODS = 3": "METHODS must map names to classes, got int",
    "DATASETS = 'circle'": "DATASETS must map names to",
    "METHODS = {1: Mine}": "METHODS must map names to",
    "METHODS = {'mine': 'Mine'}": "METHODS must map names to",
    "METHODS = {'': Mine}": "METHODS has the name '', which",
    "METHODS = {'a,b': Mine}": "METHODS has the name 'a,b', which",
    "DATASETS = {'a b': lambda latent_dim: load('circle')}": "DATASETS has the name 'a b', which",
    "METHODS = {'vae': Mine}": "offers 'vae', which is taken (built in); rename it",
    "DATASETS = {'circle': lambda latent_dim: load('circle')}": "offers 'circle', which is taken (built in); rename it",
    "METHODS = {'all': Mine}": "METHODS has the name 'all', which",
    "DATASETS = {'curves': lambda latent_dim: load('circle')}": "DATASETS has the name 'curves', which",
}
INHERIT = "'mine' must be a dataclass that inherits methods.contract.method.Method, got "
ASKED = {
    "@dataclass\nclass Plain:\n    fit = Mine.fit\nMETHODS = {'mine': Plain}": f"{INHERIT}Plain",
    "def mine():\n    return Mine()\nMETHODS = {'mine': mine}": f"{INHERIT}function",
    "class Idle(Method):\n    fit = Mine.fit\nMETHODS = {'mine': Idle}": f"{INHERIT}Idle",
    "@dataclass(frozen=True)\nclass Idle(Method):\n    pass\nMETHODS = {'mine': Idle}": "Idle() cannot be made with",
    "@dataclass(frozen=True)\nclass Rest(Mine):\n    steps: int\nMETHODS = {'mine': Rest}": "Rest() cannot be made",
}
GIVEN = {
    "DATASETS = {'own': lambda latent_dim: 3}": "'own' must give a datasets.base.Problem or Observations, got int",
    "DATASETS = {'own': lambda latent_dim: None}": "must give a datasets.base.Problem or Observations, got NoneType",
    "DATASETS = {'own': lambda: load('circle')}": "'own' cannot be made: TypeError",
    "DATASETS = {'own': lambda latent_dim: 1 / 0}": "'own' cannot be made: ZeroDivisionError",
    "DATASETS = {'own': load}": "'own' cannot be made",
}


@pytest.fixture
def refused(cli, tmp_path, monkeypatch, unchanged):
    """Run a command that must be refused; its message."""

    def run_all(specs, how, folder):
        raise AssertionError(f"not refused: {len(specs)} runs were to run, {how.jobs} at a time")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.execution.scheduler.run_all", run_all)

    def run(*args):
        with unchanged(tmp_path):
            end = cli(*args)
        assert end.code == 2, end.err
        assert end.out == ""
        assert re.fullmatch(r"error: [^\n]+\n", end.err)
        assert "Traceback" not in end.err
        return end.err.removeprefix("error: ").rstrip("\n")

    return run


def name_of(value):
    return " ".join(value) if isinstance(value, tuple) else ""


@pytest.mark.parametrize(("args", "message"), NAMES, ids=name_of)
def test_a_name_or_choice_that_there_is_not(refused, args, message):
    assert message in refused(*args)


def test_cuda_where_there_is_none(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch finds no CUDA device on this machine; use --device cpu" in refused(*COMPARE, "--device", "cuda")


OFFERS = [
    *((command, code, message) for code, message in PLUGINS.items() for command in (COMPARE, ("list",))),
    *((("compare", "-m", "mine", "-d", "circle"), code, message) for code, message in ASKED.items()),
    *((("compare", "-m", "vae", "-d", "own"), code, message) for code, message in GIVEN.items()),
]


@pytest.mark.parametrize(("command", "code", "message"), OFFERS)
def test_a_plugin_that_breaks_the_contract(refused, tmp_path, command, code, message):
    (tmp_path / "mine.py").write_text(f"{PLUGIN}\n{code}\n")
    assert message in refused(*command, "--plugin", "mine.py")


FILES = {
    "nowhere.py": "is not a file",
    "folder": "is not a file",
    "folder.py": "is not a file",
    "no/such/folder/mine.py": "is not a file",
    "mine.txt": "is not a Python file",
    "zeros.py": "cannot be imported",
    "latin.py": "cannot be imported",
}


@pytest.mark.parametrize("command", [COMPARE, ("list",)])
@pytest.mark.parametrize(("name", "message"), FILES.items())
def test_a_plugin_that_is_no_file_of_python(refused, tmp_path, command, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "mine.txt").write_text(PLUGIN)
    (tmp_path / "zeros.py").write_bytes(b"\0\0")
    (tmp_path / "latin.py").write_bytes("x = 'é'".encode("latin-1"))
    assert f"{name} {message}" in refused(*command, "--plugin", name)


def test_two_plugins_that_clash(refused, tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(f"{PLUGIN}\nMETHODS = {{'mine': Mine}}\n")
    message = refused(*COMPARE, "--plugin", "one.py", "--plugin", "two.py")
    assert "two.py offers 'mine', which is taken (plugin one.py)" in message


@pytest.mark.parametrize("args", [("-m", "nothing"), ("--seeds", "0"), ("--device", "x"), ("--plugin", "x.py")])
def test_a_mistake_beside_fresh_sets_nothing_aside(refused, tmp_path, args):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.json").write_text("{}")
    refused(*COMPARE, "--out", "out", "--fresh", *args)


@pytest.mark.parametrize(
    "args",
    [(), ("--help",), ("-h",), ("compare", "-h"), *((name, "--help") for name in ("compare", "list", "tune", "sweep"))],
)
def test_help(cli, args):
    end = cli(*args)
    text = end.out + end.err
    assert "Usage: python -m bench" in text
    assert end.code == (0 if args else 2)


def test_version(cli):
    end = cli("--version")
    assert end.code == 0
    assert re.fullmatch(r"mapa-bench \d+\.\d+\.\d+\n", end.out)


def test_list(cli):
    end = cli("list")
    assert (end.code, end.err) == (0, "")
    for word in ("mapa", "vae", "iterative", "oracle", "untrained", "figure8", "torus", "test_ll", "inference_gap"):
        assert word in end.out


@pytest.mark.parametrize(("kind", "shown", "hidden"), [("methods", "mapa", "torus"), ("metrics", "elbo", "figure8")])
def test_list_of_one_kind(cli, kind, shown, hidden):
    end = cli("list", kind)
    assert shown in end.out
    assert hidden not in end.out
