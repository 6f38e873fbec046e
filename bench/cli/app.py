"""The command line. Nothing heavy is imported before a command needs it, so that --help answers at once."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from bench.api import DEFAULT_METHODS, DEFAULT_OUT
from bench.common.errors import INTERRUPTED, StoppedError, UsageError, unknown

Command = TypeVar("Command", bound=Callable[..., Any])
FULL = (errno.ENOSPC, errno.EDQUOT)
KINDS = ("methods", "datasets", "metrics", "costs")


class _Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise UsageError(str(unknown("command", args[0], self.commands)))
        return super().resolve_command(ctx, args)


_methods = click.option(
    "--methods", "-m", default=",".join(DEFAULT_METHODS), show_default=True, metavar="NAMES",
    help="Methods, with commas between; 'all' for every one.",
)  # fmt: skip
_datasets = click.option(
    "--datasets", "-d", default="curves", show_default=True, metavar="NAMES",
    help="Datasets, with commas between, or the groups curves, surfaces, all.",
)  # fmt: skip
_plugins = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE.py",
    help="A file with METHODS or DATASETS of your own; repeatable.",
)  # fmt: skip
_noise = click.option(
    "--noise", default="known", show_default=True, metavar="known|learned",
    help="Whether methods are given the noise variance or learn it.",
)  # fmt: skip
_device = click.option(
    "--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where methods run."
)  # fmt: skip
_fresh = click.option("--fresh", is_flag=True, help="Start anew; results in DIR are renamed, not deleted.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="No progress, no table; errors only.")
_size = click.option(
    "--size", default=500, show_default=True, metavar="N", help="Training data (validation: as many)."
)  # fmt: skip


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Options in the order in which --help is to show them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_execution = _all_of(
    click.option("--jobs", "-j", type=int, metavar="N",
                 help="Runs at a time, one thread each; 1 for clean timings.  [default: all cores]"),
    click.option("--run-timeout", type=float, metavar="S", help="Kill a run that takes more than S seconds in all."),
    click.option("--run-memory", metavar="SIZE", help="Kill a run whose process holds more than SIZE, such as 2GB."),
    click.option("--scheduler", metavar="tcp://HOST:PORT", help="Run runs on the Dask cluster of this scheduler."),
    click.option("--retry-failed", is_flag=True, help="Run runs again that failed or timed out before."),
)  # fmt: skip


_first_seed = click.option("--first-seed", default=0, show_default=True, metavar="K",
                           help="The first seed, so that machines can share out the seeds.")  # fmt: skip


def _conditions(seeds: int, first: int = 0) -> Callable[[Command], Command]:
    """Under which conditions runs run."""
    begin = str(first) if first else "K"
    meant = f"With seeds {begin} to {begin}+N-1."
    return _all_of(
        click.option("--seeds", default=seeds, show_default=True, metavar="N", help=meant),
        *([] if first else [_first_seed]),
        _size,
        click.option("--latent-dim", type=int, metavar="L", help="Latent dimension.  [default: the dataset's own]"),
        _noise,
        _device,
        click.option("--max-flops", type=float, metavar="F", help="Stop each fit once it has spent F FLOPs."),
        click.option("--max-seconds", type=float, metavar="S", help="Stop each fit once it has run S seconds."),
        click.option("--set", "assignments", multiple=True, metavar="METHOD.PARAM=VALUE",
                     help="A hyperparameter of every use of a method; repeatable."),
        _plugins,
        _execution,
    )  # fmt: skip


def _output(folder: str) -> Callable[[Command], Command]:
    """Where results go, and what is told."""
    return _all_of(
        click.option("--out", default=folder, show_default=True, metavar="DIR", help="Folder for results."),
        _fresh,
        _quiet,
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mapa-bench", message="mapa-bench %(version)s")
def cli() -> None:
    """Which inference scheme for variational autoencoders is worth its compute?

    \b
    Start with:
      python -m bench compare --methods mapa,iterative     the main comparison, two minutes
      python -m bench run study.toml                       the same from a file; status DIR shows how far it is
      python -m bench report DIR --format latex            tables, figures and references for a paper
      python -m bench tune                                 choose hyperparameters, for compare --tuned
      python -m bench sweep --vary size=250,500,1000       what one factor does
      python -m bench list                                 what can be compared, and what is measured
      python -m bench check NAME --plugin FILE.py          whether a method of your own keeps the contract
      python -m bench compare --help                       everything that can be varied
    """  # noqa: D301 - \b is click's mark for text that is not to be rewrapped


@cli.command()
@_methods
@_datasets
@_conditions(seeds=3)
@click.option("--test-size", default=2000, show_default=True, metavar="N", help="Held-out data for evaluation.")
@click.option("--tuned", metavar="FILE", help="A tuned.json, with hyperparameters chosen on each dataset.")
@click.option("--metric", default="test_ll", show_default=True, metavar="NAME", help="Shown in the final table.")
@_output(DEFAULT_OUT)
def compare(**options: Any) -> None:
    """Fit methods to datasets, score them against the truth, write tables and a report.

    Runs every combination of method, dataset and seed. The same command again resumes what is missing, and
    otherwise only reports; other methods, datasets or more seeds are added to what DIR holds.

    A method may be given hyperparameters, NAME[param=value,...], which make a method of their own of it, so that one
    can be compared with another. A dataset may be given a size of its training set, another noise variance, and
    whatever else it takes. --set changes a method wherever it is used; --tuned takes what `tune` chose. What
    stands in brackets wins over --set, which wins over --tuned.

    \b
    Examples:
      python -m bench compare --methods mapa,iterative
      python -m bench compare -m mapa,vae,oracle -d figure8,torus --seeds 5 --out results/mine
      python -m bench compare -m all --max-flops 1e9 --jobs 1
      python -m bench compare -m mapa,mine --plugin mine.py
      python -m bench compare -m "mapa,mapa[kernel_width=2],vae" -d "circle,circle[size=1000,noise=0.04]"
      python -m bench compare --set vae.steps=8000 --set iterative.steps=8000
      python -m bench compare --tuned results/tune/tuned.json

    \b
    Results, in DIR: report.html, report.md, figures/, measurements and runs (.parquet, .csv), study.json.
    Exit code: 0 all runs done, 1 some failed (tables are still written), 2 bad usage, 130 or 143 stopped.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.compare(**options))


