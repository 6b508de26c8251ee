"""Bayesian stochastic deep spiking networks: spiking cells in JAX, Flax models, NumPyro inference over computation."""

import importlib
import importlib.util
from typing import Any

from dsnn import cells, escape, suggest, surrogate
from dsnn.native.allocator import keep_memory
from dsnn.networks.compact import compact
from dsnn.simulate import encode
from dsnn.simulate.early_exit import anytime
from dsnn.simulate.unroll import unroll
from dsnn.store.version import VERSION

__version__ = VERSION
__all__ = [
    "anytime",
    "cells",
    "compact",
    "convert",
    "encode",
    "escape",
    "fit",
    "keep_memory",
    "load",
    "networks",
    "nir",
    "predict",
    "summary",
    "surrogate",
    "unroll",
    "where",
]

_API = ("fit", "load", "predict", "summary", "where")


def __getattr__(name: str) -> Any:
    """Returns what is imported only when it is asked for: a room, such as ``dsnn.bayes``, or the notebook's doors."""
    if name in _API:
        return getattr(importlib.import_module("dsnn.api"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"dsnn.{name}") is not None:
        return importlib.import_module(f"dsnn.{name}")
    raise AttributeError(f"module 'dsnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


suggest.answer_old_names()
