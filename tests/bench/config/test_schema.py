"""The settings: each field is a flag, a key of study.toml, an argument in Python and, for a condition, a column."""

import inspect
import json
import re
from typing import Literal, get_args, get_origin

import msgspec
import pytest
import tomli_w

import bench
from bench.cli.app import cli as commands
from bench.common.errors import UsageError
from bench.config.fields import _plain, expected, fields, read
from bench.config.labels import spell_value
from bench.config.schema import CONDITIONS, Conditions, Execution, Settings
from bench.registry.registry import DatasetLabel
from bench.store import tables
from bench.store.records import RunResult
from bench.study import file
from bench.study.plan import resolve

PLUGIN = "from datasets import load\nDATASETS = {'own': lambda latent_dim=None: load('linear_gaussian', latent_dim)}\n"
NAMED = {
    "methods": ("vae", "iterative[steps=9]"),
    "datasets": ("linear_gaussian", "own[n_train=20]", "table"),
    "columns": ("a", "b"),
    "baseline": ("iterative[steps=9]",),
    "observation_noise": "learned",  # the table has no known one
    "set": {"vae": {"steps": 7, "learning_rate": 0.5}},
    "scheduler": "tcp://here:8786",
}


def offered(command):
    """The fields that a command offers, with their schemas."""
    from bench.config import schema

    found = commands.commands[command]
    each = [(field, getattr(schema, name)) for name in found.schemas for field in fields(getattr(schema, name))]
    return [(field, owner) for field, owner in each if field.name not in found.hide]


COMMANDS = [name for name, command in commands.commands.items() if hasattr(command, "schemas")]
OFFERED = [(command, field, owner) for command in COMMANDS for field, owner in offered(command)]
SETTINGS, EXECUTION = fields(Settings), fields(Execution)


def named(value):
    return value if isinstance(value, str) else getattr(value, "name", "")


def other(field, folder):
    """A value that a field takes and that is not its default."""
    kind = _plain(field.kind)
    if field.name in NAMED:
        return NAMED[field.name]
    if field.name in ("plugins", "tuned"):
        return (str(folder / "own.py"),) if field.name == "plugins" else str(folder / "tuned.json")
    if field.name == "data":
        return (str(folder / "table.csv"),)
    if get_origin(kind) is Literal:
        return next(each for each in get_args(kind) if each != field.default)
    if kind is bool:
        return not field.default
    return (32, 16) if get_origin(kind) is tuple else kind((field.default or 1) + 1)