@cli.command()
@click.argument("study_file", metavar="STUDY.toml")
@click.option("--out", metavar="DIR", help="Folder for results.  [default: results/NAME, the study's]")
@_execution
@_fresh
@_quiet
@_plugins
def run(**options: Any) -> None:
    """Run the study that a file describes: what `compare` does, from TOML rather than from options.

    `compare` writes such a file into its folder, study.toml, with which the same runs can be run elsewhere. Files
    named within it are sought from where it lies. docs/studies.md has all its keys.

    \b
    Examples:
      python -m bench run study.toml
      python -m bench run results/compare/study.toml --out results/again

    \b
    Exit code: 0 all runs done, 1 some failed (tables are still written), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.run(**options))


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", required=True, metavar="DIR", help="Folder for all of it: new, or a study to be added to.")
@_quiet
def merge(**options: Any) -> None:
    """Join studies of `compare` that were made on different machines into one, with tables and a report.

    Their runs must have been run under the same conditions, by the same code and versions of packages. A run that
    several of them hold is taken once; where its values differ, times aside, nothing is written. The folders
    themselves are left as they are.

    \b
    Examples:
      python -m bench merge results/here results/there --out results/both

    \b
    Exit code: 0 all runs done, 1 some failed, or values differ, 2 bad usage.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.merge(**options))


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", metavar="DIR", help="Folder for a report over several studies: new, empty, or one of these.")
@click.option("--format", "formats", multiple=True, metavar="html|md|latex|png|all",
              help="What to write; repeatable.  [default: html and md]")  # fmt: skip
