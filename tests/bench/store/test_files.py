"""Files that are whole or absent, and JSON that any reader takes."""

import json
import math

import pytest

from bench.common.errors import UsageError
from bench.store import files


def test_a_file_takes_its_place_once_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    for content in ("é", "é".encode()):
        files.atomic_write(path, content)
        assert path.read_bytes() == "é".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_midway_changes_nothing(tmp_path, error, existed):
    path = tmp_path / "file"
    if existed:
        path.write_text("old")
    with pytest.raises(error), files.replacing(path) as temporary:  # noqa: PT012 - the failure is within
        temporary.write_text("ne")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["file"] * existed
    assert not existed or path.read_text() == "old"


def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert files.read_json(path) == {"a": 1}


def strict(text):
    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_written_is_json_to_any_reader(tmp_path, value):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [value, (1.0, value)], "b": {"c": value}})
    assert strict(path.read_text())["a"][1][0] == 1.0


def test_reading_rubbish_names_the_file(tmp_path):
    path = tmp_path / "study.json"
    path.write_text("{")
    with pytest.raises(UsageError, match=r"study\.json cannot be read"):
        files.read_json(path)
