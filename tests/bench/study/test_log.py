"""What a folder says of its study: a study file that makes it again, and a log."""

import hashlib
import json
import re
import shutil
import tomllib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import bench
from bench.common.errors import UsageError
from bench.store import provenance
from bench.study import execute, file
from bench.study.log import held, write_study_file

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.integers() | st.floats(allow_nan=False) | st.booleans() | TEXT
PLUGIN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    scale: float = 1.0

    def fit(self, task):
        yield

METHODS = {"mine": Mine}
"""


@pytest.fixture
def keys():
    """The keys of the runs in a folder."""
    return lambda folder: sorted(path.stem for path in (folder / "runs").iterdir())


@pytest.fixture
def run_again(cli, tmp_path, monkeypatch):
    """Run the study file of a folder elsewhere; the new folder."""
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")

    def run(folder):
        assert cli("run", folder / "study.toml", "--out", tmp_path / "elsewhere", "--quiet").code == 0
        return tmp_path / "elsewhere"

    return run


@pytest.mark.parametrize(
    "asked",
    [
        ("vae", "circle", 1),
        ("vae,vae[steps=5,batch_size=7],mapa[kernel_width=2]", "circle[noise=0.04,size=30],torus", 2),
        ("vae,oracle", "circle", 3, "--set", "vae.steps=3", "--set", "vae.learning_rate=1e-3"),
        ("vae", "figure8", 1, "--noise", "learned", "--max-seconds", "2.5", "--latent-dim", "1"),
        ("vae", "circle", 2, "--tuned", "chosen/for circle.json"),
        ("vae,mine[scale=0.1]", "circle", 1, "--plugin", "mine.py"),
    ],
)
def test_the_study_file_makes_the_same_runs(compare, invented, run_again, keys, values, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "chosen").mkdir()
    chosen = {"datasets": {"circle": {"vae": {"steps": 7, "batch_size": 9}}}}
    (tmp_path / "chosen" / "for circle.json").write_text(json.dumps(chosen))
    assert compare(tmp_path / "out", *asked).code == 0
    shutil.rmtree(tmp_path / "chosen")
    again = run_again(tmp_path / "out")
    assert keys(again) == keys(tmp_path / "out")
    assert len(invented) == 2 * len(keys(again))
    assert [str(table) for table in values(again)] == [str(table) for table in values(tmp_path / "out")]
    assert held(again)[0] == held(tmp_path / "out")[0]


def test_the_study_file_tells_of_all_that_the_folder_holds(compare, invented, run_again, keys, tmp_path):
    out = tmp_path / "out"
    assert compare(out, "vae", "circle", 2, "--set", "vae.steps=3").code == 0
    assert compare(out, "untrained", "torus", 1).code == 0
    assert len(keys(out)) == 8
    assert keys(run_again(out)) == keys(out)
    content = tomllib.loads((out / "study.toml").read_text())
    assert content["methods"] == ["vae", "untrained"]
    assert content["name"] == "out"


def test_a_refused_extension_leaves_the_study_file(compare, invented, tmp_path, unchanged):
    assert compare(tmp_path / "out", "vae", "circle", 1).code == 0
    with unchanged(tmp_path):
        assert compare(tmp_path / "out", "untrained", "circle", 1, "--size", "41").code == 2


def test_python_writes_the_same(compare, invented, tmp_path):
    assert compare(tmp_path / "a" / "out", "vae[steps=5]", "circle", 1, "--set", "vae.batch_size=9").code == 0
    bench.compare(
        ["vae[steps=5]"], ["circle"], 1, size=40, test_size=50, max_flops=1e7, out=tmp_path / "b" / "out", report=False,
        settings={"vae": {"batch_size": "9"}},
    )  # fmt: skip
    first, second = ((tmp_path / name / "out" / "study.toml").read_text() for name in "ab")
    assert first == second


def test_the_tuned_file_is_kept_as_it_was(compare, invented, tmp_path):
    content = b'{"datasets":   {"circle": {"vae": {"steps": 7}}}}'
    (tmp_path / "study.json").write_bytes(content)  # a name that the folder has for something else
    assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tmp_path / "study.json").code == 0
    assert (tmp_path / "out" / "tuned" / "study.json").read_bytes() == content
    settings, info = held(tmp_path / "out")
    assert settings.tuned.sha256 == info["tuned"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert tomllib.loads((tmp_path / "out" / "study.toml").read_text())["tuned"] == "tuned/study.json"


@hypothesis_settings(deadline=None)
@given(
    st.lists(TEXT, min_size=1, max_size=3),
    st.dictionaries(TEXT, st.dictionaries(TEXT, VALUE, min_size=1), max_size=2),
    st.none() | st.floats(1e-300, 1e300),
)
def test_any_text_and_number_is_written_as_toml(tmp_path_factory, texts, parameters, flops):
    folder = tmp_path_factory.mktemp("any")
    asked = execute.Settings(tuple(texts), tuple(texts), plugins=tuple(texts), parameters=parameters, max_flops=flops)
    write_study_file(folder, asked)
    content = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    assert content["methods"] == content["datasets"] == content["plugins"] == texts
    assert content.get("set", {}) == parameters
    assert content.get("budget", {}) == ({} if flops is None else {"max_flops": flops})
    assert set(content) <= set(file.KEYS)
    assert file.NAME.fullmatch(content["name"])


@pytest.mark.parametrize("name", ["out", "out dir", ".hidden", "...", "a\nb", "naïve", "<script>"])
def test_the_name_in_a_study_file_is_one(tmp_path, name):
    (tmp_path / name).mkdir()
    write_study_file(tmp_path / name, execute.Settings(("vae",), ("circle",)))
    assert file.read(tmp_path / name / "study.toml")[0] == execute.Settings(("vae",), ("circle",))


def test_the_log(compare, invented, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "now", lambda: "2026-01-02T03:04:05+00:00")
    for _ in range(2):
        assert compare(tmp_path / "out", "vae,untrained", "circle", 1).code == 0
    lines = (tmp_path / "out" / "log.txt").read_text().splitlines()
    assert all(line.startswith("2026-01-02T03:04:05+00:00 ") for line in lines)
    told = [line.partition(" ")[2] for line in lines]
    command = f"started: python -m bench compare -m vae,untrained -d circle .*--out {tmp_path}/out --quiet"
    assert re.fullmatch(rf"{command} \(2 runs to run\)", told[0])
    assert re.fullmatch(r"circle / vae / seed 0: test_ll -?\d\.\d{3} in 1 s, 10 FLOP", told[1])
    assert re.fullmatch(r"circle / untrained / seed 0: test_ll -?\d\.\d{3} in 1 s, 10 FLOP", told[2])
    assert told[3] == "finished"
    assert told[4].endswith("(all 2 runs are there already; nothing to run)")
    assert told[5:] == ["finished"]


def test_the_time_in_the_log_is_utc(compare, invented, tmp_path):
    assert compare(tmp_path / "out", "vae", "circle", 1).code == 0
    for line in (tmp_path / "out" / "log.txt").read_text().splitlines():
        assert re.match(TIME, line)
        assert abs(datetime.fromisoformat(line.split()[0]).timestamp() - datetime.now().timestamp()) < 60


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("one\ntwo")])
def test_the_log_of_a_study_that_ends_early(invented, tmp_path, monkeypatch, error):
    def stop(*args):
        raise error

    monkeypatch.setattr("bench.study.execute._run_all", stop)
    with pytest.raises((execute.InterruptedStudyError, RuntimeError)):
        bench.compare(["vae"], ["circle"], 1, size=40, test_size=50, out=tmp_path / "out", report=False)
    last = (tmp_path / "out" / "log.txt").read_text().splitlines()[-1]
    assert re.fullmatch(rf"{TIME} stopped: (interrupted|one two)", last)


def test_what_is_refused_is_not_logged(compare, invented, tmp_path, unchanged):
    with unchanged(tmp_path):
        assert compare(tmp_path / "out", "vea", "circle", 1).code == 2
        assert compare(tmp_path / "out", "vae", "circle", 1, "--latent-dim", 2).code == 2


def test_settings_are_read_back(compare, invented, tmp_path):
    out, plugin = tmp_path / "out", tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    assert compare(out, "vae,mine", "circle", 2, "--set", "vae.steps=3", "--plugin", plugin).code == 0
    assert held(out)[0] == execute.Settings(
        methods=("vae", "mine"), datasets=("circle",), seeds=2, size=40, validation_size=40, test_size=50,
        max_flops=1e7, plugins=(str(plugin),), parameters={"vae": {"steps": 3}},
    )  # fmt: skip


def test_no_study_is_read_where_there_is_none(tmp_path):
    with pytest.raises(UsageError, match="holds no study"):
        held(tmp_path)
