"""The command line. Nothing heavy is imported before a command needs it, so that --help answers at once."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench.api import DEFAULT_METHODS, DEFAULT_OUT
from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from bench.registry import Registry
    from bench.study import Settings

INTERRUPTED = 130
KINDS = ("methods", "datasets", "metrics", "costs")


class _Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise UsageError(str(unknown("command", args[0], self.commands)))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mapa-bench", message="mapa-bench %(version)s")
def cli() -> None:
    """Which inference scheme for variational autoencoders is worth its compute?

    \b
    Start with:
      python -m bench compare --methods mapa,iterative     the main comparison, two minutes
      python -m bench list                                 what can be compared, and what is measured
      python -m bench compare --help                       everything that can be varied
    """  # noqa: D301 - \b is click's mark for text that is not to be rewrapped


@cli.command()
@click.option("--methods", "-m", default=",".join(DEFAULT_METHODS), show_default=True, metavar="NAMES",
              help="Methods, with commas between; 'all' for every one.")  # fmt: skip
@click.option("--datasets", "-d", default="curves", show_default=True, metavar="NAMES",
              help="Datasets, with commas between, or the groups curves, surfaces, all.")  # fmt: skip
@click.option("--seeds", default=3, show_default=True, metavar="N", help="Repeat with seeds 0 to N-1.")
@click.option("--size", default=500, show_default=True, metavar="N", help="Training data (validation: as many).")
@click.option("--test-size", default=2000, show_default=True, metavar="N", help="Held-out data for evaluation.")
@click.option("--latent-dim", type=int, metavar="L", help="Latent dimension.  [default: the dataset's own]")
@click.option("--noise", default="known", show_default=True, metavar="known|learned",
              help="Whether methods are given the noise variance or learn it.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where methods run.")
@click.option("--max-flops", type=float, metavar="F", help="Stop each fit once it has spent F FLOPs.")
@click.option("--max-seconds", type=float, metavar="S", help="Stop each fit once it has run S seconds.")
@click.option("--jobs", "-j", type=int, metavar="N",
              help="Cells at a time, one thread each; 1 for clean timings.  [default: all cores]")  # fmt: skip
@click.option("--out", default=DEFAULT_OUT, show_default=True, metavar="DIR", help="Folder for results.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py",
              help="A file with METHODS or DATASETS of your own; repeatable.")  # fmt: skip
@click.option("--metric", default="test_ll", show_default=True, metavar="NAME", help="Shown in the final table.")
@click.option("--fresh", is_flag=True, help="Start anew; results in DIR are renamed, not deleted.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no table; errors only.")
def compare(**options: Any) -> None:
    """Fit methods to datasets, score them against the truth, write tables and a report.

    Runs every combination of method, dataset and seed. The same command again resumes what is missing, and
    otherwise only reports; other methods, datasets or more seeds are added to what DIR holds.

    \b
    Examples:
      python -m bench compare --methods mapa,iterative
      python -m bench compare -m mapa,vae,oracle -d figure8,torus --seeds 5 --out results/mine
      python -m bench compare -m all --max-flops 1e9 --jobs 1
      python -m bench compare -m mapa,mine --plugin mine.py

    \b
    Results, in DIR: report.html, report.md, figures/, measurements and cells (.parquet, .csv), study.json.
    Exit code: 0 all cells done, 1 some failed (tables are still written), 2 bad usage.
    """  # noqa: D301
    sys.exit(_compare(**options))


def _compare(out: str, fresh: bool, quiet: bool, jobs: int | None, metric: str, **options: Any) -> int:
    from bench import study
    from bench.options import check_numbers
    from bench.progress import Bar, Lines
    from bench.registry import registry

    _check_metric(metric)
    plugins = tuple(str(Path(file).resolve()) for file in options.pop("plugins"))
    known = registry(plugins)
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    settings = _settings(known, plugins, **options)
    check_numbers(settings, jobs)
    study.check(settings, known)
    folder = Path(out)
    aside = study.set_aside(folder) if fresh else None
    progress: Any = study.Silent() if quiet else Bar() if sys.stderr.isatty() else Lines()
    if aside and not quiet:
        click.echo(f"what was in {folder} is now in {aside}", err=True)
    command = shlex.join(["python", "-m", "bench", *(a for a in sys.argv[1:] if a != "--fresh")])
    try:
        results = study.run(settings, folder, jobs, progress, command)
    except study.InterruptedStudyError as error:
        click.echo(f"{error}; finished cells are kept in {folder}. Resume with:\n  {command}", err=True)
        return INTERRUPTED if str(error) == "interrupted" else 1
    finally:
        if not quiet:
            progress.close()
    _report(folder, metric, quiet)
    return 0 if all(result.status in ("done", "skipped") for result in results) else 1


def _settings(known: Registry, plugins: tuple[str, ...], methods: str, datasets: str, **rest: Any) -> Settings:
    from bench.study import Settings

    return Settings(
        methods=_names(methods, {"all": tuple(known.methods)}),
        datasets=_names(datasets, _dataset_groups(known)),
        validation_size=rest["size"],
        plugins=plugins,
        **rest,
    )


def _dataset_groups(known: Registry) -> dict[str, tuple[str, ...]]:
    from datasets import CURVES, SURFACES

    return {"curves": CURVES, "surfaces": SURFACES, "all": tuple(known.datasets)}


def _names(text: str, groups: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    asked = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(name for word in asked for name in groups.get(word, (word,))))


def _check_metric(name: str) -> None:
    from bench.report.definitions import METRICS

    names = [metric.name for metric in METRICS]
    if name not in names:
        raise unknown("metric", name, names)


def _report(folder: Path, metric: str, quiet: bool) -> None:
    from bench.report import write

    page = write(folder)
    if quiet:
        return
    from bench.terminal import print_summary

    print_summary(folder, metric)
    click.echo(f"\nReport:  {page}\nTables:  {folder}/measurements.csv, cells.csv (and .parquet)")


@cli.command("list")
@click.argument("kind", required=False, metavar="[methods|datasets|metrics|costs]")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="List what a plugin file offers as well.")
def list_(kind: str | None, plugins: tuple[str, ...]) -> None:
    """List what can be compared, what is measured with sources, and what each operation is charged in FLOPs."""
    from bench.registry import registry
    from bench.terminal import print_list

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    print_list(registry(plugins), KINDS[:-1] if kind is None else (kind,))
    if kind is None:
        click.echo("What each operation is charged in FLOPs: python -m bench list costs")


@cli.command("timing")
@click.option("--methods", "-m", default="mapa,vae", show_default=True, metavar="NAMES",
              help="Two methods or more, with commas between; the first is compared with each other one.")  # fmt: skip
@click.option("--dataset", "-d", default="figure8", show_default=True, metavar="NAME", help="One dataset.")
@click.option("--size", default=500, show_default=True, metavar="N", help="Training data (validation: as many).")
@click.option(
    "--seed", default=0, show_default=True, metavar="N", help="Of data, weights, draws and the order of fits."
)
@click.option("--rounds", default=10, show_default=True, metavar="N",
              help="Rounds that count, at least 5; each fits every method twice.")  # fmt: skip
@click.option("--max-steps", type=int, metavar="N", help="Stop each fit after N steps.  [default: whole fits]")
@click.option("--noise", default="known", show_default=True, metavar="known|learned",
              help="Whether methods are given the noise variance or learn it.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="Where methods run.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py",
              help="A file with METHODS or DATASETS of your own; repeatable.")  # fmt: skip
@click.option("--out", metavar="DIR", help="Folder for results, new or empty.  [default: none]")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no table; errors only. Needs --out.")
def timing_(**options: Any) -> None:
    """Time methods against each other and against themselves, to tell differences from noise.

    Fits every method twice in each round, as arms A and A', all in random order, on one core and one thread; a round
    before the first warms up and does not count. Seconds are those of fitting alone, with no counting of FLOPs.
    All fits of a method do the same work, so that intervals are about the machine, not about other data.

    A method's ratio to itself, A / A', is 1 in truth: how far its 95% interval reaches from 1 is its noise. The noise
    floor of a pair is the larger noise of the two. A method is 'faster' or 'slower' only where the interval of the
    ratio excludes 1 and the ratio lies beyond the floor; otherwise the two are 'indistinguishable'.

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
    sys.exit(_timing(**options))


