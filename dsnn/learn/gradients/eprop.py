"""e-prop: eligibility traces in place of backpropagation through time, memory constant in the length of a sequence."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells import LI
from dsnn.networks.layers import Dense
from dsnn.networks.stack import Stack
from dsnn.types import Array, Float, Key


def eprop_gradient(
    build: Callable[[Any], Any],
    params: dict[str, Array],
    xs: Float[Array, "time batch input"],
    loss: Callable[[Array, Array], Float[Array, " batch"]],
    key: Key[Array, ""] | None = None,
    feedback: Float[Array, "neuron class"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the loss summed over time, mean over the batch, and its e-prop gradient (Bellec et al. 2020, eq. 1 to 5).

        dE/dW_ij = sum over t of L_j(t) e_ij(t),   e_ij = ds_j/dh_j eps_ij,
        eps_ij(t) = dh_j(t)/dh_j(t-1) eps_ij(t-1) + dh_j(t)/dI_j(t) x_i(t)

    with h the whole state of a neuron, whatever the cell, and L_j(t) the error of the readout fed back, where the
    leak of the readout filters e: once for each class where each has a leak of its own, which takes that much more
    memory. All is computed forward in time. Against full backpropagation only the path over other neurons' spikes is
    missing, so without recurrent wiring the gradient is the same. Gradients are for the kernels and biases of both
    layers and the recurrent kernel; other parameters get zero.

    Args:
        build: parameters -> `Stack` of a dense spiking layer (recurrent or not) and a dense readout whose cell is `LI`.
        params: where the gradient is taken, by name.
        xs: inputs.
        loss: (readout of one step ``[batch, class]``, index of the step) -> loss per example.
        key: drives the firing and is consumed; None is the deterministic network.
        feedback: weights of the learning signal; None takes the readout's kernel (symmetric e-prop), fixed random ones
            are random e-prop.

    Raises:
        ValueError: the network has another form.
    """
    model = build(params)
    if not isinstance(model, Stack) or len(model.names) != 2 or model.names[0] == model.names[1]:
        raise ValueError("e-prop takes a Stack of one spiking layer and a readout; got another network.")
    (first, hidden), (last, readout) = model.layers()
    if not (isinstance(hidden.synapse, Dense) and isinstance(readout.synapse, Dense)) or len(hidden.before):
        raise ValueError("e-prop takes dense synapses without pooling; got another kind.")
    if normed := [name for name, layer in model.layers() if layer.norm is not None]:
        raise ValueError(f"e-prop takes layers without norms, got one in {normed[0]!r}; leave norm out.")
    if not isinstance(readout.cell, LI) or readout.recurrent is not None:
        kind = type(readout.cell).__name__
        raise ValueError(f"e-prop takes a readout of LI neurons without recurrent wiring, got {kind}; use LI.")
    batch = xs.shape[1]
    kernel = readout.synapse.kernel[...]
    signal_weights = kernel if feedback is None else feedback

    shared = all(jnp.size(constant) == 1 for constant in jax.tree.leaves(nnx.state(readout.cell)))
    leaks = 1 if shared else readout.out_shape[0]

    def each(value: Array) -> Array:
        return jnp.broadcast_to(value[..., None], (*value.shape, leaks))

    def out_step(state: Any, current: Array) -> tuple[Any, Array]:
        return readout.cell.step(state, current)

    def body(carry: Any, inputs: Any) -> tuple[Any, Array]:
        cell, before, out_state, traces, filters, grads = carry
        t, x = inputs
        x = x.reshape(batch, -1)
        current = hidden.drive(x)
        if hidden.recurrent is not None:
            current = current + before @ hidden.recurrent[...]
        step_key = None if key is None else jax.random.fold_in(jax.random.fold_in(key, t), 0)
        sources = [x, jnp.ones((batch, 1))] + ([before] if hidden.recurrent is not None else [])
        source = jnp.concatenate(sources, 1)
        (cell, spikes), traces, eligibility = _traces_after(
            lambda state, current: hidden.cell.step(state, current, step_key), cell, current, source, traces
        )
        out_state, out = out_step(out_state, readout.drive(spikes))
        value, error = jax.value_and_grad(lambda out: loss(out, t).mean())(out)
        # the readout is linear in its input, so what it does to a current it does to an eligibility
        filters, passed = _through_readout(out_step, filters, each(eligibility))
        learning = error[:, None] * signal_weights
        if shared:
            learning = learning.sum(-1, keepdims=True)
        spike_filters, spike_passed = _through_readout(out_step, grads["filters"], each(spikes))
        bias_filters, bias_passed = _through_readout(out_step, grads["bias_filters"], jnp.ones((batch, leaks)))
        grads = {
            "synapses": grads["synapses"] + jnp.einsum("bijk,bjk->ij", passed, learning),
            "kernel": grads["kernel"] + (spike_passed * error[:, None]).sum(0),
            "bias": grads["bias"] + (bias_passed * error).sum(0),
            "filters": spike_filters,
            "bias_filters": bias_filters,
        }
        return (cell, spikes, out_state, traces, filters, grads), value

    neurons, classes, features = hidden.out_shape[0], readout.out_shape[0], math.prod(hidden.in_shape)
    sources = features + 1 + (neurons if hidden.recurrent is not None else 0)
    cell = hidden.cell.init((batch, neurons))
    synapse = (batch, sources, neurons)
    start = (
        cell,
        jnp.zeros((batch, neurons)),
        readout.cell.init((batch, classes)),
        jax.tree.map(lambda leaf: jnp.zeros(synapse), cell),
        _readout_rest(readout.cell, (*synapse, leaks)),
        {
            "synapses": jnp.zeros(synapse[1:]),
            "kernel": jnp.zeros_like(kernel),
            "bias": jnp.zeros(classes),
            "filters": _readout_rest(readout.cell, (batch, neurons, leaks)),
            "bias_filters": _readout_rest(readout.cell, (batch, leaks)),
        },
    )
    (*_, sums), values = jax.lax.scan(body, start, (jnp.arange(xs.shape[0]), xs))
    found = {f"{last}.synapse.kernel": sums["kernel"], f"{last}.synapse.bias": sums["bias"]}
    found[f"{first}.synapse.kernel"] = sums["synapses"][:features]
    found[f"{first}.synapse.bias"] = sums["synapses"][features]
    found[f"{first}.recurrent"] = sums["synapses"][features + 1 :]
    return values.sum(), {name: found.get(name, jnp.zeros_like(value)) for name, value in params.items()}


