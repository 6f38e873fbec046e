"""What is told, shown and written of timings."""

import json
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pandas as pd

from bench.cli.timing import bar, sentence
from bench.config.schema import TimingSettings
from bench.timing.ratios import Comparison, Ratio, comparisons, self_ratios
from bench.timing.run import ARMS, Timing


def test_what_a_comparison_says():
    fast = Comparison("mapa", "vae", Ratio(0.04123, 0.03512, 0.0451), 0.0312)
    assert sentence(fast) == ("mapa takes 0.0412× [0.0351, 0.0451] of vae's time: faster (noise floor 3.1%).")
    alike = Comparison("a", "b", Ratio(1.0034, 0.9912, 1.0107), 0.12)
    assert sentence(alike) == "a takes 1.003× [0.991, 1.011] of b's time: indistinguishable (noise floor 12%)."


def test_what_is_told(timed, watching, clock, tmp_path):
    random = np.random.default_rng(0)
    end = timed(watching(lambda _: clock.sleep(random.normal(3e-3, 1e-4))), "--out", tmp_path / "a/b")
    assert end.code == 0
    progress = end.err.splitlines()
    assert [line.split()[0] for line in progress] == ["[warm-up]", *(f"[{n}/5]" for n in range(1, 6))]
    assert all(re.search(r" one [23]\S* ms \(1 step\), two (1 ms|1000 µs) \(1 step\)", line) for line in progress)
    for pattern in (
        r"^circle, 20 training points, seed 0, 5 rounds",
        r"^one / two +\S+× +\[\S+, \S+\] +\S+% +slower",
        r"^one A / A' +\S+× +\[\S+, \S+\] +\S+%",
        r"^two A / A' +1\.000× +\[1\.000, 1\.000\] +0%",
        r"^one takes (2\.9|3\.0)\d+× \[\S+, \S+\] of two's time: slower \(noise floor \S+%\)\.$",
        rf"^Timings:  {tmp_path}/a/b/timings.csv",
    ):
        assert re.search(pattern, end.out, re.MULTILINE), pattern


def test_quiet_tells_nothing_and_writes_all_the_same(timed, sleeper, tmp_path):
    end = timed(sleeper(), "--quiet", "--out", tmp_path)
    assert (end.code, end.out, end.err) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {"timing.json", "timings.csv", "timings.parquet"}


def test_without_a_folder_nothing_is_written(timed, sleeper, tmp_path, unchanged, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path):
        end = timed(sleeper())
    assert end.code == 0
    assert "of two's time" in end.out
    assert "Timings:" not in end.out


def test_the_files_hold_every_fit_and_what_follows_from_them(timed, watching, clock, tmp_path):
    random = np.random.default_rng(0)
    method = watching(lambda _: clock.sleep(random.lognormal()))
    timed(method, "--quiet", "--seed", 4, "--max-steps", 2, "--out", tmp_path)
    table = pd.read_csv(tmp_path / "timings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "timings.parquet"), table, check_dtype=False)
    assert list(table) == ["round", "position", "method", "arm", "wall_s", "cpu_s", "steps"]
    assert len(table) == 5 * 4
    held = json.loads((tmp_path / "timing.json").read_text())
    wide = table.pivot(index="round", columns=["method", "arm"], values="wall_s")
    times = {name: wide[name][list(ARMS)].to_numpy() for name in ("one", "two")}
    [found] = comparisons(times, 4)
    assert held["ratios"] == [{**asdict(found), "verdict": found.verdict}]
    assert held["self_ratios"] == {name: asdict(ratio) for name, ratio in self_ratios(times, 4).items()}
    expected = {"methods": ["one", "two"], "dataset": "circle", "n_train": 20, "seed": 4, "rounds": 5, "max_steps": 2}
    assert expected.items() <= held["settings"].items()
    assert held["command"].startswith("python -m bench timing -m one,two")
    assert {"torch", "versions", "processor", "core", "cores", "load_average_before"} <= held["provenance"].keys()
    assert held["provenance"]["started"] <= held["provenance"]["finished"]


def test_a_bar_passes_on_what_it_shows():
    fits = [Timing(number, 1, "one", "A", 1.0, 1.0, 1) for number in range(6)]
    assert list(bar(iter(fits), TimingSettings(methods=("one", "two"), rounds=5))) == fits


def test_help_is_fast_and_teaches():
    code = "import sys; sys.argv = ['bench', 'timing', '--help']\nfrom bench.cli.app import main\ntry:\n    main()\n"
    code += "finally:\n    assert not {'torch', 'numpy', 'pandas', 'scipy', 'bench.timing'} & sys.modules.keys()"
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    for word in ("--methods", "--max-steps", "noise floor", "python -m bench timing -m", "Exit code: 0"):
        assert word in " ".join(end.stdout.split())


def test_the_command_is_among_the_commands(cli):
    assert "timing" in cli("--help").out
