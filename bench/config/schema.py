"""The typed settings. To add a condition, add one field to `Conditions`; everything else is derived from it.

A field appears as a flag (`n_train` is --n-train), as a key of study.toml, as an argument of `bench.compare`, as a
column of runs.parquet, in --help and in the report. Its type holds its limits; its Meta holds its help text.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

MARGIN = 0.02  # nats
LARGEST = 2**31 - 1  # of seeds and of counts that have no closer limit
PositiveInt = Annotated[int, Meta(ge=1, le=LARGEST)]
Points = Annotated[int, Meta(ge=1, le=10**8)]
TestPoints = Annotated[int, Meta(ge=2, le=10**7)]  # a standard error needs two
LatentDim = Annotated[int, Meta(ge=1, le=1000)]
Width = Annotated[int, Meta(ge=1, le=100_000)]
Seed = Annotated[int, Meta(ge=0, le=LARGEST)]
Seeds = Annotated[int, Meta(ge=1, le=10**6)]
TuneSeeds = Annotated[int, Meta(ge=3, le=1000)]  # fewer show no spread; more would reach those of the next stage
Repeats = Annotated[int, Meta(ge=1, le=1000)]
Jobs = Annotated[int, Meta(ge=1, le=10_000)]
Trials = Annotated[int, Meta(ge=1, le=100_000)]
Bytes = Annotated[int, Meta(ge=1, le=2**62)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Noise = Literal["known", "learned", "per-coordinate"]
Family = Literal["gaussian", "bernoulli", "poisson"]
Activation = Literal["tanh", "silu", "relu", "gelu"]


def _about(text: str, metavar: str = "", **more: Any) -> Meta:
    """What --help says of a field. more: flag, short, default, multiple, parse, filled, report (see `fields`)."""
    return Meta(description=text, extra={"metavar": metavar, **more})


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions under which a run is made. All runs of a study share them, except where a dataset's label differs.

    A dataset's label may set the conditions in `IN_LABEL`, as in circle[n_train=1000].
    """

    IN_LABEL: ClassVar[tuple[str, ...]] = ("n_train", "latent_dim", "hidden", "activation")

    n_train: Annotated[
        Points,
        _about("Training points, and as many validation points.", "N", report="{} training points"),
    ] = 500
    n_test: Annotated[TestPoints, _about("Test points, for evaluation only.", "N", report="{} test points")] = 2000
    latent_dim: Annotated[
        LatentDim | None, _about("Latent dimension of the models.", "L", default="the dataset's own")
    ] = None
    observation_noise: Annotated[
        Noise,
        _about(
            "Whether methods are given the noise variance, learn it, or learn one for each coordinate.",
            report="{} observation noise",
        ),
    ] = "known"
    hidden: Annotated[
        Annotated[tuple[Width, ...], Meta(min_length=1, max_length=100)],
        _about("Widths of the hidden layers of decoder and encoder.", "W,W,..."),
    ] = (64, 64)
    activation: Annotated[Activation, _about("Activation of the decoder's hidden layers.")] = "tanh"
    block: Annotated[
        Seeds,
        _about("Seeds that are fitted as one program, by methods that can; --seeds changes no value.", "N"),
    ] = 10
    device: Annotated[Literal["cpu", "cuda"], _about("Where methods run.")] = "cpu"
    max_flops: Annotated[PositiveFloat | None, _about("Stop each fit once it has spent F FLOPs.", "F")] = None
    max_seconds: Annotated[PositiveFloat | None, _about("Stop each fit once it has run for S seconds.", "S")] = None


