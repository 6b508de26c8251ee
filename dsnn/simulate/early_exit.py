"""Inference that really stops: each example runs until its stopping rule says so, in one compiled program.

A mask saves nothing, so finished examples leave the batch: a cascade of loops, each over half as many examples as the
one before, runs until its active examples fit the next. What an example costs is then the steps that it took.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.networks.whole import Runnable
from dsnn.simulate.unroll import check_steps, steps_alone, unroll
from dsnn.types import Array, Bool, Float, Int, Key


class Decision(NamedTuple):
    """The logits with which each example stopped, and the step, 1..T of the clock, at which it did."""

    logits: Float[Array, "batch class"]
    steps: Int[Array, " batch"]

    def at(self, temperature: Float[Array, " time"] | None) -> "Decision":
        """Returns the decision with its logits divided by the temperature of their step; None leaves them."""
        return self if temperature is None else self._replace(logits=self.logits / temperature[self.steps - 1][:, None])


class Rule(NamedTuple):
    """A stopping rule that runs along: ``init(batch) -> state``, ``stop(state, logits, step) -> (state, stopped)``."""

    init: Callable[[int], Any]
    stop: Callable[[Any, Float[Array, "batch class"], Int[Array, ""]], tuple[Any, Bool[Array, " batch"]]]


def entropy_rule(threshold: float | Array) -> Rule:
    """Returns the rule of DT-SNN: stop once the entropy of the running prediction, over log C, is below the threshold.

    Li, Moitra, Geller & Panda 2023, arXiv 2305.17346.

    Args:
        threshold: in (0, 1); 0 never stops early.
    """
    return _stateless(lambda logits: normalised_entropy(logits) < threshold)


def confidence_rule(threshold: float | Array) -> Rule:
    """Returns the rule of SEENN-I: stop once the largest class probability reaches the threshold (arXiv 2304.01230).

    Args:
        threshold: in (0, 1]; above 1 never stops early.
    """
    return _stateless(lambda logits: jax.nn.softmax(logits).max(-1) >= threshold)


def normalised_entropy(logits: Float[Array, "*axes class"]) -> Float[Array, "*axes"]:
    """Returns the entropy of softmax(logits) over that of the uniform distribution, in [0, 1]."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1) / math.log(logits.shape[-1])


def _stateless(stops: Callable[[Array], Array]) -> Rule:
    return Rule(lambda batch: jnp.zeros(batch, bool), lambda state, logits, step: (state, stops(logits)))


class _Carry(NamedTuple):
    """What one loop carries; rows are the examples still in the batch."""

    step: Array
    state: Any
    total: Array
    rule: Any
    active: Array
    decision: Decision


class Clock(NamedTuple):
    """When the executed steps happen, where time steps are left out: a rule sees the skipped ones pass.

    Attributes:
        at: number, 1..T, of every executed step.
        total: T.
    """

    at: tuple[int, ...]
    total: int

    def executed(self, stop: Array) -> Array:
        """Returns how many steps an example has run that stops at these steps of the clock."""
        return (jnp.asarray(self.at)[:, None] <= jnp.ravel(stop)).sum(0).reshape(jnp.shape(stop))


