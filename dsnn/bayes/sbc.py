"""Simulation-based calibration (Talts et al. 2018): whether a posterior is right on average over its own prior.

Parameters drawn from the prior make data; if inference is exact, the rank of each true parameter among posterior draws
is uniform, and a 90 % interval holds it 90 % of the time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import NUTS
from scipy import stats

from dsnn.bayes.nuts import run
from dsnn.rng import stream
from dsnn.types import Array, Float, Int, Key


class Calibration(NamedTuple):
    """Per parameter, over replicates.

    Attributes:
        ranks: of the true value among ``draws`` posterior draws, 0..draws, ``[replicate]``.
        truth: the true value, ``[replicate]``.
        mean: posterior mean, ``[replicate]``.
        draws: number of posterior draws that were ranked.
    """

    ranks: dict[str, Int[np.ndarray, " replicate"]]
    truth: dict[str, Float[np.ndarray, " replicate"]]
    mean: dict[str, Float[np.ndarray, " replicate"]]
    draws: int

    def p_value(self, name: str, bins: int = 20) -> float:
        """Returns the chi-square p-value of the rank histogram against the uniform one."""
        counts = np.bincount(self.ranks[name] * bins // (self.draws + 1), minlength=bins)
        return float(stats.chisquare(counts).pvalue)

    def coverage(self, name: str) -> float:
        """Returns the share of replicates whose central 90 % interval of ranks holds the truth."""
        share = self.ranks[name] / (self.draws + 1)
        return float(((share >= 0.05) & (share < 0.95)).mean())


def calibrate(
    model: Callable[..., Any],
    observed: str,
    key: Key[Array, ""],
    *,
    replicates: int = 200,
    warmup: int = 300,
    draws: int = 99,
    thinning: int = 5,
    together: int = 200,
    tree_depth: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Returns how NUTS on ``model`` is calibrated, replicates side by side under `jax.vmap`; the key is consumed.

    Args:
        model: a NumPyro model ``model(data=None)`` of scalar latents that samples ``observed`` with ``obs=data``.
        observed: name of the observed site.
        key: drives prior draws, data and chains.
        replicates: how many data sets.
        warmup: tuning draws of each chain.
        draws: posterior draws that are ranked; a number of bins should divide ``draws + 1``.
        thinning: chain steps per ranked draw, so that these are nearly independent.
        together: replicates per compiled call, which bounds memory.
        tree_depth: a path has at most 2 to this power steps.
        progress: called with (replicates done, replicates) after every call.
    """

    def one(own: Key[Array, ""]) -> tuple[dict[str, Array], dict[str, Array]]:
        trace = handlers.trace(handlers.seed(model, stream(own, "data"))).get_trace()
        data = trace[observed]["value"]
        truth = {n: s["value"] for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
        truth.pop(observed, None)
        kernel = NUTS(model, max_tree_depth=tree_depth)
        chain = run(kernel, stream(own, "noise"), (data,), warmup, draws * thinning)
        return truth, {name: chain.get_samples()[name][thinning - 1 :: thinning] for name in truth}

    keys = jax.vmap(lambda i: stream(key, "data", i))(jnp.arange(replicates))
    together = min(together, replicates)
    if replicates % together:
        raise ValueError(f"replicates must be a multiple of together, got {replicates} and {together}.")
    compiled, parts = jax.jit(jax.vmap(one)), []
    for start in range(0, replicates, together):
        parts.append(jax.device_get(compiled(keys[start : start + together])))
        if progress is not None:
            progress(start + together, replicates)
    truth, posterior = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    ranks = {name: (posterior[name] < truth[name][:, None]).sum(1) for name in truth}
    return Calibration(ranks, truth, {name: posterior[name].mean(1) for name in truth}, draws)
