"""Inference that really stops: each example runs until its stopping rule says so, in one compiled program.

A mask saves nothing, so finished examples leave the batch: a cascade of loops, each over half as many examples as the
one before, runs until its active examples fit the next. What an example costs is then the steps that it took.
"""

import math
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


def anytime(
    model: Stack, rule: Rule, steps: int, *, held: bool = True, smallest: int = 32
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
            active=jnp.ones(batch, bool),
            decision=Decision(jnp.zeros((batch, *model.out_shape)), jnp.full(batch, steps, jnp.int32)),
        )
        if batch // 2 < smallest:  # nobody leaves, so nobody has to be told where it stood
            return _loop(model, rule, carry, currents, None, key, steps, held, 0).decision
        result, index, size = carry.decision, jnp.arange(batch), batch
        while size:
            smaller = size // 2 if size // 2 >= smallest else 0
            carry = _loop(model, rule, carry, currents, index, key, steps, held, smaller)
            result = jax.tree.map(lambda whole, part, i=index: whole.at[i].set(part), result, carry.decision)
            if smaller:
                order = jnp.argsort(~carry.active, stable=True)[:smaller]
                rows = jax.tree.map(lambda a, o=order: a[o], carry._replace(step=index))
                carry, index = rows._replace(step=carry.step), rows.step
            size = smaller
        return result

    return run


def _loop(
    model: Stack,
    rule: Rule,
    carry: _Carry,
    currents: Array,
    index: Array | None,
    key: Key[Array, ""] | None,
    steps: int,
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
        rule_state, stopped = rule.stop(c.rule, logits, step)
        done = c.active & (stopped | (step == steps))
        decision = Decision(
            jnp.where(done[:, None], logits, c.decision.logits), jnp.where(done, step, c.decision.steps)
        )
        return _Carry(step, state, total, rule_state, c.active & ~done, decision)

    return jax.lax.while_loop(lambda c: (c.step < steps) & (c.active.sum() > enough), body, carry)


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
