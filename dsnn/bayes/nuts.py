"""No-U-Turn sampling (Hoffman & Gelman 2014) of small networks: the oracle that guides are held against.

Spiking networks without noise have a likelihood with steps, whose true gradient in a hidden weight is zero almost
everywhere. The surrogate gradient moves the sampler instead. That is exact: a leapfrog step under any force that is a
function of the position alone is reversible and keeps volume, and states are weighed by the true density (Neal 2011,
section 5.2), so only the acceptance rate pays for a force that is not the gradient.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import numpyro.infer
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS
from numpyro.infer.hmc import hmc
from numpyro.infer.util import potential_energy

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.guides import point
from dsnn.bayes.priors import Hierarchical
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Bool, Float, Key


class Chains(NamedTuple):
    """What the sampler found.

    Attributes:
        samples: latent variables by name, ``[chain, sample, ...]``.
        accepted: mean acceptance probability per draw, ``[chain, sample]``.
        diverging: draws whose path left the typical set, ``[chain, sample]``; with hard spikes some are usual.
    """

    samples: Params
    accepted: Float[Array, "chain sample"]
    diverging: Bool[Array, "chain sample"]


def nuts(
    bayesian: Bayesian,
    x: Array,
    y: Array,
    key: Key[Array, ""],
    *,
    warmup: int = 500,
    samples: int = 1000,
    chains: int = 1,
    tree_depth: int = 8,
    progress: bool = False,
) -> Chains:
    """Returns posterior samples of a Bayesian network's weights under its priors; the key is consumed.

    Args:
        bayesian: a network without firing noise, gates or halting; its posterior family is not used.
        x: all training inputs.
        y: all training targets.
        key: drives the chains.
        warmup: draws that tune step size and mass matrix.
        samples: draws kept per chain.
        chains: run side by side in one program.
        tree_depth: a path has at most 2 to this power steps.
        progress: whether a bar is shown.

    Raises:
        ValueError: the likelihood is random or not over all data.
    """
    require_certain(bayesian)
    if len(x) != bayesian.data_size:
        raise ValueError(f"NUTS needs all {bayesian.data_size} training examples at once, got {len(x)}.")
    net = _with_points(bayesian)
    strategy = numpyro.infer.init_to_value(values=bayesian.weights.initial)
    kernel = NUTS(net.model, init_strategy=strategy, max_tree_depth=tree_depth)
    mcmc = run(kernel, key, (x, y, net.no_context()), warmup, samples, chains, progress=progress)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    return Chains(mcmc.get_samples(group_by_chain=True), extra["accept_prob"], extra["diverging"])


def require_certain(bayesian: Bayesian) -> None:
    """Checks that a network has a likelihood that NUTS can follow.

    Raises:
        ValueError: the likelihood is random.
    """
    random = (
        bayesian.simulator.stochastic
        or bayesian.simulator.encoding == "rate"
        or bayesian.weights.guide.noise is not None
    )
    if random or bayesian.gates is not None or bayesian.halting is not None:
        raise ValueError(
            "NUTS needs a likelihood without chance of its own, got firing noise, rate coding, gates or halting; use "
            "Simulator(stochastic=False) without gates and halting, or a SpikeTrain of recorded spikes."
        )


class Sampler(NamedTuple):
    """NUTS as pure functions, whose state may be kept in a checkpoint.

    Attributes:
        init: ``(positions, x, y, key) -> state`` of all chains; unconstrained positions are ``[chain, ...]``, and the
            key is consumed.
        step: ``(state, x, y) -> state``, one transition of every chain.
    """

    init: Callable[[Params, Array, Array, Array], Any]
    step: Callable[[Any, Array, Array], Any]


def sampler(bayesian: Bayesian, warmup: int, tree_depth: int, target: float) -> Sampler:
    """Returns the transitions that `nuts` makes, one by one.

    What the network learns as points beside the weights stays where it begins, but for the parameters of the likelihood
    (the noise of numbers), which have the prior LogNormal(0, 1).

    Args:
        bayesian: a network without firing noise, gates or halting; its posterior family is not used.
        warmup: transitions that tune step size and mass matrix.
        tree_depth: a path has at most 2 to this power steps.
        target: acceptance probability that the step size is tuned to.

    Raises:
        ValueError: the likelihood is random.
    """
    require_certain(bayesian)
    net = _with_points(bayesian)
    noise = {name: dist.LogNormal(0.0, 1.0) for name in bayesian.likelihood.parameters()}
    model = handlers.lift(net.model, prior=noise) if noise else net.model
    model = handlers.seed(model, rng_seed=0)  # which the likelihood, being certain, does not use

    def energy(x: Array, y: Array) -> Callable[[Params], Array]:
        return lambda position: potential_energy(model, (x, y, net.no_context()), {}, position)

    begin, move = hmc(potential_fn_gen=energy, algo="NUTS")

    def init(positions: Params, x: Array, y: Array, key: Array) -> Any:
        chains = len(next(iter(positions.values())))

        def one(position: Params, key: Array) -> Any:
            return begin(
                position,
                warmup,
                target_accept_prob=target,
                trajectory_length=None,
                max_tree_depth=tree_depth,
                model_args=(x, y),
                rng_key=key,
            )

        return jax.vmap(one)(positions, jax.random.split(key, chains))

    def step(state: Any, x: Array, y: Array) -> Any:
        return jax.vmap(lambda chain: move(chain, (x, y)))(state)

    return Sampler(init, step)


def positions(bayesian: Bayesian, chains: int, key: Array) -> Params:
    """Returns where chains begin, unconstrained ``[chain, ...]``; the key is consumed.

    The first begins at the network's own values. The others begin at draws of the prior, which lie further apart than
    draws of the posterior, so that chains that agree in the end have found it (Gelman & Rubin 1992). Scales of
    hierarchical priors begin at 1, and so does the noise of numbers.
    """
    weights = bayesian.weights
    found: Params = {}
    for index, name in enumerate(weights.template.names):
        prior = weights.of(name)
        if prior is None:
            continue
        if isinstance(prior, Hierarchical):
            shapes = {scale: fn.event_shape for scale, fn in prior.scales.items()}
            found |= {f"{name}.{scale}": jnp.zeros((chains, *shape)) for scale, shape in shapes.items()}
            prior = prior.given({scale: jnp.ones(shape) for scale, shape in shapes.items()})
        others = prior.sample(stream(key, "init", index), (chains - 1,))
        values = jnp.concatenate([weights.initial[name][None], others])
        found[name] = weights.over.transform(name).inv(values)
    noise = bayesian.likelihood.parameters()
    return found | {name: jnp.broadcast_to(jnp.log(value), (chains,)) for name, value in noise.items()}


def _with_points(bayesian: Bayesian) -> Bayesian:
    """Returns the network whose model NUTS follows: latent weights, whatever its guide makes of them."""
    return dataclasses.replace(bayesian, weights=dataclasses.replace(bayesian.weights, guide=point(), flipout=False))


def diagnosed(draws: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns the largest split R-hat and the least effective sample size of draws ``[chain, draw, ...]``.

    Entries that never move have neither and are left out (Vehtari et al. 2021 describe both).
    """
    hats, sizes = [1.0], [float("inf")]
    for value in draws.values():
        flat = np.asarray(value, np.float64).reshape(*value.shape[:2], -1)
        flat = flat[..., flat.std((0, 1)) > 0]
        if flat.shape[-1] and flat.shape[1] >= 4:
            hats.append(float(np.nanmax(split_gelman_rubin(flat))))
            sizes.append(float(np.nanmin(effective_sample_size(flat))))
    return max(hats), min(sizes)


def run(
    kernel: Any, key: Array, arguments: tuple, warmup: int, samples: int, chains: int = 1, *, progress: bool = False
) -> MCMC:
    """Returns a finished MCMC run of any NumPyro kernel, chains vectorised; may stand under `jax.vmap`."""
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    mcmc.run(key, *arguments, extra_fields=("accept_prob", "diverging"))
    return mcmc


def pooled(chains: Chains) -> Params:
    """Returns the samples of all chains one after another, ``[chain * sample, ...]``."""
    return {name: jnp.reshape(value, (-1, *value.shape[2:])) for name, value in chains.samples.items()}