def as_text(field, value):
    """Words of the command line that give a field a value."""
    if value is True:
        return [field.flag]
    if isinstance(value, dict):
        return [w for m, given in value.items() for k, v in given.items() for w in (field.flag, f"{m}.{k}={v}")]
    if field.extra.get("multiple"):
        return [word for each in value for word in (field.flag, each)]
    return [field.flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


@pytest.fixture
def others(tmp_path, monkeypatch):
    """A value other than the default for each field of the settings and of how they are executed."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "own.py").write_text(PLUGIN)
    rows = [f"{n},{n * n}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b", *rows]))
    choices = {"vae": {"batch_size": 9}}
    content = {"datasets": dict.fromkeys(NAMED["datasets"], choices), "schema": 3}
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    found = {field.name: other(field, tmp_path) for field in (*SETTINGS, *EXECUTION)}
    assert not [field.name for field in (*SETTINGS, *EXECUTION) if found[field.name] == field.default]
    return found


@pytest.fixture
def asked(monkeypatch):
    """The settings, and how to execute them, that a command or a call resolves; nothing is run."""
    found = []

    def execute(plan, folder, how, log, command, meanwhile=None):
        found.append((plan.settings, how))
        raise UsageError("not run")

    monkeypatch.setattr("bench.study.execute.execute", execute)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_each_field_is_a_flag_with_its_meaning_and_default(cli, command):
    end = cli(command, "--help")
    text = " ".join(end.out.split())
    for field, owner in offered(command):
        assert field.flag in text
        found = re.search(rf"{field.flag} .*?{re.escape(field.help)}( \[default: [^]]+\])?", text)
        about, default = found.group(0, 1)
        if field.extra.get("default"):
            assert field.extra["default"] in about
        elif field.default not in (None, False, (), {}):
            shown = default.removeprefix(" [default: ").removesuffix("]")
            given = {field.name: (shown,) if field.extra.get("multiple") else shown}
            assert getattr(read(owner, given, str, text=True), field.name) == field.default


def test_flags_python_and_toml_give_the_same_settings(cli, asked, others, tmp_path):
    words = [word for field in (*SETTINGS, *EXECUTION) for word in as_text(field, others[field.name])]
    assert "not run" in cli("compare", "--out", tmp_path / "cli", *words).err
    with pytest.raises(UsageError, match="not run"):
        bench.compare(out=tmp_path / "python", **others)
    execution = [word for field in EXECUTION for word in as_text(field, others[field.name])]
    keys = {field.name: others[field.name] for field in SETTINGS}
    (tmp_path / "study.toml").write_text(tomli_w.dumps(keys))
    assert "not run" in cli("run", tmp_path / "study.toml", "--out", tmp_path / "toml", *execution).err
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    found = msgspec.to_builtins(asked[0][0]) | msgspec.to_builtins(asked[0][1])
    assert {name: found[name] for name in others} == msgspec.to_builtins(others)


def test_a_study_file_that_is_written_is_read_back(others, tmp_path):
    plan = resolve(read(Settings, {field.name: others[field.name] for field in SETTINGS}, str))
    folder = tmp_path / "out"
    folder.mkdir()
    file.write(plan, folder)
    found, name = file.read_plan(folder / "study.toml")
    assert name == "out"
    assert msgspec.structs.replace(found.settings, tuned=None) == msgspec.structs.replace(plan.settings, tuned=None)
    assert found.tuned == plan.tuned
    assert [spec.key for spec in found.runs] == [spec.key for spec in plan.runs]


def test_conditions_reach_the_runs_and_their_columns(others, tmp_path):
    plan = resolve(read(Settings, {field.name: others[field.name] for field in SETTINGS}, str))
    (spec, *_), (labelled, *_), (own, *_) = (
        [run for run in plan.runs if run.dataset == name] for name in NAMED["datasets"]
    )
    expected = {**others, "block": 1}  # as seconds end these fits
    assert {name: getattr(spec, name) for name in CONDITIONS} == {name: expected[name] for name in CONDITIONS}
    assert (labelled.n_train, own.n_train, own.columns) == (20, others["n_train"], ("a", "b"))
    tables.write_tables(tmp_path, [RunResult(spec)])
    (row,) = tables.read_table(tmp_path, "runs").to_dict("records")
    for name in CONDITIONS:
        value = expected[name]
        assert row[name] == (spell_value(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_condition_changes_the_key_of_a_run(run_spec, tmp_path, name):
    (field,) = [each for each in fields(Conditions) if each.name == name]
    assert run_spec(**{name: other(field, tmp_path)}).key != run_spec().key


@pytest.mark.parametrize("name", Conditions.IN_LABEL)
def test_a_condition_in_a_label_is_typed_and_spelled_in_one_way(tmp_path, name):
    (field,) = [each for each in fields(Conditions) if each.name == name]
    value = other(field, tmp_path)
    label = f"circle[{name}={spell_value(value)}]"
    assert DatasetLabel.parse(label).conditions == {name: value}
    assert str(DatasetLabel.parse(label)) == label
    with pytest.raises(UsageError, match=rf"^{name} of 'circle\[{name}=-1\]' must be .*, got -1$"):
        DatasetLabel.parse(f"circle[{name}=-1]")


def test_python_has_each_field_as_an_argument():
    arguments = inspect.signature(bench.compare).parameters
    others = ["out", "report", "against", "problems"]
    assert list(arguments) == [*(field.name for field in (*SETTINGS, *EXECUTION)), *others]
    for field in (*SETTINGS, *EXECUTION):
        assert arguments[field.name].default == field.default
        assert arguments[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{field.name}: {field.help}" in bench.compare.__doc__


WRONG = {
    int: ("-1", "many", "1.5", "nan", "inf", "1e3", ""),
    float: ("0", "-1", "nan", "inf", "-inf", "many", "1,5", ""),
    Literal: ("unknown", ""),
    tuple: ("0", "-1", "many", "64,,64", ""),
}


def wrong(field):
    """Texts that a field does not take, and values of the wrong type or beyond its limits."""
    kind = get_origin(_plain(field.kind)) or _plain(field.kind)
    if field.name == "scheduler":
        return ("nowhere", "tcp://here", ""), (3,)
    if field.name == "run_memory":
        return ("much", "0", "-1", ""), (0, 1.5, "much")
    if kind is tuple and get_args(_plain(field.kind))[0] is str:
        return (), (3, [3], *([] if field.default is None else [None]))
    values = {int: (-1, 1.5, True, "many", None), float: (0, -1.0, float("nan"), float("inf"), True, "many")}
    values |= {Literal: ("unknown", 1), tuple: ((), (0,), 64, ("a",)), bool: (1, "yes"), str: (3,), dict: (3, {"a": 3})}
    if field.name == "margin":
        return tuple(text for text in WRONG[float] if text != "0"), tuple(each for each in values[float] if each != 0)
    optional = field.default is None
    return WRONG.get(kind, ()), tuple(value for value in values[kind] if not (value is None and optional))


@pytest.mark.parametrize(("command", "field", "owner"), OFFERED, ids=named)
def test_a_wrong_flag_is_one_line_that_names_it(cli, tmp_path, monkeypatch, command, field, owner):
    monkeypatch.chdir(tmp_path)
    arguments = ["missing.toml"] if command == "run" else []
    for text in wrong(field)[0]:
        end = cli(command, *arguments, field.flag, text)
        assert (end.code, end.out) == (2, "")
        shown = (text, repr(text)) if text else ("''",)
        assert end.err in [f"error: {field.flag} must be {expected(field)}, got {each}\n" for each in shown]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", [*SETTINGS, *EXECUTION], ids=named)
def test_a_wrong_argument_is_an_error_that_names_it(invented, tmp_path, field):
    for value in wrong(field)[1]:
        with pytest.raises(UsageError, match=field.name.replace("_", "[_-]")) as error:
            bench.compare(out=tmp_path / "out", **{field.name: value})
        assert "\n" not in str(error.value)
    assert not invented
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", SETTINGS, ids=named)
def test_a_wrong_key_is_one_line_that_names_file_and_line(cli, tmp_path, field):
    path = tmp_path / "study.toml"
    given = {"methods": ["vae"], "datasets": ["circle"]}
    for value in wrong(field)[1]:
        if value is None:
            continue
        text = tomli_w.dumps({**given, field.name: value})
        path.write_text(text)
        line = next(n for n, each in enumerate(text.splitlines(), 1) if re.match(rf"\[?{field.name}\b", each))
        end = cli("run", path)
        assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
        assert re.match(rf"error: {path}, line {line}: .*\b{field.name}\b", end.err), (value, end.err)
