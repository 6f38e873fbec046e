"""MAPA: a posterior approximation that is computed before training and needs no model.

The source is Yacoby, Pan & Doshi-Velez (AABI 2024, arXiv 2403.08941). Only its abstract was available, so the
implementation is this project's own derivation from it. Each step has its module:

- `deconvolution` estimates where the signals f(z) lie, and `index` turns that into the index posterior;
- `placement` proposes codes, and `assignment` gives them to the training points;
- `fit` trains the decoder, `noise` estimates the noise variance, and `method` joins all steps;
- `rff_lvm` and `rff_fit` replace these steps where kernels on the data fail, as above two latent dimensions;
- `polish` continues with the exact likelihood.
"""

from methods.mapa.method import MAPA

__all__ = ["MAPA"]
