"""What `tools.anytime` concludes, on tables whose answer is known, and that it keeps the rows it is not asked for."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tools import anytime

SEEDS = range(6)


def table(gap):
    """Rows with the gaps that a function of dataset, schedule, cost and seed gives."""
    of = product(("circle", "torus"), ("anytime", "cosine"), anytime.COSTS, SEEDS)
    names = ("dataset", "schedule", "flops", "seed")
    return pd.DataFrame([dict(zip(names, each, strict=True)) | {"steps": 1, "gap": gap(*each)} for each in of])


def test_a_curve_as_low_as_the_cosine_is_level_everywhere():
    found = anytime.verdict(table(lambda *_: 0.2))
    assert found == "level or ahead at all costs on 2 of 2 (circle, torus); at most 1.00 times the cosine's gap; " + (
        "at the end behind on 0"
    )


@pytest.mark.parametrize(("gap", "level"), [(0.219, 2), (0.221, 1)])
def test_a_tenth_more_is_allowed_and_no_more(gap, level):
    found = anytime.verdict(table(lambda name, schedule, *_: gap if (name, schedule) == ("torus", "anytime") else 0.2))
    assert f"on {level} of 2 (" in found
    assert f"at the end behind on {2 - level}" in found


def test_small_gaps_may_differ_by_a_hundredth_of_a_nat():
    found = anytime.verdict(table(lambda _, schedule, *__: 0.0199 if schedule == "anytime" else 0.01))
    assert "on 2 of 2" in found


def test_one_cost_at_which_the_curve_is_behind_is_enough_and_its_ratio_is_told():
    first = anytime.COSTS[0]
    found = anytime.verdict(
        table(lambda name, schedule, flops, _: 0.5 if (schedule, name, flops) == ("anytime", "circle", first) else 0.2)
    )
    assert "on 1 of 2 (torus); at most 2.50 times" in found
    assert found.endswith("at the end behind on 0")


def test_the_difference_at_the_end_is_paired_by_seed():
    """Seeds differ by 1 nat, and the schedules by 0.02 at every seed: the interval has no width."""
    of = table(lambda _, schedule, __, seed: seed + 0.02 * (schedule == "anytime"))
    assert anytime.at_the_end(of[of["dataset"] == "circle"]) == "at the end +0.020 [+0.020, +0.020] nats over 6 seeds"


def test_only_the_last_cost_counts_at_the_end():
    last = anytime.COSTS[-1]
    of = table(lambda _, schedule, flops, __: np.where(flops == last, 0.1, 5.0 * (schedule == "anytime")))
    assert "+0.000 [+0.000, +0.000]" in anytime.at_the_end(of[of["dataset"] == "circle"])


def test_rows_of_other_seeds_stay(tmp_path):
    path, every = tmp_path / "vae.csv", table(lambda *_: 0.2)
    anytime.write(path, every)
    anytime.write(path, every.assign(seed=every["seed"] + 3, gap=0.7))
    kept = pd.read_csv(path)
    assert kept.groupby("seed")["gap"].unique().map(list).to_dict() == {s: [0.2 if s < 3 else 0.7] for s in range(9)}


def test_rows_of_problems_that_are_not_asked_for_stay(tmp_path):
    path, every = tmp_path / "vae.csv", table(lambda *_: 0.2)
    anytime.write(path, every)
    anew = every[every["dataset"] == "torus"].assign(gap=0.7)
    anytime.write(path, anew)
    kept = pd.read_csv(path)
    assert len(kept) == len(every)
    assert kept.groupby("dataset")["gap"].unique().map(list).to_dict() == {"circle": [0.2], "torus": [0.7]}
