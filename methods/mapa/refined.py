"""MAPA's posterior of a new x: the index posterior chooses a box of latent space, the decoder a place in the box.

A cell of the index posterior holds 1/N of the prior. On a surface the decoder moves by many standard deviations of the
noise across such a cell, so that the prior within it is much wider than the posterior. Here latent space is divided
into boxes, by default 8, and

    q(z | x) = sum_b p(b | x) p(z | x, z in b),    p(b | x) = sum of p(i | x) over the codes i in box b.

p(b | x) is fixed before training, and p(z | x, z in b) is the posterior of the decoder within the box, on cells across
which it moves by about one standard deviation. log p(x) minus the ELBO is KL(p(b | x) || p_theta(b | x)), and what the
width of cells adds.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.special import ndtr

from methods.common.latent_grid import GridPosterior, LatentGrid, resolving
from methods.common.remembered import Remembered
from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import DecoderModel, likelihood_of

PARTS = {1: 1, 2: 4}
CELLS = 512
MOST_CELLS = 2_048
LEAST = 1e-12
ENTRIES_AT_ONCE = 4_000_000


class RefinedPosterior(GridPosterior):
    """q(z | x) = sum_b p(b | x) p(z | x, z in b), for a decoder that does not change any more.

    On surfaces, coarse cells, across which the decoder moves by up to four standard deviations, are divided into 4 x 4
    fine ones. Of more than 2,048 fine cells, only the 512 in the most probable coarse cells of each x have more than
    1e-12 of the prior.

    Args:
        index: The index posterior on the cells of the codes.
        model: The generative model.
        boxes: The number of boxes. With one, the decoder alone decides.
    """

    def __init__(self, index: GridPosterior, model: DecoderModel, boxes: int):
        self.index, self.model, self.boxes = index, model, boxes
        self._found = Remembered(self._near_all)

    @cached_property
    def coarse(self) -> LatentGrid:
        """The coarse cells, none of which crosses the border of a box."""
        latent_dim = self.index.grid.low.shape[1]
        return resolving(self.model, latent_dim, PARTS[latent_dim])

    @cached_property
    def grid(self) -> LatentGrid:  # type: ignore[override]
        """The fine cells."""
        return self.coarse.divided(PARTS[self.coarse.low.shape[1]])

    @cached_property
    def log_mass(self) -> Tensor:  # type: ignore[override]
        """The log-mass of each fine cell under the prior, (N,)."""
        return self.grid.mass.log()

    @cached_property
    def _boxes(self) -> tuple[Tensor, Tensor]:
        """The box of each code of the index posterior, and of each fine cell."""
        boxes = LatentGrid.equal(self.boxes, self.grid.low.shape[1])
        fine = boxes.cells(self.coarse.codes).repeat_interleave(len(self.grid.low) // len(self.coarse.low))
        return boxes.cells(self.index.grid.codes), fine

    @cached_property
    def _means(self) -> tuple[Tensor, Tensor]:
        """The means of x at the centres of coarse and of fine cells, in data units."""
        with torch.no_grad():
            return self.model.decode(self.coarse.codes).double(), self.model.decode(self.grid.codes).double()

    def near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The fine cells in which z may be, and their log-probabilities in nats: (n, D) -> (n, C), (n, C)."""
        return self._found(x)

    def _near_all(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = [self._near(each) for each in x.double().split(max(1, ENTRIES_AT_ONCE // (CELLS * x.shape[1])))]
        log_index, cells = zip(*found, strict=True)
        return torch.cat(log_index), torch.cat(cells)

    def _near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coarse, fine = (each.to(x.device) for each in self._means)
        of_code, of_cell = (each.to(x.device) for each in self._boxes)
        children = len(fine) // len(coarse)
        likelihood = likelihood_of(self.model)
        if len(fine) <= MOST_CELLS:
            cells = torch.arange(len(fine), device=x.device).expand(len(x), -1)
            log_joint = self.log_mass.to(x.device) + likelihood.compared(x, fine)
        else:
            score = self.coarse.mass.log().to(x.device) + likelihood.compared(x, coarse)
            top = score.topk(min(CELLS // children, len(coarse)), 1).indices
            cells = (top[..., None] * children + torch.arange(children, device=x.device)).flatten(1)
            deviance = likelihood.deviance(x[:, None], fine[cells])
            log_joint = self.log_mass.to(x.device)[cells] - deviance / (2 * likelihood.dispersion)
        box = of_cell[cells]
        nothing = log_joint.new_full((len(x), self.boxes), -math.inf)
        most = nothing.scatter_reduce(1, box, log_joint, "amax").gather(1, box)
        total = torch.zeros_like(nothing).scatter_add(1, box, (log_joint - most).exp()).gather(1, box)
        chosen = torch.zeros_like(nothing).index_add(1, of_code, self.index.log_index(x).exp().to(nothing))
        log_box = chosen.clamp(min=LEAST).log().gather(1, box)
        return torch.log_softmax(log_box + log_joint - most - total.log(), 1), cells

    def log_index(self, x: Tensor) -> Tensor:
        """The log-probability of each fine cell in nats: (n, D) -> (n, N).

        Cells that are not near share the prior's part of 1e-12, so that every density is finite.
        """
        log_index, cells = self.near(x)
        others = self.log_mass.to(x.device) + math.log(LEAST)
        return others.repeat(len(x), 1).scatter(1, cells, log_index)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code: (m, L), (n, D) -> (m, n)."""
        log_index, cells = self.near(x)
        cells, order = cells.sort(1)
        cell = self.cells(z)
        place = torch.searchsorted(cells, cell.expand(len(x), -1).contiguous()).clamp(max=cells.shape[1] - 1)
        log_mass = self.log_mass.to(z.device)[cell]
        log_weight = log_index.gather(1, order).gather(1, place) - log_mass
        log_weight = torch.where(cells.gather(1, place) == cell, log_weight, math.log(LEAST))
        return log_weight.T + standard_normal_log_prob(z)[:, None]

    def cells(self, z: Tensor) -> Tensor:
        """The fine cell that holds each code: (m, L) -> (m,)."""
        parts = PARTS[z.shape[1]]
        coarse = self.coarse.cells(z)
        low, high = self.coarse.low.to(z.device)[coarse], self.coarse.high.to(z.device)[coarse]
        places = ((ndtr(z.double()) - low) / (high - low) * parts).long().clamp(0, parts - 1)
        for place in places.T:
            coarse = coarse * parts + place
        return coarse

    def best(self, model: DecoderModel, x: Tensor) -> GridPosterior:  # noqa: ARG002
        """The weights of the fine cells with the highest ELBO: those of the decoder, with one box."""
        return RefinedPosterior(self.index, model, boxes=1)
