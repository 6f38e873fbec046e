"""The command line. Nothing heavy is imported before a command needs it, so that --help answers at once."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from bench.cli.options import SettingsCommand
from bench.common.errors import INTERRUPTED, StoppedError, UsageError, unknown
from bench.common.text import plain

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)
FULL = (errno.ENOSPC, errno.EDQUOT)
HELP = ("-h", "--help")
KINDS = ("methods", "datasets", "metrics", "costs")


class _Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise UsageError(str(unknown("command", args[0], self.commands)))
        return super().resolve_command(ctx, args)


_plugins = click.option("--plugin", "plugins", multiple=True, metavar="FILE.py",
                        help="A file with METHODS or DATASETS of your own; repeatable.")  # fmt: skip
_fresh = click.option("--fresh", is_flag=True, help="Start anew; a study in DIR is renamed, not deleted.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="Print errors only.")


def _out(folder: str) -> Callable[[Decorated], Decorated]:
    return click.option("--out", default=folder, show_default=True, metavar="DIR", help="Folder of the study.")


@click.group(cls=_Commands, context_settings={"help_option_names": list(HELP), "max_content_width": 100})
@click.version_option(package_name="mapa-bench", message="mapa-bench %(version)s")
def cli() -> None:
    """Which inference scheme for variational autoencoders is worth its compute?

    \b
    Start with:
      python -m bench compare --methods mapa,iterative     the main comparison, three minutes
      python -m bench compare --data FILE.csv              the same on a table of your own (docs/own-data.md)
      python -m bench compare -m mine --plugin mine.py --against reference   yours alone, beside stored results
      python -m bench plan --methods mapa,iterative        what it runs, and what its verdicts can find
      python -m bench run study.toml                       a comparison described in a file
      python -m bench status DIR                           how far a study is
      python -m bench report DIR --format latex            tables, figures and references for a paper
      python -m bench publish DIR --out site               a site of all results: leaderboard, curves, tables
      python -m bench tune                                 choose hyperparameters, for compare --tuned
      python -m bench sweep --vary n_train=250,500,1000    the effect of one factor
      python -m bench list                                 methods, datasets and metrics
      python -m bench check NAME --plugin FILE.py          test a method of your own
      python -m bench submit-check DIR                     whether a study of it can be handed in
      python -m bench compare --help                       everything that can be set
    """  # noqa: D301 - \b is click's mark for text that keeps its line breaks


def _against(command: Decorated) -> Decorated:
    """The options of a comparison with a stored study."""
    problems = click.option(
        "--problems",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --against: so many of its datasets, spread evenly over their order.  [default: all]",
    )
    against = click.option(
        "--against",
        metavar="DIR|reference",
        help="Run --methods alone, on the problems, seeds and budget of this study; borrow the runs of its own.",
    )
    return against(problems(command))


@cli.command("compare", cls=SettingsCommand, schemas=("Settings", "Execution"))
@_against
@click.option("--metric", default="test_ll", show_default=True, metavar="NAME", help="Metric of the final table.")
@click.option(
    "--out", metavar="DIR", help="Folder of the study.  [default: results/compare; with --against results/METHOD]"
)
@_fresh
@_quiet
def compare(**options: Any) -> None:
    """Fit methods to datasets, score them against the true model, and write tables and a report.

    Each combination of method, dataset and seed is a run. The same command again resumes a study: it makes the runs
    that are missing. Other methods, other datasets or more seeds are added to the study in DIR.

    A label NAME[param=value,...] gives a method other hyperparameters, so that it can be compared with itself. A
    dataset's label can set its training points, its noise variance, and its own parameters. --set changes a method
    wherever it is used. --tuned takes what `tune` chose. A label wins over --set, and --set wins over --tuned.

    --data compares on a table of your own: .csv, .parquet or .npz. docs/own-data.md explains it.

    --against compares a method with a stored study without running the others again. `reference` is the study that
    comes with the package. docs/against.md says what is checked before.

    \b
    Examples:
      python -m bench compare --methods mapa,iterative
      python -m bench compare -m mine --plugin mine.py --against reference --problems 3
      python -m bench compare -m mapa,vae,oracle -d figure8,torus --seeds 5 --out results/mine
      python -m bench compare -m all --max-flops 1e9 --jobs 1
      python -m bench compare -m mapa,mine --plugin mine.py --baseline mine
      python -m bench compare -m mapa,vae --data measurements.csv --columns height,width
      python -m bench compare -m "mapa,mapa[kernel_width=2]" -d "circle,circle[n_train=1000,noise_variance=0.04]"
      python -m bench compare --set vae.steps=8000 --set iterative.steps=8000
      python -m bench compare --tuned results/tune/tuned.json

    \b
    Results, in DIR: report.html, report.md, figures/, measurements and runs (.parquet, .csv), study.json, study.toml.
    Exit code: 0 all runs done, 1 some failed (tables are written), 2 bad usage, 130 or 143 stopped.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.compare(**options))


