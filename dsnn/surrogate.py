"""Pseudo-derivatives of the spike, by name: H(u) in the forward pass, a chosen function of u in place of delta(u).

Here u is the membrane minus the threshold. A surrogate is a value, `Surrogate(function, parameters)`, so a user's own
function needs no registration. Default parameters are those of the framework or paper named in each docstring;
`ALIASES` says under which name other frameworks know the same function. The file is long by its formulas alone.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.native.derivatives import elementwise
from dsnn.suggest import did_you_mean
from dsnn.types import Array, Float

COMPARISONS = (">", ">=")


@dataclass(frozen=True)
class Surrogate:
    """A pseudo-derivative with its parameters; hashable, so it can be a static field of a module.

    Args:
        function: ``function(u, **parameters) -> derivative``, elementwise.
        parameters: (name, value) pairs.
    """

    function: Callable[..., Array]
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.__name__

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the pseudo-derivative at ``u``."""
        return self.function(u, **dict(self.parameters))


def get(name: "str | Surrogate", **parameters: float | int) -> Surrogate:
    """Returns the named surrogate; parameters not given take their defaults.

    Raises:
        ValueError: unknown name or parameter; the message names the nearest.
    """
    if isinstance(name, Surrogate):
        return Surrogate(name.function, _sorted({**dict(name.parameters), **parameters}))
    function = _TABLE.get(ALIASES.get(name, name))
    if function is None:
        hint = did_you_mean(name, [*_TABLE, *ALIASES], f"known are {', '.join(names())}.")
        raise ValueError(f"unknown surrogate {name!r}; {hint}")
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name != "u"}
    for unknown in parameters.keys() - defaults.keys():
        raise ValueError(
            f"surrogate {name!r} has no parameter {unknown!r}, it takes {', '.join(defaults) or 'none'}; "
            "parameters of the neuron go to the cell."
        )
    for parameter, number in parameters.items():
        _check(function.__name__, parameter, number, defaults[parameter])
    return Surrogate(function, _sorted({**defaults, **parameters}))


def names() -> tuple[str, ...]:
    """Returns the names of all surrogates, sorted, without aliases."""
    return tuple(sorted(_TABLE))


def derivative(name: str | Surrogate, u: Float[Array, "..."], **parameters: float | int) -> Float[Array, "..."]:
    """Returns the pseudo-derivative ``name`` at ``u`` (membrane minus threshold)."""
    return get(name, **parameters)(u)


def heaviside(u: Float[Array, "..."], surrogate: str | Surrogate = "atan", compare: str = ">") -> Float[Array, "..."]:
    """Returns exactly 0 or 1 in the dtype of ``u``, with the surrogate as derivative.

    Args:
        u: membrane minus threshold.
        surrogate: a name or a `Surrogate`.
        compare: ">" (snnTorch, Norse, Spyx) or ">=" (SpikingJelly, sinabs): does u = 0 spike?

    Raises:
        ValueError: unknown surrogate or comparison.
    """
    if compare not in COMPARISONS:
        raise ValueError(f'compare must be ">" or ">=", got {compare!r}.')
    surrogate = surrogate if isinstance(surrogate, Surrogate) else get(surrogate)
    return _heaviside(jnp.asarray(u), surrogate=surrogate, compare=compare)


def _above(u: Array, *, surrogate: Surrogate, compare: str) -> Array:
    del surrogate
    return (u > 0 if compare == ">" else u >= 0).astype(u.dtype)


def _above_tangent(
    operands: Sequence[Array], tangents: Sequence[Any], *, surrogate: Surrogate, compare: str
) -> Array | None:
    del compare
    (u,), (change,) = operands, tangents
    return None if change is None else jnp.asarray(surrogate(u), u.dtype) * change


_heaviside = elementwise("heaviside", _above, _above_tangent)


def _sorted(parameters: dict[str, float | int]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, float(number)) for name, number in parameters.items()))


