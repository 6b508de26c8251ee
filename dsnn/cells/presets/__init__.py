"""Cells that follow another framework's step order, under that framework's names.

Every preset records the membrane and the spikes that its original would: ``state.membrane`` after a step is the
framework's own variable, and the output is what its layer returns.
"""

import inspect
from collections.abc import Callable
from typing import Any

from dsnn.cells.presets import nir, norse, papers, sinabs, snntorch, spikingjelly, spyx
from dsnn.suggest import did_you_mean

_TABLE: dict[str, Callable[..., Any]] = {
    "nir.LIF": nir.lif,
    "norse.LIF": norse.lif,
    "norse.LIFBox": norse.lif_box,
    "sinabs.LIF": sinabs.lif,
    "snntorch.Leaky": snntorch.leaky,
    "snntorch.Synaptic": snntorch.synaptic,
    "spikingjelly.IFNode": spikingjelly.if_node,
    "spikingjelly.LIFNode": spikingjelly.lif_node,
    "spyx.ALIF": spyx.alif,
    "spyx.CuBaLIF": spyx.cubalif,
    "spyx.IF": spyx.if_,
    "spyx.LI": spyx.li,
    "spyx.LIF": spyx.lif,
    "yin.ALIF": papers.yin_alif,
}


def like(name: str, **parameters: Any) -> Any:
    """Returns a cell with the step order, comparison, reset and defaults of another framework's class.

    ``like("snntorch.Leaky", beta=0.9, reset_mechanism="zero")``. Parameters have that class's names, units and
    defaults; those which only say how it keeps its state (``init_hidden``, ``step_mode``, ...) are accepted and have
    no effect, because state is explicit here. A surrogate is named as in `dsnn.surrogate`.

    Args:
        name: "<framework>.<Class>", one of `presets`.
        **parameters: of that class.

    Raises:
        ValueError: unknown preset or parameter, with the nearest names, or a value out of range.
    """
    if name not in _TABLE:
        hint = did_you_mean(name, _TABLE, f"known are {', '.join(presets())}.")
        raise ValueError(f"unknown preset {name!r}; {hint}")
    known = list(inspect.signature(_TABLE[name]).parameters)
    for given in parameters:
        if given not in known:
            hint = did_you_mean(given, known, f"known are {', '.join(known)}.")
            raise ValueError(f"preset {name} has no parameter {given!r}; {hint}")
    required = [p.name for p in inspect.signature(_TABLE[name]).parameters.values() if p.default is p.empty]
    missing = [p for p in required if p not in parameters]
    if missing:
        raise ValueError(
            f"preset {name} needs {', '.join(missing)}, got {', '.join(parameters) or 'nothing'}; give it."
        )
    return _TABLE[name](**parameters)


def presets() -> tuple[str, ...]:
    """Returns the names that `like` knows, sorted."""
    return tuple(sorted(_TABLE))
