"""Grids of latent space, and posteriors that reweight the prior on the cells of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import DecoderModel, Posterior, likelihood_of

EDGE = 1e-16
COARSEST = 256
LEAST_MASS = 1e-9
MOST_CELLS = 60_000
MOST_COORDINATES = 100  # of x, given which a grid of the plane still resolves the posterior
NODES_PER_CELL = 4
CELLS_AT_ONCE = 256
NEGLIGIBLE = 1e-30
LOWEST_EXPONENT = -40.0  # the lowest exponent: exp of less gives denormal numbers, and these make arithmetic slow


@dataclass(frozen=True)
class LatentGrid:
    """A partition of latent space into N cells, which are boxes in u = Phi(z), the cube of the prior's quantiles.

    Args:
        low: The lower corner of each cell in u, (N, L).
        high: The upper corner of each cell in u, (N, L).
    """

    low: Tensor
    high: Tensor

    @staticmethod
    def equal(n: int, latent_dim: int) -> LatentGrid:
        """A grid of n cells of equal mass under the prior.

        It is a balanced k-d tree: a box for n cells is cut along one axis after another, in the proportion of
        ceil(n/2) to floor(n/2). For L = 1 the cells are the n quantile intervals, in order.
        """
        low, high = torch.zeros(1, latent_dim).double(), torch.ones(1, latent_dim).double()
        share = torch.tensor([n])
        axis = 0
        while share.max() > 1:
            low, high, share = _cut(low, high, share, axis)
            axis = (axis + 1) % latent_dim
        return LatentGrid(low, high)

    @staticmethod
    def intervals(mass: Tensor) -> LatentGrid:
        """Intervals of given masses under the prior, (N,), in order (L = 1)."""
        above = (mass.double() / mass.double().sum()).cumsum(0).clamp(max=1)[:, None]
        above[-1] = 1.0
        return LatentGrid(torch.cat([above.new_zeros(1, 1), above[:-1]]), above)

    @staticmethod
    def resolving(decode: Callable[[Tensor], Tensor], latent_dim: int, step: float) -> LatentGrid:
        """A grid that resolves a decoder: across each cell it moves by at most `step`, or the mass is negligible.

        Cells are halved until that holds or their number reaches 60,000.

        Args:
            decode: The decoder, (..., L) -> (..., D).
            latent_dim: L.
            step: The largest movement across a cell, in data units.

        Returns:
            The grid, in the order of the first axis.
        """
        open_cells = LatentGrid.equal(COARSEST, latent_dim)
        done: list[Tensor] = []
        while True:
            moved = open_cells.movement(decode)
            split = (moved.amax(1) > step) & (open_cells.mass > LEAST_MASS)
            if sum(map(len, done)) + len(split) >= MOST_CELLS or not split.any():
                done.append(torch.stack([open_cells.low, open_cells.high], 1))
                break
            done.append(torch.stack([open_cells.low[~split], open_cells.high[~split]], 1))
            axis = torch.nn.functional.one_hot(moved[split].argmax(1), latent_dim).double()
            low, high = open_cells.low[split], open_cells.high[split]
            half = axis * (high - low) / 2
            open_cells = LatentGrid(torch.cat([low, low + half]), torch.cat([high - half, high]))
        corners = torch.cat(done)
        low, high = corners[corners[:, 0, 0].argsort(stable=True)].unbind(1)
        return LatentGrid(low, high)

    def divided(self, parts: int) -> LatentGrid:
        """Each cell cut into `parts` equal intervals along each axis; those of cell i are i m, ..., i m + m - 1.

        Args:
            parts: The number of intervals; m is parts to the power of L.
        """
        latent_dim = self.low.shape[1]
        place = torch.cartesian_prod(*[torch.arange(parts).double()] * latent_dim).view(-1, latent_dim)
        width = ((self.high - self.low) / parts)[:, None]
        low = (self.low[:, None] + width * place).flatten(0, 1)
        return LatentGrid(low, low + width.expand(-1, len(place), -1).flatten(0, 1))

    @property
    def mass(self) -> Tensor:
        """The mass of each cell under the prior, (N,)."""
        return (self.high - self.low).prod(1)

    @cached_property
    def codes(self) -> Tensor:
        """The code of each cell, its centre in u mapped to z: (N, L)."""
        return _to_latent((self.low + self.high) / 2)

    def movement(self, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """How far `decode` moves from face to face of each cell through its centre, along each axis: (N, L)."""
        middle = (self.low + self.high) / 2
        axes = torch.eye(middle.shape[1], dtype=torch.bool)[:, None, None]
        faces = torch.where(axes, torch.stack([self.low, self.high]), middle)  # (L, 2, N, L)
        centre = decode(self.codes).double()
        return (decode(_to_latent(faces)).double() - centre).norm(dim=-1).sum(1).T.cpu()

    def points(self, index: Tensor, u: Tensor) -> Tensor:
        """The codes at relative positions u in [0, 1]^L of the cells `index`: (...), (..., L) -> (..., L)."""
        low, high = self.low.to(index.device)[index], self.high.to(index.device)[index]
        return _to_latent(low + (high - low) * u)

    def cells(self, z: Tensor) -> Tensor:
        """The index of the cell that holds each code: (m, L) -> (m,)."""
        u = ndtr(z.double()).clamp(EDGE, 1 - EDGE)[:, None]
        low, high = self.low.to(z.device), self.high.to(z.device)
        return ((u >= low) & (u < high)).all(-1).byte().argmax(1)

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of the prior within each of the cells `index`: (...) -> (..., L)."""
        shape = (*index.shape, self.low.shape[1])
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device=index.device)
        return self.points(index, u)


