"""Tuned hyperparameters: how `compare` takes them, says which it used, and refuses those that do not fit."""

import hashlib
import json

import pytest

import bench
from bench.common.errors import UsageError
from bench.config.schema import Settings
from bench.execution.scheduler import blocks
from bench.report.hyperparameters import UNTUNED, settings_used
from bench.store import tables
from bench.study.hyperparameters import SCHEMA, read
from bench.study.plan import resolve


@pytest.fixture
def tuned(tmp_path):
    """A tuned.json for vae on circle."""
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"datasets": {"circle": {"vae": {"steps": 7, "batch_size": 9}}}}))
    return path


def test_what_was_chosen_is_used_under_set_and_labels(tmp_path, tuned, compare, invented):
    out = tmp_path / "out"
    methods = "vae,vae[steps=5],untrained"
    end = compare(out, methods, "circle", 1, "--tuned", tuned, "--set", "vae.batch_size=8")
    assert (end.code, end.out) == (0, "")
    runs = tables.read_table(out, "runs").set_index("method")
    assert runs["p_steps"].dropna().to_dict() == {"vae": 7, "vae[steps=5]": 5}
    assert runs["p_batch_size"].dropna().to_dict() == {"vae": 8, "vae[steps=5]": 8}
    info = json.loads((out / "study.json").read_text())
    digest = hashlib.sha256(tuned.read_bytes()).hexdigest()
    assert (info["tuned"]["file"], info["tuned"]["sha256"]) == ("tuned.json", digest)
    assert (out / info["settings"]["tuned"]).read_bytes() == tuned.read_bytes()


def test_python_takes_the_same(tmp_path, tuned, invented):
    small = {"seeds": 1, "n_train": 40, "n_test": 50, "report": False}
    given = {"set": {"vae": {"batch_size": 8}}, "tuned": tuned}
    bench.compare(methods="vae", datasets="circle", out=tmp_path / "out", **small, **given)
    (runs,) = tables.read_table(tmp_path / "out", "runs").itertuples()
    assert (runs.p_steps, runs.p_batch_size) == (7, 8)


USED = {
    "vae": f"steps=7, batch_size=9 (circle); {UNTUNED} (absolute)",
    "vae[steps=5]": "batch_size=9 (circle); as given, nothing tuned (absolute)",
    "vae[steps=6,batch_size=4]": "as given, nothing tuned",
    "iterative": UNTUNED,
    "untrained": "at its defaults",
}


def test_what_was_used_is_said_by_command_and_study_and_is_what_the_runs_ran_with(tmp_path, cli, invented, monkeypatch):
    """In a study under a tuned.json in which vae was tuned on circle alone."""
    chosen = {"circle": {"vae": {"steps": 7, "batch_size": 9}}, "absolute": {}}
    file, out = tmp_path / "tuned.json", tmp_path / "out"
    file.write_text(json.dumps({"schema": 2, "budget": {"flops": 3e11}, "datasets": chosen}))
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
    args = ("--seeds", 1, "--n-train", 40, "--n-test", 50, "--max-flops", "1e5", "--jobs", 1, "--out", out)
    end = cli("compare", "-m", ",".join(USED), "-d", "circle,absolute", "--tuned", file, *args)
    assert end.code == 0, end.err
    info = json.loads((out / "study.json").read_text())
    (name, origin), *used = settings_used(info)
    assert (name, dict(used)) == ("tuned.json", USED)
    assert all(text in origin for text in (hashlib.sha256(file.read_bytes()).hexdigest(), "3e+11 FLOPs"))
    lines = end.out.splitlines()
    start = lines.index(f"{name}: {origin}")
    assert lines[start + 1 : start + 6] == [f"{name}: {text}" for name, text in USED.items()]
    in_effect = info["tuned"]["methods"]
    assert in_effect["vae"] == {"circle": [{"steps": 7, "batch_size": 9}], "absolute": None}
    assert in_effect["untrained"] == {"circle": [{}], "absolute": [{}]}
    runs = tables.read_table(out, "runs").set_index(["method", "dataset"])
    every = [(m, d, choice) for m, by in in_effect.items() for d, each in by.items() for choice in each or ()]
    told = [(m, d, k, v) for m, d, choice in every for k, v in choice.items()]
    assert [(m, d, k) for m, d, k, _ in told] == [
        ("vae", "circle", "steps"),
        ("vae", "circle", "batch_size"),
        ("vae[steps=5]", "circle", "batch_size"),
    ]
    assert all(runs.loc[(method, dataset), f"p_{key}"] == value for method, dataset, key, value in told)


