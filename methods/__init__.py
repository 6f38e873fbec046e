"""Inference schemes for one generative model.

This module is the registry. It is importable without torch, so that listing the methods is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Entry:
    """A registered method.

    Args:
        target: The class, as "module:class".
        summary: What the method does, in a few words.
        source: The paper, or what else defines the method.
    """

    target: str
    summary: str
    source: str


_MAPA = "our reading of Yacoby, Pan & Doshi-Velez 2024, arXiv 2403.08941"

BUILTIN: dict[str, Entry] = {
    "mapa": Entry("methods.mapa:MAPA", "posterior fixed before training, then the decoder alone", _MAPA),
    "mapa-plain": Entry(
        "methods.mapa.plain:PlainMAPA",
        "mapa without what is our own addition: a kernel around each datum, one placement, one fit",
        _MAPA,
    ),
    "mapa-polished": Entry(
        "methods.mapa.polish:PolishedMAPA",
        "mapa, then L-BFGS on the exact likelihood over a shared codebook",
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
        "iwae with encoder gradients of less variance",
        "Tucker et al. 2019, Doubly Reparameterized Gradient Estimators, arXiv 1810.04152",
    ),
    "iterative": Entry(
        "methods.iterative:Iterative",
        "encoder trained to convergence before each decoder step",
        "He et al. 2019, Lagging Inference Networks, arXiv 1901.05534",
    ),
    "semi-amortised": Entry(
        "methods.semi_amortised:SemiAmortisedVAE",
        "vae whose posterior is refined by gradient steps for each point",
        "Kim et al. 2018, Semi-Amortized Variational Autoencoders, arXiv 1802.02550",
    ),
    "flow": Entry(
        "methods.flow:FlowVAE",
        "vae whose posterior is a conditional neural spline flow",
        "Rezende & Mohamed 2015, arXiv 1505.05770; Durkan et al. 2019, arXiv 1906.04032",
    ),
    "full-covariance": Entry(
        "methods.full_covariance:FullCovarianceVAE",
        "vae whose posterior is a Gaussian with a full covariance",
        "Rezende, Mohamed & Wierstra 2014, arXiv 1401.4082",
    ),
    "wake-sleep": Entry(
        "methods.wake_sleep:WakeSleep",
        "decoder and encoder trained on weighted draws of the encoder",
        "Bornschein & Bengio 2015, Reweighted Wake-Sleep, arXiv 1406.2751",
    ),
    "svi": Entry(
        "methods.svi:SVI",
        "decoder trained with a Gaussian for each training point, no encoder",
        "Hoffman et al. 2013, Stochastic Variational Inference, arXiv 1206.7051",
    ),
    "map-codes": Entry(
        "methods.map_codes:MAPCodes",
        "decoder trained with a code for each training point, no encoder",
        "Schuster & Krogh 2023, arXiv 2110.06672; Bojanowski et al. 2018, arXiv 1707.05776",
    ),
    "particles": Entry(
        "methods.particles:Particles",
        "decoder trained with particles of each training point that take Langevin steps",
        "Kuntz, Lim & Johansen 2023, arXiv 2204.12965",
    ),
    "langevin": Entry(
        "methods.langevin:Langevin",
        "decoder trained at the ends of short Langevin chains from the prior",
        "Nijkamp et al. 2020, arXiv 1912.01909",
    ),
    "gtm": Entry(
        "methods.gtm:GTM",
        "maximum likelihood of a codebook sent through the decoder",
        "Bishop, Svensen & Williams 1998, GTM: The Generative Topographic Mapping",
    ),
    "pyro-vae": Entry(
        "methods.pyro_svi:PyroVAE",
        "Pyro's vae, a reference implementation",
        "Bingham et al. 2019, Pyro, arXiv 1810.09538",
    ),
    "pyro-iwae": Entry(
        "methods.pyro_svi:PyroIWAE",
        "Pyro's iwae, a reference implementation",
        "Bingham et al. 2019, Pyro, arXiv 1810.09538; Li & Turner 2016, arXiv 1602.02311",
    ),
    "exact-mle": Entry(
        "methods.exact:ExactMLE",
        "maximum likelihood by quadrature: a maximum on the training points from several starts",
        "our own; starts by successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943",
    ),
    "oracle": Entry("methods.baselines:Oracle", "the true model: no method can beat it on average", "ceiling"),
    "untrained": Entry("methods.baselines:Untrained", "the generative model at its initial weights", "floor"),
}


def load(name: str) -> type:
    """The class of a built-in method.

    Raises:
        KeyError: If there is no such method.
    """
    module, attribute = BUILTIN[name].target.split(":")
    return getattr(import_module(module), attribute)
