"""Maximum a posteriori learning: the gradient of a loss, on parameters without constraints."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax

from dsnn import rng
from dsnn.bayes.priors import POINT_CONSTRAINTS
from dsnn.learn.gradients import FPTTState
from dsnn.learn.learner import Info, Learner
from dsnn.parameters import Params, Template, statistics_of, without_statistics
from dsnn.protocols import Batch
from dsnn.types import Array, Float, Int, Key


class MapState(NamedTuple):
    """What maximum a posteriori learning carries from step to step; parameters are unconstrained.

    Statistics are those of norms, by their names behind `dsnn.parameters.STATISTICS`; empty without norms.
    """

    params: Params
    opt_state: Any
    step: Int[Array, ""]
    statistics: Params = {}  # noqa: RUF012 - never changed


def natural(template: Template, raw: Params) -> Params:
    """Returns parameters where they lie from unconstrained ones, which optimisers move."""
    return {name: _constrain(template, name)(value) for name, value in raw.items()}


def unconstrained(template: Template, params: Params) -> Params:
    """Returns the unconstrained numbers of parameters; the inverse of `natural`."""
    return {name: _constrain(template, name).inv(value) for name, value in params.items()}


def _constrain(template: Template, name: str) -> Any:
    return dist.biject_to(POINT_CONSTRAINTS[template.supports[name]])


def map_learner(
    loss: Callable[[Params, Batch, Key[Array, ""]], Any],
    template: Template,
    params: Params,
    tx: optax.GradientTransformation,
    root: Key[Array, ""],
) -> Learner:
    """Returns the learner that follows the gradient of ``loss(params, batch, key)``.

    Args:
        loss: in nats per example; the key is consumed. Of a template with normalisation statistics it gives these too,
            after the batch, as `dsnn.simulate.simulator.Simulator.trained` does: ``(loss, statistics)``.
        template: the network, whose supports keep constrained parameters inside.
        params: where learning starts, statistics too if they do not begin anew.
        tx: Optax optimiser.
        root: root key of the run.
    """

    def init() -> MapState:
        raw = unconstrained(template, without_statistics(params))
        return MapState(raw, tx.init(raw), jnp.zeros((), jnp.int32), template.statistics | statistics_of(params))

    def objective(
        raw: Params, statistics: Params, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], Params]:
        given = loss(natural(template, raw) | statistics, batch, key)
        return given if statistics else (given, {})

    def step(state: MapState, batch: Batch) -> tuple[MapState, Info]:
        key = rng.stream(root, "noise", state.step)
        learned = jax.value_and_grad(objective, has_aux=True)
        (value, statistics), grads = learned(state.params, state.statistics, batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = MapState(optax.apply_updates(state.params, updates), opt_state, state.step + 1, statistics)
        return new, Info(value)

    return Learner(init, step)


def map_params(template: Template, state: MapState | FPTTState) -> Params:
    """Returns the natural (constrained) parameters of a MAP or FPTT state, and normalisation statistics beside them."""
    return natural(template, state.params) | (state.statistics if isinstance(state, MapState) else {})
