"""A network as a function of a flat dictionary of named arrays: what every learner, guide and checkpoint works on."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx

from dsnn.types import Array

Params = dict[str, Array]

STATISTICS = "statistics."
"""What the names of normalisation statistics begin with, beside a network's parameters: they are measured, not learned,
and the learner keeps them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """Everything of a module but the values of its parameters.

    Attributes:
        names: parameter names, dotted paths such as ``hidden0.synapse.kernel``.
        supports: the support of each parameter ("real", "positive" or "unit_interval"), by name.
        measured: its normalisation statistics (`nnx.BatchStat`), by name; with the values that they begin at.
    """

    graphdef: Any
    rest: Any
    variables: dict[str, tuple[tuple[Any, ...], Any]]
    supports: dict[str, str]
    measured: dict[str, tuple[tuple[Any, ...], Any]] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in a fixed order."""
        return tuple(self.variables)

    @property
    def statistics(self) -> Params:
        """Normalisation statistics as they begin, by their names behind `STATISTICS`; empty without norms."""
        return {STATISTICS + name: variable[...] for name, (_, variable) in self.measured.items()}

    @functools.cached_property
    def plain(self) -> "Template":
        """The template of the network whose norms are folded into its kernels; itself where it has none."""
        if not self.measured:
            return self
        with jax.ensure_compile_time_eval():  # a constant, also where a program is being traced
            return split(folded(self.build({name: variable[...] for name, (_, variable) in self.variables.items()})))[0]

    def build(self, params: Params) -> Any:
        """Returns the module with these parameter values.

        Statistics stand among them behind `STATISTICS`; those that are absent are as they begin. Parameters of the
        network whose norms are folded (`fold`) give that network.

        Raises:
            KeyError: a parameter is missing or unknown.
        """
        given = {name: value for name, value in params.items() if name.startswith(STATISTICS)}
        own = {name: params[name] for name in params if name not in given} if given else params
        if self.measured and own.keys() != self.variables.keys() and own.keys() == self.plain.variables.keys():
            return self.plain.build(own)
        wanted = {STATISTICS + name for name in self.measured}
        if own.keys() != self.variables.keys() or given.keys() - wanted:
            odd = sorted((own.keys() ^ self.variables.keys()) | (given.keys() - wanted))
            raise KeyError(f"parameters must be exactly those of the network, these differ: {', '.join(odd)}.")
        flat = [(v[0], v[1].replace(params[n])) for n, v in self.variables.items()]
        for name, (path, variable) in self.measured.items():
            value = given.get(STATISTICS + name)
            flat.append((path, variable if value is None else variable.replace(value)))
        return nnx.merge(self.graphdef, nnx.from_flat_state(flat), self.rest)

    def fold(self, params: Params) -> Params:
        """Returns the parameters of the network that does the same without norms; what is no network's stays."""
        if not self.measured:
            return params
        mine = {name: value for name, value in params.items() if name in self.variables or name.startswith(STATISTICS)}
        return split(folded(self.build(mine)))[1] | {name: params[name] for name in params.keys() - mine.keys()}


def split(module: Any) -> tuple[Template, Params]:
    """Returns a module's template and its parameters by name; normalisation statistics are none of these."""
    graphdef, state, *others = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    statistics, rest = others
    variables, measured = _named(state), _named(statistics)
    supports = {name: v.get_metadata().get("support", "real") for name, (_, v) in variables.items()}
    template = Template(graphdef, rest, variables, supports, measured)
    return template, {name: v[...] for name, (_, v) in variables.items()}


def _named(state: Any) -> dict[str, Any]:
    return {".".join(map(str, pair[0])): tuple(pair) for pair in nnx.to_flat_state(state)}


def folded(network: Any) -> Any:
    """Returns a network whose layers are plain products: those that say so (``folds``) as their ``fold`` gives them."""
    modules: list[tuple[Any, Any]] = list(nnx.iter_modules(network))
    found = [(path, module) for path, module in modules if getattr(module, "folds", False)]
    if not found:
        return network
    if getattr(network, "folds", False):
        return network.fold()
    new = nnx.clone(network)
    for path, layer in found:
        at: Any = new
        for name in path[:-1]:
            at = at[name] if isinstance(name, int) else getattr(at, str(name))
        setattr(at, str(path[-1]), layer.fold())
    return new


def without_statistics(params: Params) -> Params:
    """Returns the parameters that are not normalisation statistics."""
    return {name: value for name, value in params.items() if not name.startswith(STATISTICS)}


def statistics_of(params: Params) -> Params:
    """Returns the normalisation statistics among parameters, with their whole names."""
    return {name: value for name, value in params.items() if name.startswith(STATISTICS)}


def count(params: Params) -> int:
    """Returns the number of scalars in a dictionary of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
