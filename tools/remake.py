"""Makes runs of stored studies again with today's code, and puts them in place of those there.

python -m tools.remake STUDY... --methods METHOD,... --out DIR [--datasets DATASET,...] [--jobs N]

For a method whose values have changed. Each study's runs of these methods, and with --datasets on these datasets alone,
are made in DIR/NAME, under the study's own settings, tuned ones too. The same command again makes what is missing.
`tools.replace` then puts them in place; `tools.renew` gives the runs that were not made again today's keys. Run it from
a clone that nobody changes, with nothing beside it, as the seconds are quoted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

import msgspec

from bench.cli.progress import Lines
from bench.common.errors import UsageError
from bench.config.labels import split
from bench.config.schema import Execution
from bench.study.execute import execute
from bench.study.folder import held
from bench.study.log import StudyLog
from bench.study.plan import Plan, resolve
from tools.replace import replace


def part(folder: Path, methods: Collection[str], datasets: Collection[str] = ()) -> Plan:
    """The runs of a stored study of some methods, on some datasets or all.

    Raises:
        UsageError: If the study has none of them.
    """
    before = held(folder)
    plan = resolve(msgspec.structs.replace(before.settings, baseline=()), before.pairs)
    every = dict.fromkeys((spec.dataset, spec.method) for spec in plan.runs)
    chosen = tuple(pair for pair in every if pair[1] in methods and (not datasets or pair[0] in datasets))
    if not chosen:
        raise UsageError(f"{folder} has {', '.join(plan.methods)} on {', '.join(plan.datasets)}")
    return plan.with_pairs(chosen)


def remake(folder: Path, plan: Plan, out: Path, jobs: int | None = None) -> str:
    """Make runs of a stored study again in another folder, and put them in place; what was done, in words."""
    command = shlex.join(["python", "-m", "tools.remake", *sys.argv[1:]])
    with StudyLog(out, command, Lines()) as log:
        execute(plan, out, Execution(jobs=jobs), log, command)
    return replace(out, folder)


def main() -> None:
    """Read the command line, see that each study has such runs, and make them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="the folder of a stored study")
    parser.add_argument("-m", "--methods", required=True, help="labels, separated by commas")
    parser.add_argument("-d", "--datasets", default="", help="labels, separated by commas; all by default")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the folder in which the runs are made")
    parser.add_argument("-j", "--jobs", type=int, help="runs at a time")
    asked = parser.parse_args()
    try:
        methods, datasets = split(asked.methods), split(asked.datasets)
        plans = {folder: part(folder, methods, datasets) for folder in asked.studies}
    except UsageError as error:
        parser.error(str(error))
    for folder, plan in plans.items():
        print(remake(folder, plan, asked.out / folder.name, asked.jobs), flush=True)


if __name__ == "__main__":
    main()
