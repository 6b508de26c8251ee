"""No-U-Turn sampling (Hoffman & Gelman 2014) of small networks: the oracle that guides are held against.

Spiking networks without noise have a likelihood with steps, whose true gradient in a hidden weight is zero almost
everywhere. The surrogate gradient moves the sampler instead. That is exact: a leapfrog step under any force that is a
function of the position alone is reversible and keeps volume, and states are weighed by the true density (Neal 2011,
section 5.2), so only the acceptance rate pays for a force that is not the gradient.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.infer
from numpyro.infer import MCMC, NUTS

from dsnn.bayes.guides import point
from dsnn.bayes.lift import Lifted
from dsnn.parameters import Params
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
    lifted: Lifted,
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
    """Returns posterior samples of a lifted network's weights under its priors; the key is consumed.

    Args:
        lifted: a network without firing noise, gates or halting; its posterior family is not used.
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
    random = lifted.forward.stochastic or lifted.forward.encoding == "rate" or lifted.family.noise is not None
    if random or lifted.gated_sites is not None or lifted.feature is not None:
        raise ValueError(
            "NUTS needs a likelihood without chance of its own, got firing noise, rate coding, gates or halting; use "
            "Forward(stochastic=False) without sites and feature, or a SpikeTrain of recorded spikes."
        )
    if len(x) != lifted.data_size:
        raise ValueError(f"NUTS needs all {lifted.data_size} training examples at once, got {len(x)}.")
    net = dataclasses.replace(lifted, family=point(), flipout=False)
    strategy = numpyro.infer.init_to_value(values=lifted.initial)
    kernel = NUTS(net.model, init_strategy=strategy, max_tree_depth=tree_depth)
    mcmc = run(kernel, key, (x, y, net.no_context()), warmup, samples, chains, progress=progress)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    return Chains(mcmc.get_samples(group_by_chain=True), extra["accept_prob"], extra["diverging"])


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
