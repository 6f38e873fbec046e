"""`plan`: what would be run, and what its verdicts could find."""

import re

import pytest

from bench.stats.power import least_effect, least_margin


@pytest.fixture
def planned(cli, tmp_path, monkeypatch, unchanged):
    """What `plan` prints; it must leave its folder as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.execution.scheduler.run_all", lambda *_: pytest.fail("runs were made"))

    def plan(*args):
        with unchanged(tmp_path):
            end = cli("plan", *args)
        assert (end.code, end.err) == (0, "")
        return " ".join(end.out.split())

    return plan


def test_it_says_what_compare_would_run(planned):
    text = planned("-m", "mapa,vae,oracle", "-d", "circle,torus", "--seeds", "7")
    assert "42 runs: 3 methods, 2 datasets, 7 seeds. mapa, vae, oracle on circle, torus." in text


def test_it_says_what_can_be_found_with_the_comparisons_that_the_report_will_have(planned):
    """Two baselines against two others on two datasets: eight comparisons. The ceiling takes no part."""
    given = ("-m", "mapa,vae,iwae,flow,oracle", "--baseline", "mapa,vae", "-d", "circle,torus", "--seeds", "10")
    text = planned(*given, "--margin", "0.05")
    effect, spread = least_effect(10, 8), 0.05 / least_margin(10, 8)
    assert text.count("8 comparisons, by pair of methods and dataset") == 1
    assert f"With 10 seeds a difference of {effect:.2g} standard deviations" in text
    assert f"within 0.05 nats, if their differences have a standard deviation of at most {spread:.2g} nats" in text
    rows = re.findall(r"(\d+) (\S+) sd (\S+) nats", text)
    assert [int(seeds) for seeds, *_ in rows] == [6, 8, 10, 15, 20, 40]
    assert [float(found) for _, found, _ in rows] == sorted((float(found) for _, found, _ in rows), reverse=True)


def test_of_a_comparison_with_a_stored_study_it_says_what_is_borrowed(planned, cli):
    text = planned("-m", "vae", "--against", "reference", "--problems", "3")
    runs, here, borrowed = map(int, re.search(r"(\d+) runs: .* (\d+) would be made here; (\d+) are", text).groups())
    assert (here, runs) == (30, here + borrowed)
    assert cli("plan", "--problems", "3").err.startswith("error: --problems needs --against")


def test_too_few_seeds_can_decide_nothing(planned):
    assert "3 seeds can decide nothing: 6 are needed." in planned("-m", "mapa,vae", "-d", "circle", "--seeds", "3")


def test_one_method_is_compared_with_nothing(planned):
    text = planned("-m", "mapa,oracle", "-d", "circle")
    assert text.endswith("Nothing is compared: at least two methods that learn are needed.")


def test_without_a_margin_nothing_is_found_equivalent(planned):
    assert "found equivalent, within" not in planned("-m", "mapa,vae", "-d", "circle", "--margin", "0")


@pytest.mark.parametrize("args", [("-m", "mpaa"), ("--seeds", "0"), ("--margin", "-1")])
def test_bad_input_is_one_line(cli, args):
    end = cli("plan", *args)
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
