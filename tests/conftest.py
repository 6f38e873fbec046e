"""Settings that all tests share."""

import gc

import torch

torch.set_num_threads(1)


def pytest_collection_finish():
    """Collect garbage seldom, and leave out what was imported: to go through all of it takes long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
