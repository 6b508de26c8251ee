"""The posterior over bit widths: how precisely each kernel is stored, inferred together with weights and gates.

A kernel, or each of its output channels, has one gate for every width; a gate is reached where all before it are open,
and the open ones in a row say the width b ∈ {0, 2, 4, 8, 16} (van Baalen et al. 2020, "Bayesian Bits"). The base
measure is uniform over widths, to which the Gibbs factor exp(-λ E(b)) is added: KL = log(widths) - H(b), where the
entropy of nested gates is that of each weighed by how likely it is reached. Without a price nothing speaks for fewer
bits, and all of them stay: gates then stand still, as they do while sites are ungated. A unit without bits is closed:
nothing of it is read or summed, and it costs nothing; the neurons behind it are still updated.

In plain NumPyro ``bits.prior()`` stands in a model and ``bits.posterior()`` in its guide; both give gates in
[0, 1]. `BitPosterior.at` makes a `Precision` of them, and `BitPosterior.fold` puts it into the weights, after the gates
of their sites: what is rounded is what runs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro

from dsnn.bayes.gates import ENUMERATED, HARD_CONCRETE, Family, every_setting
from dsnn.bayes.gates.contract import weighed
from dsnn.bayes.nested_gates import AnyWidth, NestedGates
from dsnn.bayes.quantiser import best_log_step, nested, power_of_two
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Bool, Float, Int, Key

BITS = "bits"
GATES = "bits.gates."
"""What the names of the gates' parameters begin with; those of the steps are ``bits.<kernel>.log_step``."""

INPUTS = "bits.inputs"
"""Name of the range of the inputs, which an integer network rounds; it is measured once learning is over."""

DEVIATION = ".scale"


