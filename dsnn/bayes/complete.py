"""Whether stored parameters are those of a network: what is missing would else stay as before learning."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from dsnn.bayes.bayesian import Bayesian


def expected(bayesian: Bayesian) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter that learning leaves, by name."""

    def values() -> dict[str, Any]:
        seeded = handlers.seed(bayesian.guide, jax.random.key(0))
        sites = handlers.trace(seeded).get_trace()
        return {name: site["value"] for name, site in sites.items() if site["type"] == "param"}

    with handlers.block():
        shapes = jax.eval_shape(values)
    named = {name: value.shape for name, value in shapes.items()}
    named |= {name: value.shape for name, value in bayesian.simulator.template.statistics.items()}
    return named | {name: np.shape(value) for name, value in bayesian.likelihood.parameters().items()}


def complete(bayesian: Bayesian, stored: Mapping[str, np.ndarray], where: str) -> dict[str, jax.Array]:
    """Returns stored parameters as arrays, once all that the network needs are there and are numbers.

    Args:
        bayesian: the network.
        stored: its parameters, from a file.
        where: names the file in an error.

    Raises:
        ValueError: a parameter is missing, has another shape, or holds NaN or something else than numbers.
    """
    wanted = expected(bayesian)
    if missing := sorted(wanted.keys() - stored.keys()):
        raise ValueError(
            f"{where} must hold every parameter of its network, got none named {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}; untrained ones are not put in their place: run it again."
        )
    for name, value in stored.items():
        if value.dtype.kind not in "fiub":
            raise ValueError(f"{where} must hold numbers, got {value.dtype} in {name}; run it again.")
        if name in wanted and value.shape != wanted[name]:
            raise ValueError(
                f"{where} must fit its configuration, got {name} of shape {value.shape} for {wanted[name]}; run it "
                "again."
            )
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise ValueError(f"{where} must hold numbers, got NaN in {name}; run it again.")
    params = {name: jnp.asarray(value) for name, value in stored.items()}
    try:
        jax.eval_shape(lambda given: bayesian.network(bayesian.centre(given)), params)
    except KeyError as error:  # what a family keeps beside the guide's own, such as which draw is the likeliest
        raise ValueError(f"{where} must hold every parameter of its network, got none named {error.args[0]}.") from None
    return params
