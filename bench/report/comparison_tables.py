"""Method against method: what each comparison found, the differences, the verdicts and the costs to match."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bench.common import units
from bench.report import sentences, texts
from bench.report.blocks import Block, Cell, Claim, Column, Heading, Paragraph, Row, Table
from bench.stats.comparisons import Comparison, Difference
from bench.stats.matching import Match
from bench.stats.verdicts import BETTER, EQUIVALENT, UNDECIDED, VERDICTS, WORSE
from bench.store.study_tables import Study

SIGNS = {WORSE: "▼", BETTER: "▲", EQUIVALENT: "≈", UNDECIDED: "?", sentences.TOO_FEW: "?"}


def claims(found: Sequence[Comparison], study: Study, table: pd.DataFrame) -> list[Claim]:
    """What each comparison found, losses first."""
    if not found:
        return [Claim(text) for text in sentences.summary_sentences(found, study.runs, table)]
    return [
        Claim(
            sentences.sentence(each),
            f"{each.baseline} against {each.other}",
            " ".join(sentences.matching(each)) if each.differences else "",
            verdict_counts(each),
        )
        for each in sentences.losses_first(found)
    ]


def verdict_counts(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Each verdict with its sign and count, losses first, too few seeds last."""
    words = Counter(sentences.verdict_of(each) for each in comparison.differences)
    return [(word, SIGNS[word], words[word]) for word in (*VERDICTS, sentences.TOO_FEW) if words[word]]


def standings(found: Sequence[Comparison]) -> Table:
    """The verdicts and the cost to match of many comparisons, a row each: by baseline, losses first."""
    baselines = list(dict.fromkeys(each.baseline for each in found))
    ordered = sorted(sentences.losses_first(found), key=lambda each: baselines.index(each.baseline))
    columns = [Column("methods", number=False), *map(Column, VERDICTS)]
    columns += [Column("FLOPs to match"), Column("FLOPs to match, methods exchanged")]
    rows = []
    for place, each in enumerate(ordered):
        counts = Counter(sentences.verdict_of(difference) for difference in each.differences)
        cells = [Cell(f"{each.baseline} against {each.other}"), *(Cell(str(counts[word])) for word in VERDICTS)]
        cells += [ratio_cell(cost.flops, cost.flops_interval) for cost in (each.match, each.back)]
        rows.append(Row(cells, first=place == 0 or each.baseline != ordered[place - 1].baseline))
    return Table("Verdicts over datasets", columns, rows, 0, layout="numbers compact")


def comparison_blocks(found: Sequence[Comparison]) -> list[Block]:
    """The differences and the costs to match, with what they mean; nothing without comparisons."""
    if not found:
        return []
    title = "Costs to match, over datasets"
    both = Heading(title, "matches"), Paragraph(texts.MATCHES)
    return [Paragraph(texts.COMPARISONS), differences_table(found), *both, matches_table(found)]


def differences_table(found: Sequence[Comparison]) -> Table:
    """The differences of comparisons on each dataset, with their verdicts and the cost to match."""
    columns = (
        Column("methods", number=False),
        Column("dataset", number=False),
        Column("difference", "nats"),
        Column("verdict", number=False),
        *map(
            Column,
            (
                *("seeds", "wall time", "FLOPs", "wall time to match", "FLOPs to match", "seeds that reach it"),
                *("FLOPs to match back", "seeds that reach it back"),
            ),
        ),
    )
    rows = [
        _difference(comparison, difference, first=place == 0)
        for comparison in found
        for place, difference in enumerate(comparison.differences)
    ]
    return Table("Method against method", columns, rows, 0, "filter-margins")


def _difference(comparison: Comparison, difference: Difference, first: bool) -> Row:
    match, back, verdict = difference.match, difference.back, sentences.verdict_of(difference)
    texts = (
        ("" if math.isnan(difference.wall) else "wall_s", units.ratio(difference.wall)),
        ("flops", units.ratio(difference.flops)),
        ("match", units.ratio(match.wall)),
        ("match", units.ratio(match.flops)),
        ("match", f"{match.reached}/{len(match.seeds)}"),
    )

    def address(name: str) -> tuple[str, ...]:
        return difference.dataset, comparison.baseline, name, comparison.other

    decision = difference.decision
    p = decision.equivalence_p if verdict == EQUIVALENT else decision.p
    sure = f"p {units.number(p)}" if difference.interval else ""
    seeds = f"{sentences.needed(difference)} seeds" if verdict == UNDECIDED else ""
    cells = (
        Cell(f"{comparison.baseline} against {comparison.other}"),
        Cell(difference.dataset),
        Cell(units.with_interval(difference.nats, difference.interval), rows=address("test_ll")),
        Cell(verdict, "; ".join(filter(None, (sure, seeds))), style=f"verdict {verdict}"),
        Cell(str(difference.seeds)),
        *(Cell(text, rows=address(name) if name else ()) for name, text in texts),
        Cell(units.ratio(back.flops)),
        Cell(f"{back.reached}/{len(back.seeds)}"),
    )
    return Row(cells, difference.dataset, comparison.other, _by_seed(match), first)


def _by_seed(match: Match) -> str:
    """[[seed, ratio of wall times, of FLOPs], ...] as JSON; null is a seed that does not reach the target."""
    each = zip(match.seeds, match.wall_ratios, match.flops_ratios, strict=True)
    return json.dumps([[seed, _wall(wall, flops), _written(flops)] for seed, wall, flops in each])


def _written(ratio: float) -> float | None:
    return float(f"{ratio:.8g}") if math.isfinite(ratio) else None


def _wall(wall: float, flops: float) -> float | str | None:
    """A ratio of wall times at a seed; it is not known where others ran beside a fit that reaches the target."""
    return "not known" if math.isnan(wall) and math.isfinite(flops) else _written(wall)


def matches_table(found: Sequence[Comparison]) -> Table:
    """The costs to match over datasets, of every comparison and target."""
    columns = [
        Column("methods", number=False),
        Column("target", number=False),
        *map(Column, ("FLOPs", "wall time", "share")),
        Column("missed on", number=False),
        Column("left out", number=False),
    ]
    rows: list[Row] = []
    for comparison in found:
        targets = [("the other's end", comparison.match), ("exchanged", comparison.back)]
        targets += [(f"within {distance:g} nats of the truth", cost) for distance, cost in comparison.near]
        reached = [(target, cost) for target, cost in targets if not math.isnan(cost.flops)]
        for place, (target, cost) in enumerate(reached):
            cells = (
                Cell(f"{comparison.baseline} against {comparison.other}"),
                Cell(target),
                ratio_cell(cost.flops, cost.flops_interval),
                ratio_cell(cost.wall, cost.wall_interval),
                Cell(units.percent(cost.passage) if math.isfinite(cost.passage) else units.MISSING),
                _listed(cost.missed, cost.datasets),
                _listed(cost.neither, cost.datasets),
            )
            rows.append(Row(cells, first=place == 0))
    return Table("Costs to match, over datasets", columns, rows, 0, layout="numbers")


def _listed(names: Sequence[str], of: int) -> Cell:
    """How many of so many datasets, and which."""
    return Cell(f"{len(names)} of {of}" if names else "none", ", ".join(names), style="list")


def ratio_cell(middle: float, interval: tuple[float, float]) -> Cell:
    """A ratio of costs with its interval; 'never' for infinity."""
    below = "" if math.isnan(interval[0]) else f"[{', '.join(map(units.ratio, interval))}]"
    return Cell(units.ratio(middle), below, value=middle)
