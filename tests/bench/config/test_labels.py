"""Labels: how a method or dataset with parameters is asked for, spelled and turned into values."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from bench.common.errors import UsageError
from bench.config import labels
from bench.registry import registry as registries
from bench.registry.registry import registry
from datasets.base import Problem, draw


@dataclass(frozen=True)
class Typed:
    count: int = 3
    rate: float = 0.1
    flag: bool = False
    word: str = "a"
    most: int | None = None
    sizes: tuple = (1, 2)

    def fit(self, task):
        yield


def test_commas_within_brackets_do_not_separate():
    assert labels.split(" mapa,mapa[a=1,b=2] , vae[c=3]") == ("mapa", "mapa[a=1,b=2]", "vae[c=3]")
    assert labels.split('mapa[a=1,b=2],"x,y"') == ("mapa[a=1,b=2]", "x,y")


def test_none_is_not_the_word_for_it():
    assert labels.convert("x", None, str | None) is None
    assert labels.convert("x", "tanh", str | None) == "tanh"


@pytest.mark.parametrize("text", ["mapa,,vae", "mapa,", ",mapa", "mapa[a=1,b=2], ,vae"])
def test_a_name_that_is_missing_is_refused(text):
    with pytest.raises(UsageError, match="a name is missing between the commas of"):
        labels.split(text)


@pytest.mark.parametrize("text", ["1_000", "\uff11\uff12", "9" * 19, "9" * 401, "1e5", ""])
def test_whole_numbers_have_plain_digits_and_64_bits(text):
    with pytest.raises(ValueError, match=r".*"):
        labels.number(text, int)


def test_a_label_is_a_name_and_parameters():
    assert labels.parse("vae") == ("vae", {})
    assert labels.parse(" vae[ steps = 3 , word=a b]") == ("vae", {"steps": "3", "word": "a b"})


@pytest.mark.parametrize("text", ["a[", "a]", "a[]", "a[b]", "a[b=]", "a[=1]", "a[b=1]c", "a[b=1,b=2]", "a[b[c=1]]"])
def test_what_is_no_label_is_refused(text):
    with pytest.raises(UsageError, match="is not of the form NAME"):
        labels.parse(text)


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-12, 2.0, -3.5e30, 7, True, False, None, "word"])
def test_a_value_survives_its_spelling(value):
    found = labels.convert("x", labels.spell_value(value), type(value))
    assert (found, type(found)) == (value, type(value))


def test_values_take_the_type_of_their_field_in_declared_order():
    given = {"word": "3", "most": "none", "flag": "True", "rate": "2", "count": "4"}
    found = labels.converted("typed", Typed(), given)
    assert found == {"count": 4, "rate": 2.0, "flag": True, "word": "3", "most": None}
    assert list(found) == ["count", "rate", "flag", "word", "most"]
    assert isinstance(found["rate"], float)
    assert labels.converted("typed", Typed(), {"most": "5"}) == {"most": 5}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", "1.5", "typed.count must be a whole number, got '1.5'"),
        ("count", "1e3", "typed.count must be a whole number"),
        ("rate", "nan", "typed.rate must be a finite number, got 'nan'"),
        ("rate", "inf", "typed.rate must be a finite number"),
        ("rate", "fast", "typed.rate must be a finite number, got 'fast'"),
        ("flag", "1", "typed.flag must be true or false, got '1'"),
        ("most", "x", "typed.most must be a whole number or none, got 'x'"),
        ("sizes", "3", "typed.sizes cannot be set"),
        ("cuont", "3", r"unknown parameter of 'typed' 'cuont' - did you mean 'count'\? \(available: count, rate,"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name, value, message):
    with pytest.raises(UsageError, match=message):
        labels.converted("typed", Typed(), {name: value})


def test_assignments_are_grouped_by_method():
    found = labels.assignments(["vae.steps=3", "my.vae.word=a=b", "vae.rate=0.1"])
    assert found == {"vae": {"steps": "3", "rate": "0.1"}, "my.vae": {"word": "a=b"}}
    for text in (["vae"], ["vae.steps"], ["vae.steps="], ["steps=3"], [".steps=3"], ["vae.steps=3", "vae.steps=4"]):
        with pytest.raises(UsageError, match=r"--set takes METHOD\.PARAM=VALUE"):
            labels.assignments(text)


def test_there_is_one_spelling():
    known = registry()
    assert known.method_label("vae[ learning_rate=1e-2, steps=7]") == "vae[steps=7,learning_rate=0.01]"
    assert known.method_label("mapa[kernel_width=2.0]") == "mapa[kernel_width=2]"
    for label in ("circle[n_train=30, noise_variance=2e-2]", " circle[noise_variance=0.020,n_train=30]"):
        assert known.dataset_label(label) == "circle[n_train=30,noise_variance=0.02]"
    assert known.method_label("vae") == "vae"


def test_a_label_wins_over_what_is_given_with_it():
    known = registry()
    made = known.make_method("vae[steps=7]", {"steps": 9, "batch_size": "20"})
    assert (made.steps, made.batch_size) == (7, 20)
    assert known.parameters("vae[steps=7]", {"steps": 9, "batch_size": "20"}) == {"steps": 7, "batch_size": 20}
    assert known.make_method("vae") == type(made)()


def test_other_noise_keeps_the_draws_and_drops_what_no_longer_holds():
    known = registry()
    plain, noisy = known.make_problem("circle", None), known.make_problem("circle[noise_variance=0.04]", None)
    assert (plain.noise_variance, noisy.noise_variance, noisy.name) == (0.01, 0.04, "circle")
    first, second = (draw(problem, 3, 20, 5, 5) for problem in (plain, noisy))
    assert torch.equal(first.codes, second.codes)
    residuals = [split.train - plain.decoder(split.codes) for split in (first, second)]
    torch.testing.assert_close(2 * residuals[0], residuals[1])
    assert known.dataset("circle").expected_log_prob is not None
    assert known.dataset("circle[n_train=30]").expected_log_prob is not None
    assert known.dataset("circle[noise_variance=0.04]").expected_log_prob is None


def test_a_closed_form_goes_with_its_noise(offer):
    closed = dataclasses.replace(registry().make_problem("linear_gaussian", 1), name="closed")
    offer("closed", lambda latent_dim: closed, "datasets")  # noqa: ARG005 - as factories are called
    known = registries.registry()
    x = draw(closed, 0, 50, 1, 1).train
    assert known.make_problem("closed", None).exact_log_prob is closed.exact_log_prob
    changed = known.make_problem("closed[noise_variance=0.3]", None)
    assert changed.exact_log_prob is None
    # The factory of linear_gaussian takes the noise, so that its closed form is that of the changed problem.
    expected = known.make_problem("linear_gaussian[latent_dim=1,noise_variance=0.3]", None)
    torch.testing.assert_close(changed.log_prob(x).value, expected.exact_log_prob(x), atol=1e-3, rtol=0)


def test_a_dataset_passes_its_parameters_on(offer):
    seen = []

    def factory(latent_dim=None, width=1, word="a"):
        seen.append((latent_dim, width, word))
        return Problem("own", latent_dim or 1, latent_dim or 1, 0.1, lambda z: z)

    offer("own", factory, "datasets")
    known = registries.registry()
    assert known.make_problem("own[latent_dim=4,width=0.5,word=b,n_train=9]", 2).latent_dim == 4
    known.make_problem("own", 2)
    assert seen == [(4, 0.5, "b"), (2, 1, "a")]
    with pytest.raises(UsageError, match=r"unknown parameter of dataset 'own' 'wdth' - did you mean 'width'"):
        known.make_problem("own[wdth=3]", None)
