"""Study files: what they ask for, the same as flags do, and what is wrong in them, with file, line and key."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.common.errors import UsageError
from bench.config.fields import fields
from bench.config.schema import Settings
from bench.registry.registry import registry
from bench.study import file
from bench.study.folder import held
from bench.study.plan import Plan, resolve

ROOT = Path(__file__).parents[3]
GRID = 'methods = ["vae"]\ndatasets = ["circle"]\n'
ASKED = "datasets = ['circle']\nmethods = "
PLUGIN = """
from dataclasses import dataclass

from methods.contract.method import Method

@dataclass(frozen=True)
class Mine(Method):
    scale: float = 1.0

    def fit(self, task):
        yield

METHODS = {"mine": Mine}
"""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.integers() | st.floats(allow_nan=False) | st.booleans() | TEXT
WRONG = [
    ("", "study.toml: 'methods' is missing; it lists what to compare"),
    ('methods = ["vae"]', "study.toml: 'datasets' is missing"),
    ("seeds =", "study.toml, line 1: this is not TOML: Invalid value"),
    ("seeds 3", "study.toml, line 1: this is not TOML: Expected '=' after a key"),
    (GRID + "seeds = 3\nseeds = 4", "study.toml, line 4: this is not TOML: Cannot overwrite a value"),
    (GRID + "\n[set", "line 4: this is not TOML: Expected ']'"),
    (GRID + "n_train = 1979-99-99", "line 3: this is not TOML"),
    ('methods = ["vae"\n', "line 1: this is not TOML: Unclosed array"),
    ("x = " + "[" * 2000, "line 1: this is not TOML"),
    (GRID + "n_train = 1" + "0" * 5000, "line 3: this is not TOML"),
    (GRID + "seed = 3", "line 3: unknown key 'seed' - did you mean 'seeds'? (available: name, "),
    (GRID + "\n# seed\n\nsead = 3", "line 6: unknown key 'sead' - did you mean 'seeds'?"),
    (GRID + "[budget]\nmax_flops = 1", "line 3: unknown key 'budget'"),
    (GRID + "\nmax_flop = 1", "line 4: unknown key 'max_flop' - did you mean 'max_flops'?"),
    (GRID + "plugins = ['nowhere.py']", "line 3: plugin "),
    (GRID + "tuned = 'nowhere.json'", "line 3: --tuned nowhere.json cannot be read: No such file or directory"),
    (GRID + "baseline = ['mapa']", "line 3: unknown baseline 'mapa' (available: vae)"),
    (ASKED + "'vae'", "line 2: 'methods' must be a list of names or tables, not empty, got 'vae'"),
    (ASKED + "[]", "line 2: 'methods' must be a list of names or tables, not empty, got []"),
    (ASKED + "['vea']", "line 2: unknown method 'vea' - did you mean 'vae'?"),
    (ASKED + "[\n 'vae',\n 'vea',\n]", "line 2: unknown method 'vea' - did you mean 'vae'?"),
    (ASKED + "['vae,mapa']", "line 2: unknown method 'vae,mapa'"),
    (ASKED + "[3]", "line 2: 'methods' lists names and tables with a name, got 3"),
    (ASKED + "[{steps = 3}]", "line 2: 'methods' lists names and tables with a name, got {'steps'"),
    (ASKED + "[{name = 'vae', stesp = 3}]", "line 2: unknown parameter of 'vae' 'stesp' -"),
    (ASKED + "[{name = 'vae', steps = [3]}]", "line 2: 'steps' must be a number, text, true or false, got ["),
    (ASKED + "[{name = 'vae', steps = 1.5}]", "line 2: vae.steps must be a whole number, got '1.5'"),
    (ASKED + "[{name = 'vae', steps = '3,batch_size=2'}]", "line 2: {"),
    (ASKED + "[{name = 'vae[steps=3]', batch_size = 2}]", "is not of the form NAME or NAME["),
    ("methods = ['vae']\ndatasets = ['circel']", "line 2: unknown dataset 'circel' - did you mean 'circle'?"),
    ("methods = ['vae']\ndatasets = [{name = 'circle', n_train = 0}]",
     "line 2: n_train of 'circle[n_train=0]' must be a whole"),
    ("methods = ['vae']\ndatasets = ['circle', {nmae = 'circle'}]", "line 2: 'datasets' lists names and tables with a"),
    (GRID + "[set]\nvae = 3", "line 3: 'set' must be a table of methods"),
    (GRID + "[set.mapa]\nkernel_width = 2", "line 3: "),
    (GRID + "[set.vae]\nsteps = 3\nbatch_sise = 2", "line 5: unknown parameter of 'vae' 'batch_sise' - did you mean"),
    (GRID + "[set.vae]\nsteps = 'few'", "line 4: vae.steps must be a whole number, got 'few'"),
    (GRID + "[set.vae]\nsteps = [1]", "line 4: 'steps' must be a number, text, true or false, got [1]"),
    (GRID + "latent_dim = 2", "'circle' has latent dimension 1, got"),
    *((f'{GRID}name = "{name}"', "line 3: 'name' must be letters, digits and . _ + -, and not begin with ., got ")
      for name in ("", "..", "../elsewhere", "/tmp/elsewhere", "a/b", ".hidden", "a b", "a\\\\b", "a\\nb", "~")),
    (GRID + "name = 3", "line 3: 'name' must be letters, digits and . _ + -, and not begin with ., got 3"),
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


def keys(folder):
    """The keys of the runs in a folder."""
    return sorted(path.stem for path in (folder / "runs").iterdir())


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[f"{text[-30:]!r}"[:60] for text, _ in WRONG])
def test_what_is_wrong_in_a_study_file(refused, tmp_path, text, message):
    (tmp_path / "study.toml").write_text(text)
    (tmp_path / "results" / "study").mkdir(parents=True)
    (tmp_path / "results" / "study" / "study.json").write_text("{}")
    found = refused("run", "study.toml", "--fresh")
    assert message in found
    assert found.startswith("study.toml")


@pytest.mark.parametrize("args", [("--jobs", "0"), ("--jobs", "many"), ("--plugin", "nowhere.py"), ("--seeds", "3")])
def test_options_that_do_not_fit_are_refused(refused, tmp_path, args):
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
    assert "STUDY.toml" in refused("run")


def test_a_folder_that_holds_other_conditions_is_left_alone(cli, compare, invented, tmp_path, unchanged):
    assert compare(tmp_path / "out", "vae", "circle", 1).code == 0
    (tmp_path / "other.toml").write_text(GRID + "n_train = 41")
    with unchanged(tmp_path):
        end = cli("run", tmp_path / "other.toml", "--out", tmp_path / "out")
    assert end.code == 2
    assert "holds a study with --n-train 40, got 41" in end.err


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(st.sampled_from("[]{}=\"'#\n.,vaecirl013 "), max_size=60))
def test_any_other_text_is_refused_and_no_more(tmp_path_factory, text, toml):
    path = tmp_path_factory.mktemp("any") / "study.toml"
    path.write_text(text + "\n" + toml, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        file.read_plan(path)


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
    lines, expected_lines = [], {}
    if in_table:
        lines = ["a = 0", "[table]"]
    for name in order:
        lines += between
        expected_lines[name] = len(lines) + 1
        lines += STATEMENTS[name]
    text = "\n".join(lines)
    tomllib.loads(text)
    within = ("table",) if in_table else ()
    assert {name: file.line_of(text, (*within, name)) for name in order} == expected_lines
    assert file.line_of(text, (*within, "e", "f")) == expected_lines["e"]
    assert file.line_of(text, (*within, "h")) is None
    assert file.line_of(text.replace("\n", "\r\n"), (*within, "d")) == expected_lines["d"]


def test_labels_may_be_tables_and_paths_are_relative_to_the_file(tmp_path):
    """Each setting of the schema is compared with its flag and argument in tests/bench/config."""
    circle = "circle[n_train=30,noise_variance=0.04]"
    (tmp_path / "mine.py").write_text(PLUGIN)
    chosen = {dataset: {"vae": {"learning_rate": 7e-3}} for dataset in (circle, "circle")}
    (tmp_path / "tuned.json").write_text(json.dumps({"datasets": chosen}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "study.toml").write_text("""
        plugins = ["../mine.py"]
        tuned = "../tuned.json"
        methods = ["vae", {name = "vae", steps = 5, batch_size = 10}, "mine"]
        datasets = [{name = "circle", n_train = 30, noise_variance = 4e-2}, "circle"]
        seeds = 2
    """)
    methods, plugins = ("vae", "vae[steps=5,batch_size=10]", "mine"), (str(tmp_path / "mine.py"),)
    more = {"plugins": plugins, "tuned": str(tmp_path / "tuned.json"), "seeds": 2}
    found, _ = file.read_plan(tmp_path / "elsewhere" / "study.toml")
    assert found.runs == resolve(Settings(methods=methods, datasets=(circle, "circle"), **more)).runs
    assert len(found.runs) == 2 * 2 * 3


def test_what_a_file_leaves_open_is_as_without_flags(tmp_path):
    (tmp_path / "study.toml").write_text(GRID)
    plan, name = file.read_plan(tmp_path / "study.toml")
    assert plan.settings == Settings(methods=("vae",), datasets=("circle",))
    assert name == "study"


def test_the_words_for_all(tmp_path):
    (tmp_path / "study.toml").write_text("methods = ['all']\ndatasets = ['torus', 'curves']")
    plan, _ = file.read_plan(tmp_path / "study.toml")
    assert tuple(plan.methods) == plan.settings.methods == tuple(registry().methods)
    assert plan.settings.datasets[0] == "torus"
    assert "figure8" in plan.settings.datasets
    assert len(plan.settings.datasets) == 6


def test_results_go_to_the_name(cli, invented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    Path("study.toml").write_text(GRID + 'name = "mine-2"\nseeds = 1\nn_train = 20\nn_test = 20')
    assert cli("run", "study.toml", "--quiet").code == 0
    assert invented == ["circle / vae / seed 0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "study.toml"]
    assert [path.name for path in Path("results").iterdir()] == ["mine-2"]


def test_the_example_in_the_documentation(tmp_path):
    text = (ROOT / "docs" / "studies.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert set(tomllib.loads(example)) <= {"name", *(field.name for field in fields(Settings))}
    (tmp_path / "study.toml").write_text(re.sub(r"(?m)^(plugins|tuned|device) = .*\n", "", example))
    plan, name = file.read_plan(tmp_path / "study.toml")
    assert name == "curves"
    assert plan.settings.set


@pytest.mark.parametrize(
    "asked",
    [
        ("vae,vae[steps=5,batch_size=7],mapa[kernel_width=2]", "circle[n_train=30,noise_variance=0.04],torus", 2),
        ("vae,oracle", "circle", 3, "--set", "vae.steps=3", "--set", "vae.learning_rate=1e-3", "--baseline", "oracle"),
        ("vae", "figure8", 1, "--observation-noise", "learned", "--max-seconds", "2.5", "--latent-dim", "1"),
        ("vae", "circle", 2, "--tuned", "chosen/for circle.json", "--hidden", "8,9", "--activation", "relu"),
        ("vae,mine[scale=0.1]", "circle", 1, "--plugin", "mine.py"),
    ],
)
def test_the_file_that_a_study_writes_makes_the_same_runs(compare, cli, invented, values, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "chosen").mkdir()
    chosen = {"datasets": {"circle": {"vae": {"steps": 7, "batch_size": 9}}}}
    (tmp_path / "chosen" / "for circle.json").write_text(json.dumps(chosen))
    out, again = tmp_path / "out", tmp_path / "again"
    assert compare(out, *asked).code == 0
    (tmp_path / "chosen" / "for circle.json").unlink()
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    assert cli("run", out / "study.toml", "--out", again, "--quiet").code == 0
    assert keys(again) == keys(out)
    assert len(invented) == 2 * len(keys(again))
    assert [str(table) for table in values(again)] == [str(table) for table in values(out)]
    first, second = (msgspec.structs.replace(held(folder).settings, tuned=None) for folder in (out, again))
    assert first == second


def test_the_file_that_a_study_writes_has_all_that_its_folder_holds(compare, invented, tmp_path, unchanged):
    out = tmp_path / "out"
    assert compare(out, "vae", "circle", 2, "--set", "vae.steps=3").code == 0
    assert compare(out, "untrained", "torus", 1).code == 0
    content = tomllib.loads((out / "study.toml").read_text())
    assert (content["methods"], content["datasets"]) == (["vae", "untrained"], ["circle", "torus"])
    assert (content["name"], content["set"]) == ("out", {"vae": {"steps": 3}})
    with unchanged(tmp_path):
        assert compare(out, "untrained", "circle", 1, "--n-train", "41").code == 2


def test_the_tuned_file_is_kept_as_it_was(compare, invented, tmp_path):
    content = b'{"datasets":   {"circle": {"vae": {"steps": 7}}}}'
    (tmp_path / "study.json").write_bytes(content)  # a name that the folder has for something else
    assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tmp_path / "study.json").code == 0
    assert (tmp_path / "out" / "tuned" / "study.json").read_bytes() == content
    assert resolve(held(tmp_path / "out").settings).tuned.content == content
    assert tomllib.loads((tmp_path / "out" / "study.toml").read_text())["tuned"] == "tuned/study.json"


@hypothesis_settings(deadline=None)
@given(
    st.lists(TEXT, min_size=1, max_size=3),
    st.dictionaries(TEXT, st.dictionaries(TEXT, VALUE, min_size=1), max_size=2),
    st.none() | st.floats(1e-300, 1e300),
)
def test_any_text_and_number_is_written_as_toml(tmp_path_factory, texts, parameters, flops):
    folder = tmp_path_factory.mktemp("any")
    listed = {name: tuple(texts) for name in ("methods", "datasets", "plugins")}
    file.write(Plan(Settings(**listed, set=parameters, max_flops=flops), registry(), {}, {}, None, None), folder)
    content = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    assert content["methods"] == content["datasets"] == content["plugins"] == texts
    assert content.get("set", {}) == parameters
    assert content.get("max_flops") == flops
    assert set(content) <= {"name", *(field.name for field in fields(Settings))}
    assert file.NAME.fullmatch(content["name"])


@pytest.mark.parametrize("name", ["out", "out dir", ".hidden", "...", "a\nb", "naïve", "<script>"])
def test_the_name_in_a_study_file_is_one(tmp_path, name):
    (tmp_path / name).mkdir()
    plan = resolve(Settings(methods=("vae",), datasets=("circle",)))
    file.write(plan, tmp_path / name)
    assert file.read_plan(tmp_path / name / "study.toml")[0].settings == plan.settings
