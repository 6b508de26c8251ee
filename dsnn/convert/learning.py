"""How a deep network learns before it is converted: Adam on the cross entropy, batch norm and dropout included."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from dsnn import data, evaluate, rng
from dsnn.convert.ann import forward
from dsnn.learn import Batch, Info, Learner, TrainingError, fit
from dsnn.simulate.simulator import log_likelihood
from dsnn.tasks.batching import in_batches
from dsnn.types import Array, Int, Key


class DeepState(NamedTuple):
    """Parameters, batch statistics, optimiser and number of updates."""

    params: Any
    rest: Any
    opt_state: Any
    step: Int[Array, ""]


class DeepEpoch(NamedTuple):
    """How many epochs are done, the network after them, the mean loss of the last, and the learner's state."""

    number: int
    network: nnx.Sequential
    loss: float
    state: DeepState


def deep_learner(model: nnx.Sequential, tx: optax.GradientTransformation, root: Key[Array, ""]) -> Learner:
    """Returns the learner of a deep network of `dsnn.convert.ann`; the model itself is not changed.

    Args:
        model: the network.
        tx: Optax optimiser.
        root: root key of the run; drives dropout.
    """
    graph, params, *others = nnx.split(model, nnx.Param, ...)
    rest = others[0]

    def init() -> DeepState:
        return DeepState(params, rest, tx.init(params), jnp.zeros((), jnp.int32))

    def step(state: DeepState, batch: Batch) -> tuple[DeepState, Info]:
        key = rng.stream(root, "dropout", state.step)

        def loss(params: Any) -> tuple[Array, Any]:
            rest = jax.tree.map(lambda a: a, state.rest)  # Flax lets only variables made in this trace change
            network = nnx.merge(graph, params, rest)
            outputs = forward(network, batch.x, key, train=True).outputs
            return -log_likelihood(outputs, batch.y).mean(), nnx.split(network, nnx.Param, ...)[-1]

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = DeepState(optax.apply_updates(state.params, updates), rest, opt_state, state.step + 1)
        return new, Info(value)

    return Learner(init, step)


def with_state(model: nnx.Sequential, state: DeepState) -> nnx.Sequential:
    """Returns the network with a learner's state in it."""
    return nnx.merge(nnx.graphdef(model), state.params, state.rest)


def fit_deep(
    model: nnx.Sequential,
    arrays: data.Arrays,
    *,
    epochs: int,
    batch_size: int,
    root: Key[Array, ""],
    learning_rate: float | int = 1e-3,
    weight_decay: float | int = 0.0,
    l2: float | int = 0.0,
    resumed: Callable[[DeepState], tuple[int, DeepState]] = lambda state: (0, state),
) -> Iterator[DeepEpoch]:
    """Yields every epoch, by Adam with a cosine decay to zero.

    Sparse rows are made dense a batch at a time; dense arrays stay on the device, an epoch in one call.

    Args:
        model: where learning starts; it is not changed.
        arrays: training examples.
        epochs: passes over them.
        batch_size: examples per update; an incomplete last batch is left out, other examples every epoch.
        root: root key of the run.
        learning_rate: peak rate.
        weight_decay: decoupled decay (AdamW) of everything.
        l2: this times every parameter is added to its gradient.
        resumed: given the first state, returns how many epochs are done and the state after them.

    Raises:
        ValueError: batches larger than the examples.
        TrainingError: a loss that is not finite.
    """
    if batch_size > arrays.x.shape[0]:
        raise ValueError(
            f"a deep network's batch_size must be at most the {arrays.x.shape[0]} training examples, got {batch_size}; "
            f"set convert.batch_size={arrays.x.shape[0]} or less."
        )
    total = epochs * (arrays.x.shape[0] // batch_size)
    tx = optax.chain(
        optax.add_decayed_weights(l2),
        optax.adamw(optax.cosine_decay_schedule(learning_rate, total), weight_decay=weight_decay),
    )
    learner = deep_learner(model, tx, root)
    start, state = resumed(learner.init())
    if isinstance(arrays.x, np.ndarray | jax.Array):
        dense = Batch(jnp.asarray(arrays.x), jnp.asarray(arrays.y))
        run = fit(learner, state, dense, epochs=epochs, batch_size=batch_size, root=root, start=start)
        for number, new, info in run:
            yield DeepEpoch(number + 1, with_state(model, new), float(info.loss.mean()), new)
        return
    step, state = jax.jit(learner.step, donate_argnums=0), jax.tree.map(jnp.copy, state)
    for epoch in range(start, epochs):
        order = data.epoch_permutation(rng.stream(root, "data", epoch), arrays.x.shape[0], batch_size)
        losses = []
        for index in np.asarray(order):
            state, info = step(state, Batch(*data.take(arrays, index)))
            losses.append(info.loss)
        mean = float(jnp.stack(losses).mean())
        if not np.isfinite(mean):
            raise TrainingError(f"the loss must stay finite, got {mean} in epoch {epoch}; lower the learning rate.")
        kept = jax.tree.map(jnp.copy, state)
        yield DeepEpoch(epoch + 1, with_state(model, kept), mean, kept)


def predict_deep(model: nnx.Sequential, x: Any, batch_size: int = 500) -> np.ndarray:
    """Returns class probabilities of examples ``[n, ...]``, dense or sparse, in batches."""
    graph, state = nnx.split(model)
    run = jax.jit(lambda s, b: jax.nn.softmax(forward(nnx.merge(graph, s), b).outputs))
    made: np.ndarray = in_batches(lambda x: run(state, x.astype(jnp.float32)), x, batch_size)
    return made


def accuracy(model: nnx.Sequential, arrays: data.Arrays) -> float:
    """Returns the share of examples that a deep network classifies as labelled."""
    return evaluate.accuracy(predict_deep(model, arrays.x), np.asarray(arrays.y))
