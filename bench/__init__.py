"""mapa-bench: which inference scheme for variational autoencoders is worth its compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import compare
    from bench.fitting import fitted
    from bench.scoring.score import score

__all__ = ["compare", "fitted", "score"]


def __getattr__(name: str) -> Any:
    if name == "compare":
        from bench.api import compare

        return compare
    if name == "fitted":
        from bench.fitting import fitted

        return fitted
    if name == "score":
        from bench.scoring.score import score

        return score
    if name == "__version__":
        from importlib.metadata import version

        return version("mapa-bench")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
