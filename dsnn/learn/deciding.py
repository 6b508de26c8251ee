"""Which sites and bits stay once gates are decided: the likeliest, the best of a number, or what a budget pays for."""

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
    """Returns the state in which every gate is surely open or surely closed, and every width is the likeliest.

    Args:
        bayesian: with gates or bits.
        config: budgets of sites.
        pricing: with the budget of energy, if there is one.
        state: of learning so far.
        key: chooses where sites are decided by chance; consumed.
    """
    gates, own = bayesian.gates, svi_params(bayesian, state)
    bits = bayesian.bits if bayesian.chooses_bits else None
    opened = {} if gates is None else gates.probabilities(own)
    if not pricing.budgeted:
        chosen = {} if gates is None else _most(gates, config, _scores(gates, bayesian, state, key), opened)
        levels = None if bits is None else bits.likeliest(own)
    else:
        if gates is not None and not gates.family.inferred:
            # what has no probabilities is compared by its place in its own group
            opened = {group: _places(score) for group, score in _scores(gates, bayesian, state, key).items()}
        chosen, levels = _filled(bayesian, config, pricing, state, opened)
        # from here halting alone answers to the price, which has to be within its reach
        within = jnp.maximum(state.duals.log_lam, jnp.log(pricing.first()))
        state = state._replace(duals=state.duals._replace(log_lam=within))
    count, (params, opt_state) = state.svi.optim_state
    if gates is not None:
        params = gates.decide(params, jnp.concatenate(list(chosen.values())))
    if bits is not None and levels is not None:
        params = bits.decide(params, levels)
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
            raise ValueError(
                f"svi.budget_sites, or the run of gates.like, must name groups and at most their sites ({has}), got "
                f"{group}: {most}."
            )


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


def _scores(gates: GatePosterior, bayesian: Bayesian, state: SviState, key: Key[Array, ""]) -> dict[str, Array]:
    """Returns by what sites are chosen, by group; the key is consumed where that is chance."""
    own = svi_params(bayesian, state)
    if gates.family.at_random:
        return gates.sites.unflatten(jax.random.uniform(key, (gates.sites.total,)))
    if gates.family.by_magnitude:
        return magnitudes(gates.sites, bayesian.centre(own).weights, state.events)
    return gates.probabilities(own)


def _filled(
    bayesian: Bayesian, config: SviConfig, pricing: Pricing, state: SviState, opened: dict[str, Array]
) -> tuple[dict[str, Array], Array | None]:
    """Returns the sites and the levels of widths to keep: the likeliest, as many as the budget of energy pays for.

    The mean steps are what an inference takes. The likeliest site of each group stays whatever it costs, since without
    one nothing that reads the group would have anything to read, but for groups that a network goes on without
    (`Sites.switches`); a level is as likely as it is reached, so that none stays without those before it.
    """
    gates, budget = bayesian.gates, pricing.budget(state, final=True)
    bits = bayesian.bits if bayesian.chooses_bits else None
    allowed, likely, least = jnp.zeros(0, bool), [*opened.values()], jnp.asarray(1)
    if gates is not None:
        chosen = _most(gates, config, opened, {group: jnp.ones_like(p) for group, p in opened.items()})
        allowed = jnp.concatenate(list(chosen.values()))
        first = jnp.concatenate(list(_first(gates, opened).values())) & allowed
        likely, least = [jnp.where(allowed, jnp.concatenate(likely), -1.0) + 2.0 * first], jnp.maximum(first.sum(), 1)
    if bits is not None:
        likely = [*likely, bits.reached(svi_params(bayesian, state)).reshape(-1)]
    place = jnp.argsort(jnp.argsort(-jnp.concatenate(likely)))

    def kept(count: Array) -> tuple[dict[str, Array], Array | None]:
        stays = place < count
        groups = {} if gates is None else gates.sites.reachable(gates.sites.unflatten(stays[: len(allowed)] & allowed))
        return groups, None if bits is None else stays[len(allowed) :]

    def spent(count: Array) -> Array:
        groups, levels = kept(count)
        opened = {group: k.astype(jnp.float32) for group, k in groups.items()}
        if bits is not None and levels is not None:
            opened = opened | bits.of_gates(levels.astype(jnp.float32))
        return pricing.spent(opened, state)

    return kept(jnp.maximum(most_within(spent, budget, len(place)), least))


def _first(gates: GatePosterior, opened: dict[str, Array]) -> dict[str, Array]:
    """Returns the likeliest site of each group, of features one that can be reached; none of switches."""
    one_each = SviConfig(budget_sites={group: int(group not in gates.sites.switches) for group in opened})
    return _most(gates, one_each, opened, opened)


def _places(scores: Array) -> Array:
    """Returns the share of a group whose scores are no larger, in (0, 1]."""
    return (jnp.argsort(jnp.argsort(scores)) + 1) / len(scores)
