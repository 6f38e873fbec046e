"""Inference schemes for one generative model.

This module is the registry and stays importable without torch, so that listing the methods is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Entry:
    """A registered method: where its class is, and what `list` says of it."""

    target: str
    summary: str
    source: str


_MAPA = "our reading of Yacoby, Pan & Doshi-Velez 2024, arXiv 2403.08941"

BUILTIN: dict[str, Entry] = {
    "mapa": Entry("methods.mapa:MAPA", "posterior fixed before training, then the decoder alone", _MAPA),
    "mapa-polished": Entry(
        "methods.mapa.polish:PolishedMAPA",
        "mapa, then the exact likelihood over a shared codebook",
        "our own addition to mapa",
    ),
    "vae": Entry(
        "methods.vae:VAE",
        "decoder and encoder trained jointly on the ELBO",
        "Kingma & Welling 2014, arXiv 1312.6114",
    ),
    "iwae": Entry(
        "methods.iwae:IWAE",
        "decoder and encoder trained jointly on the importance weighted bound",
        "Burda, Grosse & Salakhutdinov 2016, arXiv 1509.00519",
    ),
    "iwae-dreg": Entry(
        "methods.iwae:DoublyReparameterisedIWAE",
        "the same bound, with encoder gradients of less variance",
        "Tucker et al. 2019, Doubly Reparameterized Gradient Estimators, arXiv 1810.04152",
    ),
    "iterative": Entry(
        "methods.iterative:Iterative",
        "encoder trained to convergence before each decoder step",
        "He et al. 2019, Lagging Inference Networks, arXiv 1901.05534",
    ),
    "oracle": Entry("methods.references:Oracle", "the true model: no method can beat it on average", "ceiling"),
    "untrained": Entry("methods.references:Untrained", "the generative model at its initial weights", "floor"),
}


def load(name: str) -> type:
    """The class of the built-in method `name`; raises KeyError for an unknown name."""
    module, attribute = BUILTIN[name].target.split(":")
    return getattr(import_module(module), attribute)
