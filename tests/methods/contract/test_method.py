"""What a task and a method's hyperparameters refuse, and how they say so."""

import dataclasses
import math

import pytest
import torch

from methods.contract.method import require
from methods.vae import VAE

BROKEN = {
    "training data must be finite; 2 of 5 rows are not": torch.tensor(
        [[0.0, 1], [math.nan, 1], [2, math.inf], [3, 1], [4, 1]]
    ),
    "training data must be a matrix of one row or more, got shape (0, 2)": torch.zeros(0, 2),
    "training data must be a matrix of one row or more, got shape (5,)": torch.zeros(5),
}


@pytest.mark.parametrize("message", BROKEN)
def test_data_that_nothing_can_be_learned_from_are_refused(make_task, message):
    task = make_task("circle")
    with pytest.raises(ValueError, match=r"^training data must") as caught:
        dataclasses.replace(task, train=BROKEN[message])
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"^validation data must"):
        dataclasses.replace(task, validation=BROKEN[message])


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    rounds: int = 0


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_what_must_be_positive_is_named_with_what_was_got(value):
    with pytest.raises(ValueError, match=f"^rate must be positive, got {value}$"):
        require(Settings(rate=value), positive=["rate"], not_negative=["rounds"])


@pytest.mark.parametrize("value", [-1, -0.1, math.nan, -math.inf])
def test_what_must_not_be_negative_may_be_nought(value):
    require(Settings(rounds=0), positive=["rate"], not_negative=["rounds"])
    with pytest.raises(ValueError, match=f"^rounds must be at least 0, got {value}$"):
        require(Settings(rounds=value), positive=["rate"], not_negative=["rounds"])


def test_a_method_refuses_when_it_is_made():
    with pytest.raises(ValueError, match=r"^steps must be positive, got -5$"):
        VAE(steps=-5)