@_quiet
def report(**options: Any) -> None:
    """Write the report of a study anew from its tables, or one report over several studies.

    Nothing is run, and the tables of the studies are left as they are. latex is for a paper: tables/*.tex for
    booktabs, references.bib with an entry for each method and dataset used, and the figures as PDF. png is for slides:
    the figures as PNG. As SVG they are always written.

    Of several studies, a run that more than one holds is taken once. Where they ran a dataset under other conditions,
    or have other values for the same run, it stands in the report as DATASET @ STUDY, once for each. docs/reports.md
    has all of this.

    \b
    Examples:
      python -m bench report results/compare
      python -m bench report results/compare --format latex
      python -m bench report results/curves results/surfaces --out results/all --format all

    \b
    Exit code: 0 written, 2 bad usage, such as a folder without a study.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.report(**options))


@cli.command()
@click.argument("folder", metavar="DIR")
def status(**options: Any) -> None:
    """Show how far a study is: its runs that are done, failed, running and missing, and about how long is left.

    A run counts as missing where the command that made the study would run it with the code as it is now. Nothing is
    written, and the study may be running.
    """
    from bench.cli import commands

    sys.exit(commands.status(**options))


@cli.command()
@click.option("--methods", "-m", default="all", show_default=True, metavar="NAMES",
              help="Methods that can be tuned, with commas between; 'all' for every one.")  # fmt: skip
@_datasets
@click.option("--budget", type=float, default=6e11, show_default="6e11", metavar="F",
              help="FLOPs for each method on each dataset, over all trials and seeds.")  # fmt: skip
@click.option("--trials", default=64, show_default=True, metavar="N",
              help="At most so many settings of each method; the first are its defaults.")  # fmt: skip
@_conditions(seeds=1, first=1000)
@_output("results/tune")
def tune(**options: Any) -> None:
    """Choose hyperparameters on validation data, with the same budget in FLOPs for every method on every dataset.

    What may vary, and within which range, is declared by the method as `search`; the number of steps is not among
    it, so that every trial has the method's own training budget. MAPA declares none: it runs at its defaults, and what
    it chooses, it chooses by its training objective. The first trial is the defaults; the others are
    points of a scrambled Sobol set. A trial's score is the median over seeds of the mean log-likelihood of
    validation data at the end of its fit, and the highest wins, the defaults where several tie.

    Trials are taken in order, each for as long as it fits into the budget of its method and dataset at the mean cost of
    those before it; one that then costs more than is left does not count. Fits that fail are paid for, too. The
    defaults always run. As this goes by FLOPs, the choice depends neither on the machine nor on --jobs, unless
    --max-seconds ends fits.

    The test set is never drawn, and the seeds are not those of `compare`, so that no comparison is tuned on its own
    data. The same command again resumes what is missing; other methods, datasets or more seeds are added.

    \b
    Examples:
      python -m bench tune
      python -m bench tune -m vae,iterative -d circle --budget 3e11
      python -m bench tune -m all -d surfaces --size 1000 --budget 3e12 --seeds 2
      python -m bench compare --tuned results/tune/tuned.json

    \b
    Results, in DIR: tuned.json, what was chosen; trials (.parquet, .csv), one row per dataset, method, trial and seed.
    Exit code: 0 all fits done, 1 some failed (they cannot win), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.tune(**options))


@cli.command()
@click.option("--method", "-m", default="mapa", show_default=True, metavar="NAME", help="One method.")
@_datasets
@click.option("--vary", "varied", multiple=True, metavar="FACTOR=LEVEL,...",
              help="A hyperparameter of the method, or size or noise of the data; repeatable.")  # fmt: skip