def codebook(count: int, latent_dim: int) -> LatentGrid:
    """A grid whose cells have equal mass under N(0, (1 + 2/L) I): finer in the tails than cells of equal prior mass.

    At this density of codes a quantiser of N(0, I) has the least squared error (Zador 1982).

    Args:
        count: Number of cells.
        latent_dim: L.
    """
    wider = math.sqrt(1 + 2 / latent_dim)
    equal = LatentGrid.equal(count, latent_dim)
    return LatentGrid(ndtr(wider * ndtri(equal.low)), ndtr(wider * ndtri(equal.high)))


def _to_latent(u: Tensor) -> Tensor:
    return ndtri(u.clamp(EDGE, 1 - EDGE))


def _cut(low: Tensor, high: Tensor, share: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Halve the boxes that stand for several cells along an axis; the order of boxes stays."""
    first = (share + 1) // 2
    middle = low[:, axis] + (high - low)[:, axis] * first / share
    lows, highs = low.repeat_interleave(2, 0), high.repeat_interleave(2, 0)
    highs[0::2, axis] = middle
    lows[1::2, axis] = middle
    shares = torch.stack([first, share - first], 1).flatten()
    return lows[shares > 0], highs[shares > 0], shares[shares > 0]


class GridPosterior(Posterior):
    """q(z | x) = sum_i p(i | x) p(z | z in cell i), the prior reweighted on each cell of a grid.

    Where every cell has mass 1/N, KL(q(z | x) || prior) = KL(p(i | x) || uniform) exactly.

    Args:
        log_index: log p(i | x), normalised over the N cells, (n, D) -> (n, N).
        grid: The grid.
    """

    def __init__(self, log_index: Callable[[Tensor], Tensor], grid: LatentGrid):
        self.log_index = log_index
        self.grid = grid
        self.log_mass = grid.mass.log()

    def near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cells in which z may be, and their log-probabilities in nats: (n, D) -> (n, C), (n, C).

        Here they are all cells. A posterior on many cells that are mostly empty names only some.
        """
        log_index = self.log_index(x)
        return log_index, torch.arange(log_index.shape[1], device=log_index.device).expand_as(log_index)

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities log p(i | x) - log mass of i + log N(z; 0, I), (count, n)."""
        log_index, cells = self.near(x)
        chosen = torch.multinomial(log_index.exp(), count, replacement=True, generator=generator)
        index = cells.gather(1, chosen).T
        z = self.grid.draw(index, generator)
        log_weight = log_index.gather(1, chosen).T - self.log_mass.to(index.device)[index]
        return z, log_weight + standard_normal_log_prob(z)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code: (m, L), (n, D) -> (m, n)."""
        cells = self.grid.cells(z)
        log_weight = self.log_index(x).T[cells] - self.log_mass.to(z.device)[cells, None]
        return log_weight + standard_normal_log_prob(z)[:, None]

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """Map u to codes: its first coordinate selects the cell, and all coordinates the place in it.

        Args:
            x: Data, (n, D).
            u: Points of the unit cube, (m, L).

        Returns:
            Codes, (m, n, L).
        """
        log_index, cells = self.near(x)
        probability = log_index.exp()
        above = probability.cumsum(1)
        first = u[:, 0].to(above) * above[:, -1:]
        index = torch.searchsorted(above, first.contiguous()).clamp(max=above.shape[1] - 1)
        chosen = probability.gather(1, index)
        within = ((first - above.gather(1, index) + chosen) / chosen.clamp(min=torch.finfo(above.dtype).tiny)).T
        others = u[:, None, 1:].to(above).expand(-1, len(x), -1)
        return self.grid.points(cells.gather(1, index).T, torch.cat([within.clamp(0, 1)[..., None], others], -1))

    def best(self, model: DecoderModel, x: Tensor) -> GridPosterior:
        """The weights of the cells with the highest ELBO for each x, in closed form.

        p(i | x) is proportional to the mass of cell i times exp of the mean of log p(x | z) in it. The mean is taken
        over four points of the cell.
        """
        n, latent_dim = self.grid.low.shape
        inside = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=0).draw(NODES_PER_CELL).double()
        nodes = self.grid.points(torch.arange(n)[:, None].expand(-1, NODES_PER_CELL), inside.expand(n, -1, -1))
        decoded = model.decode(nodes.flatten(0, 1).to(x.device)).double()
        value = likelihood_of(model).compared(x.double(), decoded, NODES_PER_CELL)
        log_index = torch.log_softmax(self.log_mass.to(x.device) + value, 1)
        return GridPosterior(lambda _: log_index, self.grid)


