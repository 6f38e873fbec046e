"""asv's benchmarks run unattended, with the project's own configuration, on whatever environment the tests have."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHT = ("time_help", r"fit\('untrained'\)", r"step\('vae'\)", r"signals\(500\)", r"quadrature\('figure8'\)")


@pytest.fixture
def asv(tmp_path):
    """Runs asv in a copy of what it reads, so that what it writes goes there; what it prints."""
    shutil.copy(ROOT / "asv.conf.json", tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "asv", *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **streams)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_benchmarks_run_in_this_environment(asv, tmp_path):
    asv("machine", "--yes")
    chosen = [word for pattern in LIGHT for word in ("--bench", pattern)]
    here = f"existing:{sys.executable}"
    told = asv("run", "--quick", "--dry-run", "--show-stderr", "--environment", here, *chosen)
    assert f"Running {len(LIGHT)} total benchmarks" in told
    assert not (tmp_path / "results").exists()
