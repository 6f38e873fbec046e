"""How soon the command line answers, as a ratio to what the interpreter and click take by themselves."""

import os
import subprocess
import sys
import time

import pytest

ROUNDS = 5
BARE = ("-c", "import click")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """An environment in which modules stay compiled, as they do once a package is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


def seconds(arguments, environment):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [(("--help",), 2.0), (("compere",), 2.0), (("compare", "-m", "mpaa"), 5.0), (("list",), 8.0)],
    ids=["help", "command", "method", "list"],
)
def test_the_command_line_answers_at_once(arguments, limit, compiled):
    """In turns, and the fastest of each, of which the first is not among them: it compiles."""
    commands = (BARE, ("-m", "bench", *arguments))
    rounds = [[seconds(command, compiled) for command in commands] for _ in range(1 + ROUNDS)]
    bare, answer = map(min, zip(*rounds[1:], strict=True))
    assert answer <= limit * bare
