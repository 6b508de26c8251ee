"""A whole spike train as one event of a NumPyro distribution, so that recorded spikes inform a neuron's parameters.

With escape noise the spikes of a neuron are independent given its membrane, and the membrane follows from the current
and the spikes before (Gerstner et al. 2014, section 9.2): log P(s) = Σ_t log P(s_t | u_t(s_<t)). The recorded spikes
reset the membrane, so the likelihood is exact, smooth in the parameters, and needs no surrogate. One site per train is
also what keeps gradients unbiased: single spikes as sites inside a scan would not (design, section 4).
"""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from dsnn.parameters import Params, Template
from dsnn.simulate.scan import scan
from dsnn.simulate.unroll import unroll
from dsnn.types import Array, Float, Key


class _Recorded:
    """Stands in for a cell's noise: fires the recorded spikes and keeps their log probability of this step."""

    def __init__(self, noise: Any):
        self.noise = noise
        self.spikes: Any = None
        self.log_prob: Any = None

    def spike(self, u: Array, key: Any = None, surrogate: Any = None, compare: str = ">") -> Any:
        self.log_prob = self.noise.log_prob(u, self.spikes)
        return self.spikes


class SpikeTrain(dist.Distribution):
    """Spikes ``[time, neuron]`` (or ``[time]``) of stochastic neurons that a current drives.

    ``numpyro.sample("spikes", SpikeTrain(template, {"tau": tau, "noise.width": width}, current), obs=recorded)``

    Args:
        template: of any cell with escape noise that has a likelihood, see `dsnn.parameters.split`; what is inferred has
            to be learnable there: ``LIF(tau=10.0, learnable=("tau",), noise=Logistic(0.2, learnable=("width",)))``.
        params: values of the cell's parameters by name.
        current: input current ``[time, *neuron]``.

    Raises:
        ValueError: the cell has no noise, or one without a likelihood.
    """

    def __init__(self, template: Template, params: Params, current: Float[Array, "time *neuron"]):
        self.template, self.params, self.current = template, params, current
        noise = template.build(params).noise
        if noise is None or not hasattr(noise, "log_prob"):
            raise ValueError(
                f"a spike train has a likelihood only under escape noise, got noise={type(noise).__name__}; use "
                "escape.Logistic, escape.Gaussian or a hazard."
            )
        super().__init__(event_shape=jnp.shape(current))

    @property
    def support(self) -> Any:
        """Trains of zeros and ones."""
        return constraints.independent(constraints.boolean, len(self.event_shape))

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Returns trains ``[*sample, time, *neuron]`` of the running neuron; the key is consumed."""
        extra = jnp.zeros((self.event_shape[0], *sample_shape, *self.event_shape[1:]))
        lead = self.current.reshape(self.event_shape[0], *[1] * len(sample_shape), *self.event_shape[1:])
        currents = lead + extra
        cell = self.template.build(self.params)
        if len(self.event_shape) == 1:  # one neuron; cells have an axis of neurons
            spikes = unroll(cell, currents[..., None], key)[0][..., 0]
        else:
            spikes = unroll(cell, currents, key)[0]
        return jnp.moveaxis(spikes, 0, len(sample_shape))

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns log P(train) of trains ``[*sample, time, *neuron]``, exactly."""
        axes = len(self.event_shape)
        lead = value.ndim - axes
        spikes = jnp.moveaxis(jnp.asarray(value, self.current.dtype), lead, 0)
        current = self.current.reshape(self.event_shape[0], *[1] * lead, *self.event_shape[1:])
        if axes == 1:  # one neuron; cells have an axis of neurons
            spikes, current = spikes[..., None], current[..., None]
        cell = self.template.build(self.params)
        recorded = _Recorded(cell.noise)
        cell.noise = recorded

        def body(carry: tuple[Any, Array], step: tuple[Array, Array]) -> tuple[tuple[Any, Array], None]:
            state, total = carry
            drive, recorded.spikes = step
            awake = state.refractory <= 0 if getattr(cell, "refractory", 0) else jnp.ones((), bool)
            state, _ = cell.step(state, jnp.broadcast_to(drive, recorded.spikes.shape))
            # in the refractory time the only possible answer is silence
            forced = jnp.where(recorded.spikes > 0, -jnp.inf, 0.0)
            return (state, total + jnp.where(awake, recorded.log_prob, forced)), None

        start = (cell.init(spikes.shape[1:]), jnp.zeros(spikes.shape[1:]))
        (_, total), _ = scan(body, start, (current, spikes), spikes.shape[0])
        return total.sum(tuple(range(lead, total.ndim)))
