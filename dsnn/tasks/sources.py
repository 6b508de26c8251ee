"""Where epistemic uncertainty comes from: weights, gates or firing, by nested draws streamed in bounded memory.

I(y; w, g, s) = I(y; w) + I(y; g | w) + I(y; s | w, g), the chain rule of mutual information.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes.bayesian import Bayesian
from dsnn.rng import stream
from dsnn.tasks.batching import EVAL_BATCH, Told, averaged, in_batches
from dsnn.types import Array, Key


class Sources(NamedTuple):
    """Per example in nats: total = aleatoric + weights + gates + spikes, ``[n]`` each.

    With few draws of a source its part is underestimated; in a network without gates theirs is zero. Dropout masks
    count as spikes, since both are drawn within the forward pass.
    """

    total: Any
    aleatoric: Any
    weights: Any
    gates: Any
    spikes: Any


def by_source(bayesian: Bayesian) -> Callable[..., Sources]:
    """Returns a compiled ``split(params, x, key, *, draws=(8, 4, 4), batch_size=256, progress=None) -> Sources``.

    Args:
        bayesian: the network; all time steps run.
    """

    def probs(network: Any, x: Array, key: Key[Array, ""]) -> Array:
        return jax.nn.softmax(bayesian.simulator.logits(network, x, key, bayesian.adapt(key, x.shape[0]))[-1])

    def entropy(p: Array) -> Array:
        return -(p * jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))).sum(-1)

    @jax.jit
    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], draws: tuple[Array, Array, Array]) -> Sources:
        def under_weights(i: Array) -> tuple[Array, ...]:
            weights = bayesian.draw(params, stream(key, "weights", i), i).weights

            def under_gates(j: Array) -> tuple[Array, ...]:
                drawn = bayesian.draw(params, stream(stream(key, "gates", i), "gates", j), i)
                network = bayesian.network(drawn._replace(weights=weights))

                def under_spikes(k: Array) -> tuple[Array, Array]:
                    p = probs(network, x, stream(stream(stream(key, "noise", i), "noise", j), "noise", k))
                    return p, entropy(p)

                p, last = averaged(under_spikes, draws[2])
                return p, entropy(p), last

            p, given_gates, last = averaged(under_gates, draws[1])
            return p, entropy(p), given_gates, last

        p, given_weights, given_gates, last = averaged(under_weights, draws[0])
        total = entropy(p)
        return Sources(total, last, total - given_weights, given_weights - given_gates, given_gates - last)

    def split(
        params: dict[str, Array],
        x: np.ndarray,
        key: Key[Array, ""],
        *,
        draws: tuple[int, int, int] = (8, 4, 4),
        batch_size: int = EVAL_BATCH,
        progress: Told | None = None,
    ) -> Sources:
        if min(draws) < 1:
            raise ValueError(f"the draws of weights, gates and spikes must be at least 1 each, got {draws}.")
        counts = (draws[0], draws[1] if bayesian.gates is not None else 1, draws[2])
        each = tuple(jnp.asarray(count) for count in counts)
        made: Sources = in_batches(lambda x: batch(params, x, key, each), x, batch_size, progress=progress)
        return made

    return split
