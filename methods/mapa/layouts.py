"""Layouts of atoms in the plane that keep neighbours together, by methods with different failures.

Isomap and t-SNE see distances only. Noise and a roll's layers make shortcuts between points that are far apart on the
surface, and no such layout can open a closed surface. `sheet` and `angles` therefore find the surface first:

- `flattened` moves the training points to their tangent planes and makes distances across these planes count more, so
  that the neighbours of a point lie on its own layer. `sheet` is Isomap on these distances.
- `angles` finds two coordinates, each an angle or a position. The first is the angle of the two slowest functions of a
  diffusion on the surface (Coifman & Lafon 2006). The second is that of the two slowest ones that no function of the
  first explains, under a diffusion that is faster along the first. Closed coordinates are cut where data are sparsest.

Nothing here runs in torch, so all work is charged by formula. CHARGES states the formulas, for n atoms in D dimensions,
L latent dimensions and k neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from methods.contract.method import Ledger

Array = NDArray[np.float64]

SHEET_NEIGHBOURS = 6
NEIGHBOURS = (8, 12)
ISOMAP_NEIGHBOURS = 8
TSNE_PERPLEXITY = 60
TSNE_STEPS = 500
LEAST = 20
DENSE_EIGENSOLVER = 200
ROUNDS = 4
FLAT = 0.5
ACROSS = 4.0
SLACK = 2.0
WIDE = 40
FASTER = 4.0
HARMONICS = 4
OPEN = 0.25
CHARGES = {
    "principal axes": "4 n^2 D + 8 n D^2 + 9 D^3, a whole singular value decomposition",
    "distinct": "n D (log2 n + 6)",
    "tangent planes": "4 n (n (9 D + log2 n) + 4 k^2 D + 8 k D^2 + 9 min(k, D)^3), with an SVD for each atom",
    "layout isomap-k": "3 D n^2 + n^2 k log2 n + 6 n^2, and 60 L n^2 (4/3 n^3 for n <= 200) for the eigenvectors",
    "layout sheet-k": "as isomap-k",
    "layout angles-k": "8/3 n^3 for eigenvectors, and n^2 (100 + log2 n)",
    "layout tsne-p": "3 D n^2 + 5,000 n (3 p + 20 log2 n)",
}
IN_PARTS = (
    "The number of connected components of the neighbors graph",
    "Changing the sparsity structure of a csr_matrix",
    "Graph is not fully connected",
)


def layouts(
    atoms: Array, points: Callable[[], Array], noise: float, ledger: Ledger
) -> Mapping[str, Callable[[], Array]]:
    """The layouts that suit these atoms, each made when it is called.

    Args:
        atoms: The atoms, (n, D).
        points: Makes the training points that they began at, (n, D). `flattened` removes the noise from them by itself.
        noise: The noise variance s2, in squared units of the points.
        ledger: Where the work is accounted for.

    Returns:
        Functions that return a layout, (n, 2), by name.
    """
    n, data_dim = atoms.shape
    ledger.charge("distinct", atoms.size * (np.log2(n) + 6))
    if distinct(atoms) <= ISOMAP_NEIGHBOURS:
        return {"principal axes": partial(principal_axes, atoms, 2, ledger)}
    points = cache(points)
    sheet = cache(lambda neighbours: flattened(points(), noise, ledger, neighbours))
    makers: dict[str, Callable[[], Array]] = {
        f"isomap-{ISOMAP_NEIGHBOURS}": partial(_isomap, ISOMAP_NEIGHBOURS, atoms),
        f"sheet-{SHEET_NEIGHBOURS}": lambda: _isomap(SHEET_NEIGHBOURS, sheet(NEIGHBOURS[0]).distance, "precomputed"),
    }
    if n > LEAST:
        perplexity = min(TSNE_PERPLEXITY, n // 4)
        makers |= {f"angles-{k}": partial(_angles, sheet, k) for k in NEIGHBOURS}
        makers[f"tsne-{perplexity}"] = partial(_tsne, perplexity, atoms)
    return {name: partial(_charged, name, make, (n, data_dim, 2), ledger) for name, make in makers.items()}


def _charged(name: str, make: Callable[[], Array], size: tuple[int, int, int], ledger: Ledger) -> Array:
    """A layout of n points in D dimensions in L, charged for the `size` n, D and L."""
    ledger.charge(f"layout {name}", layout_flops(name, *size))
    with _sealed():
        return make()


def isomap(points: Array, latent_dim: int, ledger: Ledger) -> Array:
    """A layout that keeps distances along the data, with 12 neighbours (Tenenbaum et al. 2000).

    Args:
        points: The points, (n, D).
        latent_dim: L, below n.
        ledger: Where the work is accounted for.

    Returns:
        The layout, (n, L).
    """
    neighbours = min(NEIGHBOURS[1], len(points) - 1)
    make = partial(_isomap, neighbours, points, latent_dim=latent_dim)
    return _charged(f"isomap-{neighbours}", make, (*points.shape, latent_dim), ledger)


def _isomap(neighbours: int, points: Array, metric: str = "minkowski", latent_dim: int = 2) -> Array:
    from sklearn.manifold import Isomap

    found: Array = Isomap(n_neighbors=neighbours, n_components=latent_dim, metric=metric).fit_transform(points)
    return found


def _tsne(perplexity: int, points: Array) -> Array:
    from sklearn.manifold import TSNE

    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1, max_iter=TSNE_STEPS)
    found: Array = tsne.fit_transform(points).astype(np.float64)
    return found


@contextmanager
def _sealed() -> Iterator[None]:
    """Silence warnings about disconnected neighbour graphs, and restore numpy's global generator afterwards.

    Clustered data are no mistake. Isomap's eigensolver draws its start from the global generator, and accepts no other.
    """
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            for message in IN_PARTS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def layout_flops(name: str, n: int, data_dim: int, latent_dim: int) -> float:
    """The FLOPs of a layout, without those of the tangent planes that it may need.

    Isomap: n shortest-path searches (n k log2 n each), centring, and 30 products of an n x n matrix with L vectors, or
    for n <= 200 a dense eigensolver. Angles: two dense eigensolvers. t-SNE: 500 steps on 3 x perplexity neighbours and
    a Barnes-Hut tree (10 FLOPs a pair).

    Args:
        name: The name of the layout, isomap-k, sheet-k, angles-k or tsne-p, with k neighbours or perplexity p.
        n: Number of points.
        data_dim: D.
        latent_dim: L.
    """
    kind, _, size = name.partition("-")
    pairs, neighbours = 3.0 * n * n * data_dim, float(size)
    if kind == "angles":
        return 8 / 3 * n**3 + n * n * (100 + np.log2(n))
    if kind == "tsne":
        return pairs + 10.0 * TSNE_STEPS * n * (3 * neighbours + 20 * np.log2(n))
    eigenvectors = 4 / 3 * n**3 if n <= DENSE_EIGENSOLVER else 60.0 * n * n * latent_dim
    return pairs + n * n * neighbours * np.log2(n) + 6.0 * n * n + eigenvectors


@dataclass(frozen=True)
class Sheet:
    """Points on a surface.

    Args:
        points: Their places on the surface, (n, D).
        planes: An orthonormal basis of the tangent plane at each, (n, 2, D).
        distance: The distances between them, in which those across a tangent plane count more, (n, n).
    """

    points: Array
    planes: Array
    distance: Array


def flattened(points: Array, noise: float, ledger: Ledger, neighbours: int) -> Sheet:
    """Move points to the tangent planes through their neighbours, four times, with neighbours that are found anew.

    Two points at distance d, which lie up to a from each other's tangent plane, have the distance
    sqrt(d^2 + (4 max(0, a - 2 s))^2), with s the standard deviation of the noise.

    Args:
        points: The points, (n, D).
        noise: The noise variance s2, in squared units of the points.
        ledger: Where the work is accounted for.
        neighbours: k, the number of neighbours that span a tangent plane.
    """
    n, data_dim = points.shape
    svd = 4.0 * neighbours**2 * data_dim + 8 * neighbours * data_dim**2 + 9 * min(neighbours, data_dim) ** 3
    ledger.charge("tangent planes", ROUNDS * n * (n * (9.0 * data_dim + np.log2(n)) + svd))
    distance = _distances(points)
    planes = np.zeros((n, 2, data_dim))
    for _ in range(ROUNDS):
        near = np.argsort(distance, 1, kind="stable")[:, : neighbours + 1]
        reach = np.take_along_axis(distance, near, 1)
        weight = np.exp(-0.5 * np.square(reach / np.maximum(reach[:, -1:], _tiny(distance))))[..., None]
        centre = (weight * points[near]).sum(1) / weight.sum(1)
        planes = np.linalg.svd((points[near] - centre[:, None]) * np.sqrt(weight), full_matrices=False)[2][:, :2]
        along = np.einsum("nld,nd->nl", planes, points - centre)
        points = FLAT * (centre + np.einsum("nld,nl->nd", planes, along)) + (1 - FLAT) * points
        plain = _distances(points)
        within = sum(np.square(_displacements(points, plane)) for plane in planes.swapaxes(0, 1))
        across = np.sqrt(np.maximum(np.square(plain) - within, 0))
        across = np.maximum(np.maximum(across, across.T) - SLACK * np.sqrt(noise), 0)
        distance = np.sqrt(np.square(plain) + np.square(ACROSS * across))
    return Sheet(points, planes, distance)


def _distances(points: Array) -> Array:
    from scipy.spatial.distance import cdist

    found: Array = cdist(points, points)
    return found


def _displacements(points: Array, axis: Array) -> Array:
    """How far every point lies from point i along its axis, (n, n), from one axis for each point, (n, D)."""
    along = axis @ points.T
    return along - along.diagonal()[:, None]


def _tiny(distance: Array) -> float:
    """A length below which points are equal."""
    return max(1e-9 * float(distance.max()), np.finfo(np.float64).tiny)


def _angles(sheet: Callable[[int], Sheet], neighbours: int) -> Array:
    return angles(sheet(neighbours), neighbours)


def angles(sheet: Sheet, neighbours: int) -> Array:
    """Two coordinates of a surface, each closed or open, as normal scores.

    Args:
        sheet: The surface.
        neighbours: k, the number of neighbours that spread at once.

    Returns:
        Coordinates, (n, 2).
    """
    n = len(sheet.points)
    near = np.argsort(sheet.distance, 1, kind="stable")[:, 1 : WIDE + 1]
    reach = np.take_along_axis(sheet.distance, near, 1)[:, min(neighbours, n - 1) - 1]
    scale = np.maximum(reach, _tiny(sheet.distance))
    linked = np.zeros((n, n))
    np.put_along_axis(linked, near[:, :neighbours], 1.0, 1)
    kernel = np.maximum(linked, linked.T) * np.exp(-np.square(sheet.distance) / (scale[:, None] * scale))
    functions = _slowest(*_diffusion(kernel), np.ones((n, 1)))
    first = np.arctan2(functions[:, 1], functions[:, 0])

    steps = np.einsum("nld,nkd->nkl", sheet.planes, sheet.points[near] - sheet.points[:, None])
    turns = first[near] - first[:, None]
    slope = _gradient(steps[:, :neighbours], (turns[:, :neighbours] + np.pi) % (2 * np.pi) - np.pi)
    beside = np.stack([-slope[:, 1], slope[:, 0]], 1)
    path = np.hypot(np.einsum("nkl,nl->nk", steps, beside), np.einsum("nkl,nl->nk", steps, slope) / FASTER)
    width = max(float(np.quantile(path, neighbours / WIDE)), _tiny(sheet.distance))
    kernel = np.zeros((n, n))
    np.put_along_axis(kernel, near, np.exp(-0.5 * np.square(path / width)), 1)
    waves = [wave(m * first) for m in range(1, HARMONICS + 1) for wave in (np.cos, np.sin)]
    functions = _slowest(*_diffusion(kernel), np.stack([np.ones(n), *waves], 1))
    radius = np.hypot(functions[:, 0], functions[:, 1])
    closed = np.quantile(radius, 0.03) > OPEN * np.median(radius)
    second = _cut(np.arctan2(functions[:, 1], functions[:, 0])) if closed else functions[:, 0]
    return np.stack([_normal_scores(_cut(first)), _normal_scores(second)], 1)


def _diffusion(kernel: Array) -> tuple[Array, Array]:
    """The symmetric form of a diffusion that does not see the density of points, (n, n), and its degrees, (n,).

    Coifman & Lafon 2006, Diffusion Maps, section 3.1 with alpha = 1.
    """
    kernel = (kernel + kernel.T) / 2 + 1e-9 * np.eye(len(kernel))
    density = kernel.sum(1)
    kernel = kernel / density[:, None] / density
    degree = kernel.sum(1)
    root = np.sqrt(degree)
    return kernel / root[:, None] / root, degree


def _slowest(diffusion: Array, degree: Array, without: Array) -> Array:
    """The two functions that a diffusion changes least, (n, 2), of those that are orthogonal to others, (n, m).

    They have unit variance.
    """
    from scipy.linalg import eigh

    root, n = np.sqrt(degree)[:, None], len(degree)
    basis = np.linalg.qr(without * root)[0]
    seen = diffusion @ basis
    inner = basis @ (seen.T @ basis) @ basis.T - seen @ basis.T - basis @ seen.T
    found: Array = eigh(diffusion + inner, subset_by_index=[n - 2, n - 1])[1][:, ::-1] / root
    spread = found.std(0)
    return found / np.where(spread > 0, spread, 1.0)


def _gradient(steps: Array, rises: Array) -> Array:
    """The direction in which a function rises, (n, 2), by least squares on steps (n, k, 2) and its rises (n, k)."""
    squares = np.einsum("nka,nkb->nab", steps, steps)
    trace = np.trace(squares, axis1=1, axis2=2)
    ridge = np.maximum(0.02 * trace, np.finfo(np.float64).tiny)[:, None, None] * np.eye(2)
    found = np.linalg.solve(squares + ridge, np.einsum("nka,nk->na", steps, rises)[..., None])[..., 0]
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(length > 0, found / np.where(length > 0, length, 1.0), [1.0, 0.0])


def _cut(angle: Array) -> Array:
    """Angles from where the gap between them is widest, in [0, 2 pi)."""
    inside = np.sort(angle)
    gaps = np.diff(inside, append=inside[0] + 2 * np.pi)
    return (angle - inside[(gaps.argmax() + 1) % len(inside)]) % (2 * np.pi)


def _normal_scores(position: Array) -> Array:
    from scipy.special import ndtri

    ranks = position.argsort(kind="stable").argsort(kind="stable")
    found: Array = ndtri((ranks + 0.5) / len(ranks))
    return found


def principal_axes(points: Array, count: int, ledger: Ledger) -> Array:
    """The first principal components of points (n, D): (n, count), padded with zeros."""
    n, dim = points.shape
    ledger.charge("principal axes", 4.0 * n * n * dim + 8 * n * dim**2 + 9 * dim**3)
    centred = points - points.mean(0)
    along = centred @ np.linalg.svd(centred)[2][:count].T
    return np.pad(along, ((0, 0), (0, count - along.shape[1])))


def distinct(points: Array) -> int:
    """How many points differ by more than rounding. The atoms of equal points differ by rounding only."""
    centred = points - points.mean(0)
    unit = max(1e-9 * np.abs(centred).max(), 1e-14 * np.abs(points).max())
    return len(np.unique((centred / unit).round(), axis=0)) if unit > 0 else 1
