"""The decoder of a model of one latent dimension as a table, where it is asked for more codes than the table has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.contract.method import DecoderModel, likelihood_of
from methods.likelihoods import Likelihood

RADIUS = 9.0
FEWEST, MOST = 1152, 4608
ACCURACY = 1e-4


@dataclass(frozen=True)
class Table:
    """A model of L = 1 whose decoder is a cubic in each of m equal parts of [-9, 9] where a cubic is accurate.

    Args:
        model: The model, whose own decoder is used elsewhere.
        coefficients: Of the cubic of each part, by rising power of the place in [0, 1], (m, 4, D).
        wrong: Which cubics are not accurate, (m,).
    """

    model: DecoderModel
    coefficients: Tensor
    wrong: Tensor

    def decode(self, z: Tensor) -> Tensor:
        """The outputs that p(x | z) depends on, (..., 1) -> (..., D).

        Args:
            z: Codes, (..., 1).

        Returns:
            Outputs, (..., D): the mean of x in data units, if it is Gaussian.
        """
        parts = len(self.coefficients)
        outside = ~(z[..., 0].detach().abs() <= RADIUS)  # NaN too
        place = torch.where(outside[..., None], 0.0, (z + RADIUS) * (parts / (2 * RADIUS)))
        part = place.detach().floor().long().clamp(max=parts - 1)
        chosen = self.coefficients.index_select(0, part.flatten())
        c0, c1, c2, c3 = chosen.view(*part.shape[:-1], *chosen.shape[1:]).unbind(-2)
        t = place - part
        found: Tensor = c0 + t * (c1 + t * (c2 + t * c3))
        asked = outside | self.wrong[part[..., 0]]
        if asked.any():
            found[asked] = self.model.decode(z[asked]).to(found)
        return found

    @property
    def likelihood(self) -> Likelihood:
        """p(x | z)."""
        return likelihood_of(self.model)

    def variance(self) -> float:
        """The noise variance s2 of a Gaussian, in squared data units."""
        return self.model.variance()  # type: ignore[attr-defined]


def tabulated(model: DecoderModel) -> Table:
    """A model of L = 1 as a table.

    A cubic goes through the values at four neighbouring codes. It is accurate if it gives the value in the middle of
    its part to 1e-4 standard deviations of the noise. Parts are halved until all are, or until they number 4,608.

    Args:
        model: The model, of L = 1.
    """
    likelihood = likelihood_of(model)
    parts, tolerance = FEWEST, ACCURACY * likelihood.unit
    width = 2 * RADIUS / parts
    codes = torch.linspace(-RADIUS - width, RADIUS + width, parts + 3, dtype=torch.float64)[:, None]
    values = model.decode(codes)
    while True:
        middles = (codes[:-1] + codes[1:]) / 2
        between = model.decode(middles)
        left, first, last, right = (values[k : parts + k] for k in range(4))
        off = likelihood.embed((9 * (first + last) - left - right) / 16) - likelihood.embed(between[1:-1])
        wrong = ~(off.norm(dim=1) <= tolerance)
        if parts == MOST or not wrong.any():
            bend, jerk = (left + last) / 2 - first, (right - left) / 6 + (first - last) / 2
            return Table(model, torch.stack([first, last - first - bend - jerk, bend, jerk], 1), wrong)
        codes, values = (_interleaved(*each)[1:-1] for each in ((codes, middles), (values, between)))
        parts *= 2


def _interleaved(outer: Tensor, inner: Tensor) -> Tensor:
    """Rows (m, ...) with the rows (m - 1, ...) between them: (2 m - 1, ...)."""
    return torch.cat([torch.stack([outer[:-1], inner], 1).flatten(0, 1), outer[-1:]])