class Settings(Conditions, frozen=True, kw_only=True):
    """What `compare` compares, and under which conditions."""

    KIND: ClassVar[str] = "compare"

    methods: Annotated[
        tuple[str, ...], _about("Methods, separated by commas; 'all' for every method.", "NAMES", short="-m")
    ] = ("mapa", "vae", "iterative")
    datasets: Annotated[
        tuple[str, ...] | None,
        _about(
            "Datasets, separated by commas, or the groups curves, surfaces, discrete, all (but those held out).",
            "NAMES",
            short="-d",
            default="curves, unless --data is given",
        ),
    ] = None
    data: Annotated[
        tuple[str, ...],
        _about("A table of your own: .csv, .parquet or .npz; repeatable.", "FILE", multiple=True),
    ] = ()
    columns: Annotated[
        tuple[str, ...],
        _about("Columns of --data, separated by commas.", "NAMES", default="all that hold numbers", filled=True),
    ] = ()
    likelihood: Annotated[
        Family,
        _about("What --data are: real numbers, zeros and ones, or counts. A dataset of ours has its own."),
    ] = "gaussian"
    n_train: Annotated[
        Points | None,
        _about("Training points, and as many validation points.", "N", default="500; of --data, 60 % of the rows"),
    ] = None  # type: ignore[assignment]
    n_test: Annotated[
        TestPoints | None,
        _about("Test points, for evaluation only.", "N", default="2000; of --data, 20 % of the rows, at most 2000"),
    ] = None  # type: ignore[assignment]
    observation_noise: Annotated[
        Noise | None,
        _about(
            "Whether methods are given the noise variance, learn it, or learn one for each coordinate.",
            default="known; of --data, learned",
        ),
    ] = None  # type: ignore[assignment]
    baseline: Annotated[
        tuple[str, ...],
        _about("The methods that the report compares with every other one.", "NAMES", default="the first method"),
    ] = ()
    margin: Annotated[
        NonNegativeFloat,
        _about("Differences within N nats do not matter: methods that are closer are called equivalent.", "N"),
    ] = MARGIN
    seeds: Annotated[Seeds, _about("Number of seeds.", "N")] = 10
    first_seed: Annotated[Seed, _about("The first seed, so that several machines can divide the seeds.", "K")] = 0
    set: Annotated[
        dict[str, dict[str, Any]],
        _about(
            "A hyperparameter of a method, wherever the method is used; repeatable.",
            "METHOD.PARAM=VALUE",
            multiple=True,
            parse="assignments",
        ),
    ] = {}
    tuned: Annotated[str | None, _about("A tuned.json with hyperparameters for each dataset.", "FILE")] = None
    author: Annotated[str | None, _about("Who makes the study; reports and sites say it.", "NAME")] = None
    plugins: Annotated[
        tuple[str, ...],
        _about("A file with METHODS or DATASETS of your own; repeatable.", "FILE.py", flag="--plugin", multiple=True),
    ] = ()

    @property
    def every_seed(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def scored_on(self) -> str:
        """The data that runs are scored on: 'test' or 'validation'."""
        return "test"


class TuneSettings(Settings, frozen=True, kw_only=True):
    """What `tune` tunes, and under which conditions. Its seeds are not those of `compare`."""

    KIND: ClassVar[str] = "tune"

    methods: Annotated[
        tuple[str, ...],
        _about("Methods to tune, separated by commas; 'all' for every tunable method.", "NAMES", short="-m"),
    ] = ("all",)
    seeds: Annotated[TuneSeeds, _about("Number of seeds of each trial, from 1000 on.", "N")] = 3
    first_seed: int = 1000
    budget: Annotated[
        PositiveFloat,
        _about("FLOPs for each method on each dataset, over all trials and seeds of one tuning.", "F"),
    ] = 1.8e12
    trials: Annotated[Trials, _about("The most trials of each method; the first trial is its defaults.", "N")] = 64
    repeats: Annotated[Repeats, _about("Independent tunings, whose choices a comparison uses in turn.", "N")] = 1
    jointly: Annotated[bool, _about("Make one choice for all datasets, by the mean over them, not one for each.")] = (
        False
    )

    @property
    def scored_on(self) -> str:
        """The data that runs are scored on: validation data, so that no test set is drawn."""
        return "validation"


class SweepSettings(Settings, frozen=True, kw_only=True):
    """Which factors of one method `sweep` varies, and under which conditions."""

    KIND: ClassVar[str] = "sweep"

    methods: Annotated[tuple[str, ...], _about("One method.", "NAME", flag="--method", short="-m")] = ("mapa",)
    vary: Annotated[
        tuple[str, ...],
        _about(
            "A hyperparameter of the method, or a condition, and its levels; repeatable.",
            "FACTOR=LEVEL,...",
            multiple=True,
        ),
    ] = ()


class TimingSettings(Conditions, frozen=True, kw_only=True):
    """Which methods `timing` times, on which dataset."""

    methods: Annotated[
        tuple[str, ...],
        _about("Two methods or more; the first is compared with each other one.", "NAMES", short="-m"),
    ] = ("mapa", "vae")
    dataset: Annotated[str, _about("One dataset.", "NAME", short="-d")] = "figure8"
    seed: Annotated[Seed, _about("Seed of data, weights, draws and the order of fits.", "N")] = 0
    rounds: Annotated[
        Annotated[int, Meta(ge=5, le=10_000)], _about("Rounds that count; each fits every method twice.", "N")
    ] = 10
    max_steps: Annotated[PositiveInt | None, _about("Stop each fit after N steps.", "N", default="whole fits")] = None
    plugins: Annotated[
        tuple[str, ...],
        _about("A file with METHODS or DATASETS of your own; repeatable.", "FILE.py", flag="--plugin", multiple=True),
    ] = ()


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How runs are executed. It changes no value."""

    jobs: Annotated[
        Jobs | None,
        _about(
            "Runs at a time, one thread each. Quoted seconds are of a fit alone, afterwards.",
            "N",
            short="-j",
            default="all cores",
        ),
    ] = None
    run_timeout: Annotated[
        PositiveFloat | None,
        _about("Stop a run that takes more than S seconds in all; a block of seeds, S for each.", "S"),
    ] = None
    run_memory: Annotated[
        Bytes | None,
        _about("Stop a run whose process holds more memory than SIZE, such as 2GB.", "SIZE", parse="bytes"),
    ] = None
    scheduler: Annotated[
        Annotated[str, Meta(pattern=r"^(tcp|tls)://[^\s/]+:[0-9]+$")] | None,
        _about("Execute runs on the Dask cluster of this scheduler.", "tcp://HOST:PORT"),
    ] = None
    retry_failed: Annotated[bool, _about("Repeat runs that failed or timed out before.")] = False
    yes: Annotated[bool, _about("Make a study of more than 100,000 runs.")] = False


REPORT = "report"  # the kind of a report over several studies
STUDIES: dict[str, type[Settings]] = {each.KIND: each for each in (Settings, TuneSettings, SweepSettings)}
CONDITIONS: tuple[str, ...] = Conditions.__struct_fields__
