"""The loop that runs any learner over epochs: one compiled call for all steps of an epoch."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, rng
from dsnn.learn.learner import Learner, TrainingError
from dsnn.native import programs
from dsnn.protocols import Batch
from dsnn.types import Array, Float, Key


class Settings(NamedTuple):
    """What may differ between runs that share one compiled program: its arguments, not its constants.

    So the jobs of a sweep over them find the program in the compilation cache, and a population maps over them.

    Attributes:
        root: root key of the run.
        learning_rate: peak rate for weights.
        lam: price of energy, nats per nJ.
        noise_width: scale of the escape noise, in units of the membrane.
        prior_scale: prior standard deviation of a kernel times sqrt(fan in).
    """

    root: Key[Array, "*member"]
    learning_rate: Float[Array, "*member"]
    lam: Float[Array, "*member"]
    noise_width: Float[Array, "*member"]
    prior_scale: Float[Array, "*member"]


LearnerOf = Callable[[Settings], Learner]
Program = Callable[[Any, Any, Any, Array], tuple[Any, Any]]
"""``(settings, state, arrays, epoch) -> (state, infos)``: all steps of one epoch."""


class Epoch(NamedTuple):
    """One epoch done: its number, the state after it, and the infos of its steps."""

    number: int
    state: Any
    info: Any


def fit(
    learner: Learner,
    state: Any,
    arrays: Batch,
    *,
    epochs: int,
    batch_size: int,
    root: Key[Array, ""],
    start: int = 0,
) -> Iterator[Epoch]:
    """Yields after every epoch; one compiled call runs all of an epoch's steps on device-resident data.

    The order of examples in epoch e depends on the root key and e alone, so a run resumed at ``start`` goes on exactly
    as if it had never stopped. Buffers are donated from step to step; the state passed in is copied first.

    Args:
        learner: from `map_learner`, `svi_learner` or your own.
        state: from ``learner.init()`` or a checkpoint.
        arrays: all training examples.
        epochs: number of epochs of the whole run.
        batch_size: examples per step; an incomplete last batch is left out, other examples every epoch.
        root: root key of the run.
        start: first epoch to run.

    Raises:
        TrainingError: a loss that is not finite.
    """
    unused = jnp.zeros(())
    settings = Settings(root, unused, unused, unused, unused)
    run = compiled(epoch_program(lambda _: learner, batch_size))
    for epoch in fit_program(run, settings, state, arrays, epochs=epochs, start=start):
        require_finite(epoch.info.loss, epoch.number)
        yield epoch


def epoch_program(
    family: LearnerOf,
    batch_size: int,
    place: Callable[[Batch], Batch] = lambda batch: batch,
    transform: Callable[[Any, Any], Any] | None = None,
    updates: int = 0,
) -> Program:
    """Returns ``run(settings, state, arrays, epoch) -> (state, infos)``, all steps of one epoch, for `compiled`.

    Args:
        family: the learner for given settings, built while the program is traced.
        batch_size: examples per step.
        place: says where a batch is computed, see `dsnn.learn.mesh.Spread`.
        transform: ``(x, key) -> x`` changes the inputs of a batch; the key is of a stream of its own.
        updates: per epoch, see `dsnn.data.epoch_order`; 0 is a pass over the data.
    """

    def run(settings: Settings, state: Any, arrays: Batch, epoch: Array) -> tuple[Any, Any]:
        learner = family(settings)
        order = data.epoch_order(settings.root, epoch, len(arrays.x), batch_size, updates)

        def changed(i: Array, step: Array) -> Batch:
            assert transform is not None
            return Batch(transform(arrays.x[i], rng.stream(key, "augment", step)), arrays.y[i])

        if transform is None:
            return jax.lax.scan(lambda s, i: learner.step(s, place(Batch(arrays.x[i], arrays.y[i]))), state, order)
        key = rng.stream(settings.root, "augment", epoch)
        numbered = order, jnp.arange(len(order))
        return jax.lax.scan(lambda s, at: learner.step(s, place(changed(*at))), state, numbered)

    return run


def compiled(run: Program) -> programs.Program:
    """Returns an epoch's program compiled; the buffers of its state are donated."""
    return programs.Program(run, donate_argnums=1)


def beginning(family: LearnerOf) -> Callable[[Settings], Any]:
    """Returns ``settings -> state``, compiled, see `starting`."""
    return starting(lambda settings: family(settings).init())


def starting(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what makes first states, compiled at the level that is done soonest and gives the usual bits."""
    return jax.jit(begin, compiler_options=programs.quickly(level=1))


def fit_program(
    run: Program, settings: Any, state: Any, arrays: Any, *, epochs: int, start: int = 0
) -> Iterator[Epoch]:
    """Yields after every epoch of a `compiled` program, or of one for many members; see `fit`."""
    alone = all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array))
    # the first is a copy that compiles nothing
    state = jax.device_put(state, may_alias=False) if alone else jax.tree.map(jnp.copy, state)
    for epoch in range(start, epochs):
        state, info = run(settings, state, arrays, jnp.asarray(epoch))
        yield Epoch(epoch, state, info)


def require_finite(losses: Any, epoch: int) -> None:
    """Checks the losses of one epoch, an array ``[step]``.

    Raises:
        TrainingError: a loss that is not finite, with its step.
    """
    bad = ~np.isfinite(np.asarray(losses))
    if bool(bad.any()):
        first = int(bad.argmax())
        raise TrainingError(
            f"the loss must stay finite, got {float(losses[first])} at step {epoch * len(losses) + first} "
            f"(epoch {epoch}); lower optimizer.learning_rate or set optimizer.clip=1."
        )
