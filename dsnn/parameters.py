"""A network as a function of a flat dictionary of named arrays: what every learner, guide and checkpoint works on."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from dsnn.types import Array

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """Everything of a module but the values of its parameters.

    Attributes:
        names: parameter names, dotted paths such as ``hidden0.synapse.kernel``.
        supports: the support of each parameter ("real", "positive" or "unit_interval"), by name.
    """

    graphdef: Any
    rest: Any
    variables: dict[str, tuple[tuple[Any, ...], Any]]
    supports: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in a fixed order."""
        return tuple(self.variables)

    def build(self, params: Params) -> Any:
        """Returns the module with these parameter values.

        Raises:
            KeyError: a parameter is missing or unknown.
        """
        if params.keys() != self.variables.keys():
            odd = sorted(params.keys() ^ self.variables.keys())
            raise KeyError(f"parameters must be exactly those of the network, these differ: {', '.join(odd)}.")
        state = nnx.from_flat_state([(v[0], v[1].replace(params[n])) for n, v in self.variables.items()])
        return nnx.merge(self.graphdef, state, self.rest)


def split(module: Any) -> tuple[Template, Params]:
    """Returns a module's template and its parameters by name."""
    graphdef, state, *others = nnx.split(module, nnx.Param, ...)
    variables: dict[str, Any] = {".".join(map(str, pair[0])): tuple(pair) for pair in nnx.to_flat_state(state)}
    supports = {name: v.get_metadata().get("support", "real") for name, (_, v) in variables.items()}
    return Template(graphdef, others[0], variables, supports), {name: v[...] for name, (_, v) in variables.items()}


def count(params: Params) -> int:
    """Returns the number of scalars in a dictionary of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
