"""Every sentence of terminal, page and Markdown about studies whose truth is known."""

import itertools
import re
from collections import defaultdict
from html.parser import HTMLParser

import msgspec
import numpy as np
import pandas as pd
import pytest

from bench.report.page import write
from bench.report.sentences import answers
from bench.stats.summary import summary

COSTS = ("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes")
LOOKS = np.array([0.25, 0.5, 1.0])
TRUTH = -1.0
# The lead of the baseline over a rival, in nats, and its spread over seeds.
LEADS = {"better": (0.5, 0.05), "worse": (-0.5, 0.05), "equivalent": (0.0, 0.001), "undecided": (0.02, 0.3)}


def study_of(leads, seeds, cost=4.0, miss=(), failing=(), first=0):
    """Tables of a baseline and its rivals.

    Args:
        leads: By rival and dataset, the word for the baseline's lead.
        seeds: Number of seeds.
        cost: What a rival's fit costs, in units of the baseline's.
        miss: Datasets on which the first looks of all methods are far below their end.
        failing: (dataset, method, seed) that fail.
        first: The seed of the drawn numbers.
    """
    random, runs, rows = np.random.default_rng(first), [], []
    datasets = list(dict.fromkeys(dataset for _, dataset in leads))
    for dataset, seed in itertools.product(datasets, range(seeds)):
        level = TRUTH - 1.0 + random.standard_normal()  # seeds differ by more than methods do
        ends = {"own": (level, 1.0)}
        for (rival, where), word in leads.items():
            if where == dataset:
                lead, spread = LEADS[word]
                ends[rival] = (level - lead - spread * random.standard_normal(), cost)
        for method, (end, spent) in ends.items():
            run = {"dataset": dataset, "method": method, "seed": seed}
            failed = (dataset, method, seed) in failing
            about = {"role": "method", "status": "failed" if failed else "done", "message": "", "notes": ""}
            runs.append({**run, **about, **dict.fromkeys(COSTS, spent), "concurrent": False, "key": str(len(runs)),
                         "peak_memory_mb": 1.0})  # fmt: skip
            early = 5.0 if dataset in miss else 0.001
            for look, share in enumerate(LOOKS) if not failed else ():
                value = end - early * (look < len(LOOKS) - 1)
                rows += [
                    {**run, "checkpoint": look, "metric": metric, "value": v, "stderr": 0.0, "unit": "nats",
                     **dict.fromkeys(COSTS, share * spent), "concurrent": False}
                    for metric, v in (("test_ll", value), ("oracle_gap", TRUTH - value))
                ]  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(runs)