def _check(name: str, parameter: str, number: float | int, default: float | int) -> None:
    lowest = _ABOVE.get((name, parameter), 0.0 if default > 0 and parameter not in _MAY_VANISH else -math.inf)
    if not (math.isfinite(number) and number > lowest):
        rule = "finite" if lowest == -math.inf else f"above {lowest:g}"
        raise ValueError(f"{parameter} of surrogate {name!r} must be {rule}, got {number}; its default is {default:g}.")


def arctan(u: Array, k: float = 2.0) -> Array:
    """Returns 1 / (pi (1 + (pi k u)^2)); k = 2 in Spyx. `atan` with alpha = 2 k is pi k times as high."""
    return 1 / (math.pi * (1 + (math.pi * k * u) ** 2))


def atan(u: Array, alpha: float = 2.0) -> Array:
    """Returns (alpha/2) / (1 + (pi alpha u / 2)^2); alpha = 2 in snnTorch and SpikingJelly (Fang et al. 2021)."""
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)


def boxcar(u: Array, width: float = 2.0, height: float = 0.5) -> Array:
    """Returns height where |u| <= width/2; (2, 1/2) in Spyx, (1/alpha, alpha) in SpikingJelly's Rect."""
    return height * (jnp.abs(u) <= width / 2).astype(u.dtype)


def circ(u: Array, alpha: float = 1.0) -> Array:
    """Returns (1 + (u / alpha)^2)^(-3/2), Norse's "circ"; alpha = 1 is ours (Norse hands down its 100)."""
    return (1 + (u / alpha) ** 2) ** -1.5


def double_gaussian(
    u: Array, gamma: float = 0.5, height: float = 0.15, sigma: float = 0.5, scale: float = 6.0
) -> Array:
    """Returns gamma [(1 + h) N(u; 0, s) - 2 h N(u; 0, scale s)] (Higuchi et al. 2024)."""
    return gamma * ((1 + height) * _normal(u, 0.0, sigma) - 2 * height * _normal(u, 0.0, scale * sigma))


def erf(u: Array, alpha: float = 2.0) -> Array:
    """Returns alpha / sqrt(pi) exp(-(alpha u)^2), the normal density of sigma = 1/(sqrt(2) alpha); 2 in SpikingJelly.

    Norse's "heavi_erfc" is 2 / alpha times as high.
    """
    return alpha / math.sqrt(math.pi) * jnp.exp(-((alpha * u) ** 2))


def exponential(u: Array, width: float = 0.5, height: float = 1.0) -> Array:
    """Returns height / width exp(-|u| / width); (1/2, 1) in sinabs (Shrestha & Orchard 2018)."""
    return height / width * jnp.exp(-jnp.abs(u) / width)


def fake_numerical_gradient(u: Array, alpha: float = 0.3) -> Array:
    """Returns min(1 / |u|, alpha); alpha = 0.3 in SpikingJelly."""
    return 1 / jnp.maximum(jnp.abs(u), 1 / alpha)


def fast_sigmoid(u: Array, slope: float = 25.0, height: float = 1.0) -> Array:
    """Returns height / (1 + slope |u|)^2; (25, 1) in snnTorch and in Spyx, whose name for it is superspike.

    SpikingJelly's SuperSpike(alpha) has slope 1 and height alpha.
    """
    return height / (1 + slope * jnp.abs(u)) ** 2


def gaussian(u: Array, sigma: float = 0.5) -> Array:
    """Returns N(u; 0, sigma); 1/2 in sinabs and Yin et al. 2020."""
    return _normal(u, 0.0, sigma)


def leaky_relu(u: Array, leak: float = 0.1, slope: float = 1.0) -> Array:
    """Returns slope where u >= 0, else leak; (0.1, 1) in snnTorch's LSO, (0, 1) in SpikingJelly's LeakyKReLU."""
    return jnp.where(u >= 0, slope, leak).astype(u.dtype)


def log_tailed_relu(u: Array, alpha: float = 0.0) -> Array:
    """Returns alpha where u <= 0, 1 up to u = 1, then 1 / u; alpha = 0 in SpikingJelly (Cai et al. 2017)."""
    return jnp.where(u <= 0, alpha, 1 / jnp.maximum(u, 1)).astype(u.dtype)


