"""Where the noise of the generative model begins."""

import pytest

from methods.vae import VAE


@pytest.mark.parametrize("seed", [1000, 1001])
def test_noise_to_be_learned_ends_near_the_truth(make_task, seed):
    """Begun at a tenth of the data's variance, it stuck at three to five times the truth."""
    task = make_task("figure8", 500, noise="learned", seed=seed)
    for _ in VAE(steps=3000).fit(task):
        pass
    assert 0.5 < task.model.variance() / 0.02 < 2.5
