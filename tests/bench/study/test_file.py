"""Study files: what they ask for, the same as flags do, and what is wrong in them told with file, line and key."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.common.errors import UsageError
from bench.registry.registry import registry
from bench.study import execute, file

ROOT = Path(__file__).parents[2]
GRID = 'methods = ["vae"]\ndatasets = ["circle"]\n'
ASKED = "datasets = ['circle']\nmethods = "
PLUGIN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    def fit(self, task):
        yield

METHODS = {"mine": Mine}
"""

WRONG = [
    ("", "study.toml: 'methods' is missing; it lists what to compare"),
    ('methods = ["vae"]', "study.toml: 'datasets' is missing"),
    ("seeds =", "study.toml, line 1: this is not TOML: Invalid value"),
    ("seeds 3", "study.toml, line 1: this is not TOML: Expected '=' after a key"),
    (GRID + "seeds = 3\nseeds = 4", "study.toml, line 4: this is not TOML: Cannot overwrite a value"),
    (GRID + "\n[budget", "line 4: this is not TOML: Expected ']'"),
    (GRID + "size = 1979-99-99", "line 3: this is not TOML"),
    ('methods = ["vae"\n', "line 1: this is not TOML: Unclosed array"),
    ("x = " + "[" * 2000, "line 1: this is not TOML"),
    (GRID + "size = 1" + "0" * 5000, "line 3: this is not TOML"),
    (GRID + "seed = 3", "line 3: unknown key 'seed' - did you mean 'seeds'? (available: name, methods,"),
    (GRID + "\n# seed\n\nsead = 3", "line 6: unknown key 'sead' - did you mean 'seeds'?"),
    (GRID + "[budgets]\nmax_flops = 1", "line 3: unknown key 'budgets' - did you mean 'budget'?"),
    (GRID + "[budget]\n\nmax_flop = 1", "line 5: unknown key 'max_flop' - did you mean 'max_flops'? (available:"),
    (GRID + "budget = 3", "line 3: 'budget' must be a table, got 3"),
    (GRID + "[budget]\nmax_flops = 'many'", "line 4: 'budget.max_flops' must be a positive number, got 'many'"),
    (GRID + "budget.max_seconds = -1", "line 3: 'budget.max_seconds' must be a positive number, got -1"),
    (GRID + "[budget]\nmax_seconds = inf", "line 4: 'budget.max_seconds' must be a positive number, got inf"),
    (GRID + "[budget]\nmax_seconds = nan", "line 4: 'budget.max_seconds' must be a positive number, got nan"),
    (GRID + "[budget]\nmax_flops = true", "line 4: 'budget.max_flops' must be a positive number, got True"),
    *((GRID + f"{key} = {value}", f"line 3: '{key}' must be a whole number of at least 1, got {told}")
      for key in ("seeds", "size", "test_size", "latent_dim")
      for value, told in (("0", "0"), ("2.5", "2.5"), ('"3"', "'3'"), ("[0, 1]", "[0, 1]"), ("true", "True"))),
    (GRID + "first_seed = -1", "line 3: 'first_seed' must be a whole number of at least 0, got -1"),
    (GRID + "first_seed = 0.5", "line 3: 'first_seed' must be a whole number of at least 0, got 0.5"),
    (GRID + 'noise = "low"', "line 3: 'noise' must be one of known, learned, got 'low'"),
    (GRID + "noise = 0.1", "line 3: 'noise' must be one of known, learned, got 0.1"),
    (GRID + "noise = []", "line 3: 'noise' must be one of known, learned, got []"),
    (GRID + 'device = "tpu"', "line 3: 'device' must be one of cpu, cuda, got 'tpu'"),
    (GRID + "plugins = 'mine.py'", "line 3: 'plugins' must be a list of paths of Python files, got 'mine.py'"),
    (GRID + "plugins = [3]", "line 3: 'plugins' must be a list of paths of Python files, got [3]"),
    (GRID + "plugins = ['nowhere.py']", "line 3: plugin "),
    (GRID + "tuned = 3", "line 3: 'tuned' must be the path of a tuned.json, got 3"),
    (GRID + "tuned = 'nowhere.json'", "cannot be read: No such file or directory"),
    (ASKED + "'vae'", "line 2: 'methods' must be a list of names or tables, not empty, got 'vae'"),
    (ASKED + "[]", "line 2: 'methods' must be a list of names or tables, not empty, got []"),
    (ASKED + "['vea']", "line 2: unknown method 'vea' - did you mean 'vae'?"),
    (ASKED + "[\n 'vae',\n 'vea',\n]", "line 2: unknown method 'vea' - did you mean 'vae'?"),
    (ASKED + "['vae,mapa']", "line 2: unknown method 'vae,mapa'"),
    (ASKED + "[3]", "line 2: 'methods' lists names and tables with a name, got 3"),
    (ASKED + "[{steps = 3}]", "line 2: 'methods' lists names and tables with a name, got {'steps'"),
    (ASKED + "[{name = 'vae', stesp = 3}]", "line 2: unknown parameter of 'vae' 'stesp' -"),
    (ASKED + "[{name = 'vae', steps = [3]}]", "'steps' must be a number, text, true or false, got ["),
    (ASKED + "[{name = 'vae', steps = 1.5}]", "line 2: vae.steps must be a whole number, got '1.5'"),
    (ASKED + "[{name = 'vae', steps = '3,batch_size=2'}]", "holds text that cannot stand in a label"),
    (ASKED + "[{name = 'vae[steps=3]', batch_size = 2}]", "is not of the form NAME or NAME["),
    ("methods = ['vae']\ndatasets = ['circel']", "line 2: unknown dataset 'circel' - did you mean 'circle'?"),
    ("methods = ['vae']\ndatasets = [{name = 'circle', size = 0}]", "line 2: size of 'circle[size=0]' must be a whole"),
    ("methods = ['vae']\ndatasets = ['circle', {nmae = 'circle'}]", "line 2: 'datasets' lists names and tables with a"),
    (GRID + "set = 3", "line 3: 'set' must be a table of methods, got 3"),
    (GRID + "[set]\nvae = 3", "line 4: 'set.vae' must be a table of parameters, got 3"),
    (GRID + "[set.mapa]\nkernel_width = 2", "line 3: unknown method in 'set' 'mapa' (available: vae)"),
    (GRID + "[set.vae]\nsteps = 3\nbatch_sise = 2", "line 5: unknown parameter of 'vae' 'batch_sise' - did you mean"),
    (GRID + "[set.vae]\nsteps = 'few'", "line 4: vae.steps must be a whole number, got 'few'"),
    (GRID + "[set.vae]\nsteps = [1]", "line 4: 'steps' must be a number, text, true or false, got [1]"),
    (GRID + "latent_dim = 2", "study.toml: dataset 'circle' has latent dimension 1, got --latent-dim 2"),
    *((f'{GRID}name = "{name}"', "line 3: 'name' must be letters, digits and . _ + -, and begin with none of ., got ")
      for name in ("", "..", "../elsewhere", "/tmp/elsewhere", "a/b", ".hidden", "a b", "a\\\\b", "a\\nb", "~")),
    (GRID + "name = 3", "line 3: 'name' must be letters, digits and . _ + -, and begin with none of ., got 3"),
]  # fmt: skip