def resolving(model: DecoderModel, latent_dim: int, step: float) -> LatentGrid:
    """A grid that resolves the decoder of a model.

    Args:
        model: The generative model.
        latent_dim: L.
        step: The largest movement across a cell, in standard deviations of the noise (in the Fisher metric).
    """
    likelihood = likelihood_of(model)
    return LatentGrid.resolving(lambda z: likelihood.embed(model.decode(z)), latent_dim, step * likelihood.unit)


def exact_posterior(model: DecoderModel, latent_dim: int, step: float = 0.5) -> GridPosterior:
    """The posterior p(z | x) of a model on a grid so fine that within a cell it has nearly the shape of the prior.

    Args:
        model: The generative model.
        latent_dim: L.
        step: The largest movement of the decoder across a cell, in standard deviations of the noise.
    """
    return posterior_on(model, resolving(model, latent_dim, step))


def posterior_on(model: DecoderModel, grid: LatentGrid) -> GridPosterior:
    """The posterior of a model at its present weights on a given grid, from its likelihood at the cells' codes."""
    decoded, likelihood = model.decode(grid.codes).double(), likelihood_of(model)
    offset = grid.mass.log().to(decoded.device) - likelihood.log_partition(decoded)

    def log_index(x: Tensor) -> Tensor:
        return torch.log_softmax(likelihood.affinity(x.double(), decoded.to(x.device), offset.to(x.device)), 1)

    return GridPosterior(log_index, grid)


def index_without_codes(posterior: GridPosterior, train: Tensor) -> Callable[[Tensor], Tensor]:
    """The index posterior that a model implies: q(i | x) proportional to the integral of p(x | z) p(z | x_i) dz.

    Of all index posteriors that know the model but not the codes of the training points, it is nearest to the true one
    on average.

    Args:
        posterior: The posterior p(z | x) of the model on a grid.
        train: Training points, (N, D).

    Returns:
        log q(i | x), (n, D) -> (n, N), in nats.
    """
    of_train, grid_mass = cache(lambda: posterior.log_index(train).exp()), posterior.grid.mass

    def log_index(x: Tensor) -> Tensor:
        same = x.shape == train.shape and bool((x == train).all())
        of_x = of_train() if same else posterior.log_index(x).exp()
        joint = torch.zeros(len(x), len(train), dtype=of_x.dtype, device=x.device)
        blocks = (each.split(CELLS_AT_ONCE, -1) for each in (of_x, of_train(), grid_mass.to(x.device)))
        for left, right, mass in zip(*blocks, strict=True):
            rows, columns = ((each.amax(1) > NEGLIGIBLE).nonzero()[:, 0] for each in (left, right))
            joint[rows[:, None], columns] += (left[rows] / mass) @ right[columns].T
        return torch.log(joint / joint.sum(1, keepdim=True))

    return log_index
