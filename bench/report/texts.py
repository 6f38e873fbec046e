"""What a report says that does not depend on results, section by section."""

from bench.stats.cost_to_target import SOLVED
from bench.stats.matching import SLACK

RANKING = (
    "Left: performance profiles (Dolan & Moré 2002), the share of problems (a dataset at a seed) on which a "
    f"method comes within {SOLVED:g} nats of the true model at no more than the given multiple of the lowest FLOPs of "
    "any method. Middle: the mean over datasets of the median final oracle gap. Right: the mean rank by final test "
    "log-likelihood, without reference implementations; it depends on which methods take part. Intervals are at 95% "
    "and resample datasets and seeds, so they are for other datasets of this kind too; there are none below five "
    "datasets or six seeds. A run that did not finish counts as infinitely bad."
)
TABLE = (
    "Median over finished seeds with its 95% bootstrap interval [low, high]; with fewer than six seeds, the range "
    "lowest … highest. Bold: the best test log-likelihood among fitted methods, by differences at the same seeds. "
    "–: not measured, or not a number."
)
INTERACTION = "Each number links to the rows behind it. Each heading sorts."
COMPARISONS = (
    "Difference: the median over shared seeds of the first method's final test log-likelihood minus the second's, "
    "on the same data, with the 95% bootstrap interval of that median. Under the verdict: the corrected p-value of no "
    "difference, or, if equivalent, of one beyond the margin. Undecided: about how many seeds would decide in a new "
    "study, with probability 0.8, if its differences are like these. This is a rough estimate: the right number "
    "may be several times larger, or no number may do. Wall time and FLOPs: the first "
    "method's median total divided by the second's. To match: the cost at which the first method first reaches the "
    f"second's final test log-likelihood less {SLACK:g} nats, divided by the second's cost to reach it (median over "
    "seeds), and the number of seeds that reach it. Back: the same with the methods exchanged."
)
MATCHES = (
    "The cost at which the first method first reaches a target, divided by the second's cost to reach it: the "
    "median over datasets of the median over seeds, with a 95% interval that resamples datasets and seeds. A miss "
    "is infinite: 'never', or 'other never' if only the second misses. Targets: the second method's final test "
    f"log-likelihood less {SLACK:g} nats; the same with the methods exchanged (the ratio is then the second's cost "
    "divided by the first's); and distances from the true model. Share: how much of its own total the method in the "
    "denominator needs for the target. Seconds are timed at one seed, so that intervals of their ratios leave out how "
    "timing varies. Datasets on which neither reaches the target are left out; a target that "
    "neither reaches on any dataset has no row."
)
CURVES = (
    "Lines: the median over seeds of the value at the last checkpoint within each cost. A line begins where every "
    "seed has a checkpoint; its marker is where the last seed ended. The band shows the lowest and the highest "
    "seed, or, with more than six methods, a bar at the marker. Dashed: the true model, where it is known."
)
TARGETS = (
    "The median cost at which the oracle gap is first at most the given value, its 95% interval, and the number "
    "of seeds observed to reach it. Other seeds are censored at their total cost (Kaplan & Meier 1958); this "
    "assumes non-informative censoring. inf: fewer than half of the seeds were observed to reach it, or the "
    "estimated share of those that do never passes a half."
)
COSTS = (
    "Medians over finished seeds. A query is one draw of q(z|x) for a new x and its decoding; it is no part of the "
    "other costs."
)
LOSSES = (
    "Compared with the true model a method loses by its generative model (oracle gap). Its ELBO also loses by the "
    "family of q(z|x) (approximation gap) and by the choice of q within the family (amortisation gap). Bars: the "
    "median over seeds of each part; the number is their sum. Parts below zero, which can occur by chance, have "
    "no length. Ticks: the sum of each seed. ▸: the bar extends beyond the axis."
)
OTHERS = (
    "Values at the end of each fit. The oracle gap, approximation gap and amortisation gap separate the "
    "loss by the generative model, by the family of q(z|x), and by the choice of q within the family."
)
INDEX_POSTERIORS = (
    "Which training point's code generated x? x is one of four training points, whose codes have the ranks 1/8, "
    "3/8, 5/8 and 7/8. Shaded: the true model's posterior over the codes of all training points. Dots: the "
    "method's. Dashed: the true model's if it does not know the codes (the floor). Shade and lines are means over "
    "nine neighbours along the code, to show the trend; divergences use the probabilities themselves."
)
SIGNALS = (
    "What is x without its noise? x is one of four test points (crosses), whose first coordinates have the ranks "
    "1/8, 3/8, 5/8 and 7/8. Large points: 64 equally weighted points of f(z) under the true posterior. Small "
    "points: the same of the learned decoder under q(z|x). They are in data space, where all methods are "
    "comparable. The panels of a column have the same limits. W2: the distance between both sets in all data "
    "dimensions, in data units, followed by the share of the method's points outside the panel. For three data "
    "dimensions, a column shows the two in which the true signals and x vary most."
)
DENSITIES = (
    "All panels show the same seed. The colour scale ends at the true model's peak, or at the highest of all panels "
    "where it is not known; higher densities have the colour of the peak."
)
IMAGES = (
    "Ten test points; for each method a reconstruction of each, E[x|z] with one draw of z from q(z|x), and ten "
    "samples, E[x|z] with z from the prior. None has noise added. All images have the grey scale of the test points."
)
WORK = (
    "Every operator that torch runs is counted; work outside torch is charged by formula. Shares are of the FLOPs "
    "of all runs of a method. Kinds below 0.1 % are only in work.csv."
)
ALL_FINISHED = "Every run finished."
NO_REASON = "no reason given"
RUN_AGAIN = "To run it again:"
FILES = {
    "measurements.parquet": "the metrics of every run at every checkpoint, one metric per row",
    "diagnostics.parquet": "diagnostics of the estimators of metrics: numerical errors, effective sample sizes",
    "work.parquet": "FLOPs by kind of work, counted or charged by formula",
    "runs.parquet": "one row per dataset, method and seed, with status, conditions and total cost",
    "posteriors.parquet": "index posteriors of four training points: true model, floor, methods",
    "signals.parquet": "draws of the noiseless signal of four test points: true model, methods",
    "images.parquet": "test points, reconstructions and samples, where points are images",
    "densities.parquet": "true and learned log densities on a grid, for two-dimensional data",
    "study.json": "settings, provenance and the command",
    "study.toml": "the settings as a file, for `python -m bench run`",
    "log.txt": "when each command began and ended, and the status of each run, in UTC",
    "figures/": "every figure as SVG",
    "report.md": "this report as Markdown",
    "report.html": "this report as one HTML file",
}