@pytest.fixture
def refused(cli, tmp_path, monkeypatch, unchanged, invented):
    """Run a command that must be refused in a folder with a study in it; its message."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with unchanged(tmp_path):
            end = cli(*args)
        assert end.code == 2, end.err
        assert (end.out, invented) == ("", [])
        assert re.fullmatch(r"error: [^\n]+\n", end.err)
        return end.err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def keys(tmp_path):
    """The keys of the runs in a folder."""
    return lambda folder: sorted(path.stem for path in (folder / "runs").iterdir())


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[f"{text[-30:]!r}"[:60] for text, _ in WRONG])
def test_what_is_wrong_in_a_study_file(refused, tmp_path, text, message):
    (tmp_path / "study.toml").write_text(text)
    (tmp_path / "results" / "study").mkdir(parents=True)
    (tmp_path / "results" / "study" / "study.json").write_text("{}")
    found = refused("run", "study.toml", "--fresh")
    assert message in found
    assert found.startswith("study.toml")


@pytest.mark.parametrize("args", [("--jobs", "0"), ("--jobs", "many"), ("--plugin", "nowhere.py"), ("--seeds", "3")])
def test_options_that_will_not_do(refused, tmp_path, args):
    (tmp_path / "study.toml").write_text(GRID)
    assert args[0].strip("-") in refused("run", "study.toml", *args)


def test_a_study_file_that_cannot_be_read(refused, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    (tmp_path / "a b.toml").write_text(GRID)
    assert refused("run", "nowhere.toml") == "nowhere.toml cannot be read: No such file or directory"
    assert refused("run", "folder.toml") == "folder.toml cannot be read: Is a directory"
    assert refused("run", "latin.toml") == "latin.toml is not UTF-8 text"
    assert "'name' must be letters" in refused("run", "a b.toml")
    assert "Missing argument 'STUDY.toml'" in refused("run")


def test_a_folder_that_holds_other_conditions_is_left_alone(cli, compare, invented, tmp_path, unchanged):
    assert compare(tmp_path / "out", "vae", "circle", 1).code == 0
    (tmp_path / "other.toml").write_text(GRID + "size = 41")
    with unchanged(tmp_path):
        end = cli("run", tmp_path / "other.toml", "--out", tmp_path / "out")
    assert end.code == 2
    assert "holds a study with --size 40, got 41" in end.err


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(st.sampled_from("[]{}=\"'#\n.,vaecirl013 "), max_size=60))
def test_no_text_does_more_than_to_be_refused(tmp_path_factory, text, toml):
    path = tmp_path_factory.mktemp("any") / "study.toml"
    path.write_text(text + "\n" + toml, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        file.read(path)


STATEMENTS = {
    "a": ["a = 1"],
    "b": ["b = [", "  1, # a = 2", "", "  2,", "]"],
    "c": ['c = """', "a = 3", "[d]", '"""'],
    "d": ["d = 'a = 5' # c = 1"],
    "e": ["e.f = 1979-05-27"],
    "g": ['"g" = {a = 1}'],
}


@given(st.permutations(list(STATEMENTS)), st.lists(st.sampled_from(["", "# a = 1", "   "]), max_size=3), st.booleans())
def test_the_line_of_a_key(order, between, in_table):
    lines, expected = [], {}
    if in_table:
        lines = ["a = 0", "[table]"]
    for name in order:
        lines += between
        expected[name] = len(lines) + 1
        lines += STATEMENTS[name]
    text = "\n".join(lines)
    tomllib.loads(text)
    within = ("table",) if in_table else ()
    assert {name: file.line_of(text, (*within, name)) for name in order} == expected
    assert file.line_of(text, (*within, "e", "f")) == expected["e"]
    assert file.line_of(text, (*within, "h")) is None
    assert file.line_of(text.replace("\n", "\r\n"), (*within, "d")) == expected["d"]


def test_a_file_and_flags_ask_for_the_same(compare, cli, invented, tmp_path, keys, values):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "study.toml").write_text("""
        plugins = ["../mine.py"]
        methods = ["vae", {name = "vae", steps = 5, batch_size = 10}, "mine"]
        datasets = [{name = "circle", size = 30, noise = 4e-2}, "circle", "torus"]
        seeds = 2
        first_seed = 3
        size = 40
        test_size = 50
        noise = "learned"
        budget.max_flops = 1e7
        [set.vae]
        batch_size = 20
    """)
    flags = ("--set", "vae.batch_size=20", "--plugin", tmp_path / "mine.py", "--noise", "learned", "--first-seed", 3)
    methods, datasets = "vae,vae[steps=5,batch_size=10],mine", "circle[size=30,noise=0.04],circle,torus"
    assert compare(tmp_path / "flags", methods, datasets, 2, *flags).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.page.write", lambda folder: folder)
        assert cli("run", tmp_path / "elsewhere" / "study.toml", "--out", tmp_path / "file", "--quiet").code == 0
    assert len(keys(tmp_path / "file")) == 18
    assert keys(tmp_path / "file") == keys(tmp_path / "flags")


def test_what_a_file_leaves_open_is_as_without_flags(tmp_path):
    (tmp_path / "study.toml").write_text(GRID)
    found, _, name = file.read(tmp_path / "study.toml")
    assert found == execute.Settings(methods=("vae",), datasets=("circle",))
    assert name == "study"


def test_the_words_for_all(tmp_path):
    (tmp_path / "study.toml").write_text("methods = ['all']\ndatasets = ['torus', 'curves']")
    found, known, _ = file.read(tmp_path / "study.toml")
    assert found.methods == tuple(known.methods) == tuple(registry().methods)
    assert found.datasets[0] == "torus"
    assert "figure8" in found.datasets
    assert len(found.datasets) == 6


def test_results_go_to_the_name(cli, invented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    Path("study.toml").write_text(GRID + 'name = "mine-2"\nseeds = 1')
    assert cli("run", "study.toml", "--quiet").code == 0
    assert invented == ["circle / vae / seed 0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "study.toml"]
    assert [path.name for path in Path("results").iterdir()] == ["mine-2"]


def test_the_example_in_the_documentation(tmp_path):
    text = (ROOT / "docs" / "studies.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    stated = set(tomllib.loads(example))
    assert stated == set(file.KEYS)
    example = re.sub(r"(?m)^(plugins|tuned) = .*\n", "", example)
    (tmp_path / "study.toml").write_text(example)
    found, _, name = file.read(tmp_path / "study.toml")
    assert name == "curves"
    assert found.parameters