def test_nothing_is_said_where_nothing_was_tuned(tmp_path, compare, invented):
    assert compare(tmp_path / "out", "untrained").code == 0
    assert settings_used(json.loads((tmp_path / "out" / "study.json").read_text())) == []


def test_a_choice_for_all_datasets_gives_way_to_one_for_a_dataset(tmp_path):
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"datasets": {"*": {"vae": [{"steps": 7}]}, "circle": {"vae": [{"steps": 9}]}}}))
    found = read(file)
    assert [found.choices(name, "vae") for name in ("circle", "torus")] == [({"steps": 9},), ({"steps": 7},)]
    assert found.choices("torus", "iterative") == ({},)


def test_a_file_of_the_rule_by_trials_is_read(tmp_path):
    """As written before budgets were in FLOPs."""
    file = tmp_path / "tuned.json"
    chosen = {"circle": {"vae": {"batch_size": 250, "learning_rate": 0.00403}}}
    file.write_text(json.dumps({"schema": 1, "datasets": chosen, "budget": {"trials": 5, "seeds": 1}}))
    found = read(file)
    assert found.choices("circle", "vae[steps=3]") == ({"batch_size": 250, "learning_rate": 0.00403},)
    assert found.choices("circle", "oracle") == ({},)
    assert "5 trials" in found.budget


def test_another_file_does_not_mix(tmp_path, tuned, compare, invented, unchanged):
    assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tuned).code == 0
    with unchanged(tmp_path / "out"):
        assert "holds a study with --tuned tuned.json (sha256 " in compare(tmp_path / "out", "vae").err
        tuned.write_text(tuned.read_text().replace("7", "8"))
        assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tuned).code == 2


def of_circle(text, **more):
    return json.dumps({"datasets": {"circle": text}, **more})


@pytest.mark.parametrize(
    ("datasets", "content", "message"),
    [
        ("torus", of_circle({}), "tuned.json holds nothing for dataset 'torus' (available: circle); tune it first"),
        ("circle[n_train=30]", of_circle({}), "tuned.json holds nothing for dataset 'circle[n_train=30]'"),
        ("circle", of_circle({"vae": {"stops": 3}}), "unknown parameter of 'vae' 'stops'"),
        ("circle", of_circle({"vae": {"steps": 1.5}}), "vae.steps must be a whole number"),
        ("circle", "{}", "is not a tuned.json that `python -m bench tune` wrote"),
        ("circle", "[", "is not a tuned.json"),
        ("circle", of_circle(3), "is not a tuned.json"),
        ("circle", of_circle({}, budget=3), "is not a tuned.json"),
        ("circle", of_circle({}, schema=SCHEMA + 1), f"has schema {SCHEMA + 1}; this version reads schemas 1 to"),
    ],
)
def test_choices_that_do_not_fit_are_refused(tmp_path, tuned, compare, invented, datasets, content, message):
    tuned.write_text(content)
    end = compare(tmp_path / "out", "vae", datasets, 1, "--tuned", tuned)
    assert (end.code, end.err.count("\n"), invented) == (2, 1, [])
    assert message in end.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"--tuned nowhere\.json cannot be read: No such file"):
        read("nowhere.json")


@pytest.mark.parametrize("first", [1000, 999])
def test_seeds_that_choices_were_made_on_are_refused(tmp_path, compare, first):
    """By validation data of the same seed: not by those of others, nor by a file that does not say."""
    file, out = tmp_path / "tuned.json", tmp_path / "out"
    file.write_text(of_circle({}, schema=2, budget={"flops": 1e9, "seeds": 1, "first_seed": 1000}))
    end = compare(out, "vae", "circle", 2, "--tuned", file, "--first-seed", first)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert "tuned.json was chosen on seed 1000" in end.err
    assert not out.exists()
    assert read(file).seeds == (1000,)
    file.write_text(of_circle({}))
    assert read(file).seeds == ()