class Text(HTMLParser):
    """The text of a page, without styles and programs."""

    def __init__(self, html):
        super().__init__()
        self.parts, self.skipped = [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.skipped += tag in ("style", "script")

    def handle_endtag(self, tag):
        self.skipped -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.skipped:
            self.parts.append(data)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What terminal, page and Markdown say of a study's tables, each as one line."""
    monkeypatch.setattr("bench.report.page.gallery", lambda *_: defaultdict(list))

    def tell(measurements, runs, **settings):
        measurements.to_parquet(tmp_path / "measurements.parquet")
        runs.to_parquet(tmp_path / "runs.parquet")
        info = {"schema": 3, "name": "made up", "settings": settings}
        (tmp_path / "study.json").write_bytes(msgspec.json.encode(info))
        page = write(tmp_path)
        given = (settings.get("baseline", ()), settings.get("margin", 0.02))
        texts = {
            "terminal": " ".join(answers(measurements, runs, summary(measurements, runs), *given)),
            "page": " ".join(Text(page.read_text(encoding="utf-8")).parts),
            "markdown": page.with_suffix(".md").read_text(encoding="utf-8").replace("\\", ""),
        }
        return {name: " ".join(text.split()) for name, text in texts.items()}

    return tell


def plain(text):
    """Whether a text has nothing that a reader should never see."""
    return not re.search(r"\bnan\b|\bNone\b|\binf\b (?:of|times)|\(\)|, ,|\.\.|\{|\}", text)


WORDS = ("worse", "better", "equivalent", "undecided")
ONE_RIVAL = [
    *itertools.combinations_with_replacement(WORDS, 2),
    ("worse", "better", "equivalent", "undecided", "better"),
]


@pytest.mark.parametrize("words", ONE_RIVAL, ids="-".join)
def test_one_rival_is_told_as_it_is(told, words):
    leads = {("rival", f"d{k}"): word for k, word in enumerate(words)}
    measurements, runs = study_of(leads, seeds=12)
    ends = measurements[(measurements["metric"] == "test_ll") & (measurements["checkpoint"] == 2)]
    wide = ends.pivot_table(index=["dataset", "seed"], columns="method", values="value")
    nats = (wide["own"] - wide["rival"]).groupby("dataset").median()
    for text in told(measurements, runs).values():
        assert plain(text)
        (claim,) = set(re.findall(r"own is [^.]*? on \d of \d dataset.*?, over 12 seeds\.", text))
        for word in WORDS:
            of_word = [dataset for (_, dataset), given in leads.items() if given == word]
            listed = ", ".join(f"{dataset} {nats[dataset]:+.3f}" for dataset in of_word)
            if of_word:
                assert re.search(rf"\b{word}(?: \w+ rival)? on {len(of_word)}(?: of \d datasets?)? \(", claim)
                assert listed.replace("+0.000", "0.000").replace("-0.000", "0.000") in claim
        assert ("worse" in words) == claim.startswith("own is worse")
        assert "Its fits take 0.25× the FLOPs and 0.25× the wall time." in text


def test_rivals_that_are_ahead_somewhere_are_told_first(told):
    leads = {
        ("weak", "d0"): "better",
        ("weak", "d1"): "undecided",
        ("strong", "d0"): "undecided",
        ("strong", "d1"): "worse",
    }
    for text in told(*study_of(leads, seeds=12), baseline=("own",)).values():
        assert text.index("own is worse than strong") < text.index("own is better than weak")


def test_the_seeds_that_would_decide_are_told_of_what_is_undecided_and_of_nothing_else(told):
    leads = {("rival", "open"): "undecided", ("rival", "clear"): "better"}
    for text in told(*study_of(leads, seeds=12)).values():
        (sentence,) = set(re.findall(r"a new study would decide, roughly, with probability 0.8: ([^.]*)\.", text))
        assert re.fullmatch(r"open (over|about) \d+", sentence)


@pytest.mark.parametrize(("seeds", "said"), [(1, "over 1 seed."), (5, "over 5 seeds.")])
def test_few_seeds_decide_nothing(told, seeds, said):
    leads = {("rival", "a"): "better", ("rival", "b"): "worse"}
    for text in told(*study_of(leads, seeds)).values():
        assert plain(text)
        assert "own is undecided against rival on 2 of 2 datasets" in text
        assert said in text
        assert "Too few seeds for a verdict: 6 are needed." in text
        assert "a new study would decide" not in text
        assert not re.search(r"own is (better|worse|equivalent)", text)


def test_costs_to_match_are_told_in_both_directions_with_their_misses(told):
    """On a and b the baseline is ahead, on c behind; each method has its end at a quarter of its cost."""
    leads = {("rival", "a"): "better", ("rival", "b"): "better", ("rival", "c"): "worse"}
    for name, text in told(*study_of(leads, seeds=8)).items():
        end = "final log-likelihood less 0.01 nats"
        assert (
            f"own reaches rival's {end} at 0.25× the FLOPs and 0.25× the wall time that rival needs for it (median "
            "over 3 datasets; rival first has it after 25 % of its FLOPs; infinite on c, where it misses it at half "
            "of the seeds or more)."
        ) in text
        assert (
            f"rival does not reach own's {end} at half of the seeds or more on a and b, so that its median cost is "
            "infinite (median over 3 datasets)."
        ) in text
        if name != "terminal":
            assert "never" in text[text.index("Costs to match, over datasets") :]


def test_a_late_passage_is_told(told):
    for text in told(*study_of({("rival", "a"): "better"}, seeds=8, miss=("a",))).values():
        assert "rival first has it after 100 % of its FLOPs" in text


def test_the_margin_decides_what_is_equivalent(told):
    measurements, runs = study_of({("rival", "a"): "equivalent"}, seeds=12)
    shifted = (measurements["method"] == "rival") & (measurements["metric"] == "test_ll")
    measurements.loc[shifted, "value"] -= 0.006
    for margin, word in ((0.02, "equivalent to"), (0.0, "better than"), (0.004, "better than")):
        for name, text in told(measurements, runs, margin=margin).items():
            assert f"own is {word} rival on 1 of 1 dataset" in text
            assert name == "terminal" or f"within {margin:g} nats of zero" in text


def test_what_failed_is_told_and_left_out(told):
    failing = {("a", "rival", seed) for seed in (0, 3)} | {("b", "rival", seed) for seed in range(8)}
    leads = {("rival", "a"): "better", ("rival", "b"): "better"}
    for name, text in told(*study_of(leads, seeds=8, failing=failing)).items():
        assert plain(text)
        assert "own is better than rival on 1 of 1 dataset (a " in text
        assert "over 6 seeds." in text
        assert "Not compared on b: no seed was finished by both." in text
        assert name == "terminal" or "10 of 32 runs did not finish: 10 failed." in text


def test_one_method_is_set_against_the_truth(told):
    measurements, runs = study_of({("rival", "a"): "better"}, seeds=7)
    alone = [table[table["method"] == "own"] for table in (measurements, runs)]
    gap = alone[0].query("metric == 'oracle_gap' and checkpoint == 2")["value"].median()
    for text in told(*alone).values():
        assert "own is the only fitted method here, so there is nothing to compare it with." in text
        assert f"Over 7 seeds it ends {gap:.3f} nats below the true model" in text
        assert "better" not in text.split("What is measured")[0].split("Where each method ended")[0]


def test_forty_methods_are_summed_up_with_every_loss(told):
    words = ["better"] * 30 + ["worse"] * 4 + ["equivalent"] * 5
    leads = {(f"m{k:02}", dataset): word for k, word in enumerate(words) for dataset in ("a", "b")}
    for name, text in told(*study_of(leads, seeds=10), baseline=["own"]).items():
        assert plain(text)
        counts = "worse in 8, better in 60, equivalent in 10, undecided in 0."
        assert f"In 78 comparisons by method and dataset it is {counts}" in text
        (losses,) = set(re.findall(r"own is worse than (.*?\))\. ", text))
        assert re.findall(r"(m\d\d) on (\d)", losses) == [(f"m{k}", "2") for k in range(30, 34)]
        assert text.count("Its fits take") == 0
        assert len(text) < 2000 or name != "terminal"


def test_a_statement_that_the_harness_once_made_and_that_is_not_so_is_gone(told):
    for text in told(*study_of({("rival", "a"): "better"}, seeds=7)).values():
        for gone in ("indistinguishable", "Same initial weights", "signed-rank", "Benjamini", "interquartile"):
            assert gone not in text


@pytest.mark.parametrize(("worst", "said"), [(0.7, True), (0.3, False)])
def test_where_few_points_make_most_of_a_gap_it_is_told(told, worst, said):
    """On a, of which the oracle gap is some 1 nat; b has no such metric."""
    measurements, runs = study_of({("rival", "a"): "better", ("rival", "b"): "better"}, seeds=7)
    gaps = measurements[(measurements["metric"] == "oracle_gap") & (measurements["dataset"] == "a")]
    more = [gaps.assign(metric="oracle_gap_worst", value=worst * gaps["value"])]
    more += [gaps.assign(metric="oracle_gap_trimmed", value=(1 - worst) * gaps["value"])]
    ends = gaps[gaps["checkpoint"] == 2].groupby("method")["value"].median()
    for name, text in told(pd.concat([measurements, *more]), runs).items():
        if name == "terminal":
            continue
        assert ("Few test points make more than half of a gap" in text) == said
        claim = (
            f"rival on a (oracle gap {ends['rival']:.3f}, of which the worst 1 % make {worst * ends['rival']:.3f}; "
            f"without 1 % at each end {(1 - worst) * ends['rival']:.3f})"
        )
        assert (claim in text) == said
        assert "on b (oracle gap" not in text