@cli.command("plan", cls=SettingsCommand, schemas=("Settings",))
@_against
def plan(**options: Any) -> None:
    """Show what `compare` would run with the same options, and what its verdicts could find. Nothing is run.

    A verdict is corrected for all comparisons of the report, so that the difference that can be found depends on the
    number of seeds, methods and datasets. Differences are in units of their standard deviation over seeds.

    \b
    Examples:
      python -m bench plan --methods mapa,iterative
      python -m bench plan -m all -d all --baseline mapa --seeds 20
      python -m bench plan -m mine --plugin mine.py --against reference

    \b
    Exit code: 0 shown, 2 bad usage.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.plan(**options))


@cli.command("run", cls=SettingsCommand, schemas=("Execution",))
@click.argument("study_file", metavar="STUDY.toml")
@click.option("--out", metavar="DIR", help="Folder of the study.  [default: results/NAME]")
@_fresh
@_quiet
@_plugins
def run(**options: Any) -> None:
    """Run the study that a file describes. The file has the settings of `compare` as TOML keys.

    `compare` writes such a file, study.toml, into its folder. Files that it names are looked for from its own folder.
    docs/studies.md lists all keys.

    \b
    Examples:
      python -m bench run study.toml
      python -m bench run results/compare/study.toml --out results/again

    \b
    Exit code: 0 all runs done, 1 some failed (tables are written), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.run(**options))


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", required=True, metavar="DIR", help="Folder of the joint study: new, or a study to add to.")
@_quiet
def merge(**options: Any) -> None:
    """Join studies of `compare` from several machines into one, with tables and a report.

    Their runs must have the same conditions, code and versions of packages. A run that several studies hold is taken
    once. If its values differ between them, seconds aside, nothing is written. The studies themselves do not change.

    \b
    Examples:
      python -m bench merge results/here results/there --out results/both

    \b
    Exit code: 0 all runs done, 1 some failed or differ, 2 bad usage.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.merge(**options))


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", metavar="DIR", help="Folder of a report over several studies: new, empty, or such a report.")
@click.option("--format", "formats", multiple=True, metavar="html|md|latex|png|all",
              help="What to write; repeatable.  [default: html and md]")  # fmt: skip
@_quiet
def report(**options: Any) -> None:
    """Write the report of a study again from its tables, or one report over several studies.

    Nothing is run, and the tables do not change. latex is for a paper: tables/*.tex for booktabs, references.bib with
    an entry for each method and dataset, and the figures as PDF. png is for slides. SVG figures are always written.

    Of several studies, a run that more than one holds is taken once. If studies ran a dataset under different
    conditions, or have different values for the same run, the report shows DATASET @ STUDY once for each.
    docs/reports.md explains this.

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
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", required=True, metavar="SITE", help="Folder of the site: new, empty, or such a site.")
@click.option("--note", metavar="TEXT", default="", help="A paragraph to begin with; [links](ADDRESS).")
@_quiet
def publish(**options: Any) -> None:
    """Write a static site of one or several studies: for GitHub Pages, or to be read from its folder.

    The first page has the sentences about losses and wins, the leaderboard with intervals and verdicts, and every
    method on every problem. Each method and problem has a page, with curves against every cost. Other pages have costs
    to match, a table explorer whose views can be linked to, failures with their reasons, provenance and definitions.

    Of several studies, by whomever, a run that more than one holds is taken once. If they ran a dataset under different
    settings, it is shown once for each, as DATASET @ STUDY, and what differs is named. Nothing is run, the studies do
    not change, and no page asks for anything elsewhere. docs/publish.md has a recipe for GitHub Pages.

    Files of an earlier site in SITE are replaced; nothing else is overwritten.

    \b
    Examples:
      python -m bench publish results/compare --out site
      python -m bench publish results/ours results/theirs --out site
      python -m http.server --directory site             look at it on port 8000; index.html opens as a file too

    \b
    Exit code: 0 written, 2 bad usage, such as a folder without a study.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.publish(**options))


@cli.command()
@click.argument("folder", metavar="DIR")
def status(**options: Any) -> None:
    """Show how far a study is: the runs that are done, failed, running and missing, and the time left.

    A run is missing if the command that made the study would make it with the present code. Nothing is written, and
    the study may be running.
    """
    from bench.cli import commands

    sys.exit(commands.status(**options))


@cli.command(
    "tune", cls=SettingsCommand, schemas=("TuneSettings", "Execution"), hide=("baseline", "margin", "tuned", "n_test")
)
@_out("results/tune")
@_fresh
@_quiet
def tune(**options: Any) -> None:
    """Choose hyperparameters on validation data, with the same budget in FLOPs for every method on every dataset.

    A method declares as `search` what may vary, and in which range. The number of steps is not part of it, so that
    every trial has the method's own training budget; what --set gives is not varied either. The first trial is the
    defaults; the others are points of a scrambled Sobol set. The score of a trial is the median over seeds of the mean
    log-likelihood of validation data at the end of the fit. The trial with the highest score and the defaults are then
    fitted on ten fresh seeds. The defaults are kept unless the trial is ahead on at least eight of them, and in the
    mean by more than the standard error.

    Trials are taken in order, as long as the next one fits into the budget at the mean cost so far. A trial that costs
    more than is left does not count. Fits that fail are paid for. The defaults always count. The fits on fresh seeds
    come on top of the budget. Since costs are FLOPs, the choice depends neither on the machine nor on --jobs, unless
    --max-seconds ends fits.

    The test set is never drawn, and the seeds are not those of `compare`, so that no method is compared on its tuning
    data. The same command again resumes the tuning; other methods, datasets or more seeds are added.

    \b
    Examples:
      python -m bench tune
      python -m bench tune -m vae,iterative -d circle --budget 3e11
      python -m bench tune -m all -d surfaces --n-train 1000 --budget 3e12 --repeats 3
      python -m bench tune -m vae --max-flops 5e10 --set vae.steps=100000 --set vae.restarts=1
      python -m bench compare --tuned results/tune/tuned.json

    \b
    Results, in DIR: tuned.json, the choices; trials (.parquet, .csv), one row per dataset, method, tuning, stage, trial
    and seed.
    Exit code: 0 all fits done, 1 some failed (they cannot win), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.tune(**options))


@cli.command("sweep", cls=SettingsCommand, schemas=("SweepSettings", "Execution"), hide=("baseline", "margin", "tuned"))
@_out("results/sweep")
@_fresh
@_quiet
def sweep(**options: Any) -> None:
    """Vary one factor of a method at a time, and draw its effect.

    A factor is a hyperparameter of the method, a condition that a dataset's label can set, such as n_train, or
    noise_variance. Levels of noise_variance can be multiples of the dataset's own: 0.5x,1x,2x. Without --vary the
    command is an ablation: all factors that the method declares, and then n_train, noise_variance and activation.

    For n_train, time and memory are drawn too, with the exponent of their growth.

    \b
    Examples:
      python -m bench sweep -m mapa -d curves --seeds 5
      python -m bench sweep --vary kernel_width=0.5,1,2 --vary smoothing=0,2,6
      python -m bench sweep -m vae -d circle,torus --vary steps=1000,2000,4000 --seeds 5
      python -m bench sweep -m mapa -d curves --vary n_train=250,500,1000 --vary noise_variance=0.5x,1x,2x --jobs 1

    \b
    Results, in DIR: figures/sweep (.png, .svg); sweep (.parquet, .csv), one row per factor, level, dataset and seed.
    Exit code: 0 all fits done, 1 some failed (tables are written), 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.sweep(**options))


@cli.command("list")
@click.argument("name", required=False, metavar="[methods|datasets|metrics|costs|NAME]")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="List what a plugin file offers as well.")
def list_(name: str | None, plugins: tuple[str, ...]) -> None:
    """List methods, datasets and metrics with their sources, and the FLOP cost of each operation.

    With the NAME of a method or dataset, show what it is and its parameters: type, default, meaning, and what `tune`
    and `sweep` try.
    """
    from bench.cli.tables import print_details, print_list
    from bench.registry.describe import description
    from bench.registry.registry import registry

    known = registry(plugins)
    if name is not None and name not in KINDS:
        print_details(description(known, name, KINDS))
        return
    print_list(known, KINDS[:-1] if name is None else (name,))
    if name is None:
        click.echo("One of them in detail: python -m bench list NAME")
        click.echo("The FLOP cost of each operation: python -m bench list costs")


@cli.command("timing", cls=SettingsCommand, schemas=("TimingSettings",), hide=("n_test", "max_flops", "max_seconds"))
@click.option("--out", metavar="DIR", help="Folder for results, new or empty.  [default: none]")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only. Needs --out.")
def timing_(**options: Any) -> None:
    """Time methods against each other and against themselves, to separate differences from noise.

    Each round fits every method twice, as arms A and A', all in random order, on one core and one thread. A round
    before the first warms up and does not count. Seconds are those of fitting alone, without counting FLOPs. All fits
    of a method do the same work, so that intervals describe the machine, not other data.

    The ratio of a method to itself, A / A', is 1 in truth: the distance of its 95% interval from 1 is its noise.
    Intervals are bootstrap percentiles at 98.5%, which cover the truth 94 to 99 times in 100 from 5 to 20 rounds. The
    noise floor of a pair is the larger noise of the two. A method is 'faster' or 'slower' only if the interval of the
    ratio excludes 1 and the ratio lies beyond the floor. Otherwise the two are 'indistinguishable'.

    A step ends where a method can be evaluated. Steps of two methods are not the same amount of work: times with
    --max-steps compare the cost of N steps of each, and whole fits compare the cost of a fit at its defaults.

    \b
    Examples:
      python -m bench timing
      python -m bench timing -m mapa,vae,iterative --max-steps 300
      python -m bench timing -m vae,mine --plugin mine.py -d torus --rounds 20 --out results/timing

    \b
    Results, in DIR: timings (.parquet, .csv), one row per fit; timing.json, the ratios and their machine.
    Exit code: 0 done, 1 a method failed, 2 bad usage, 130 interrupted; except for 0, nothing is written.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.timing(**options))


@cli.command("check")
@click.argument("name")
@_plugins
@click.option("--check", "checks", multiple=True, metavar="CHECK", help="Run one check only; repeatable.")
def check_(**options: Any) -> None:
    """Check that the method NAME keeps the contract of methods, and that its results and costs are correct.

    Runs short fits of the method and prints the outcome of each check: form, seeds, global state, evaluation, bound,
    learning, gradients, budget, costs, saving, a known optimum, held-out data, and bad input. docs/check.md says what
    each check runs and how to read a failure. A small method takes a minute or less.

    A method that cannot pass a check states the reason in the class variable exceptions = {"CHECK": "reason"}. The
    failure is then reported as excused.

    \b
    Examples:
      python -m bench check vae
      python -m bench check mine --plugin mine.py
      python -m bench check "mapa[kernel_width=2]" --check bound --check cost

    \b
    Exit code: 0 no check failed, 1 some failed, 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.check(**options))


@cli.command("submit-check")
@click.argument("folder", metavar="DIR")
@_plugins
def submit_check(**options: Any) -> None:
    """Check that the study in DIR can be handed in: that anyone can merge it and get the same.

    \b
    complete      all planned runs are there, and the tables are what they give
    reproducible  two runs, drawn at random, have the same values when they are repeated here
    conforming    the methods that were run for it pass the quick checks of `bench check`
    versions      the commit is stated and had no changes, and the keys of all runs are those of this code

    docs/submit.md says how to make such a folder and where it goes. Nothing in DIR changes.

    \b
    Examples:
      python -m bench submit-check results/mine

    \b
    Exit code: 0 all points pass, 1 some fail, 2 bad usage, 130 interrupted.
    """  # noqa: D301
    from bench.cli import commands

    sys.exit(commands.submit_check(**options))


for _command in cli.commands.values():  # click forgets the names of -h once a command was asked outside its group
    _command.context_settings.setdefault("help_option_names", list(HELP))


def main() -> NoReturn:
    """Run the command line. Bad usage is one line on standard error and exit code 2."""
    for console in (sys.stdout, sys.stderr):
        if isinstance(console, io.TextIOWrapper):  # one that cannot encode a character shows a replacement
            console.reconfigure(errors="backslashreplace" if console is sys.stderr else "replace")
    try:
        code = cli.main(standalone_mode=False, prog_name="python -m bench")
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except StoppedError as stop:
        click.echo("\n".join(map(plain, str(stop).split("\n"))), err=True)
        code = stop.code
    except UsageError as error:
        code = _complain(str(error))
    except OSError as error:
        if error.errno in FULL:
            code = _complain(f"{error.filename or 'the disk'}: {error.strerror}; finished runs are kept")
        elif error.filename is None:
            raise
        else:
            code = _complain(f"{error.filename}: {error.strerror}")
    except click.ClickException as error:
        code = _complain(error.format_message())
    sys.exit(code)


def _complain(message: str) -> int:
    click.echo(f"error: {plain(message)}", err=True)
    return 2
