"""Metrics are tested at their real sizes."""

import pytest


@pytest.fixture(autouse=True)
def small_evaluation():
    """Instead of that of the other tests of the harness: evaluate as studies do."""