def multi_gaussian(u: Array, gamma: float = 0.5, height: float = 0.15, sigma: float = 0.5, scale: float = 6.0) -> Array:
    """Returns gamma [(1 + h) N(u; 0, s) - h N(u; s, scale s) - h N(u; -s, scale s)] (Yin et al. 2021).

    sinabs leaves out gamma.
    """
    side = _normal(u, sigma, scale * sigma) + _normal(u, -sigma, scale * sigma)
    return gamma * ((1 + height) * _normal(u, 0.0, sigma) - height * side)


def nonzero_sign_log_abs(u: Array, alpha: float = 1.0) -> Array:
    """Returns 1 / (1/alpha + |u|); alpha = 1 in SpikingJelly."""
    return 1 / (1 / alpha + jnp.abs(u))


def periodic_exponential(u: Array, width: float = 0.5, height: float = 1.0) -> Array:
    """Returns height exp(-|d| / width), d the distance to the next multiple of a threshold of 1 above it; sinabs.

    Below the threshold d = u, above it d = 2 frac(u + 1/2) - 1 (Weidel & Sheik 2021).
    """
    above = 2 * ((u + 0.5) - jnp.floor(u + 0.5)) - 1
    return height * jnp.exp(-jnp.abs(jnp.where(u < 0, u, above)) / width)


def piecewise_exp(u: Array, alpha: float = 1.0) -> Array:
    """Returns (alpha/2) exp(-alpha |u|); alpha = 1 in SpikingJelly (Neftci et al. 2019)."""
    return alpha / 2 * jnp.exp(-alpha * jnp.abs(u))


def piecewise_leaky_relu(u: Array, w: float = 1.0, c: float = 0.01) -> Array:
    """Returns 1 / (2 w) where |u| < w, else c; (1, 0.01) in SpikingJelly (Wu et al. 2018)."""
    return jnp.where(jnp.abs(u) < w, 1 / (2 * w), c).astype(u.dtype)


def piecewise_quadratic(u: Array, alpha: float = 1.0) -> Array:
    """Returns max(0, alpha - alpha^2 |u|); alpha = 1 in SpikingJelly (Esser et al. 2016)."""
    return jnp.maximum(0.0, alpha - alpha**2 * jnp.abs(u))


def q_pseudo_spike(u: Array, alpha: float = 2.0) -> Array:
    """Returns (1 + 2 |u| / (alpha - 1))^-alpha; alpha = 2 in SpikingJelly (Herranz-Celotti & Rouat 2022)."""
    return (1 + 2 / (alpha - 1) * jnp.abs(u)) ** -alpha


def relu(u: Array) -> Array:
    """Returns 1 where u > 0, else 0: the gradient of snnTorch's "heaviside"."""
    return (u > 0).astype(u.dtype)


def s2nn(u: Array, alpha: float = 4.0, beta: float = 1.0) -> Array:
    """Returns the `sigmoid` of alpha where u < 0, else beta / (1 + u); (4, 1) in SpikingJelly (Suetake et al. 2022)."""
    return jnp.where(u < 0, sigmoid(u, alpha), beta / (1 + jnp.maximum(u, 0)))


def sigmoid(u: Array, alpha: float = 4.0) -> Array:
    """Returns alpha s(alpha u) s(-alpha u), s the logistic function; alpha = 4 in SpikingJelly, 25 in snnTorch."""
    return alpha * jax.nn.sigmoid(alpha * u) * jax.nn.sigmoid(-alpha * u)


def soft_sign(u: Array, alpha: float = 2.0) -> Array:
    """Returns (alpha/2) / (1 + alpha |u|)^2; alpha = 2 in SpikingJelly."""
    return alpha / 2 / (1 + alpha * jnp.abs(u)) ** 2


def sparse_fast_sigmoid(u: Array, slope: float = 25.0, above: float = 1.0) -> Array:
    """Returns 1 / (1 + slope |u|)^2 where u > above, else 0; (25, 1) in snnTorch's SFS (Perez-Nieves 2021)."""
    return fast_sigmoid(u, slope) * (u > above)


def spike_rate_escape(u: Array, beta: float = 1.0, slope: float = 25.0) -> Array:
    """Returns slope exp(-beta |u - 1|); (1, 25) in snnTorch (Gerstner & Kistler 2002)."""
    return slope * jnp.exp(-beta * jnp.abs(u - 1))