def _timing(methods: str, dataset: str, plugins: tuple[str, ...], out: str | None, quiet: bool, **rest: Any) -> int:
    from bench import timing

    if quiet and out is None:
        raise UsageError("--quiet without --out leaves no result; give --out DIR")
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    files = tuple(str(Path(file).resolve()) for file in plugins)
    settings = timing.Settings(methods=names, dataset=dataset.strip(), plugins=files, **rest)
    folder = None if out is None else Path(out)
    watch = timing.silent if quiet else timing.bar if sys.stderr.isatty() else timing.lines
    try:
        result = timing.run(settings, folder, watch)
    except timing.FitFailedError as error:
        click.echo(f"error: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        return INTERRUPTED
    if folder is not None:
        timing.write(result, folder, shlex.join(["python", "-m", "bench", *sys.argv[1:]]))
    if not quiet:
        timing.show(result)
        click.echo(f"\nTimings:  {folder}/timings.csv (and .parquet), timing.json" if folder else "")
    return 0


def main() -> NoReturn:
    """Run the command line; bad usage is one line on standard error and exit code 2."""
    try:
        code = cli.main(standalone_mode=False, prog_name="python -m bench")
    except click.Abort:
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except UsageError as error:
        code = _complain(str(error))
    except click.ClickException as error:
        code = _complain(error.format_message())
    sys.exit(code)


def _complain(message: str) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return 2
