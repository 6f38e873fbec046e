"""Tuned hyperparameters: how `compare` takes them, says which it used, and refuses those that do not fit."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

import bench
from bench.common.errors import UsageError
from bench.report.document import run_blocks
from bench.report.hyperparameters import UNTUNED, settings_used
from bench.store import tables
from bench.store.records import Cost, Row, RunResult
from bench.store.study_tables import read as read_study
from bench.study import execute
from bench.study.hyperparameters import read

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "tuned-curves.json"


def made_up(spec):
    """The result of a run that did not run, with the parameters it would have had."""
    method = execute.registry().make_method(spec.method, dict(spec.parameters))
    rows = [Row(0, "test_ll", -1.0, 0.1, "nats", Cost()), Row(0, "oracle_gap", 0.1, 0.1, "nats", Cost())]
    return RunResult(spec, cost=Cost(1.0, 1.0, 10.0, 1, 1), rows=rows, parameters=dataclasses.asdict(method))


@pytest.fixture
def unrun(monkeypatch):
    """Make results up instead of running runs."""
    monkeypatch.setattr(execute, "_run_all", lambda specs, *_: map(made_up, specs))


@pytest.fixture
def tuned(tmp_path):
    """A tuned.json for vae on circle."""
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"datasets": {"circle": {"vae": {"steps": 7, "batch_size": 9}}}}))
    return path


def test_what_was_chosen_is_used_under_set_and_labels(tmp_path, tuned, compare, unrun):
    out = tmp_path / "out"
    methods = "vae,vae[steps=5],untrained"
    assert compare(out, methods, "circle", 1, "--tuned", tuned, "--set", "vae.batch_size=8").code == 0
    runs = tables.read_table(out, "runs").set_index("method")
    assert runs["p_steps"].dropna().to_dict() == {"vae": 7, "vae[steps=5]": 5}
    assert runs["p_batch_size"].dropna().to_dict() == {"vae": 8, "vae[steps=5]": 8}
    assert json.loads((out / "study.json").read_text())["settings"]["tuned"] == read(tuned).citation
    assert read(tuned).citation.startswith("tuned.json (sha256 ")


def test_python_takes_the_same(tmp_path, tuned, in_process):
    bench.compare(
        ["vae"],
        ["circle"],
        1,
        n_train=40,
        n_test=50,
        out=tmp_path / "out",
        report=False,
        settings={"vae": {"batch_size": 8}},
        tuned=tuned,
    )
    (runs,) = tables.read_table(tmp_path / "out", "runs").itertuples()
    assert (runs.p_steps, runs.p_batch_size) == (7, 8)


@pytest.fixture
def compared(tmp_path, cli, unrun, monkeypatch):
    """A study under a tuned.json in which vae was tuned on circle alone, and what was told of it."""
    chosen = {"circle": {"vae": {"steps": 7, "batch_size": 9}}, "absolute": {}}
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"schema": 2, "budget": {"flops": 3e11}, "datasets": chosen}))
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
    out = tmp_path / "out"
    methods = "vae,vae[steps=5],vae[steps=6,batch_size=4],iterative,untrained"
    args = ("--seeds", 1, "--n-train", 40, "--n-test", 50, "--max-flops", "1e5", "--jobs", 1, "--out", out)
    end = cli("compare", "-m", methods, "-d", "circle,absolute", "--tuned", file, *args)
    assert end.code == 0, end.err
    return out, file, end


USED = {
    "vae": f"steps=7, batch_size=9 (circle); {UNTUNED} (absolute)",
    "vae[steps=5]": "batch_size=9 (circle); as given, nothing tuned (absolute)",
    "vae[steps=6,batch_size=4]": "as given, nothing tuned",
    "iterative": UNTUNED,
    "untrained": "at its defaults",
}


def test_what_was_used_is_told_in_a_line_for_each_method(compared):
    _, file, end = compared
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    lines = end.out.splitlines()
    start = lines.index(f"tuned.json: sha256 {digest}; 3e+11 FLOPs for each method on each dataset")
    assert lines[start + 1 : start + 6] == [f"{name}: {text}" for name, text in USED.items()]


def test_what_was_used_is_in_the_study_and_its_report(compared):
    out, file, _ = compared
    info = json.loads((out / "study.json").read_text())
    assert (info["tuned"]["file"], info["tuned"]["sha256"]) == (file.name, read(file).sha256)
    assert info["tuned"]["methods"]["vae"] == {"circle": {"steps": 7, "batch_size": 9}, "absolute": None}
    assert info["tuned"]["methods"]["untrained"] == {"circle": {}, "absolute": {}}
    held = read_study(out)
    *_, entries = run_blocks(held)
    assert {entry.name: entry.text for entry in entries.entries[1:]} == USED


def test_what_is_told_is_what_the_runs_ran_with(compared):
    out, *_ = compared
    runs = tables.read_table(out, "runs").set_index(["method", "dataset"])
    used = json.loads((out / "study.json").read_text())["tuned"]["methods"]
    told = [(m, d, k, v) for m, each in used.items() for d, chosen in each.items() for k, v in (chosen or {}).items()]
    assert [(m, d, k) for m, d, k, _ in told] == [
        ("vae", "circle", "steps"),
        ("vae", "circle", "batch_size"),
        ("vae[steps=5]", "circle", "batch_size"),
    ]
    for method, dataset, key, value in told:
        assert runs.loc[(method, dataset), f"p_{key}"] == value


def test_nothing_is_told_where_nothing_was_tuned(tmp_path, compare, unrun):
    assert compare(tmp_path / "out", "untrained").code == 0
    assert settings_used(json.loads((tmp_path / "out" / "study.json").read_text())) == []


def test_quiet_tells_nothing(tmp_path, tuned, compare, unrun):
    end = compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tuned)
    assert (end.code, end.out) == (0, "")


def test_a_file_of_the_rule_by_trials_is_read():
    found = read(REFERENCE)
    assert found.parameters("circle", "vae[steps=3]") == {"batch_size": 250, "learning_rate": 0.00403}
    assert found.budget == "5 trials of each method on each dataset"


def test_another_file_does_not_mix(tmp_path, tuned, compare, unrun, unchanged):
    assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tuned).code == 0
    with unchanged(tmp_path / "out"):
        assert "holds a study with --tuned tuned.json (sha256 " in compare(tmp_path / "out", "vae").err
        tuned.write_text(tuned.read_text().replace("7", "8"))
        assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tuned).code == 2


@pytest.mark.parametrize(
    ("methods", "datasets", "content", "message"),
    [
        ("vae", "torus", None, "tuned.json holds nothing for dataset 'torus' (available: circle); tune it first"),
        ("vae", "circle[n_train=30]", None, "tuned.json holds nothing for dataset 'circle[n_train=30]'"),
        ("vae", "circle", '{"datasets": {"circle": {"vae": {"stops": 3}}}}', "unknown parameter of 'vae' 'stops'"),
        ("vae", "circle", '{"datasets": {"circle": {"vae": {"steps": 1.5}}}}', "vae.steps must be a whole number"),
        ("vae", "circle", "{}", "is not a tuned.json that `python -m bench tune` wrote"),
        ("vae", "circle", "[", "is not a tuned.json"),
        ("vae", "circle", '{"datasets": {"circle": 3}}', "is not a tuned.json"),
        ("vae", "circle", '{"datasets": {"circle": {}}, "budget": 3}', "is not a tuned.json"),
        (
            "vae",
            "circle",
            '{"datasets": {"circle": {}}, "schema": 3}',
            "is of schema 3; this version reads schemas 1 to 2",
        ),
    ],
)
def test_choices_that_do_not_fit_are_refused(tmp_path, tuned, compare, in_process, methods, datasets, content, message):
    if content is not None:
        tuned.write_text(content)
    end = compare(tmp_path / "out", methods, datasets, 1, "--tuned", tuned)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert message in end.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"--tuned nowhere\.json cannot be read: No such file"):
        read("nowhere.json")


@pytest.mark.parametrize("begin", [1000, 999])
def test_seeds_that_choices_were_made_on_are_refused(tmp_path, cli, unrun, begin):
    """By validation data of the same seed: not by those of others, nor by a file that does not say."""
    file, out = tmp_path / "tuned.json", tmp_path / "out"
    content = {"datasets": {"circle": {}}, "budget": {"flops": 1e9, "seeds": 1, "first_seed": 1000}}
    file.write_text(json.dumps({"schema": 2, **content}))
    args = ("compare", "-m", "vae", "-d", "circle", "--tuned", file, "--seeds", 2, "--out", out)
    end = cli(*args, "--first-seed", begin)
    assert (end.code, end.err) == (
        2,
        "error: tuned.json was chosen on seed 1000, which this study has too; take other seeds\n",
    )
    assert not out.exists()
    assert read(file).seeds == range(1000, 1001)
    file.write_text(json.dumps({"datasets": {"circle": {}}}))
    assert read(file).seeds == range(0)