def _traces_after(step: Callable, state: Any, current: Array, source: Array, traces: Any) -> tuple[Any, Any, Array]:
    """Pushes d state / d weight of every synapse ``[batch, input, neuron]`` through one elementwise step.

    Returns (state, spikes), the new traces, and d spikes / d weight.
    """
    leaves, tree = jax.tree.flatten(state)
    zeros = jax.tree.map(jnp.zeros_like, state)
    after, by_current = jax.jvp(step, (state, current), (zeros, jnp.ones_like(current)))
    carried = jax.tree.map(lambda d: d[:, None] * source[:, :, None], by_current)
    for index, trace in enumerate(jax.tree.leaves(traces)):
        unit = [jnp.ones_like(leaf) if i == index else jnp.zeros_like(leaf) for i, leaf in enumerate(leaves)]
        _, by_leaf = jax.jvp(step, (state, current), (jax.tree.unflatten(tree, unit), jnp.zeros_like(current)))
        carried = jax.tree.map(lambda c, d, trace=trace: c + d[:, None] * trace, carried, by_leaf)
    return after, *carried


def _readout_rest(cell: Any, shape: tuple[int, ...]) -> Any:
    """Returns the readout's state with a zero membrane: its response to a change begins at zero."""
    return jax.tree.map(jnp.zeros_like, cell.init(shape))


def _through_readout(step: Callable, state: Any, value: Array) -> tuple[Any, Array]:
    """Returns what the linear readout makes of a change ``value`` in its input, and the state of that change."""
    rest = jax.tree.map(jnp.zeros_like, state)
    _, (state_change, out_change) = jax.jvp(step, (rest, jnp.zeros_like(value)), (state, value))
    return state_change, out_change
