"""A gate family of one's own, as the rest of the house uses it."""

from typing import Any

import jax.numpy as jnp
from numpyro.distributions.kl import kl_divergence

from dsnn import resolve
from dsnn.bayes.gates.contract import Family, OpenOrClosed, divergence

METHODS = ("initial", "posterior", "base", "decided")


def family(name: str) -> Family:
    """Returns the family that ``package.module:attribute`` stands for: an object with the four methods of `Family`.

    A class is made without arguments. Its posterior's divergence is that from the uniform measure over open and closed
    where its base measure is `OpenOrClosed` and none is registered.

    Raises:
        ValueError: a method is missing, or the posterior is no distribution over gates.
    """
    found: Any = resolve.piece("gates.family", name)
    if isinstance(found, Family):
        return found
    made = found() if isinstance(found, type) else found
    if missing := [method for method in METHODS if not callable(getattr(made, method, None))]:
        raise ValueError(
            f"gates.family must have {', '.join(METHODS)}, got {name} without {', '.join(missing)}; see "
            "dsnn.bayes.gates.Family."
        )
    _check_posterior(made, name)
    defaults = Family._field_defaults.items()
    options: dict[str, Any] = {option: getattr(made, option, default) for option, default in defaults}
    return Family(name, made.initial, made.posterior, made.base, made.decided, **options)


def _check_posterior(made: Any, name: str) -> None:
    """Tries the family on two sites, and registers the divergence of its posterior where nobody has."""
    parameters = {key: jnp.asarray(value) for key, value in made.initial(2, 0.5).items()}
    posterior, base = made.posterior(parameters), made.base(2)
    for method in ("sample", "decision", "entropy_of_opening"):
        if not callable(getattr(posterior, method, None)):
            raise ValueError(
                f"a posterior of gates must have {method}, got a {type(posterior).__name__} without it from {name}; "
                "see dsnn.bayes.gates.Gates."
            )
    try:
        kl_divergence(posterior, base)
    except NotImplementedError:
        if not isinstance(base, OpenOrClosed):
            raise ValueError(
                f"a base measure of one's own needs a divergence, got none of {type(posterior).__name__} from "
                f"{type(base).__name__}; register one with numpyro.distributions.kl.kl_divergence.register."
            ) from None
        kl_divergence.add((type(posterior), OpenOrClosed), divergence)