class Precision(NamedTuple):
    """A draw or a decision of widths.

    Attributes:
        gates: by kernel, in [0, 1], ``[width, unit]``; a unit is the kernel, or one of its output channels.
        log_steps: by kernel, log2 of each width's step, ``[width, unit]``.
    """

    gates: dict[str, Array]
    log_steps: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class BitPosterior:
    """Bit gates over kernels of a network, and the steps of their grids.

    Attributes:
        initial: the network's own kernels by name, that of inputs first, at which steps begin: each at the power of two
            with the least squared error of its width, and learned from there. With one step for a kernel it is the
            range that fits its bulk; no largest weight, of which 2 bits could keep nothing else, decides.
        widths: that a unit may have, in order.
        zero: whether it may have none.
        per_channel: whether each output channel is a unit; else the kernel is.
        family: of the gates.
        open_probability: initial probability of each gate.
        by_deviation: a control: weights learn unrounded, and each unit then gets the fewest bits whose step is within
            the posterior's standard deviation (Louizos et al. 2017, "Bayesian compression", section 4.1.1).
        membrane: bits of membranes, thresholds and biases of the network that is decided.
        leak: bits of its leaks' multiplier.
        inputs: bits of its inputs, where they are values.
        activations: bits of the values that its layers give, where they give values.
        reads_values: whether inputs are values.
    """

    initial: Params
    widths: tuple[int, ...] = (2, 4, 8, 16)
    zero: bool = True
    per_channel: bool = False
    family: Family = HARD_CONCRETE
    open_probability: float = 0.98
    by_deviation: bool = False
    membrane: int = 16
    leak: int = 8
    inputs: int = 8
    activations: int = 8
    reads_values: bool = True

    def __post_init__(self) -> None:
        if self.family.discrete and self.total > ENUMERATED:
            raise ValueError(
                f"bits of a discrete family are summed over all settings of at most {ENUMERATED} gates, got "
                f"{self.total} of {self.family.name}; take hard_concrete."
            )

    @property
    def settings(self) -> tuple[int, ...]:
        """The widths that a unit may have, none included."""
        return (0, *self.widths) if self.zero else self.widths

    @property
    def levels(self) -> int:
        """Gates of each unit: none at a fixed width."""
        return 0 if self.by_deviation else len(self.settings) - 1

    @property
    def units(self) -> dict[str, int]:
        """Number of units by kernel."""
        return {name: value.shape[-1] if self.per_channel else 1 for name, value in self.initial.items()}

    @property
    def total(self) -> int:
        """Number of gates."""
        return self.levels * sum(self.units.values())

    def input_bits(self, kernel: str) -> int:
        """Returns the width of the values that a kernel reads: of the first that of inputs, else of activations."""
        return self.inputs if kernel == next(iter(self.initial)) else self.activations

    def prior(self, weight: Float[Array, ""] | None = None) -> Float[Array, " gate"]:
        """Samples the gates from their base measure, inside a NumPyro model; none at a fixed width.

        Args:
            weight: factor on their divergence, the guide's too; None is 1.
        """
        if not self.total:
            return jnp.zeros(0)
        with weighed(weight):
            return numpyro.sample(BITS, AnyWidth(self.levels, sum(self.units.values())))

    def posterior(
        self,
        key: Key[Array, ""] | None = None,
        weight: Float[Array, ""] | None = None,
        whole: Bool[Array, ""] | None = None,
    ) -> Float[Array, " gate"]:
        """Samples the gates from their posterior, inside a NumPyro guide; none at a fixed width.

        Args:
            key: consumed; None takes the guide's own.
            weight: that of `prior`.
            whole: see `learned`.
        """
        if not self.total:
            return jnp.zeros(0)
        with weighed(weight):
            return numpyro.sample(BITS, self.learned(whole), rng_key=key)

    def learned(self, whole: Bool[Array, ""] | None = None) -> NestedGates:
        """Returns the distribution of all gates with its learned parameters, inside a model or a guide.

        Args:
            whole: whether all bits are there for now, whatever the gates' distribution, which then stands still; None
                is no.
        """
        first = self.family.initial(self.total, self.open_probability)
        own = {name: numpyro.param(GATES + name, value) for name, value in first.items()}
        if whole is not None:
            open_ = self.family.decided(jnp.ones(self.total, bool))
            own = {name: jnp.where(whole, open_[name], value) for name, value in own.items()}
        return NestedGates(self.family.posterior(own), self.levels)

    def steps(self) -> dict[str, Float[Array, "width unit"]]:
        """Returns the learned log steps by kernel, inside a model or a guide; none where weights learn unrounded."""
        names = () if self.by_deviation else self.initial
        return {name: numpyro.param(_step(name), lambda key, name=name: self.log_steps(name)) for name in names}

    def at(self, flat: Float[Array, " gate"], steps: dict[str, Array]) -> Precision | None:
        """Returns the widths at gates of `prior` or `posterior`; None where weights learn unrounded."""
        return None if self.by_deviation else Precision(self.by_kernel(flat), steps)

    def log_steps(self, name: str, weights: Array | None = None) -> Float[Array, "width unit"]:
        """Returns the best log steps of a kernel at each width; of its initial weights where none are given."""
        weights = self.initial[name] if weights is None else weights
        return jnp.stack([best_log_step(weights, bits, self.units[name]) for bits in self.widths])

    def by_kernel(self, flat: Float[Array, " gate"]) -> dict[str, Float[Array, "width unit"]]:
        """Returns the gates of each width by kernel; those of widths that every unit has are open."""
        start, found = 0, {}
        for name, count in self.units.items():
            own = flat.reshape(self.levels, -1)[:, start : start + count] if self.levels else jnp.zeros((0, count))
            found[name] = jnp.concatenate([jnp.ones((len(self.widths) - self.levels, count)), own])
            start += count
        return found

    def fold(self, weights: Params, precision: Precision) -> Params:
        """Returns the weights of the network at these widths; kernels that learn unrounded stay as they are."""
        rounded = {
            name: nested(weights[name], precision.log_steps[name], gates, self.widths)
            for name, gates in precision.gates.items()
        }
        return weights | rounded

    def of(self, params: Params) -> NestedGates:
        """Returns the distribution of all gates among the guide's parameters."""
        names = self.family.initial(1, self.open_probability)
        return NestedGates(self.family.posterior({name: params[GATES + name] for name in names}), self.levels)

    def draw(self, params: Params, key: Key[Array, ""]) -> Precision | None:
        """Returns one draw of the widths; None where weights learn unrounded. The key is consumed."""
        own = stream(key, BITS)
        flat = self.of(params).sample(own) if self.total else jnp.zeros(0)
        return self.at(flat, {} if self.by_deviation else self.steps_of(params))

    def steps_of(self, params: Params) -> dict[str, Float[Array, "width unit"]]:
        """Returns the log steps by kernel among the guide's parameters."""
        return {name: params[_step(name)] for name in self.initial}

    def reached(self, params: Params) -> Float[Array, "level unit"]:
        """Returns the probability that each gate and all before it are open, units of all kernels in a row."""
        return jnp.cumprod(self.of(params).open_probability.reshape(self.levels, -1), 0)

    def chances(self, params: Params) -> dict[str, Float[Array, "setting unit"]]:
        """Returns the probability of each of `settings` by kernel, by the names that energies know them by."""
        if not self.levels:
            return {}
        return self.of_gates(self.of(params).open_probability)

    def of_gates(self, opened: Float[Array, " gate"]) -> dict[str, Float[Array, "setting unit"]]:
        """Returns the probability of each of `settings` under independent gates that are open with these."""
        by_kernel = self.by_kernel(opened)
        found = {}
        for name, gates in by_kernel.items():
            own = gates[len(self.widths) - self.levels :]
            reach = jnp.cumprod(jnp.concatenate([jnp.ones_like(gates[:1]), own]), 0)
            found[named(name)] = reach - jnp.concatenate([reach[1:], jnp.zeros_like(reach[:1])])
        return found

    def runs(self, q: NestedGates, flat: Float[Array, " gate"]) -> Float[Array, " gate"]:
        """Returns which gates are open at a draw; a relaxed one answers to the slope of its open probability.

        See `dsnn.bayes.gate_posterior.GatePosterior.runs`.
        """
        if self.family.discrete:
            return flat
        p = q.open_probability
        return p + jax.lax.stop_gradient((flat > self.family.shut) - p)

    def likeliest(self, params: Params) -> Bool[Array, " gate"]:
        """Returns the gates that are open at each unit's likeliest width, the widest of equal ones."""
        reach = self.reached(params)
        ones, zeros = jnp.ones_like(reach[:1]), jnp.zeros_like(reach[:1])
        chance = jnp.concatenate([ones, reach]) - jnp.concatenate([reach, zeros])
        level = self.levels - jnp.argmax(chance[::-1], 0)
        return (jnp.arange(self.levels)[:, None] < level).reshape(-1)

    def decision(self, params: Params, weights: Params) -> Precision:
        """Returns the widths of the deterministic network: each unit's likeliest.

        Args:
            params: of the guide.
            weights: the posterior's means, which the control by deviation looks at.
        """
        if self.by_deviation:
            return self._within_deviation(params, weights)
        flat = self.likeliest(params).astype(jnp.float32) if self.levels else jnp.zeros(0)
        return Precision(self.by_kernel(flat), self.steps_of(params))

    def decide(self, params: Params, opened: Bool[Array, " gate"]) -> Params:
        """Returns the guide's parameters with these gates surely open and all others surely closed."""
        decided = {GATES + name: value for name, value in self.family.decided(opened).items()}
        return params | {name: jnp.asarray(value, params[name].dtype) for name, value in decided.items()}

    def widths_of(self, precision: Precision) -> dict[str, Int[Array, " unit"]]:
        """Returns the decided width of each unit by kernel."""
        table = jnp.asarray((0, *self.widths))
        return {name: table[(gates > 0).sum(0).astype(int)] for name, gates in precision.gates.items()}

    def averaged(self, q: NestedGates, flat: Float[Array, " gate"], terms: Callable[[Array], Any]) -> Any:
        """Returns the terms at a draw of the gates, or their exact expectation over discrete ones."""
        if not self.family.discrete:
            return terms(flat)
        settings = every_setting(self.total)
        share = jnp.exp(q.log_prob(settings))
        return jax.tree.map(lambda a: jnp.tensordot(share, a, 1), jax.lax.map(terms, settings))

    def _within_deviation(self, params: Params, weights: Params) -> Precision:
        gates, steps = {}, {}
        for name, count in self.units.items():
            deviation = params[name + DEVIATION]
            rows = deviation.reshape(-1, deviation.shape[-1]) if count > 1 else deviation.reshape(-1, 1)
            steps[name] = self.log_steps(name, weights[name])
            fits = power_of_two(steps[name]) <= jnp.sqrt((rows**2).mean(0))
            level = jnp.where(fits.any(0), jnp.argmax(fits, 0), len(self.widths) - 1)
            gates[name] = (jnp.arange(len(self.widths))[:, None] <= level).astype(jnp.float32)
        return Precision(gates, steps)


def input_range(x: Any) -> Params:
    """Returns the least and the largest value of inputs, by their name among a guide's parameters; zero is within.

    Args:
        x: an array, or sparse rows.
    """
    return {INPUTS: jnp.asarray((min(float(x.min()), 0.0), max(float(x.max()), 0.0)), jnp.float32)}


def named(kernel: str) -> str:
    """Returns under which name the widths of a kernel stand beside groups of sites, where energy is expected."""
    return f"{BITS}.{kernel}"


def _step(kernel: str) -> str:
    return f"{BITS}.{kernel}.log_step"
