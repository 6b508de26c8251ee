"""Priors by parameter name: a pattern that matches nothing, or a parameter without a pattern, stops with a sentence.

A prior may have scales of its own (`Hierarchical`): these become latent variables named ``<parameter>.<scale>``.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float, Shaped
from numpyro.distributions import constraints

from dsnn.networks.whole import is_weight
from dsnn.parameters import Params, Template
from dsnn.types import Array


class Hierarchical(NamedTuple):
    """A prior whose scales are latent too.

    Attributes:
        scales: prior of each positive scale by its name, the whole array one event.
        given: the parameter's prior under values of the scales.
    """

    scales: dict[str, dist.Distribution]
    given: Callable[[dict[str, Array]], dist.Distribution]


Prior = Callable[[str, tuple[int, ...]], dist.Distribution | Hierarchical | None]
SUPPORTS: dict[str, Any] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit_interval": constraints.unit_interval,
}
POINT_CONSTRAINTS = SUPPORTS | {"positive": constraints.softplus_positive}
"""How points are kept in their supports: what is positive moves, once it is large, by as much as without a constraint.

Latent variables keep `SUPPORTS`, under which positive ones are Normal in their logarithm.
"""


def fan_in_normal(scale: Any = 1.0, rows: Array | None = None) -> Prior:
    """Normal(0, scale / sqrt(fan in)): a layer's currents have the variance scale² whatever its width (Neal 1996).

    Args:
        scale: of all entries, times sqrt(fan in).
        rows: factors of it per input (`rare_inputs`), ``[input]``; None is 1 for all.
    """
    _positive(scale)

    def prior(name: str, shape: tuple[int, ...]) -> dist.Distribution:
        return dist.Normal(0.0, scale * _unit(shape, rows)).expand(shape).to_event(len(shape))

    return prior


def normal(scale: float = 1.0) -> Prior:
    """Normal(0, scale) on every entry."""
    _positive(scale)
    return lambda name, shape: dist.Normal(0.0, scale).expand(shape).to_event(len(shape))


def laplace(scale: float = 1.0, rows: Array | None = None) -> Prior:
    """Laplace(0, scale / sqrt(fan in)) on every entry, times the factors ``rows`` of its input."""
    _positive(scale)

    def prior(name: str, shape: tuple[int, ...]) -> dist.Distribution:
        return dist.Laplace(0.0, scale * _unit(shape, rows)).expand(shape).to_event(len(shape))

    return prior


def hierarchical(scale: float = 1.0, rows: Array | None = None) -> Prior:
    """Normal(0, σ / sqrt(fan in)) with one σ ~ HalfNormal(scale) per parameter array, learned with it (Gelman 2006).

    The factors ``rows`` of its input multiply an entry's standard deviation.
    """
    _positive(scale)

    def prior(name: str, shape: tuple[int, ...]) -> Hierarchical:
        return Hierarchical(
            {"sigma": dist.HalfNormal(scale)},
            lambda s: dist.Normal(0.0, s["sigma"] * _unit(shape, rows)).expand(shape).to_event(len(shape)),
        )

    return prior


def horseshoe(scale: float = 1.0, rows: Array | None = None) -> Prior:
    """Normal(0, τ λ / sqrt(fan in)), λ ~ HalfCauchy(1) per entry, τ ~ HalfCauchy(scale) (Carvalho et al. 2010).

    The factors ``rows`` of its input multiply an entry's standard deviation.
    """
    _positive(scale)

    def prior(name: str, shape: tuple[int, ...]) -> Hierarchical:
        return Hierarchical(
            {"tau": dist.HalfCauchy(scale), "lambda": dist.HalfCauchy(1.0).expand(shape).to_event(len(shape))},
            lambda s: dist.Normal(0.0, s["tau"] * s["lambda"] * _unit(shape, rows)).to_event(len(shape)),
        )

    return prior


def beta(mean: Any = 0.9, concentration: float = 20.0) -> Prior:
    """Beta with this mean and total concentration, for decays in [0, 1]."""
    _positive(concentration)
    a, b = mean * concentration, (1.0 - mean) * concentration
    return lambda name, shape: dist.Beta(a, b).expand(shape).to_event(len(shape))


def lognormal(median: Any = 1.0, scale: float = 0.5) -> Prior:
    """LogNormal with this median and log standard deviation, for time constants, thresholds and noise widths."""
    _positive(scale)
    return lambda name, shape: dist.LogNormal(jnp.log(median), scale).expand(shape).to_event(len(shape))


def point(name: str, shape: tuple[int, ...]) -> None:
    """No prior: the parameter is a point estimate, started at the network's own value."""


def by_pattern(patterns: Mapping[str, Prior], template: Template) -> Prior:
    """Returns the prior of each parameter by the first shell pattern that matches its name.

    Args:
        patterns: for example ``{"*.kernel": fan_in_normal(), "*.bias": normal(), "*": point}``.
        template: the network whose parameters have to be covered.

    Raises:
        ValueError: a pattern matches no parameter, a parameter has no pattern, or a prior's support is not the
            parameter's.
    """
    names = template.names
    for pattern in patterns:
        if pattern != "*" and not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"a prior pattern must match a parameter, {pattern!r} matches none of {', '.join(names)}.")
    chosen: dict[str, Prior] = {}
    for name in names:
        matches = [prior for pattern, prior in patterns.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"every parameter needs a prior, {name!r} has none; add a pattern, or '*' with point.")
        chosen[name] = matches[0]

    def prior(name: str, shape: tuple[int, ...]) -> dist.Distribution | Hierarchical | None:
        fn = chosen[name](name, shape)
        if isinstance(fn, Hierarchical) and template.supports[name] != "real":
            raise ValueError(
                f"a hierarchical prior is for parameters on the real line, {name!r} lies on "
                f"{template.supports[name]}; use beta/lognormal."
            )
        if isinstance(fn, dist.Distribution) and (support := template.supports[name]) != "real":
            base = fn.base_dist if isinstance(fn, dist.Independent) else fn
            if base.support is not SUPPORTS[support]:
                raise ValueError(
                    f"the prior of {name!r} must have the support {support}, got {fn}; use beta/lognormal."
                )
        return fn

    return prior


