"""Nothing of a user's is written, followed or deleted: the harness touches only what it has made."""

import json
import shutil

import pytest

from bench.common.errors import UsageError
from bench.store import run_files, tables
from bench.store.locks import RunLocks
from bench.study import status

KEY = "0123456789abcdef"


FOREIGN = {
    "locks/notes.json": '{"my": "notes"}',
    f"locks/{KEY}.json": '{"my": "notes"}',
    f"locks/{KEY[::-1]}.json": "no JSON",
    "locks/readme.txt": "mine",
    "runs/mine.json": "{}",
    "runs/mine.csv": "a,b",
    "figures/mine.png": "mine",
    "mine.txt": "mine",
    "log.txt.bak": "mine",
}


@pytest.mark.parametrize(
    "name", ["locks/notes.json", "locks/readme.txt", "runs/mine.json", "runs/mine.csv", "mine.txt"]
)
def test_a_folder_with_files_of_others_is_no_study(tmp_path, compare, unchanged, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(FOREIGN[name])
    with unchanged(tmp_path):
        end = compare(tmp_path)
    assert end.code == 2
    assert "is not empty and holds no study" in end.err


def test_files_of_others_within_a_study_stay(study, compare, invented):
    """While it is resumed, extended, looked at and reported."""
    for name, content in FOREIGN.items():
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text(content)
    assert compare(study, "vae,mapa,iwae", "circle", 2).code == 0
    assert len(invented) == 2
    status.read(study)
    assert {name: (study / name).read_text() for name in FOREIGN} == FOREIGN


@pytest.mark.parametrize("name", ["runs", "locks", "log.txt", "figures", "runs.csv", "tuned", "study.json", "mine"])
def test_symbolic_links_within_a_study_are_refused(study, compare, cli, tmp_path, tree, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    path = study / name
    target = outside if name in ("runs", "locks", "figures", "tuned", "mine") else outside / "file"
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(target)
    before = tree(study), tree(outside)
    for end in (compare(study, "vae,mapa,iwae", "circle", 2), cli("status", study), cli("report", study)):
        assert (end.code, end.err.count("\n")) == (2, 1), end.err
        assert f"{path} is a symbolic link; a study must hold its files itself" in end.err
    assert (tree(study), tree(outside)) == before


def test_a_link_to_a_run_is_refused(study, compare, tmp_path):
    path = sorted((study / "runs").iterdir())[0]
    shutil.move(path, tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    end = compare(study, "vae,mapa", "circle", 2)
    assert (end.code, "is a symbolic link" in end.err) == (2, True)


def test_a_study_may_itself_lie_behind_a_link(study, compare, invented, tmp_path):
    (tmp_path / "link").symlink_to(study)
    assert compare(tmp_path / "link", "vae,mapa", "circle", 2).code == 0
    assert invented == []


def test_a_lock_that_is_not_ours_is_not_taken(study, compare, invented, unchanged):
    path = sorted((study / "runs").iterdir())[0]
    path.unlink()
    (study / "locks").mkdir()
    (study / "locks" / path.name).write_text('{"my": "notes"}')
    with pytest.raises(UsageError, match="is not a lock of this study"), RunLocks(study) as locks:
        locks.take(path.stem)
    assert (study / "locks" / path.name).read_text() == '{"my": "notes"}'


def test_a_result_that_is_not_believed_is_run_again_and_kept_under_another_name(study, compare, invented, values):
    before = values(study)
    one, other = sorted((study / "runs").iterdir())[:2]
    one.write_bytes(other.read_bytes())
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert len(invented) == 1
    assert (study / "runs" / f"{one.stem}.not-believed-1.json").read_bytes() == other.read_bytes()
    assert "its file is not believed" in (study / "log.txt").read_text()
    assert all(first.equals(second) for first, second in zip(before, values(study), strict=True))


def test_texts_of_stored_results_are_made_plain(study, compare, invented):
    path = sorted((study / "runs").iterdir())[0]
    content = json.loads(path.read_text())
    content |= {"message": "\x1b[31mred\x1b[0m " + "x" * 100_000}
    path.write_text(json.dumps(run_files.seal(content)))
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    runs = tables.read_table(study, "runs")
    assert runs["message"].str.len().max() <= 2000
