"""Whatever is wrong with what is asked for: exit code 2, one line, at once, and nothing is touched."""

import itertools
import os
import string
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config.fields import choices, fields
from bench.config.schema import Execution, Settings, SweepSettings, TimingSettings, TuneSettings

COMMANDS = {"compare": Settings, "tune": TuneSettings, "sweep": SweepSettings, "timing": TimingSettings}
NOT_OFFERED = {
    "tune": ("baseline", "margin", "tuned", "n_test"),
    "sweep": ("baseline", "margin", "tuned"),
    "timing": ("n_test",),
}
BEFORE = {"compare": ("-m", "vae"), "tune": ("-m", "vae"), "sweep": ("-m", "vae"), "timing": ("-m", "vae,mapa")}
NUMBERS = (
    *(
        "",
        " ",
        "x",
        "0",
        "-1",
        "1.5e",
        "1,5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1e400",
        "1_000",
        "１２",
        "0x10",
        "1e999GB",
    ),
    *("9" * 23, "9" * 400, "9" * 5000, "--", "None", "true", "1 2", "\x1b[31m1", "1\n2", "'1'", "½", "caf\udce9"),
)
COUNTS = ("1.5", "2147483648", "5000000000", "1e3")
DASK = ("scheduler",)


def numeric():
    """Each numeric option of each command with each bad value."""
    for command, schema in COMMANDS.items():
        every = [*fields(schema), *(fields(Execution) if command != "timing" else ())]
        for field in every:
            text = str(field.kind)
            if field.name in NOT_OFFERED.get(command, ()) or ("int" not in text and "float" not in text):
                continue
            if field.extra.get("multiple") or field.name in ("seed_", "vary"):
                continue
            if command == "timing" and field.name in ("max_flops", "max_seconds"):
                continue
            whole = "float" not in text
            for value in (*NUMBERS, *(COUNTS if whole and field.name != "run_memory" else ())):
                if (field.name, value) in FINE or (not whole and value == 23 * "9"):
                    continue
                yield command, field.flag, value


FINE = {("seed", "0"), ("first_seed", "0"), ("margin", "0"), ("hidden", "1,5")}
CASES = list(numeric())


