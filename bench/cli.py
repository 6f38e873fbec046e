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
KINDS = ("methods", "datasets", "metrics")


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
@click.argument("kind", required=False, metavar="[methods|datasets|metrics]")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="List what a plugin file offers as well.")
def list_(kind: str | None, plugins: tuple[str, ...]) -> None:
    """List what can be compared and what is measured, with sources."""
    from bench.registry import registry
    from bench.terminal import print_list

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    print_list(registry(plugins), KINDS if kind is None else (kind,))


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