def squarewave(u: Array, terms: float = 1.0, period: float = 8.0) -> Array:
    """Returns 4/period sum_i cos((2 i - 1) 2 pi u / period), i = 1..terms, of a square wave's Fourier series.

    SpikingJelly's SquarewaveFourierSeries(n, T_period) sums n - 1 terms, by default one.
    """
    omega = 2 * math.pi / period
    odd = range(1, 2 * int(terms), 2)
    return 4 / period * sum((jnp.cos(n * omega * u) for n in odd), start=jnp.zeros_like(u))


def stochastic(u: Array, mean: float = 0.0, variance: float = 0.2) -> Array:
    """Returns 1 where u > 0, else (r - 1/2 + mean) variance with r uniform in [0, 1); (0, 0.2) in snnTorch's SSO.

    r is a hash of the bits of u, so equal arguments have equal derivatives and no key is needed.
    """
    bits = jax.lax.bitcast_convert_type(u.astype(jnp.float32), jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    r = (bits >> 8).astype(u.dtype) / 2**24
    return jnp.where(u > 0, 1.0, (r - 0.5 + mean) * variance).astype(u.dtype)


def straight_through(u: Array) -> Array:
    """Returns 1 everywhere (Bengio et al. 2013)."""
    return jnp.ones_like(u)


def superspike(u: Array, alpha: float = 100.0) -> Array:
    """Returns 1 / (1 + alpha |u|)^2 (Zenke & Ganguli 2018); alpha = 100 in Norse, whose release 1.1.0 ignores it."""
    return fast_sigmoid(u, alpha)


def tanh(u: Array, k: float = 1.0) -> Array:
    """Returns sech^2(k u); k = 1 in Spyx."""
    return 1 / jnp.cosh(k * u) ** 2


def triangle(u: Array, width: float = 1.0, height: float = 1.0) -> Array:
    """Returns height max(0, 1 - |u| / width) (Esser et al. 2016).

    Bellec et al. 2020 and Norse take (1, 0.3), Spyx (1/2, 1).
    """
    return height * jnp.maximum(0.0, 1 - jnp.abs(u) / width)


def triangle_slope(u: Array, height: float = 1.0) -> Array:
    """Returns height where u < 0, else -height: what snnTorch calls triangular (the slope of a triangle)."""
    return jnp.where(u < 0, height, -height).astype(u.dtype)


def _normal(u: Array, mean: float, sigma: float) -> Array:
    return jnp.exp(-0.5 * ((u - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


_TABLE: dict[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        arctan,
        atan,
        boxcar,
        circ,
        double_gaussian,
        erf,
        exponential,
        fake_numerical_gradient,
        fast_sigmoid,
        gaussian,
        leaky_relu,
        log_tailed_relu,
        multi_gaussian,
        nonzero_sign_log_abs,
        periodic_exponential,
        piecewise_exp,
        piecewise_leaky_relu,
        piecewise_quadratic,
        q_pseudo_spike,
        relu,
        s2nn,
        sigmoid,
        soft_sign,
        sparse_fast_sigmoid,
        spike_rate_escape,
        squarewave,
        stochastic,
        straight_through,
        superspike,
        tanh,
        triangle,
        triangle_slope,
    )
}

_MAY_VANISH = ("above", "c", "height", "leak", "variance")
_ABOVE = {("q_pseudo_spike", "alpha"): 1.0}

ALIASES = {
    "deterministic_pass": "straight_through",
    "heavi_erfc": "erf",
    "heaviside": "relu",
    "leaky_k_relu": "leaky_relu",
    "lso": "leaky_relu",
    "multigaussian": "multi_gaussian",
    "rect": "boxcar",
    "rectangle": "boxcar",
    "sfs": "sparse_fast_sigmoid",
    "single_exponential": "exponential",
    "squarewave_fourier_series": "squarewave",
    "sso": "stochastic",
    "ste": "straight_through",
    "straight_through_estimator": "straight_through",
    "super": "superspike",
    "triangular": "triangle",
}
