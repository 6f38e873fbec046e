"""The figure of images: each method's in its row, in the shape and the grey scale of the data."""

import numpy as np
import pandas as pd
import pytest

from bench.report.figures.images import beside_data, strip
from bench.store.schema import DATA, POINT, RECONSTRUCTION, SAMPLE


def table(methods):
    """Three images of 2 x 4 pixels of each kind, whose pixels tell method, kind and place."""
    rows = [(DATA, POINT, k) for k in range(3)]
    rows += [(method, kind, k) for method in methods for kind in (RECONSTRUCTION, SAMPLE) for k in range(3)]
    pixels = [[float(i)] * 3 + [i + 0.5] * 5 for i in range(len(rows))]
    found = pd.DataFrame(rows, columns=["method", "kind", "place"]).assign(width=4, pixels=pixels)
    return found.iloc[::-1]


def test_images_stand_side_by_side_in_their_order_and_shape():
    found = strip(table(["vae"]), DATA, POINT)
    assert found.shape == (2, 12)
    assert found[0].tolist() == [0, 0, 0, 0.5, 1, 1, 1, 1.5, 2, 2, 2, 2.5]
    assert found[1, ::4].tolist() == [0.5, 1.5, 2.5]


def test_each_method_has_a_row_in_the_grey_scale_of_the_data():
    images = table(["vae", "mapa"])
    fig = beside_data(images, ["vae", "mapa"], "digits")
    drawn = [ax.images[0] for ax in fig.axes]
    expected = [(DATA, POINT), *((m, k) for m in ("vae", "mapa") for k in (RECONSTRUCTION, SAMPLE))]
    assert len(drawn) == len(expected)
    for image, which in zip(drawn, expected, strict=True):
        assert np.array_equal(image.get_array(), strip(images, *which))
        assert image.get_clim() == (0, 2.5)
    assert {text.get_text() for text in fig.texts} >= {"digits", "data", "vae", "mapa", "samples"}


@pytest.mark.parametrize("name", ["mapa", "iterative[steps=20000]", "W" * 40])
def test_no_label_is_cut(name):
    fig = beside_data(table([name]), [name], "digits")
    fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    boxes = [text.get_window_extent() for text in fig.texts]
    assert name in {text.get_text() for text in fig.texts}
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
