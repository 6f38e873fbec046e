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

from methods.common.latent_grid import GridPosterior, LatentGrid, resolving
from methods.contract.method import DecoderModel, likelihood_of

PARTS = {1: 1, 2: 4}
CELLS = 512
LEAST = 1e-12
ENTRIES_AT_ONCE = 4_000_000


class RefinedPosterior(GridPosterior):
    """q(z | x) = sum_b p(b | x) p(z | x, z in b), for a decoder that does not change any more.

    On surfaces, coarse cells, across which the decoder moves by up to four standard deviations, are divided into 4 x 4
    fine ones. For each x, only the 512 fine cells in the most probable coarse cells have more than 1e-12 of the prior.

    Args:
        index: The index posterior on the cells of the codes.
        model: The generative model.
        boxes: The number of boxes. With one, the decoder alone decides.
    """

    def __init__(self, index: GridPosterior, model: DecoderModel, boxes: int):
        self.index, self.model, self.boxes = index, model, boxes

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
        found = [self._near(each) for each in x.double().split(max(1, ENTRIES_AT_ONCE // (CELLS * x.shape[1])))]
        log_index, cells = zip(*found, strict=True)
        return torch.cat(log_index), torch.cat(cells)

    def _near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coarse, fine = (each.to(x.device) for each in self._means)
        of_code, of_cell = (each.to(x.device) for each in self._boxes)
        children = len(fine) // len(coarse)
        prior = self.coarse.mass.log().to(x.device)
        score = prior + likelihood_of(self.model).compared(x, coarse)
        top = score.topk(min(CELLS // children, len(coarse)), 1).indices
        cells = (top[..., None] * children + torch.arange(children, device=x.device)).flatten(1)
        likelihood = likelihood_of(self.model)
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

    def best(self, model: DecoderModel, x: Tensor) -> GridPosterior:  # noqa: ARG002
        """The weights of the fine cells with the highest ELBO: those of the decoder, with one box."""
        return RefinedPosterior(self.index, model, boxes=1)
