"""Which sites stay once gates are decided: the likeliest, the best of a number, or as many as a budget pays for."""

import jax
import jax.numpy as jnp

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.sites import magnitudes
from dsnn.learn.duals import largest, most_within
from dsnn.learn.pricing import Pricing
from dsnn.learn.svi_config import SviConfig
from dsnn.learn.svi_state import SviState, svi_params
from dsnn.types import Array, Key


def decided(bayesian: Bayesian, config: SviConfig, pricing: Pricing, state: SviState, key: Key[Array, ""]) -> SviState:
    """Returns the state in which every gate is surely open or surely closed.

    Args:
        bayesian: with gates.
        config: budgets of sites.
        pricing: with the budget of energy, if there is one.
        state: of learning so far.
        key: chooses where sites are decided by chance; consumed.
    """
    gates = bayesian.gates
    assert gates is not None
    own = svi_params(bayesian, state)
    scores = opened = gates.probabilities(own)
    if gates.family.by_magnitude:
        scores = magnitudes(gates.sites, bayesian.centre(own).weights, state.events)
    if gates.family.at_random:
        scores = gates.sites.unflatten(jax.random.uniform(key, (gates.sites.total,)))
    if pricing.budgeted:
        # what has no probabilities is compared by its place in its own group
        likely = opened if gates.family.inferred else {group: _places(score) for group, score in scores.items()}
        chosen = _filled(gates, config, pricing, state, likely)
        # from here halting alone answers to the price, which has to be within its reach
        within = jnp.maximum(state.duals.log_lam, jnp.log(pricing.first()))
        state = state._replace(duals=state.duals._replace(log_lam=within))
    else:
        chosen = _most(gates, config, scores, opened)
    count, (params, opt_state) = state.svi.optim_state
    params = gates.decide(params, jnp.concatenate(list(chosen.values())))
    return state._replace(svi=state.svi._replace(optim_state=(count, (params, opt_state))))


def check_groups(budget: dict[str, int], gates: GatePosterior | None) -> None:
    """Checks that budgets of sites are of groups that have as many.

    Raises:
        ValueError: they are not.
    """
    groups = {} if gates is None else gates.sites.groups
    for group, most in budget.items():
        if most > groups.get(group, 0):
            has = ", ".join(f"{name}: {size}" for name, size in groups.items()) or "none"
            raise ValueError(f"svi.budget_sites must name groups and at most their sites ({has}), got {group}: {most}.")


def _most(
    gates: GatePosterior, config: SviConfig, scores: dict[str, Array], opened: dict[str, Array]
) -> dict[str, Array]:
    """Returns the sites to keep: the best by score where their number is given, else those that likelier run than not.

    Groups come in the order of the network, and what can no longer be reached is nothing to choose.
    """
    chosen: dict[str, Array] = {}
    for group, p in opened.items():
        score = gates.sites.reachable({**chosen, group: scores[group]})[group]
        most = config.budget_sites.get(group)
        chosen[group] = p > 0.5 if most is None else largest(score, most)
    return gates.sites.reachable(chosen)


def _filled(
    gates: GatePosterior, config: SviConfig, pricing: Pricing, state: SviState, opened: dict[str, Array]
) -> dict[str, Array]:
    """Returns the sites to keep: the likeliest to run, as many as the budget of energy pays for at the mean steps.

    One site stays whatever it costs.
    """
    sites, budget = gates.sites, pricing.budget(state, final=True)
    chosen = _most(gates, config, opened, {group: jnp.ones_like(p) for group, p in opened.items()})
    allowed = jnp.concatenate(list(chosen.values()))
    likely = jnp.where(allowed, jnp.concatenate(list(opened.values())), -1.0)
    place = jnp.argsort(jnp.argsort(-likely))

    def kept(count: Array) -> dict[str, Array]:
        return sites.reachable(sites.unflatten((place < count) & allowed))

    def spent(count: Array) -> Array:
        opened = {group: k.astype(jnp.float32) for group, k in kept(count).items()}
        return pricing.spent(opened, state)

    return kept(most_within(spent, budget, len(likely)))


def _places(scores: Array) -> Array:
    """Returns the share of a group whose scores are no larger, in (0, 1]."""
    return (jnp.argsort(jnp.argsort(scores)) + 1) / len(scores)
