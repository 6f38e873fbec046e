"""A decoder as a table against the decoder."""

import math
from dataclasses import dataclass

import pytest
import torch

from bench.metrics.table import ACCURACY, MOST, RADIUS, tabulated
from methods.contract.decoder import build_model


@dataclass(frozen=True)
class Model:
    decoder: object
    noise: float = 0.01

    def decode(self, z):
        return self.decoder(z.double())

    def variance(self):
        return self.noise


SMOOTH = Model(lambda z: torch.cat([torch.sin(3 * z), z**2 / 5], -1))
STEEP = Model(lambda z: torch.cat([torch.tanh(3000 * (z - 0.1234)), z], -1))
BENT = Model(lambda z: torch.cat([z.abs(), (z - 0.7).relu()], -1))


def codes(*shape):
    return 3 * torch.randn(*shape, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("model", [SMOOTH, STEEP, BENT])
def test_a_table_decodes_as_its_model(model):
    z = codes(50, 400)
    assert (z.abs() > RADIUS).any()
    gap = (tabulated(model).decode(z) - model.decode(z)).norm(dim=-1) / math.sqrt(model.noise)
    assert gap.max() < 5 * ACCURACY
    assert tabulated(model).variance() == model.noise


def test_a_network_in_single_precision():
    model = build_model(torch.randn(50, 2), 1, 0.01, torch.Generator().manual_seed(0))
    z = codes(5000).float()
    with torch.no_grad():
        assert (tabulated(model).decode(z) - model.decode(z)).norm(dim=-1).max() < 5 * ACCURACY * 0.1


def test_where_no_cubic_is_right_the_model_is_asked_and_only_there():
    table = tabulated(STEEP)
    assert len(table.coefficients) == MOST
    assert 0 < table.wrong.double().mean() < 0.01
    z = torch.full((3, 1), 0.1235, dtype=torch.float64)
    torch.testing.assert_close(table.decode(z), STEEP.decode(z), atol=0, rtol=0)


def test_gradients_are_those_of_the_model():
    z = codes(1000)

    def slope(model):
        asked = z.clone().requires_grad_()
        return torch.autograd.grad(model.decode(asked).sum(), asked)[0]

    torch.testing.assert_close(slope(tabulated(SMOOTH)), slope(SMOOTH), atol=1e-4, rtol=1e-4)


def test_what_is_not_finite_stays_so():
    lost = Model(lambda z: torch.where(z > 1, math.nan, z))
    assert torch.isnan(tabulated(lost).decode(torch.tensor([[2.0], [0.5]]))).flatten().tolist() == [True, False]


def test_a_code_that_is_no_number_has_no_mean():
    found = tabulated(SMOOTH).decode(torch.tensor([[math.nan], [0.5]], dtype=torch.float64))
    assert torch.isnan(found).all(1).tolist() == [True, False]
