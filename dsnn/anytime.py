"""Inference that really stops: each example runs until its stopping rule says so, in one compiled program.

A mask saves nothing, so finished examples leave the batch: a cascade of loops, each over half as many examples as the
one before, runs until its active examples fit the next. What an example costs is then the steps that it took.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.models import Stack
from dsnn.types import Array, Bool, Float, Int, Key


class Decision(NamedTuple):
    """The logits with which each example stopped, and the step, 1..T, at which it did."""

    logits: Float[Array, "batch class"]
    steps: Int[Array, " batch"]


class Rule(NamedTuple):
    """A stopping rule that runs along: ``init(batch) -> state``, ``stop(state, logits, step) -> (state, stopped)``."""

    init: Callable[[int], Any]
    stop: Callable[[Any, Float[Array, "batch class"], Int[Array, ""]], tuple[Any, Bool[Array, " batch"]]]


class _Carry(NamedTuple):
    step: Array
    state: Any
    total: Array
    rule: Any
    index: Array
    active: Array
    logits: Array
    steps: Array


def anytime(
    model: Stack, rule: Rule, steps: int, *, held: bool = True, smallest: int = 8
) -> Callable[[Array, Key[Array, ""] | None], Decision]:
    """Returns a function ``(inputs, key=None) -> Decision`` that stops each example by ``rule``, at the latest at T.

    Args:
        model: the network, best compacted first.
        rule: for example `dsnn.bayes.halting.rule`.
        steps: T.
        held: inputs are ``[batch, ...]`` held for all steps, else ``[time, batch, ...]``.
        smallest: batch size below which finished examples are carried along.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")

    def run(inputs: Array, key: Key[Array, ""] | None = None) -> Decision:
        batch = inputs.shape[0] if held else inputs.shape[1]
        currents = model.drive(inputs) if held else inputs
        carry = _Carry(
            step=jnp.zeros((), jnp.int32),
            state=model.init((batch,)),
            total=jnp.zeros((batch, *model.out_shape)),
            rule=rule.init(batch),
            index=jnp.arange(batch),
            active=jnp.ones(batch, bool),
            logits=jnp.zeros((batch, *model.out_shape)),
            steps=jnp.full(batch, steps, jnp.int32),
        )
        size = batch
        while size:
            smaller = size // 2 if size // 2 >= smallest else 0
            carry = _loop(model, rule, carry, currents, key, steps, held, smaller)
            if smaller:
                carry = _shrink(carry, smaller)
            size = smaller
        return Decision(carry.logits, carry.steps)

    return run


def _loop(
    model: Stack, rule: Rule, carry: _Carry, currents: Array, key: Key[Array, ""] | None, steps: int, held: bool, enough: int
) -> _Carry:
    """Runs until at most ``enough`` examples are active or time is over."""
    here = currents[carry.index] if held else None

    def body(c: _Carry) -> _Carry:
        current = here if held else model.drive(currents[c.step][c.index])
        noise = None if key is None else jax.random.fold_in(key, c.step)
        state, spikes = model.advance(c.state, current, noise)
        step = c.step + 1
        total, logits = _accumulate(model.readout_kind, c.total, spikes[model.names[-1]], step)
        rule_state, stopped = rule.stop(c.rule, logits, step)
        done = c.active & (stopped | (step == steps))
        out = c.logits.at[c.index].set(jnp.where(done[:, None], logits, c.logits[c.index]))
        taken = c.steps.at[c.index].set(jnp.where(done, step, c.steps[c.index]))
        return _Carry(step, state, total, rule_state, c.index, c.active & ~done, out, taken)

    return jax.lax.while_loop(lambda c: (c.step < steps) & (c.active.sum() > enough), body, carry)


def _shrink(carry: _Carry, size: int) -> _Carry:
    """Keeps the first ``size`` examples once active ones are sorted to the front."""
    order = jnp.argsort(~carry.active, stable=True)[:size]
    state, total, rule, index, active = jax.tree.map(
        lambda a: a[order], (carry.state, carry.total, carry.rule, carry.index, carry.active)
    )
    return carry._replace(state=state, total=total, rule=rule, index=index, active=active)


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
        case _:
            return output, output
