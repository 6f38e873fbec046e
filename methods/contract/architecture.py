"""The names and defaults of network architectures. Importable without torch."""

from __future__ import annotations

HIDDEN = (64, 64)
ACTIVATION = "tanh"
ACTIVATIONS = {"silu": "SiLU", "tanh": "Tanh", "relu": "ReLU", "gelu": "GELU"}
"""The activations by the name of their class in torch.nn. "linear", a network of one layer, is not among them."""
