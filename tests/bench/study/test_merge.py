"""Studies made apart and merged: the same as one made whole, or told why not, with nothing written."""

import json
import re
import shutil
from functools import partial

import msgspec
import pandas as pd
import pytest

from bench.config.fields import choices, fields, flag
from bench.config.schema import Conditions
from bench.store import run_files, tables
from bench.store.schema import SCHEMA
from bench.study.folder import held
from bench.study.plan import resolve


@pytest.fixture
def merge(cli, monkeypatch):
    """`merge` with the report left out."""
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
    return partial(cli, "merge")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture
def parts(kept, tmp_path, compare, invented):
    """Two studies that share a run, circle / vae / seed 0."""
    if not (kept / "b").exists():
        assert compare(kept / "a", "vae,untrained", "circle", 1, "--set", "vae.steps=3").code == 0
        assert compare(kept / "b", "vae", "circle,figure8", 2, "--set", "vae.steps=3").code == 0
    return tuple(shutil.copytree(kept / name, tmp_path / name) for name in "ab")


def run_of(folder, name):
    """The file of a run, by its name, and its content."""
    for path in sorted((folder / "runs").iterdir()):
        content = json.loads(path.read_text())
        if "{dataset} / {method} / seed {seed}".format(**content["spec"]) == name:
            return path, content
    raise LookupError(name)


def change(folder, name, act):
    """Change the content of a run's file."""
    path, content = run_of(folder, name)
    act(content)
    path.write_text(json.dumps(run_files.seal(content)))


def edit(folder, act):
    """Change study.json."""
    info = json.loads((folder / "study.json").read_text())
    act(info)
    (folder / "study.json").write_text(json.dumps(info))


SHARED = "circle / vae / seed 0"