KERNELS = {"normal": fan_in_normal, "laplace": laplace, "hierarchical": hierarchical, "horseshoe": horseshoe}


def _foreign(template: Template) -> list[str]:
    """Returns the weights of a network of one's own that bear no name by which a prior is known."""
    known = (".kernel", ".recurrent", ".bias")
    real = (name for name in template.names if template.supports[name] == "real")
    # what scales and shifts a normalised current is a point, as constants of cells are
    return [name for name in real if is_weight(name) and ".norm." not in name and not name.endswith(known)]


def _by_axes(matrix: Prior, rest: Prior) -> Prior:
    """Returns one prior for what has two axes or more, and another for the rest."""
    return lambda name, shape: (matrix if len(shape) > 1 else rest)(name, shape)


def default(
    template: Template,
    scale: Any = 1.0,
    bias_scale: float = 1.0,
    kernel: str = "normal",
    around: Params | None = None,
    rows: Mapping[str, Array] | None = None,
) -> Prior:
    """Returns a fan-in scaled prior on kernels, Normals on biases, and points for everything else.

    Args:
        template: the network.
        scale: of the kernels' prior, times sqrt(fan in).
        bias_scale: standard deviation of a bias.
        kernel: family of the kernels' prior, a name in `KERNELS`.
        around: the network's parameters; then those of its cells that are constrained have priors with these means
            (`beta` on the unit interval) or medians (`lognormal` on positive values).
        rows: by a kernel's name, factors of its prior's width per input, see `rare_inputs`.
    """
    cells = {"unit_interval": beta, "positive": lognormal}
    constrained = {n: cells[kind] for n, kind in template.supports.items() if kind in cells} if around else {}
    patterns = {
        **{name: make((around or {})[name]) for name, make in constrained.items()},
        **{name: KERNELS[kernel](scale, factors) for name, factors in (rows or {}).items()},
        "*.kernel": KERNELS[kernel](scale),
        "*.recurrent": KERNELS[kernel](scale),
        "*.bias": normal(bias_scale),
        **{name: _by_axes(KERNELS[kernel](scale), normal(bias_scale)) for name in _foreign(template)},
        "*": point,
    }
    used = {p: fn for p, fn in patterns.items() if p == "*" or fnmatch.filter(template.names, p)}
    return by_pattern(used, template)


def rare_inputs(x: Shaped[np.ndarray, "example input"], widest: float) -> Float[Array, " input"]:
    """Returns how many times wider the prior of each input's weights is: sqrt(mean power / its power) in [1, widest].

    Under one width for all inputs, what training data never switch on can hardly move a current; a posterior that falls
    back on such a prior is sure of inputs that it has not seen. Power is the mean square over the training examples.

    Args:
        x: training inputs.
        widest: at least 1; 1 makes no difference between inputs.
    """
    if not 1 <= widest < math.inf:
        raise ValueError(f"the widest prior of a rare input must be at least 1 and finite, got {widest}.")
    power = np.mean(np.square(np.asarray(x, np.float32)), 0, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.sqrt(power.mean() / power)
    return jnp.asarray(np.clip(np.nan_to_num(factors, nan=1.0, posinf=widest), 1.0, widest), jnp.float32)


def _unit(shape: tuple[int, ...], rows: Array | None) -> Any:
    """Returns 1 / sqrt(fan in), times the factors of the inputs, to broadcast against a kernel of this shape."""
    unit = 1 / math.sqrt(_fan_in(shape))
    return unit if rows is None else unit * rows[:, None]


def centred(template: Template, centre: Params, scale: Any = 1.0, bias_scale: float = 1.0) -> Prior:
    """Returns Normals around a network that is already good, and points for what is neither kernel nor bias.

    Args:
        template: the network.
        centre: parameters by name, the means.
        scale: standard deviation of a kernel times sqrt(fan in).
        bias_scale: standard deviation of a bias.
    """
    _positive(scale)
    _positive(bias_scale)

    def prior(name: str, shape: tuple[int, ...]) -> dist.Distribution | None:
        if template.supports[name] != "real" or not name.endswith(("kernel", "bias", "recurrent")):
            return None
        deviation = bias_scale if name.endswith("bias") else scale / math.sqrt(_fan_in(shape))
        return dist.Normal(centre[name], deviation).to_event(len(shape))

    return prior


def _fan_in(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1]) if len(shape) > 1 else 1


def _positive(scale: Any) -> None:
    if isinstance(scale, jax.core.Tracer):  # part of a population; whoever traces it has checked its values
        return
    if not scale > 0 or not math.isfinite(scale):
        raise ValueError(f"a prior scale must be positive and finite, got {scale}.")