def anytime(
    model: Runnable, rule: Rule, steps: int, *, held: bool = True, smallest: int = 32, clock: Clock | None = None
) -> Callable[[Array, Key[Array, ""] | None], Decision]:
    """Returns a function ``(inputs, key=None) -> Decision`` that stops each example by ``rule``, at the latest at T.

    An empty batch has an empty answer.

    Args:
        model: the network, best compacted first.
        rule: for example `dsnn.bayes.halting.rule`.
        steps: how many run, T or those of the clock.
        held: inputs are ``[batch, ...]`` held for all steps, else ``[time, batch, ...]``.
        smallest: batch size below which finished examples are carried along.
        clock: the time of each executed step, where others are left out; None counts them 1..T.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    if clock is not None and len(clock.at) != steps:
        raise ValueError(f"a clock must have a time for each of the {steps} steps, got {len(clock.at)}.")
    check_steps(model, steps)
    ticks = _Ticks(rule, steps, clock)

    def run(inputs: Array, key: Key[Array, ""] | None = None) -> Decision:
        batch = inputs.shape[0] if held else inputs.shape[1]
        if not batch:
            return Decision(jnp.zeros((0, *model.out_shape)), jnp.zeros(0, jnp.int32))
        currents = model.drive(inputs) if held else inputs
        carry = _Carry(
            step=jnp.zeros((), jnp.int32),
            state=model.init((batch,)),
            total=jnp.zeros((batch, *model.out_shape)),
            rule=rule.init(batch),
            active=jnp.ones(batch, bool),
            decision=Decision(jnp.zeros((batch, *model.out_shape)), jnp.full(batch, ticks.total, jnp.int32)),
        )
        carry = ticks.begin(carry)
        # a decision of one's own may need all outputs before it
        if model.readout_kind == "own" or not steps_alone(model):
            return _afterwards(model, ticks, carry, inputs, key, held)
        if batch // 2 < smallest:  # nobody leaves, so nobody has to be told where it stood
            return _loop(model, ticks, carry, currents, None, key, held, 0).decision
        result, index, size = carry.decision, jnp.arange(batch), batch
        while size:
            smaller = size // 2 if size // 2 >= smallest else 0
            carry = _loop(model, ticks, carry, currents, index, key, held, smaller)
            result = jax.tree.map(lambda whole, part, i=index: whole.at[i].set(part), result, carry.decision)
            if smaller:
                order = jnp.argsort(~carry.active, stable=True)[:smaller]
                # the number of a step is that of all examples
                rows = jax.tree.map(lambda a, o=order: a[o] if a.ndim else a, carry._replace(step=index))
                carry, index = rows._replace(step=carry.step), rows.step
            size = smaller
        return result

    return run


class _Ticks:
    """A rule asked at every tick of the clock: once after each executed step and for each skipped one after it."""

    def __init__(self, rule: Rule, steps: int, clock: Clock | None):
        self.rule, self.steps, self.clock = rule, steps, clock
        self.total = steps if clock is None else clock.total

    def begin(self, carry: _Carry) -> _Carry:
        """Returns the carry after the ticks before the first executed step, with logits of zero."""
        if self.clock is None or self.clock.at[0] == 1:
            return carry
        logits = jnp.zeros_like(carry.decision.logits)
        return self._ask(carry, logits, jnp.asarray(1), jnp.asarray(self.clock.at[0] - 1))

    def after(self, carry: _Carry, logits: Array) -> _Carry:
        """Returns the carry after what the rule says of the logits of the executed step ``carry.step`` (from 1)."""
        if self.clock is None:
            rule_state, stopped = self.rule.stop(carry.rule, logits, carry.step)
            return self._stopped(carry, rule_state, stopped | (carry.step == self.steps), logits, carry.step)
        ends = jnp.asarray([*(n - 1 for n in self.clock.at[1:]), self.total])
        return self._ask(carry, logits, jnp.asarray(self.clock.at)[carry.step - 1], ends[carry.step - 1])

    def _ask(self, carry: _Carry, logits: Array, first: Array, last: Array) -> _Carry:
        def body(at: tuple[Array, _Carry]) -> tuple[Array, _Carry]:
            tick, c = at
            rule_state, stopped = self.rule.stop(c.rule, logits, tick)
            return tick + 1, self._stopped(c, rule_state, stopped | (tick == self.total), logits, tick)

        return jax.lax.while_loop(lambda at: at[0] <= last, body, (first, carry))[1]

    def _stopped(self, carry: _Carry, rule_state: Any, stopped: Array, logits: Array, tick: Array) -> _Carry:
        done = carry.active & stopped
        decision = Decision(
            jnp.where(done[:, None], logits, carry.decision.logits),
            jnp.where(done, tick, carry.decision.steps).astype(jnp.int32),
        )
        return carry._replace(rule=rule_state, active=carry.active & ~done, decision=decision)


def _loop(
    model: Runnable,
    ticks: _Ticks,
    carry: _Carry,
    currents: Array,
    index: Array | None,
    key: Key[Array, ""] | None,
    held: bool,
    enough: int,
) -> _Carry:
    """Runs until at most ``enough`` examples are active or time is over; ``index`` None is the whole batch."""

    def rows(array: Array) -> Array:
        return array if index is None else array[index]

    here = rows(currents) if held else None

    def body(c: _Carry) -> _Carry:
        current = model.drive(rows(currents[c.step])) if here is None else here
        noise = None if key is None else jax.random.fold_in(key, c.step)
        state, spikes = model.advance(c.state, current, noise)
        step = c.step + 1
        total, logits = _accumulate(model.readout_kind, c.total, spikes[model.names[-1]], step)
        return ticks.after(c._replace(step=step, state=state, total=total), logits)

    return jax.lax.while_loop(lambda c: (c.step < ticks.steps) & (c.active.sum() > enough), body, carry)


def _afterwards(
    model: Any, ticks: _Ticks, carry: _Carry, inputs: Array, key: Key[Array, ""] | None, held: bool
) -> Decision:
    """Returns where each example would have stopped, of a network that runs all steps."""
    outputs = unroll(model, inputs, key, steps=ticks.steps if held else None)[0]

    def body(c: _Carry, logits: Array) -> tuple[_Carry, None]:
        return ticks.after(c._replace(step=c.step + 1), logits), None

    return jax.lax.scan(body, carry, model.logits(outputs))[0].decision


def _accumulate(kind: str, total: Array, output: Array, step: Array) -> tuple[Array, Array]:
    """Returns the running readout's memory and the logits after one more output; `running_logits` step by step."""
    match kind:
        case "mean":
            return total + output, (total + output) / step
        case "sum":
            return total + output, total + output
        case "max":
            best = jnp.where(step == 1, output, jnp.maximum(total, output))
            return best, best
        case "vote":
            total = total + jax.nn.softmax(output)
            return total, jnp.log(jnp.maximum(total / step, jnp.finfo(total.dtype).tiny))
        case _:
            return output, output
