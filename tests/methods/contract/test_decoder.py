"""The decoder's architecture, and its agreement with the study's settings."""

from typing import get_args

import pytest
import torch

from bench.config.schema import Activation, Conditions
from methods.contract.architecture import ACTIVATION, ACTIVATIONS, HIDDEN
from methods.contract.decoder import build_model, mlp


def test_a_study_can_ask_for_every_activation():
    assert sorted(get_args(Activation)) == sorted(ACTIVATIONS)
    assert ACTIVATION in ACTIVATIONS


def test_a_study_has_the_default_architecture_of_methods():
    defaults = Conditions()
    assert (defaults.hidden, defaults.activation) == (HIDDEN, ACTIVATION)


def test_an_unknown_activation_is_refused_with_those_available():
    with pytest.raises(ValueError, match=r"^unknown activation 'swish'; available: silu, tanh, relu, gelu, linear$"):
        mlp([1, 2], "swish", torch.Generator())


def test_a_linear_decoder_has_one_layer_and_its_encoders_keep_theirs():
    model = build_model(torch.randn(5, 3), 2, 1.0, torch.Generator(), hidden=(7, 5), activation="linear")
    assert [type(layer).__mro__[1] for layer in model.network] == [torch.nn.Linear]
    assert model.hidden == (7, 5)
    assert model.activation == "linear"
