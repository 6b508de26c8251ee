"""Whether the spiking network is the deep one: every layer's rates against the activations that they stand for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.convert.ann import forward
from dsnn.convert.calibrate import rates
from dsnn.convert.limits import activations
from dsnn.networks.stack import Stack
from dsnn.simulate import encode
from dsnn.types import Array

INPUTS = ("direct", "rate", "latency", "address")
AT_ONCE = 10
"""Examples whose spikes of all steps are in memory together."""


class LayerMatch(NamedTuple):
    """One layer's rates r against activations a in units of its limit λ.

    Attributes:
        name: of the layer; the last row compares logits.
        limit: λ.
        correlation: of r and a over examples, neurons and positions.
        error: mean absolute difference.
        bias: mean of r - a.
        clipped: share of activations above λ, which no rate can reach.
        rate: mean of r.
    """

    name: str
    limit: float
    correlation: float
    error: float
    bias: float
    clipped: float
    rate: float


def inputs_of(x: Array, steps: int, kind: str = "direct", key: Any = None, draws: int = 0) -> tuple[Array, int | None]:
    """Returns a network's inputs and the steps for which they are held (None where they have time of their own).

    Args:
        x: examples ``[batch, ...]``.
        steps: T.
        kind: "direct", "rate", "latency" or "address".
        key: drives "rate" and "address"; consumed.
        draws: address events per example and sign.

    Raises:
        ValueError: an unknown kind, or one that lacks its key.
    """
    if kind not in INPUTS:
        raise ValueError(f"inputs must be one of {', '.join(INPUTS)}, got {kind!r}.")
    if kind in ("rate", "address") and key is None:
        raise ValueError(f"{kind} inputs are drawn and need a key, got None; direct and latency inputs need none.")
    match kind:
        case "direct":
            return x, steps
        case "rate":
            return encode.rate(x, steps, key), None
        case "latency":
            # one spike per value, weighed by what is left of the time, carries x on average over the steps
            spikes = encode.latency(x, steps)
            return spikes * x * steps, None
        case _:
            return encode.address_trains(x, steps, draws or steps, key, sampling="spread"), None


def match_layers(
    model: nnx.Sequential,
    stack: Stack,
    limits: dict[str, float],
    x: Any,
    steps: int,
    *,
    kind: str = "direct",
    key: Any = None,
    draws: int = 0,
) -> list[LayerMatch]:
    """Returns the comparison of every layer, first to last.

    Args:
        model: the deep network.
        stack: its conversion.
        limits: λ by layer.
        x: examples ``[n, ...]``.
        steps: T.
        kind: of inputs, see `inputs_of`.
        key: consumed.
        draws: of address events.
    """
    x = jnp.asarray(x)
    wanted = dict(zip(limits, activations(model, x), strict=True))
    wanted[stack.names[-1]] = np.asarray(forward(model, x).outputs)
    data, held = inputs_of(x, steps, kind, key, draws)
    graph, state = nnx.split(stack)
    run = jax.jit(lambda s, d: rates(nnx.merge(graph, s), d, held))
    parts = [slice(start, start + AT_ONCE) for start in range(0, len(x), AT_ONCE)]
    some = [run(state, data[part] if held is not None else data[:, part]) for part in parts]
    got = {name: np.concatenate([np.asarray(one[name]) for one in some]) for name in wanted}
    rows = []
    for name, values in wanted.items():
        limit = limits.get(name, 1.0)
        a = values / limit
        r = got[name][..., : a.shape[-1]]
        spread = a.std() * r.std()
        correlation = float(((a - a.mean()) * (r - r.mean())).mean() / spread) if spread else float("nan")
        clipped = float((a > 1).mean()) if name in limits else 0.0
        rows.append(
            LayerMatch(name, limit, correlation, float(np.abs(r - a).mean()), float((r - a).mean()), clipped, r.mean())
        )
    return rows
