"""Kept answers are those of the points that are asked about."""

import torch

from methods.common.kept import Kept


def asked():
    """A function that is kept, and the points that it was really asked about."""
    there = []
    return Kept(lambda x: there.append(x.clone()) or x.sum(1)), there


def test_the_last_two_sets_of_points_are_kept():
    kept, there = asked()
    first, second, third = (torch.full((4, 2), float(value)) for value in range(3))
    for points, calls in ((first, 1), (second, 2), (first.clone(), 2), (second, 2), (third, 3), (first, 4)):
        assert torch.equal(kept(points), points.sum(1))
        assert len(there) == calls


def test_points_that_change_in_place_are_other_points():
    kept, there = asked()
    x = torch.zeros(4, 2)
    kept(x)
    x += 1
    assert torch.equal(kept(x), torch.full((4,), 2.0))
    assert len(there) == 2


def test_points_of_another_shape_or_precision_are_other_points():
    kept, there = asked()
    x = torch.zeros(4, 2)
    for points in (x, x[:2], x.double()):
        assert kept(points).shape == points.shape[:1]
        assert kept(points).dtype == points.dtype
    assert len(there) == 3