def test_merged_is_as_made_whole(parts, merge, compare, invented, tmp_path, values, unchanged):
    with unchanged(parts[0]), unchanged(parts[1]):
        end = merge(*parts, "--out", tmp_path / "both")
    assert (end.code, end.err) == (0, "")
    found, runs = values(tmp_path / "both"), tables.read_table(tmp_path / "both", "runs")
    assert runs[["dataset", "seed", "method"]].to_numpy().tolist() == [
        ["circle", 0, "vae"],
        ["circle", 0, "untrained"],
        ["circle", 1, "vae"],
        ["figure8", 0, "vae"],
        ["figure8", 1, "vae"],
    ]
    del invented[:]
    sources = held(tmp_path / "both").info["sources"]
    flags = ("--set", "vae.steps=3")
    assert compare(tmp_path / "both", "vae,untrained", "circle,figure8", 2, *flags).code == 0
    assert len(invented) == 3  # untrained at seed 1 and on figure8
    assert compare(tmp_path / "whole", "vae,untrained", "circle,figure8", 2, *flags).code == 0
    for one, other in zip(values(tmp_path / "both"), values(tmp_path / "whole"), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert held(tmp_path / "both").info["sources"] == sources
    by = ["dataset", "method", "seed"]
    kept = values(tmp_path / "whole")[0].merge(found[0][by], on=by)
    pd.testing.assert_frame_equal(kept, found[0], check_exact=True)


def test_what_is_known_of_a_merged_study(parts, merge, tmp_path):
    edit(parts[1], lambda info: info["provenance"].update(platform="elsewhere", started="2020-01-01T00:00:00+00:00"))
    before = [json.loads((part / "study.json").read_text()) for part in parts]
    assert merge(*parts, "--out", tmp_path / "both", "--quiet").code == 0
    study = held(tmp_path / "both")
    settings, info = study.settings, study.info
    assert (settings.methods, settings.datasets, settings.seeds) == (("vae", "untrained"), ("circle", "figure8"), 2)
    assert settings.set == {"vae": {"steps": 3}}
    assert [source["provenance"] for source in info["sources"]] == [each["provenance"] for each in before]
    assert [source["folder"] for source in info["sources"]] == [str(part) for part in parts]
    assert info["provenance"]["platform"] == f"{before[0]['provenance']['platform']}; elsewhere"
    assert info["provenance"]["torch"] == before[0]["provenance"]["torch"]
    assert info["provenance"]["started"] == "2020-01-01T00:00:00+00:00"
    assert set(info["datasets"]) == {"circle", "figure8"}
    assert set(info["methods"]) == {"vae", "untrained"}
    assert " merged: " in (tmp_path / "both" / "log.txt").read_text()


def test_a_merged_study_can_be_merged_again_and_added_to(parts, merge, compare, tmp_path, values):
    assert merge(parts[0], "--out", tmp_path / "both").code == 0
    assert merge(parts[1], "--out", tmp_path / "both").code == 0
    first = values(tmp_path / "both")
    assert merge(*parts, "--out", tmp_path / "at once").code == 0
    assert merge(tmp_path / "both", *parts, parts[0], "--out", tmp_path / "again").code == 0
    for folder in ("at once", "again"):
        for one, other in zip(first, values(tmp_path / folder), strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    folders = [source["folder"] for source in held(tmp_path / "both").info["sources"]]
    assert folders == [str(part) for part in parts]


def test_the_study_file_of_a_merged_study_makes_its_runs(parts, merge, cli, tmp_path, invented):
    assert merge(*parts, "--out", tmp_path / "both").code == 0
    merged = {path.name for path in (tmp_path / "both" / "runs").iterdir()}
    assert cli("run", tmp_path / "both" / "study.toml", "--out", tmp_path / "again", "--quiet").code == 0
    assert {path.name for path in (tmp_path / "again" / "runs").iterdir()} > merged


def test_seconds_memory_and_messages_are_the_machines(parts, merge, tmp_path):
    def elsewhere(content):
        content.update(
            evaluation_s=9.0, peak_memory_mb=9.0, overrun_s=9.0, message="slow", concurrent=True, notes="slow"
        )
        for cost in (content["cost"], *(row["cost"] for row in content["rows"])):
            cost.update(wall_s=9.0, cpu_s=9.0)

    change(parts[1], SHARED, elsewhere)
    assert merge(*parts, "--out", tmp_path / "both").code == 0
    runs = tables.read_table(tmp_path / "both", "runs").set_index(["dataset", "method", "seed"])
    assert runs.loc[("circle", "vae", 0), "wall_s"] == 1.0


def row(index, **changed):
    return lambda content: content["rows"][index].update(changed)


CLASHES = [
    (row(1, value=2.5), "value of test_ll at checkpoint 1 is -?[0-9.]+ in {a} and 2.5 in {b}"),
    (row(0, stderr=0.2), "stderr of test_ll at checkpoint 0 is 0.1 in {a} and 0.2 in {b}"),
    (row(0, metric="elbo"), "metric of test_ll at checkpoint 0 is test_ll in {a} and elbo in {b}"),
    (lambda c: c["rows"].pop(), "the number of measurements is 3 in {a} and 2 in {b}"),
    (lambda c: c["rows"][1]["cost"].update(flops=11.0), "the cost at checkpoint 1 is .*'flops': 10.0.* and .*11.0"),
    (lambda c: c["cost"].update(encoder_passes=3), "its cost is .*'encoder_passes': 2.* and .*'encoder_passes': 3"),
    (lambda c: c.update(status="failed"), "its status is done in {a} and failed in {b}"),
    (lambda c: c["diagnostics"][0].update(value=7.0), "its diagnostics is .* and .*'value': 7.0"),
    (lambda c: c.update(formula_flops=1.0), "its formula_flops is 0.0 in {a} and 1.0 in {b}"),
    (lambda c: c.update(parameters={"steps": 4}), "its parameters is .* and {{'steps': 4}} in {b}"),
    (lambda c: c.update(densities=[["vae", 0.0, 0.0, -1.0]]), "its densities is None in {a} and .*-1.0"),
]


@pytest.mark.parametrize(("act", "message"), CLASHES)
@pytest.mark.parametrize("existing", [False, True])
def test_other_values_of_a_run_are_told_and_nothing_is_written(
    parts, merge, tmp_path, unchanged, act, message, existing
):
    a, b = parts
    change(b, SHARED, act)
    with unchanged(tmp_path):
        end = merge(b, "--out", a) if existing else merge(a, b, "--out", tmp_path / "both")
    assert (end.code, end.out) == (1, "")
    first, told = end.err.splitlines()
    assert first == "the same runs have different values; nothing was written:"
    assert re.fullmatch(f"{SHARED}: {message.format(a=re.escape(str(a)), b=re.escape(str(b)))}.*", told)


def test_many_clashes_are_counted(compare, invented, merge, tmp_path):
    for folder in "ab":
        assert compare(tmp_path / folder, "untrained", "circle", 13).code == 0
    for seed in range(12):
        change(tmp_path / "b", f"circle / untrained / seed {seed}", row(0, value=9.0))
    end = merge(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert end.code == 1
    assert len(end.err.splitlines()) == 12
    assert end.err.endswith("and 2 more runs\n")


def setting(**changed):
    return lambda folder: edit(folder, lambda info: info["settings"].update(changed))


def spec_of_another(**changed):
    """Give the shared run another specification, and the key that goes with it."""

    def act(folder):
        path, content = run_of(folder, SHARED)
        content["spec"].update(msgspec.to_builtins(changed))
        path.unlink()
        spec = msgspec.structs.replace(spec_of(folder, path), **changed)
        (folder / "runs" / f"{spec.key}.json").write_text(json.dumps(run_files.seal(content)))
        (folder / "runs.parquet").unlink()

    return act


def spec_of(folder, path):
    return next(spec for spec in resolve(held(folder).settings).runs if spec.key == path.stem)


def damage(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def damage_run(act):
    return lambda folder: act(run_of(folder, SHARED)[0])


def without(name):
    return lambda folder: edit(folder, lambda info: info.pop(name))


def test_seeds_shared_out_over_machines(merge, compare, invented, tmp_path, values):
    """What lies between them is missing, and run when the study is gone on with."""
    for first, seeds in ((0, 2), (3, 1)):
        assert compare(tmp_path / str(first), "vae", "circle", seeds, "--first-seed", first).code == 0
    assert merge(tmp_path / "0", tmp_path / "3", "--out", tmp_path / "both").code == 0
    settings = held(tmp_path / "both").settings
    assert (settings.first_seed, settings.seeds) == (0, 4)
    assert tables.read_table(tmp_path / "both", "runs")["seed"].to_list() == [0, 1, 3]
    del invented[:]
    assert compare(tmp_path / "both", "vae", "circle", 1, "--first-seed", 3).code == 0
    assert invented == ["circle / vae / seed 2"]
    assert compare(tmp_path / "whole", "vae", "circle", 4).code == 0
    for one, other in zip(values(tmp_path / "both"), values(tmp_path / "whole"), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def another(field):
    """A condition as the shared studies have it, and another value of it."""
    of_study = {"n_train": 40, "n_test": 50, "max_flops": 1e7}
    changed = {"hidden": [8, 9], "latent_dim": 2}
    here = of_study.get(field.name, field.default)
    return here, changed.get(field.name) or ([each for each in choices(field) if each != field.default] or [3])[0]


REFUSED = [
    *((setting(**{field.name: another(field)[1]}), f"holds a study with {flag(field.name)} .*, .* one with ")
      for field in fields(Conditions)),
    (setting(set={"vae": {"steps": 4}}), "--set vae steps=3, .* one with steps=4"),
    (setting(set={}), "--set vae steps=3, .* one with nothing"),
    (lambda folder: edit(folder, lambda info: info.update(kind="tune", settings={**info["settings"], "seeds": 3})),
     "holds results of `tune`; only studies of `compare` can be merged"),
    (spec_of_another(code="other"), "made circle / vae / seed 0 with different code \\([0-9a-f]{16} and other\\)"),
    (spec_of_another(versions=("torch 1", "numpy 2")), "with different versions \\(.*torch .* and .*torch 1"),
    (spec_of_another(data="other"), "with different data \\([0-9a-f]{16} and other\\)"),
    (spec_of_another(n_train=41), "with different n_train \\(40 and 41\\)"),
    (spec_of_another(parameters=(("steps", 4),)), "with different parameters"),
    (lambda folder: (folder / "study.json").unlink(), "holds no study: there is no study.json in it"),
    (shutil.rmtree, "holds no study"),
    (damage("study.json", b"{"), "study.json cannot be read"),
    (damage("study.json", b"[]"), "study.json is damaged"),
    (damage("study.json", b'{"schema": 1}'), f"has schema 1, but this version reads schema {SCHEMA}"),
    (without("settings"), "study.json is damaged"),
    (without("provenance"), "study.json is damaged"),
    (setting(methods=[3]), "study.json is damaged"),
    (setting(seeds="many"), "study.json is damaged"),
    (damage("runs.parquet", b"no table"), "runs.parquet cannot be read"),
    (damage("runs/0123456789abcdef.json", b"{}"), "0123456789abcdef.json is damaged"),
    (damage("runs/0123456789abcdef.json", b"[]"), "0123456789abcdef.json is damaged"),
    (damage("runs/0123456789abcdef.json", b"{"), "0123456789abcdef.json cannot be read"),
    (damage_run(lambda path: path.write_bytes(path.read_bytes()[:99])), "[0-9a-f]{16}.json cannot be read"),
    (
        lambda folder: run_of(folder, SHARED)[0].write_bytes(run_of(folder, "figure8 / vae / seed 0")[0].read_bytes()),
        "[0-9a-f]{16}.json is damaged, or was written by another",
    ),
    (
        damage_run(lambda path: path.rename(path.with_name(f"{16 * '0'}.json"))),
        "0.json is damaged, or was written by another",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("act", "message"), REFUSED)
def test_studies_that_do_not_fit_are_refused(parts, merge, tmp_path, unchanged, act, message):
    act(parts[1])
    with unchanged(tmp_path):
        end = merge(*parts, "--out", tmp_path / "both")
    assert (end.code, end.out) == (2, "")
    assert re.fullmatch(f"error: .*{message}.*\n", end.err)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--out", "both"), "Missing argument 'DIR...'"),
        (("a",), "Missing option '--out'"),
        (("a", "--out", "a"), "--out a is one of the folders to be merged"),
        (("a", "b", "--out", "./b"), "--out b is one of the folders to be merged"),
        (("a", "--out", "photographs"), "holds no study (cat.jpg, ...)"),
        (("a", "--out", "photographs/cat.jpg"), "cat.jpg is a file; --out needs a folder"),
        (("photographs", "--out", "both"), "photographs holds no study"),
        (("a", "photographs/cat.jpg", "--out", "both"), "cat.jpg holds no study"),
        (("empty", "--out", "both"), "there are no finished runs in empty"),
    ],
)
def test_folders_that_do_not_fit(parts, merge, tmp_path, monkeypatch, unchanged, args, message):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "empty").mkdir()
    shutil.copy(parts[0] / "study.json", tmp_path / "empty")
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path):
        end = merge(*args)
    assert (end.code, end.out) == (2, "")
    assert message in end.err
    assert end.err.count("\n") == 1


def test_runs_of_older_code_do_not_count(parts, merge, tmp_path):
    path, content = run_of(parts[0], SHARED)
    content["spec"]["code"] = "older"
    old = msgspec.structs.replace(spec_of(parts[0], path), code="older")
    (parts[0] / "runs" / f"{old.key}.json").write_text(json.dumps(run_files.seal(content)))
    assert merge(*parts, "--out", tmp_path / "both").code == 0
    assert not (tmp_path / "both" / "runs" / f"{old.key}.json").exists()
    assert len(list((tmp_path / "both" / "runs").iterdir())) == 5


def test_a_failed_run_is_merged_and_reported(parts, merge, tmp_path):
    change(parts[1], "figure8 / vae / seed 1", lambda content: content.update(status="failed", message="no", rows=[]))
    end = merge(*parts, "--out", tmp_path / "both", "--quiet")
    assert (end.code, end.out, end.err) == (1, "", "")
    assert tables.read_table(tmp_path / "both", "runs")["status"].tolist().count("failed") == 1