@_conditions(seeds=3)
@click.option("--test-size", default=2000, show_default=True, metavar="N", help="Held-out data for evaluation.")
@_output("results/sweep")
def sweep(**options: Any) -> None:
    """Vary one factor of a method at a time, all else as it is, and draw what that does.

    A factor is a hyperparameter of the method, 'size', the number of training data, 'noise', the variance of the noise
    of the data, whose levels may be multiples of each dataset's own: 0.5x,1x,2x, or 'activation', the decoder's. The
    values that a factor has otherwise are not among its levels unless they are given. Without --vary it is an
    ablation: all factors that the method declares of interest, and then size, noise and activation.

    For 'size', time and memory are drawn against it, too, with the exponent by which they grow; use --jobs 1 where
    seconds matter.

    \b
    Examples:
      python -m bench sweep -m mapa -d curves --seeds 5
      python -m bench sweep --vary kernel_width=0.5,1,2 --vary smoothing=0,2,6
      python -m bench sweep -m vae -d circle,torus --vary steps=1000,2000,4000 --seeds 5
      python -m bench sweep -m mapa -d curves --vary size=250,500,1000 --vary noise=0.5x,1x,2x --jobs 1

    \b
    Results, in DIR: figures/sweep (.png, .svg); sweep (.parquet, .csv), one row per factor, level, dataset and seed.
    Exit code: 0 all fits done, 1 some failed (tables are still written), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.sweep(**options))


@cli.command("list")
@click.argument("name", required=False, metavar="[methods|datasets|metrics|costs|NAME]")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="List what a plugin file offers as well.")
def list_(name: str | None, plugins: tuple[str, ...]) -> None:
    """List what can be compared, what is measured with sources, and what each operation is charged in FLOPs.

    With the NAME of a method or dataset, show what it is and all that it takes: each parameter with its type, default
    and meaning, and what `tune` and `sweep` try of it.
    """
    from bench.cli.tables import print_details, print_list
    from bench.registry.describe import details
    from bench.registry.registry import registry

    known = registry(plugins)
    if name is not None and name not in KINDS:
        print_details(details(known, name, KINDS))
        return
    print_list(known, KINDS[:-1] if name is None else (name,))
    if name is None:
        click.echo("What one of them is and takes: python -m bench list NAME")
        click.echo("What each operation is charged in FLOPs: python -m bench list costs")


@cli.command("timing")
@click.option("--methods", "-m", default="mapa,vae", show_default=True, metavar="NAMES",
              help="Two methods or more, with commas between; the first is compared with each other one.")  # fmt: skip
@click.option("--dataset", "-d", default="figure8", show_default=True, metavar="NAME", help="One dataset.")
@_size
@click.option(
    "--seed", default=0, show_default=True, metavar="N", help="Of data, weights, draws and the order of fits."
)
@click.option("--rounds", default=10, show_default=True, metavar="N",
              help="Rounds that count, at least 5; each fits every method twice.")  # fmt: skip
@click.option("--max-steps", type=int, metavar="N", help="Stop each fit after N steps.  [default: whole fits]")
@_noise
@_device
@_plugins
@click.option("--out", metavar="DIR", help="Folder for results, new or empty.  [default: none]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no table; errors only. Needs --out.")
def timing_(**options: Any) -> None:
    """Time methods against each other and against themselves, to tell differences from noise.

    Fits every method twice in each round, as arms A and A', all in random order, on one core and one thread; a round
    before the first warms up and does not count. Seconds are those of fitting alone, with no counting of FLOPs.
    All fits of a method do the same work, so that intervals are about the machine, not about other data.

    A method's ratio to itself, A / A', is 1 in truth: how far its 95% interval reaches from 1 is its noise. Intervals
    are bootstrap percentiles at 98.5%, which cover the truth 94 to 99 times in 100 from 5 to 20 rounds. The noise floor
    of a pair is the larger noise of the two. A method is 'faster' or 'slower' only where the interval of the ratio
    excludes 1 and the ratio lies beyond the floor; otherwise the two are 'indistinguishable'.

    A step ends where a method may be looked at. Steps of two methods are not the same amount of work, so that times
    with --max-steps compare the cost of N steps of each, and whole fits the cost of a fit at its default settings.

    \b
    Examples:
      python -m bench timing
      python -m bench timing -m mapa,vae,iterative --max-steps 300
      python -m bench timing -m vae,mine --plugin mine.py -d torus --rounds 20 --out results/timing

    \b
    Results, in DIR: timings (.parquet, .csv), one row per fit; timing.json, the ratios and what they were measured on.
    Exit code: 0 done, 1 a method failed, 2 bad usage, 130 interrupted; but for 0, nothing is written.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.timing(**options))


@cli.command("check")
@click.argument("name")
@_plugins
@click.option("--duty", "duties", multiple=True, metavar="DUTY", help="Check one duty only; repeatable.")
def check_(**options: Any) -> None:
    """Check that the method NAME keeps the contract of methods, and that its results and costs can be believed.

    Drives short fits of it and says of each duty whether it is met, with what was seen: its form, seeds, global state,
    the bound, learning, budget, costs, saving, an optimum that is known, the test set, and bad input. What each duty
    runs, and how a failure is read, stands in docs/check.md. Takes a minute or less for a small method.

    A method that cannot meet a duty says why in a class variable, exceptions = {"DUTY": "reason"}, and is excused.

    \b
    Examples:
      python -m bench check vae
      python -m bench check mine --plugin mine.py
      python -m bench check "mapa[kernel_width=2]" --duty bound --duty cost

    \b
    Exit code: 0 no duty failed, 1 some failed, 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.check(**options))


def main() -> NoReturn:
    """Run the command line; bad usage is one line on standard error and exit code 2."""
    try:
        code = cli.main(standalone_mode=False, prog_name="python -m bench")
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except StoppedError as stop:
        click.echo(str(stop), err=True)
        code = stop.code
    except UsageError as error:
        code = _complain(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        code = _complain(f"{error.filename or 'the disk'}: {error.strerror}; finished runs are kept")
    except click.ClickException as error:
        code = _complain(error.format_message())
    sys.exit(code)


def _complain(message: str) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return 2
