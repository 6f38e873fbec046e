"""Placement: where in latent space the codes lie, such that f is smooth and the codes follow the prior.

The index posterior says which points share a code, but not where the codes are. No placement is the only right one,
since f and p(z) are identified only up to reparameterisation: any layout that keeps similar points together serves.
Each public ordering is a permutation of 0..N-1: entry n is the index of the code of row n.

Nothing here runs in torch, so all work is charged by formula. CHARGES states the formulas, for n points in D
dimensions, m nodes of a path and L latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from methods.mapa.layouts import distinct, layouts, principal_axes

if TYPE_CHECKING:
    from methods.contract.method import Ledger

Array = NDArray[np.float64]
Order = NDArray[np.int64]

STARTS = 10  # of a path, about

CHARGES = {
    "k-means": "n m ((3 D + 1) (iterations + 1) + (3 D + 2) (2 + ln m)): Lloyd's steps, and k-means++ with its trials",
    "node distances": "(3 D + 1) m^2",
    "nearest neighbours": "m^2 for each start of a path",
    "2-opt": "2.5 m^2 for each sweep over all pairs",
    "path projection": "(8 D + 5) n m",
    "ranks": "n log2 n",
    "distances": "3 L n^2",
    "transport": "n^3",
}


def candidates(
    atoms: Array,
    points: Callable[[], Array],
    codes: Array,
    noise: float,
    centres: int,
    ledger: Ledger,
    only: str = "best",
    truth: Array | None = None,
) -> Iterator[tuple[str, Order]]:
    """Placements of K atoms on K codes. The caller keeps the one that fits best.

    Args:
        atoms: The atoms of the mixture, (K, D), in units in which the noise has the same variance everywhere.
        points: Makes the training points that the atoms began at, (K, D), in the same units; for layouts alone.
        codes: The codes, (K, L).
        noise: The noise variance s2, in squared units of the atoms.
        centres: Number of k-means centres on the path (L = 1).
        ledger: Where the work is accounted for.
        only: 'best' for all placements, 'first', 'random', 'truth', or the name of a placement or its beginning.
        truth: The codes of the atoms under the true model, (K, L); None where it is not seen.

    Yields:
        The name of a placement, and the index of the code of each atom, (K,).

    Raises:
        ValueError: If L is above 2, or if there is no such placement.
    """
    if codes.shape[1] > 2:
        raise ValueError(f"mapa places codes in 1 or 2 latent dimensions, got {codes.shape[1]}")
    makers = _makers(atoms, points, codes, noise, centres, ledger)
    if only == "random":
        makers = {only: lambda: np.random.default_rng(0).permutation(len(atoms))}
    if truth is not None:
        makers = {only: lambda: transport(truth, codes, ledger)}
    chosen = list(makers)[: 1 if only == "first" else None]
    if only not in ("best", "first"):
        chosen = [name for name in makers if name.startswith(only)]
    if not chosen:
        raise ValueError(f"placement must be best, first, random, truth, {', '.join(makers)}, got {only!r}")
    for name in chosen:
        yield name, makers[name]()


def _makers(
    atoms: Array, points: Callable[[], Array], codes: Array, noise: float, centres: int, ledger: Ledger
) -> dict[str, Callable[[], Order]]:
    """What makes each placement that suits these dimensions."""
    if codes.shape[1] == 1:
        return {"path": lambda: path_order(atoms, centres, ledger)}
    data = {"transport": lambda: transport(atoms, codes, ledger)} if atoms.shape[1] == 2 else {}
    return data | {
        name: lambda make=make: transport(make(), codes, ledger)
        for name, make in layouts(atoms, points, noise, ledger).items()
    }


def path_order(atoms: Array, centres: int, ledger: Ledger) -> Order:
    """The ranks of atoms along a short open path through their k-means centres.

    Args:
        atoms: The atoms, (N, D).
        centres: Number of k-means centres.
        ledger: Where the work is accounted for.

    Returns:
        Ranks, (N,).
    """
    from sklearn.cluster import KMeans

    n, dim = atoms.shape
    ledger.charge("distinct", n * dim * (np.log2(n) + 6))
    count = min(centres, distinct(atoms))
    ledger.charge("ranks", n * np.log2(n))
    if count < 2:
        return _ranks(atoms[:, 0])
    if count < 3:
        return _ranks(principal_axes(atoms, 1, ledger)[:, 0])
    kmeans = KMeans(count, n_init=1, random_state=0).fit(atoms)
    ledger.charge("k-means", kmeans_flops(n, count, dim, kmeans.n_iter_))
    nodes = kmeans.cluster_centers_
    ledger.charge("node distances", (3.0 * dim + 1) * count**2)
    path = shortest_path(np.linalg.norm(nodes[:, None] - nodes, axis=-1), ledger)
    ledger.charge("path projection", (8.0 * dim + 5) * n * count)
    return _ranks(_position_along(atoms, nodes[path]))


def kmeans_flops(n: int, centres: int, dim: int, iterations: int) -> float:
    """The FLOPs of k-means: the start, Lloyd's steps and a last assignment.

    The start is scikit-learn's greedy k-means++, which tries 2 + ln m points for each of m centres.

    Args:
        n: Number of points.
        centres: m, the number of centres.
        dim: D, the dimension of a point.
        iterations: Number of Lloyd's steps.
    """
    trials = 2 + int(np.log(centres))
    return n * centres * ((3.0 * dim + 1) * (iterations + 1) + (3 * dim + 2) * trials)


def _ranks(position: Array) -> Order:
    order = np.argsort(position, kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _position_along(points: Array, path: Array) -> Array:
    """Arc length at which each point (n, D) is nearest to a polyline (m, D) that is extended at both ends."""
    start, step = path[:-1], np.diff(path, axis=0)
    length = np.linalg.norm(step, axis=1)
    low, high = np.zeros(len(step)), np.ones(len(step))
    low[0], high[-1] = -np.inf, np.inf
    fraction = np.clip(((points[:, None] - start) * step).sum(-1) / length**2, low, high)
    distance = np.linalg.norm(points[:, None] - start - fraction[..., None] * step, axis=-1)
    segment = distance.argmin(1)
    reached = np.concatenate([[0.0], length.cumsum()])
    return reached[segment] + fraction[np.arange(len(points)), segment] * length[segment]


def shortest_path(distance: Array, ledger: Ledger) -> Order:
    """A short open path through m >= 2 nodes: nearest neighbour from several starts, then 2-opt.

    Args:
        distance: The distances between nodes, (m, m).
        ledger: Where the work is accounted for.

    Returns:
        The nodes in the order of the path, (m,).
    """
    m = len(distance)
    starts = range(0, m, max(1, m // STARTS))
    ledger.charge("nearest neighbours", len(starts) * m**2)
    paths = [_two_opt(distance, _greedy(distance, first), ledger) for first in starts]
    return min(paths, key=lambda path: float(distance[path[:-1], path[1:]].sum()))


def _greedy(distance: Array, first: int) -> Order:
    remaining = distance.copy()
    remaining[:, first] = np.inf
    path = [first]
    while len(path) < len(distance):
        path.append(int(remaining[path[-1]].argmin()))
        remaining[:, path[-1]] = np.inf
    return np.array(path, dtype=np.int64)


def _two_opt(distance: Array, path: Order, ledger: Ledger) -> Order:
    """Reverse sections of an open path, those at its ends included, as long as that shortens it."""
    m = len(path)
    # An extra node at distance 0 from all others, before the first and after the last, turns the path into a tour.
    padded = np.zeros((m + 1, m + 1))
    padded[:m, :m] = distance
    path = np.concatenate([[m], path, [m]])
    least = 1e-12 * padded.max()
    improved = True
    while improved:
        improved = False
        ledger.charge("2-opt", 2.5 * m * m)
        for i in range(m - 1):
            j = np.arange(i + 2, m + 1)
            before = padded[path[i], path[i + 1]] + padded[path[j], path[j + 1]]
            gain = before - padded[path[i], path[j]] - padded[path[i + 1], path[j + 1]]
            best = int(gain.argmax())
            if gain[best] > least:
                path[i + 1 : j[best] + 1] = path[i + 1 : j[best] + 1][::-1].copy()
                improved = True
    return path[1:-1]


def transport(layout: Array, codes: Array, ledger: Ledger) -> Order:
    """The optimal transport of a layout to codes: the assignment with the least sum of squared distances.

    The layout is standardised first, since codes follow the standard normal prior.

    Args:
        layout: The points of the layout, (N, L).
        codes: The codes, (N, L).
        ledger: Where the work is accounted for.

    Returns:
        The index of the code of each point, (N,).
    """
    from scipy.spatial.distance import cdist

    spread = layout.std(0)
    standard = (layout - layout.mean(0)) / np.where(spread > 0, spread, 1.0)
    ledger.charge("distances", 3.0 * len(codes) ** 2 * codes.shape[1])
    return assignment(cdist(standard, codes, "sqeuclidean"), ledger)


def assignment(cost: Array, ledger: Ledger) -> Order:
    """The one-to-one assignment of rows to columns with the least total cost.

    Args:
        cost: The costs, (n, n).
        ledger: Where the work is accounted for.

    Returns:
        The column of each row, (n,).
    """
    from scipy.optimize import linear_sum_assignment

    ledger.charge("transport", float(len(cost)) ** 3)
    order: Order = linear_sum_assignment(cost)[1]
    return order
