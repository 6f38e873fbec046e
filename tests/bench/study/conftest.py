"""A small study that several files of tests change and resume."""

import shutil

import pytest


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def study(kept, tmp_path, compare, invented):
    """A study of two methods and two seeds, to be changed; `invented` then lists what is run from here on."""
    if not (kept / "out").exists():
        assert compare(kept / "out", "vae,mapa", "circle", 2).code == 0
    del invented[:]
    return shutil.copytree(kept / "out", tmp_path / "copy")
