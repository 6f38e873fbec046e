"""What the documents say of the code is what the code says of itself."""

from pathlib import Path

import pytest

from bench.prices import cost_model
from bench.report.definitions import COSTS, MEMORY, METRICS
from methods.mapa import embedding, placement, signals

ROOT = Path(__file__).parents[1]
MEASURES = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")


def price_table():
    """The cost model as a table of Markdown."""
    rows = [f"| {price.operators} | {price.flops} | {price.per} |" for price in cost_model()]
    return "\n".join(["| operators | FLOPs | per |", "|---|---|---|", *rows])


def charge_table():
    """What MAPA's work outside torch is charged, as a table of Markdown."""
    rows = [
        f"| {name} | {formula} |"
        for name, formula in {**signals.CHARGES, **placement.CHARGES, **embedding.CHARGES}.items()
    ]
    return "\n".join(["| work | FLOPs |", "|---|---|", *rows])


@pytest.mark.parametrize("table", [price_table, charge_table])
def test_the_cost_model_is_published_as_it_is(table):
    assert table() in MEASURES, f"docs/measures.md should hold:\n{table()}"


@pytest.mark.parametrize("definition", [*METRICS, *COSTS, MEMORY], ids=lambda definition: definition.name)
def test_every_column_is_explained(definition):
    assert definition.name in MEASURES
