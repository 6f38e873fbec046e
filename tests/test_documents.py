"""What the documents say of the code is what the code says of itself."""

from pathlib import Path

import pytest

import methods
from bench.fit.cost_model import cost_table
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import make_task
from bench.registry.registry import registry
from bench.store.records import RunSpec
from bench.store.schema import COSTS, MEMORY, METRICS
from datasets.base import draw
from methods.mapa import deconvolution, placement, rff_lvm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURES = (DOCS / "measures.md").read_text(encoding="utf-8")
STEPS = {
    "vae": ("joint step",),
    "iwae": ("joint step",),
    "iwae-dreg": ("joint step",),
    "iterative": ("encoder step", "decoder step"),
    "semi-amortised": ("joint step",),
    "flow": ("joint step",),
    "pyro-vae": ("joint step",),
    "pyro-iwae": ("joint step",),
    "mapa": ("loss",),
    "mapa-polished": ("likelihood",),
}


def price_table():
    """The cost model as a table of Markdown."""
    rows = [f"| {cost.operators} | {cost.flops} | {cost.per} |" for cost in cost_table()]
    return "\n".join(["| operators | FLOPs | per |", "|---|---|---|", *rows])


def charge_table():
    """What MAPA's work outside torch is charged, as a table of Markdown."""
    rows = [
        f"| {name} | {formula} |"
        for name, formula in {**deconvolution.CHARGES, **placement.CHARGES, **rff_lvm.CHARGES}.items()
    ]
    return "\n".join(["| work | FLOPs |", "|---|---|", *rows])


def cost_of(method, work):
    """Decoder passes, encoder passes and FLOPs of one piece of work, once a fit repeats it."""
    known, ledger = registry(), CountingLedger()
    problem = known.make_problem("circle", None)
    split = draw(problem, 0, 500, 500, 1)
    spec = RunSpec("circle", method, seed=0, n_train=500, n_test=1)
    ledger.start()
    before = None
    for _ in known.make_method(method).fit(make_task(None, problem, split, spec, ledger)):
        calls, flops = next(((w.calls, w.flops) for w in ledger.account() if w.name == work), (0, 0.0))
        now = calls, ledger.decoder_passes, ledger.encoder_passes, flops
        if before and before[0] > 2 and now[0] == before[0] + 1:
            break
        before = now
    ledger.stop()
    return tuple(int(b - a) for a, b in zip(before[1:], now[1:], strict=True))


def step_table():
    """What a step of each method costs, as a table of Markdown."""
    rows = []
    for method, works in STEPS.items():
        for work in works:
            decoder, encoder, flops = cost_of(method, work)
            name = {"loss": "evaluation", "likelihood": "evaluation of the polish"}.get(work, work)
            rows.append(f"| `{method}` | {name} | {decoder:,} | {encoder:,} | {flops / 1e6:.3g} |")
    head = ["| method | step | decoder passes | encoder passes | MFLOP |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


@pytest.mark.parametrize(
    ("table", "page"), [(price_table, "measures.md"), (charge_table, "measures.md"), (step_table, "methods.md")]
)
def test_costs_are_published_as_they_are(table, page):
    found = table()
    assert found in (DOCS / page).read_text(encoding="utf-8"), f"docs/{page} should hold:\n{found}"


def test_every_method_is_described():
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert [name for name in methods.BUILTIN if f"**`{name}`**" not in page] == []


@pytest.mark.parametrize("definition", [*METRICS, *COSTS, MEMORY], ids=lambda definition: definition.name)
def test_every_column_is_explained(definition):
    assert definition.name in MEASURES