@pytest.fixture
def asked(cli, tmp_path, monkeypatch, unchanged):
    """Ask for something in an empty folder, which must stay as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.execution.scheduler.run_all", lambda *_: pytest.fail("runs were made"))

    def ask(*args):
        start = time.perf_counter()
        with unchanged(tmp_path):
            end = cli(*args)
        assert time.perf_counter() - start < 3
        assert (end.code, end.out) == (2, ""), end
        assert end.err.startswith("error: ")
        assert end.err.count("\n") == 1
        assert len(end.err) < 2100
        assert all(character.isprintable() for character in end.err[:-1])
        return end.err

    return ask


def test_there_are_hundreds_of_cases():
    assert len(CASES) > 500


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_out_of_bounds(asked, command):
    """Each numeric option of the command with each bad value, which the line names."""
    for _, flag, value in (case for case in CASES if case[0] == command):
        err = asked(command, *BEFORE[command], flag, value)
        assert flag in err, (flag, value, err)


@pytest.mark.parametrize("command", COMMANDS)
def test_choices_that_there_are_not(asked, command):
    for field in fields(COMMANDS[command]):
        if choices(field) and field.name not in NOT_OFFERED.get(command, ()):
            for value in ("", "x", choices(field)[0].upper() + "s", "\x1b[31m"):
                assert field.flag in asked(command, *BEFORE[command], field.flag, value)


NAMES = ("mapa,,vae", "mapa,", ",mapa", "", " ", "vea", "vae[", "vae]", "vae[]", "vae[steps]", "vae[steps=]", "vae[=3]")
NAMES += ("vae[steps=1,steps=2]", "vae[steps=9999999999999999999999]", "vae[steps=1_0]", "vae[steps=１２]", "../vae")
NAMES += (
    "vae[learning_rate=nan]",
    "vae[learning_rate=-1]",
    "vae[learning_rate=1e999]",
    "\x1b[31mvae",
    "caf\udce9",
    "a\0b",
)


@pytest.mark.parametrize("option", ["-m", "-d"])
def test_names_that_there_are_not(asked, option):
    for name in NAMES:
        asked("compare", option, name if option == "-m" else name.replace("vae", "circle").replace("mapa", "circle"))


PLUGINS = {
    "raises.py": b"raise ValueError('no')",
    "base.py": b"raise BaseException('at the base')",
    "leaves.py": b"raise SystemExit(3)",
    "endless.py": b"def f(): f()\nf()",
    "syntax.py": b"def",
    "binary.py": bytes(range(256)),
    "nothing.py": b"",
    "list.py": b"METHODS = []",
    "number.py": b"METHODS = {'mine': 3}",
    "empty_name.py": b"METHODS = {'': int}",
    "unspeakable.py": b"class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "surrogate.py": b"raise ValueError('caf\\udce9 \\x1b[31m ' + 'x' * 100000)",
    "no_method.py": b"METHODS = {'mine': int}",
    "taken.py": b"METHODS = {'vae': int}",
}


@pytest.mark.parametrize("name", [*PLUGINS, "missing.py", ".", "x" * 300 + ".py", ""])
def test_plugins_that_cannot_be_used(cli, asked, tmp_path, name):
    for file, content in PLUGINS.items():
        (tmp_path / file).write_bytes(content)
    asked("compare", "-m", "mine" if name == "no_method.py" else "vae", "-d", "circle", "--plugin", name)


FILES = {
    "text.toml": b"[[[",
    "latin.toml": b"name = '\xe9'",
    "nul.toml": b'plugins = ["a\\u0000b.py"]',
    "digits.toml": b"seeds = " + b"9" * 400,
    "exponent.toml": b"max_flops = 1e" + b"9" * 400,
    "unknown.toml": b"sead = 3",
    "kind.toml": b"seeds = [1, 2]",
    "date.toml": b"seeds = 2020-01-01",
    "nested.toml": b"a = " + b"[" * 10_000,
    "binary.toml": bytes(range(256)),
    "empty_name.toml": b'methods = ["mapa", ""]',
    "below.toml": b"n_train = 0",
    "above.toml": b"n_train = 10000000000000",
}


@pytest.mark.parametrize("name", [*FILES, "missing.toml", ".", "x" * 300])
def test_study_files_that_cannot_be_read(asked, tmp_path, name):
    for file, content in FILES.items():
        (tmp_path / file).write_bytes(content)
    asked("run", name)


TUNED = {"deep.json": b"[" * 100_000 + b"]" * 100_000, "text.json": b"x", "list.json": b"[]", "latin.json": b'"\xe9"'}


@pytest.mark.parametrize("name", [*TUNED, "missing.json", ".", "x" * 300])
def test_hyperparameters_that_cannot_be_read(asked, tmp_path, name):
    for file, content in TUNED.items():
        (tmp_path / file).write_bytes(content)
    asked("compare", "-m", "vae", "-d", "circle", "--tuned", name)


STUDIES = {"{": "damaged", "[" * 100_000: "damaged", "[]": "damaged", "{}": "schema", '{"schema": 2}': "schema 2"}


@pytest.mark.parametrize("content", STUDIES, ids=range(len(STUDIES)))
def test_studies_that_are_damaged(asked, tmp_path, content):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(content)
    for args in (("status", "study"), ("report", "study"), ("merge", "study", "--out", "both"), COMPARE):
        asked(*args)


COMPARE = ("compare", "-m", "vae", "-d", "circle", "--out", "study")


@pytest.mark.parametrize("out", ["x" * 300, "/proc/nowhere", "/dev/null", "/dev/null/x"])
def test_folders_that_cannot_be_made(asked, out):
    asked("compare", "-m", "vae", "-d", "circle", "--out", out)
    asked("status", out)
    asked("report", out)


@pytest.mark.parametrize("noise", ["0", "-1", "nan", "inf", "1e-12", "x"])
def test_noise_that_cannot_be_set(asked, noise):
    asked("compare", "-m", "vae", "-d", f"circle[noise_variance={noise}]")


def test_a_scheduler_that_is_not_there(asked):
    for address in (
        "tcp://127.0.0.1:1",
        "tcp://127.0.0.1:99999",
        "tcp://[::1]:1",
        "tcp://nowhere.invalid:8786",
        "x",
        "tcp://",
    ):
        for jobs in ((), ("--jobs", "2")):
            assert "--scheduler" in asked("compare", "-m", "vae", "-d", "circle", "--scheduler", address, *jobs)


def test_a_study_of_very_many_runs_needs_a_word(asked):
    err = asked("compare", "-m", "vae,mapa", "-d", "circle", "--seeds", "50001")
    assert "the study has 100,002 runs; a study of more than 100,000 needs --yes" in err


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
OPTIONS = st.sampled_from(["--" + "".join(pair) for pair in itertools.product("xyz", repeat=2)])
SAID = st.sampled_from([*COMMANDS, "run", "status", "report", "merge", "list", "check", "frobnicate"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=SAID, option=OPTIONS, value=WORDS)
def test_options_that_there_are_not(cli, tmp_path, monkeypatch, command, option, value):
    monkeypatch.chdir(tmp_path)
    end = cli(command, option, value)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(string.printable + "é\x1b½", min_size=1, max_size=20).filter(lambda text: not text.startswith("-")))
def test_any_text_for_a_method(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    end = cli("compare", "-m", f"q{name}", "-d", "circle")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert all(character.isprintable() for character in end.err[:-1])
    assert not list(tmp_path.iterdir())


def test_a_console_that_cannot_encode_shows_a_replacement(tmp_path):
    command = [sys.executable, "-m", "bench", "compare", "-m", "vaé", "-d", "circle"]
    for encoding in ("ascii", "latin-1"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        end = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=environment)
        assert end.returncode == 2
        assert end.stderr.startswith(b"error: unknown method 'va")
    listed = subprocess.run(
        [sys.executable, "-m", "bench", "list"], capture_output=True, check=False, cwd=tmp_path, env=environment
    )
    assert (listed.returncode, listed.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["datasets", "methods"])
def test_a_plain_folder_of_the_name_of_a_package_does_no_harm(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.csv").write_text("a,b")
    end = subprocess.run(
        [sys.executable, "-m", "bench", "list"], capture_output=True, check=False, cwd=tmp_path, text=True
    )
    assert (end.returncode, end.stderr) == (0, "")
    assert "mapa" in end.stdout


def test_a_package_that_is_not_installed_is_named_with_what_installs_it(tmp_path):
    (tmp_path / "msgspec.py").write_text("raise ModuleNotFoundError('No module named msgspec', name='msgspec')")
    end = subprocess.run(
        [sys.executable, "-m", "bench", "compare", "--help"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
    )
    assert (end.returncode, end.stdout, end.stderr.count("\n")) == (2, "", 1)
    assert end.stderr.startswith("error: msgspec is not installed; `pip install")
