"""Images of a fitted model: what is kept of it, for plots."""

import torch

from bench.metrics import Evaluator
from bench.metrics.images import images
from bench.store.schema import DATA, POINT, RECONSTRUCTION, SAMPLE
from datasets.base import Observations, draw
from methods.contract.method import Fitted, Posterior


class Linear:
    """A model that puts the code in the first pixel, and ones in the others."""

    def decode(self, z):
        return torch.cat([z, torch.ones(*z.shape[:-1], 5)], -1)

    def variance(self):
        return 1.0


class Exact(Posterior):
    """q(z | x) at the first pixel."""

    def sample(self, x, count, generator):
        return x[:, :1].expand(count, -1, -1), torch.zeros(count, len(x))


def test_reconstructions_are_of_the_test_points_and_samples_of_the_prior():
    test = torch.arange(72.0).view(12, 6)
    rows = images("vae", Fitted(Linear(), Exact()), test, 1, 3, 0)
    by_kind = {kind: [row for row in rows if row[1] == kind] for kind in (POINT, RECONSTRUCTION, SAMPLE)}
    assert [len(each) for each in by_kind.values()] == [10, 10, 10]
    assert [(row[0], row[2], row[3]) for row in by_kind[POINT]] == [(DATA, k, 3) for k in range(10)]
    assert [row[4] for row in by_kind[POINT]] == test[:10].tolist()
    assert [row[4] for row in by_kind[RECONSTRUCTION]] == [[6.0 * k, 1, 1, 1, 1, 1] for k in range(10)]
    codes = torch.tensor([row[4][0] for row in by_kind[SAMPLE]])
    assert codes.abs().max() < 4
    assert rows == images("vae", Fitted(Linear(), Exact()), test, 1, 3, 0)


def test_points_that_are_no_images_have_none():
    data = torch.rand(300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for shape, count in ((None, 0), ((2, 3), 30)):
        source = Observations("small", 1, data, image_shape=shape)
        evaluator = Evaluator(source, draw(source, 0, 20, 20, 250), 0)
        assert len(evaluator.images("vae", Fitted(Linear(), Exact()))) == count
