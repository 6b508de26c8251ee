"""Noise before and after a neuron, whatever the neuron."""

from typing import Any, NamedTuple

import jax
from flax import nnx

from dsnn.escape import OrnsteinUhlenbeck, ReleaseFailure
from dsnn.types import Array, Float, Key


class NoisyState(NamedTuple):
    """State of the cell, and the noise current (None without one)."""

    cell: Any
    current: Float[Array, "*batch neuron"] | None = None

    @property
    def membrane(self) -> Float[Array, "*batch neuron"]:
        """Membrane of the cell."""
        return self.cell.membrane


class Noisy(nnx.Module):
    """A cell with a noise current into its membrane, unreliable release of its spikes, or both.

        n = noise step,   (u, s) = cell step with I + n,   output = release(s)

    The noise current is scaled like any other by the cell's ``input_scale``. A spike that is not released still
    resets the neuron. Escape noise and threshold jitter are the cell's own ``noise``; each source is counted once.

    Args:
        cell: any cell of `dsnn.cells`.
        current: `dsnn.escape.OrnsteinUhlenbeck` or None.
        release: `dsnn.escape.ReleaseFailure` or None.

    Raises:
        ValueError: a noise of another kind in either place.
    """

    def __init__(self, cell: Any, current: OrnsteinUhlenbeck | None = None, release: ReleaseFailure | None = None):
        for name, noise, kind in (("current", current, OrnsteinUhlenbeck), ("release", release, ReleaseFailure)):
            if noise is not None and not isinstance(noise, kind):
                raise ValueError(
                    f"{name} must be an {kind.__name__} or None, got {type(noise).__name__}; escape noise goes to the "
                    "cell as noise=."
                )
        self.cell, self.current, self.release = cell, current, release

    @property
    def threshold(self) -> Any:
        """Threshold of the cell."""
        return self.cell.threshold

    @property
    def noise(self) -> Any:
        """Escape noise of the cell."""
        return self.cell.noise

    @property
    def surrogate(self) -> Any:
        """Surrogate of the cell."""
        return self.cell.surrogate

    def init(self, batch_shape: tuple[int, ...]) -> NoisyState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        noise = None if self.current is None else self.current.init(batch_shape)
        return NoisyState(self.cell.init(batch_shape), noise)

    def step(
        self, state: NoisyState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[NoisyState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the released spikes; a key is consumed, None is the deterministic neuron."""
        current_key, cell_key, release_key = (None,) * 3 if key is None else jax.random.split(key, 3)
        noise = None
        if self.current is not None and state.current is not None:
            noise = self.current.step(state.current, current_key)
            current = current + noise
        cell, spikes = self.cell.step(state.cell, current, cell_key)
        if self.release is not None:
            spikes = self.release.release(spikes, release_key)
        return NoisyState(cell, noise), spikes
