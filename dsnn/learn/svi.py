"""Variational inference: the learner that maximises a Bayesian network's objective with `numpyro.infer.SVI`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.infer.svi import SVIState

from dsnn import rng
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.objective import Context
from dsnn.learn.deciding import check_groups, decided
from dsnn.learn.learner import Learner, blank
from dsnn.learn.pricing import Pricing
from dsnn.learn.svi_config import SviConfig, decided_from
from dsnn.learn.svi_state import SviState, svi_params
from dsnn.parameters import Params, statistics_of, without_statistics
from dsnn.protocols import Batch
from dsnn.types import Array, Float, Key


class SviInfo(NamedTuple):
    """What a person wants to see of a step.

    Attributes:
        loss: in nats per example.
        lam: price of energy, nats per nJ.
        energy_nj: modelled energy of an inference.
        mean_steps: running average of the stopping time.
        kept_fraction: share of the sites that more likely run than not.
        budget_nj: what the energy is held to at this step; 0 without a budget.
    """

    loss: Float[Array, "..."]
    lam: Float[Array, "..."]
    energy_nj: Float[Array, "..."]
    mean_steps: Float[Array, "..."]
    kept_fraction: Float[Array, "..."]
    budget_nj: Float[Array, "..."]


def svi_learner(
    bayesian: Bayesian,
    config: SviConfig,
    tx: optax.GradientTransformation,
    total_steps: int,
    root: Key[Array, ""],
    lam: Float[Array, ""] | None = None,
    vectorize: Callable[[Callable[..., Any], Any], Any] | bool = True,
    begin: Params | None = None,
    targets: jax.ShapeDtypeStruct | None = None,
    whole: Pricing | None = None,
    left_nj: float = 0.0,
) -> Learner:
    """Returns the learner that maximises the objective of a Bayesian network.

    Args:
        bayesian: model and guide.
        config: temperatures, prices and budgets.
        tx: Optax optimiser over the guide's parameters.
        total_steps: updates of the whole run, for the warm-ups.
        root: root key of the run.
        lam: takes the place of the configuration's λ; may be traced.
        vectorize: how the particles are computed, see `numpyro.infer.ELBO`.
        begin: natural parameters of the guide that learning starts from; None is the guide's own start.
        targets: shape and dtype of one example's target; None is a class.
        whole: prices of the network that this one was before sites left it (`dsnn.learn.shrinking`); None is itself.
        left_nj: energy of an inference that left with them.
    """
    check_groups(config.budget_sites, bayesian.gates)
    pricing = Pricing(bayesian, config, total_steps, lam, whole, left_nj)
    loss = TraceMeanField_ELBO(num_particles=config.particles, vectorize_particles=vectorize)
    svi = SVI(bayesian.model, bayesian.guide, tx, loss)
    gated = bayesian.gates is not None or bayesian.chooses_bits
    deciding = decided_from(config, total_steps) if gated else None
    by_chance = rng.stream(root, "gates")

    def init() -> SviState:
        empty = bayesian.no_context()
        x, y = bayesian.simulator.example(bayesian.weights.initial), blank(targets)
        context = empty._replace(site_prices={group: jnp.ones(()) for group in config.budget_sites})
        given = None if begin is None else without_statistics(begin)
        state = svi.init(rng.stream(root, "init"), x, y, context, init_params=given)
        events = {name: jnp.ones_like(e) for name, e in empty.events.items()}
        ungated = events if pricing.measures_ungated else {}
        steps = jnp.asarray(float(bayesian.simulator.steps))
        statistics = bayesian.simulator.template.statistics | statistics_of(begin or {})
        return SviState(state, jnp.zeros((), jnp.int32), pricing.begun(), events, steps, statistics, ungated)

    def prepared(state: SviState, batch: Batch) -> SviState:
        """Returns the state with what is due before this update: gates decided, events measured, the price set."""
        if deciding is not None:
            state = jax.lax.cond(
                state.step == deciding, lambda s: decided(bayesian, config, pricing, s, by_chance), lambda s: s, state
            )
        if pricing.priced:
            due = state.step % config.measure_every == 0
            state = jax.lax.cond(due, lambda s, b: pricing.measured(s, b, root), lambda s, _: s, state, batch)
        if pricing.shared and pricing.priced:
            state = jax.lax.cond(state.step == pricing.gated_from, pricing.shared_out, lambda s: s, state)
        return state

    def step(state: SviState, batch: Batch) -> tuple[SviState, SviInfo]:
        if svi.constrain_fn is None:
            jax.eval_shape(init)  # NumPyro keeps the parameters' transforms from its last init
        state = prepared(state, batch)
        lam = pricing.price(state)
        keyed = state.svi._replace(rng_key=rng.stream(root, "weights", state.step))
        context = pricing.context(state, lam)
        if state.statistics:
            new, value, statistics = _updated(svi, keyed, batch, context, state.statistics)
            state = state._replace(svi=new, step=state.step + 1, statistics=statistics)
        else:
            new, value = svi.update(keyed, batch.x, batch.y, context)
            state = state._replace(svi=new, step=state.step + 1)
        return state, _said(bayesian, pricing, state, value / bayesian.data_size, lam)

    return Learner(init, step)


def _updated(
    svi: SVI, state: SVIState, batch: Batch, context: Context, statistics: Params
) -> tuple[SVIState, Float[Array, ""], Params]:
    """Returns what `numpyro.infer.SVI.update` does, and the normalisation statistics after the batch.

    These are the objective's slope along the statistics that it is given (`Bayesian.model`): the mean over particles.
    """
    key, now = jax.random.split(state.rng_key)

    def loss(learned: Params, statistics: Params) -> Float[Array, ""]:
        given = context._replace(statistics=statistics)
        params = svi.constrain_fn(learned)
        value: Float[Array, ""] = svi.loss.loss(now, params, svi.model, svi.guide, batch.x, batch.y, given)
        return value

    learned = svi.optim.get_params(state.optim_state)
    value, (slopes, after) = jax.value_and_grad(loss, argnums=(0, 1))(learned, statistics)
    optim_state = svi.optim.update(slopes, state.optim_state, value=value)
    return SVIState(optim_state, None, key), value, jax.tree.map(jnp.negative, after)


def _said(
    bayesian: Bayesian, pricing: Pricing, state: SviState, loss: Float[Array, ""], lam: Float[Array, ""]
) -> SviInfo:
    kept, energy = jnp.ones(()), jnp.zeros(())
    if pricing.priced:
        probabilities = bayesian.gate_probabilities(svi_params(bayesian, state))
        if bayesian.gates is not None:
            runs = bayesian.gates.sites.running(probabilities)
            kept = (jnp.concatenate(list(runs.values())) > 0.5).mean()
            if pricing.whole is not None:  # a share of all sites that there were
                kept = kept * (bayesian.gates.sites.total / sum(pricing.sizes.values()))
        energy = pricing.spent(bayesian.chances(svi_params(bayesian, state)), state)
    return SviInfo(loss, lam, energy, state.mean_steps, kept, pricing.budget(state))