def test_a_seed_of_any_stage_is_refused(tmp_path, compare):
    file = tmp_path / "tuned.json"
    file.write_text(of_circle({}, schema=4, seeds=[1000, 1001, 2000, 2001], budget={"flops": 1e9, "seeds": 2}))
    end = compare(tmp_path / "out", "vae", "circle", 2, "--tuned", file, "--first-seed", 2001)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert "tuned.json was chosen on seed 2001" in end.err


# Choices of several tunings


THREE = [{"batch_size": 7}, {"batch_size": 8}, {"batch_size": 9}]


def dealt(folder, **settings):
    """The batch size and the block of `vae` at each seed, under three choices."""
    file = folder / "tuned.json"
    file.write_text(of_circle({"vae": THREE}, schema=4, budget={"flops": 1e9, "repeats": 3}))
    plan = resolve(Settings(methods=("vae",), datasets=("circle",), tuned=str(file), **settings))
    return {run.seed: (dict(run.parameters)["batch_size"], run.block) for run in plan.runs}


def test_seeds_take_turns_with_the_choices(tmp_path):
    """Three in a row take the same one, as a block of ten is shared by three choices."""
    assert dealt(tmp_path, seeds=12) == {
        seed: (size, 3) for seed, size in enumerate([7, 7, 7, 8, 8, 8, 9, 9, 9, 7, 7, 7])
    }
    assert dealt(tmp_path, seeds=4, block=1) == {0: (7, 1), 1: (8, 1), 2: (9, 1), 3: (7, 1)}
    assert {size for size, _ in dealt(tmp_path, max_seconds=1.0).values()} == {7, 8, 9}
    assert {block for _, block in dealt(tmp_path, max_seconds=1.0).values()} == {1}


def test_what_a_seed_takes_does_not_depend_on_the_other_seeds(tmp_path):
    every = dealt(tmp_path, seeds=25)
    for first, seeds in ((0, 1), (4, 3), (11, 14)):
        part = dealt(tmp_path, first_seed=first, seeds=seeds)
        assert part == {seed: every[seed] for seed in range(first, first + seeds)}


def test_a_program_holds_seeds_of_one_choice(tmp_path):
    """Ten seeds are four programs of three, and the last has two more that are not asked for."""
    dealt(tmp_path)
    plan = resolve(Settings(methods=("vae",), datasets=("circle",), tuned=str(tmp_path / "tuned.json"), seeds=10))
    assert [[run.seed for run in block] for block in blocks(plan.runs)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_choices_of_several_tunings_reach_runs_and_report(tmp_path, compare, invented):
    file, out = tmp_path / "tuned.json", tmp_path / "out"
    file.write_text(of_circle({"vae": THREE}, schema=4, budget={"flops": 1e9, "repeats": 3}))
    assert compare(out, "vae,vae[batch_size=5],untrained", "circle", 9, "--tuned", file).code == 0
    runs = tables.read_table(out, "runs").set_index(["method", "seed"])["p_batch_size"]
    assert runs["vae"].tolist() == [7] * 3 + [8] * 3 + [9] * 3
    assert set(runs["vae[batch_size=5]"]) == {5}
    info = json.loads((out / "study.json").read_text())
    assert info["tuned"]["methods"]["vae"] == {"circle": THREE}
    (_, origin), *used = settings_used(info)
    assert "1e+09 FLOPs for each method on each dataset, in each of 3 tunings" in origin
    assert dict(used) == {
        "vae": "batch_size=7 or batch_size=8 or batch_size=9",
        "vae[batch_size=5]": "as given, nothing tuned",
        "untrained": "at its defaults",
    }


def test_older_studies_state_one_choice_by_itself():
    info = {"tuned": {"file": "f", "sha256": "s", "budget": "b", "methods": {"vae": {"circle": {"steps": 7}}}}}
    assert settings_used(info)[1:] == [("vae", "steps=7")]
