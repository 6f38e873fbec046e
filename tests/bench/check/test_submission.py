"""Whether a study can be handed in: a good one passes, and what is wrong with another is said in its line."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

# For tools, which is not installed. It is last, so that all else is what is installed.
sys.path.append(str(Path(__file__).parents[3]))

from bench.check import submission
from bench.check.checks import QUICK
from bench.store import run_files, tables
from tools.pack import pack

ROOT = Path(__file__).parents[3]
PLUGIN = next(
    code
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if "METHODS" in code
)
POINTS = ("complete", "reproducible", "conforming", "versions")


@pytest.fixture(autouse=True)
def at_a_commit(monkeypatch):
    """Let the files of the checkout be unchanged, and conformance be a matter of one check."""
    monkeypatch.setattr("bench.store.provenance.commit", lambda: "0123456789ab")
    monkeypatch.setattr(
        "bench.study.folder.provenance.collect",
        lambda: {
            "commit": "0123456789ab",
            "version": "0.1.0",
            "torch": "2",
            "processor": submission.provenance.processor(),
        },
    )
    monkeypatch.setattr(submission, "QUICK", QUICK[:1])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("submissions")


@pytest.fixture
def study(kept, tmp_path, compare, invented):
    """A study of a plugin's method and two others, whose plugin file is beside it."""
    if not (kept / "mine").exists():
        (kept / "mine.py").write_text(PLUGIN)
        assert compare(kept / "mine", "mine,vae,untrained", "circle", 2, "--plugin", kept / "mine.py").code == 0
    return shutil.copytree(kept / "mine", tmp_path / "mine")


@pytest.fixture
def check(cli):
    """The line of each point, and the exit code."""

    def run(folder, *more):
        end = cli("submit-check", folder, *more)
        *lines, _ = end.out.splitlines()
        assert [line.split()[1] for line in lines] == list(POINTS)
        return {line.split()[1]: line for line in lines}, end.code

    return run


def failed(lines):
    return [name for name, line in lines.items() if line.startswith("fail")]


def edit(path, act):
    content = json.loads(path.read_text())
    act(content)
    path.write_text(json.dumps(content))


def files(study, method):
    """The files of a method's runs."""
    every = [(path, json.loads(path.read_text())) for path in sorted((study / "runs").iterdir())]
    return [path for path, content in every if content["spec"]["method"] == method]


def test_a_good_one_passes_and_is_left_as_it_is(study, check, unchanged):
    with unchanged(study):
        lines, code = check(study)
    assert (failed(lines), code) == ([], 0)
    assert "6 runs, 0 borrowed, 0 not done; 9 tables agree with them" in lines["complete"]
    assert lines["reproducible"].count("it has the same values to the last digit") == 2
    assert "mine, vae, untrained pass the 1 quick checks" in lines["conforming"]
    assert "commit 0123456789ab" in lines["versions"]


def test_a_run_that_is_missing(study, check):
    files(study, "vae")[0].unlink()
    lines, code = check(study)
    assert (failed(lines), code) == (["complete"], 1)
    assert "1 of 6 planned runs are missing, such as circle / vae / seed" in lines["complete"]


def test_a_table_that_is_not_what_the_runs_give(study, check):
    rows = tables.read_table(study, "measurements")
    rows.loc[3, "value"] += 1e-9
    tables.write_table(study / "measurements.parquet", rows)
    lines, _ = check(study)
    assert failed(lines) == ["complete"]
    assert "measurements.parquet is not what the runs give" in lines["complete"]


def test_a_command_that_did_not_finish(study, check):
    edit(study / "study.json", lambda info: info["provenance"].update(finished=None))
    assert "did not finish" in check(study)[0]["complete"]


def test_values_that_are_not_found_again(study, check):
    def better(content):
        content["rows"][0]["value"] += 1.0
        content.update(run_files.seal(content))

    for path in [*files(study, "mine"), *files(study, "vae")]:
        edit(path, better)
    lines, code = check(study)
    assert "repeated: value of test_ll at checkpoint 0 is" in lines["reproducible"]
    assert {"complete", "reproducible"} == {*failed(lines)}
    assert code == 1


def test_a_run_that_is_damaged_fails_every_point_that_reads_it(study, check):
    files(study, "vae")[0].write_text("{")
    assert {"complete", "reproducible", "versions"} <= {*failed(check(study)[0])}


def test_a_method_that_does_not_conform(study, check, monkeypatch):
    def fails(under_test):
        raise submission.FailedError(f"{under_test.label} is wrong")

    monkeypatch.setattr(submission, "QUICK", [type(QUICK[0])("contract", fails, learners_only=False)])
    lines, _ = check(study)
    assert failed(lines) == ["conforming"]
    assert "mine fails the check contract: mine is wrong" in lines["conforming"]


def test_files_that_were_changed_since_the_commit(study, check):
    edit(study / "study.json", lambda info: info["provenance"].update(commit="0123456789ab-dirty"))
    lines, _ = check(study)
    assert failed(lines) == ["versions"]
    assert "changed since commit 0123456789ab (" in lines["versions"]


def test_other_code_than_here(study, kept, check, tmp_path):
    (study / "mine.py").write_text(PLUGIN.replace("noise[0]", "noise[0] * 1"))
    edit(study / "study.json", lambda info: info["settings"].update(plugins=["/nowhere/mine.py"]))
    lines, _ = check(study)
    assert "versions" in failed(lines)
    assert "2 of 6 runs, such as circle / mine / seed 0, were made by other code" in lines["versions"]
    (study / "mine.py").write_text(PLUGIN)  # a plugin that was moved is found in the folder
    assert failed(check(study)[0]) == []
    (study / "mine.py").unlink()
    assert failed(check(study, "--plugin", kept / "mine.py")[0]) == []


def test_the_three_commands_of_the_page_work(compare, cli, tmp_path, monkeypatch, invented):
    """On a reference of two methods, with the plugin that the README shows."""
    assert compare(tmp_path / "whole", "vae,untrained", "circle", 2).code == 0
    pack(tmp_path / "whole", tmp_path / "reference")
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setattr("bench.study.against.PACKED", tmp_path / "reference")
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
    monkeypatch.chdir(tmp_path)
    (shell, _) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "submit.md").read_text("utf-8"), re.M | re.DOTALL)
    run, check, pack_it = (shlex.split(line, comments=True) for line in shell.splitlines())
    del invented[:]
    assert cli(*run[3:]).code == 0
    assert {name.split(" / ")[1] for name in invented[1:]} == {"mine"}
    assert cli(*check[3:]).code == 0
    subprocess.run(shlex.join(pack_it).replace("'&&'", "&&"), shell=True, check=True)
    with tarfile.open("mine.tar.gz") as archive:
        assert {"mine/mine.py", "mine/study.json", "mine/runs.parquet"} <= {*archive.getnames()}
