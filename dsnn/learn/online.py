"""Learning rules that update the parameters while a sequence goes on, in memory that does not grow with its length."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dsnn import rng
from dsnn.bayes.likelihood import Likelihood
from dsnn.learn import Batch, Info, Learner, MapState, natural, unconstrained
from dsnn.learn.gradients import FPTT, FPTTState, fptt, over_windows
from dsnn.parameters import Params
from dsnn.simulate.simulator import Simulator
from dsnn.simulate.unroll import unroll
from dsnn.types import Array, Key

RESUMED = ("sum", "mean", "last")
"""Readouts that go on from one window of a sequence to the next."""


def fptt_learner(
    simulator: Simulator,
    params: Params,
    likelihood: Likelihood,
    tx: optax.GradientTransformation,
    config: FPTT,
    root: Key[Array, ""],
) -> Learner:
    """Returns the learner that updates every ``config.window`` steps, in memory that does not grow with time.

    The loss of step t is (t + 1)/T of the label's and the rest of a uniform guess's, so that early steps commit to
    nothing (Yin, Corradi & Bohte 2023, eq. 12); with a label at every step it is that label's.

    Args:
        simulator: gives the sequences; what it holds for all steps has none.
        params: where learning starts.
        likelihood: of the labels at one step.
        tx: Optax optimiser.
        config: window and pull to the running average.
        root: root key of the run.

    Raises:
        ValueError: a readout that is not "last".
    """
    template = simulator.template
    skip = getattr(likelihood, "skip", 0)
    if (readout := template.build(params).readout_kind) != "last":
        raise ValueError(f"forward propagation through time reads each step's own output, got the readout {readout!r}.")

    def build(raw: Params) -> Any:
        return template.build(natural(template, raw))

    def loss(outputs: Array, t: Array, y: Array) -> Array:
        if y.ndim == 2:
            return jnp.where(t < skip, 0.0, -likelihood.log_prob({}, outputs, y[:, t]))
        done = (t + 1) / simulator.steps
        guess = -jax.nn.log_softmax(outputs).mean(-1)
        return -done * likelihood.log_prob({}, outputs, y) + (1 - done) * guess

    begin, advance = fptt(build, loss, tx, config)

    def init() -> FPTTState:
        return begin(unconstrained(template, params))

    def step(state: FPTTState, batch: Batch) -> tuple[FPTTState, Info]:
        key = rng.stream(root, "noise", state.step)
        xs = simulator.encode(batch.x, rng.stream(key, "data"))
        new, value = advance(state, xs, batch.y, rng.stream(key, "noise") if simulator.stochastic else None)
        return new, Info(value / simulator.steps)

    return Learner(init, step)


def tbptt_learner(
    simulator: Simulator,
    params: Params,
    likelihood: Likelihood,
    tx: optax.GradientTransformation,
    window: int,
    root: Key[Array, ""],
) -> Learner:
    """Returns the learner of truncated backpropagation through time: an update after every ``window`` steps.

    Each update follows the gradient of the loss so far within its window: of a class, the loss of the running readout
    at the window's end (Yin, Corradi & Bohte 2021); of a label at every step, the sum over the window's steps. The
    state of the neurons goes on to the next window; gradients do not.

    Args:
        simulator: gives the sequences; what it holds for all steps has none.
        params: where learning starts.
        likelihood: of the label, or of the labels at one step.
        tx: Optax optimiser.
        window: steps between updates.
        root: root key of the run.

    Raises:
        ValueError: a readout that has to see all steps at once.
    """
    template = simulator.template

    def build(raw: Params) -> Any:
        return template.build(natural(template, raw))

    def init() -> MapState:
        raw = unconstrained(template, params)
        return MapState(raw, tx.init(raw), jnp.zeros((), jnp.int32))

    readout = template.build(params).readout_kind
    skip = getattr(likelihood, "skip", 0)
    if readout not in RESUMED:
        raise ValueError(f"updates within a sequence take the readouts {', '.join(RESUMED)}, got {readout!r}.")

    def loss(raw: Params, neurons: Any, before: Array, times: Array, piece: Array, y: Array, key: Any) -> Any:
        options: dict[str, Any] = {"memory": simulator.memory, "state": neurons}
        outputs, neurons, _ = unroll(build(raw), piece, key, None, simulator.schedule, **options)
        total = outputs[-1] if readout == "last" else before + outputs.sum(0)
        if y.ndim == 2:
            each = likelihood.log_prob({}, outputs, y.T[times]).mean(1)
            return -jnp.where(times < skip, 0.0, each).sum(), (neurons, total)
        logits = total / (times[-1] + 1) if readout == "mean" else total
        return -likelihood.log_prob({}, logits, y).mean(), (neurons, total)

    def step(state: MapState, batch: Batch) -> tuple[MapState, Info]:
        key = rng.stream(root, "noise", state.step)
        xs = simulator.encode(batch.x, rng.stream(key, "data"))

        def update(carry: Any, times: Array, piece: Array) -> tuple[Any, Array]:
            learned, neurons, total = carry
            drawn = rng.stream(key, "noise", times[0]) if simulator.stochastic else None
            slope = jax.value_and_grad(loss, has_aux=True)
            (value, rest), grads = slope(learned.params, neurons, total, times, piece, batch.y, drawn)
            updates, opt_state = tx.update(grads, learned.opt_state, learned.params)
            return (MapState(optax.apply_updates(learned.params, updates), opt_state, learned.step + 1), *rest), value

        model = build(state.params)
        start = model.init(xs.shape[1:2]), jnp.zeros((xs.shape[1], *model.out_shape))
        (state, *_), values = over_windows(update, (state, *start), xs, window)
        value = values.sum() if batch.y.ndim == 2 else values[-1]
        return state, Info(value)

    return Learner(init, step)
