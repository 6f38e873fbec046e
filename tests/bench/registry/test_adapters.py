"""The method and the dataset of docs/add-a-method.md and docs/add-a-dataset.md are whole, short, and run."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from bench.registry.registry import registry
from bench.store.tables import read_table
from datasets.base import draw
from methods.contract.decoder import build_model
from methods.contract.method import NullLedger, Task

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("add-a-method.md", "add-a-dataset.md")]
BLOCKS = [block for page in PAGES for block in re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
FILES = {"beta_vae.py": "METHODS = ", "heart.py": "DATASETS = "}


def code(name):
    """The block of the documents that is the file of this name."""
    (found,) = [text for language, text in BLOCKS if language == "python" and FILES[name] in text]
    return found


@pytest.fixture
def files(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(code(name))
    return [tmp_path / name for name in FILES]


@pytest.mark.parametrize(("name", "page"), [*zip(FILES, PAGES, strict=True)])
def test_it_is_as_short_as_the_title_says(name, page):
    (most,) = map(int, re.findall(r"^#+ .*\bin (\d+) lines", page, re.MULTILINE))
    assert len([line for line in code(name).splitlines() if line.strip()]) <= most


def test_files(compare, in_process, files, tmp_path):
    plugins = [word for file in files for word in ("--plugin", file)]
    asked = ("beta-vae[beta=2],beta-vae-4", "heart[width=2,noise_variance=0.1]")
    assert compare(tmp_path / "out", *asked, 1, "--set", "beta-vae.steps=50", *plugins).code == 0
    runs = read_table(tmp_path / "out", "runs").set_index("method")
    assert (runs["status"] == "done").all()
    assert (runs["notes"] == "").all()
    assert runs["p_beta"].to_dict() == {"beta-vae[beta=2]": 2.0, "beta-vae-4": 4.0}
    assert runs["p_steps"].to_dict() == {"beta-vae[beta=2]": 50, "beta-vae-4": 6000}
    assert set(runs["dataset"]) == {"heart[noise_variance=0.1,width=2]"}


def test_a_package(compare, in_process, files, tmp_path, monkeypatch):
    project = tomllib.loads(next(text for language, text in BLOCKS if language == "toml"))["project"]
    about = tmp_path / "beta_vae_adapter-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(tmp_path)
    assert registry().method("beta-vae").origin == f"package {project['name']}"
    assert compare(tmp_path / "out", "beta-vae", "heart").code == 0
    assert read_table(tmp_path / "out", "runs")["status"].tolist() == ["done"]


@pytest.fixture
def fitted(files):
    """The end of a fit of the page's method to the page's dataset at a given weight of the KL, and its data."""
    known = registry(map(str, files))
    problem = known.make_problem("heart", None)
    split = draw(problem, 0, 300, 10, 10)

    def fit(beta):
        generator = torch.Generator().manual_seed(0)
        train, validation = split.train.float(), split.validation.float()
        model = build_model(train, 1, problem.noise_variance, generator)
        method = known.make_method("beta-vae", {"beta": beta, "steps": 400})
        *_, last = method.fit(Task(train, validation, model, generator, NullLedger()))
        return last, train

    return fit


def test_a_larger_weight_brings_the_posterior_nearer_to_the_prior(fitted):
    def divergence(beta):
        last, x = fitted(beta)
        mean, log_scale = (moment.detach() for moment in last.posterior.moments(x))
        return float(((mean.square() + (2 * log_scale).exp() - 1) / 2 - log_scale).sum(-1).mean())

    small, large = divergence(0.5), divergence(50.0)
    assert large < small / 2


def test_the_dataset_is_a_heart(files):
    problem = registry(map(str, files)).make_problem("heart[width=2]", None)
    ends_and_middle = problem.decoder(torch.tensor([[-9.0], [0.0], [9.0]], dtype=torch.float64))
    assert ends_and_middle.tolist() == [pytest.approx(p, abs=1e-12) for p in ([0, 5 / 16], [0, -17 / 16], [0, 5 / 16])]
