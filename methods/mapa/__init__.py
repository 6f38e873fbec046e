"""MAPA: a posterior approximation that is computed before training and needs no model.

The source is Yacoby, Pan & Doshi-Velez (AABI 2024, arXiv 2403.08941), of which only the abstract was at hand: what is
implemented here is this project's own derivation from it, one module per step: index posterior, placement, fit.
"""

from methods.mapa.method import MAPA

__all__ = ["MAPA"]
