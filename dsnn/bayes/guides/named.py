"""A posterior family by its name: one of ours, or any `numpyro.infer.autoguide.AutoGuide` class of NumPyro."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from numpyro.infer import autoguide
from numpyro.infer.autoguide import AutoGuide

from dsnn import resolve
from dsnn.bayes.guides.auto import auto
from dsnn.bayes.guides.contract import Guide
from dsnn.bayes.guides.dropout import aot, dropout
from dsnn.bayes.guides.factorised import last_layer, mean_field, point
from dsnn.bayes.guides.laplace import laplace
from dsnn.bayes.guides.low_rank import low_rank
from dsnn.bayes.guides.rank1 import rank1
from dsnn.suggest import did_you_mean

Family = Callable[..., Guide] | type[AutoGuide]

METHODS = ("prior", "posterior", "centre", "constraints")
"""What a guide has to have."""

ENSEMBLE = "ensemble"
"""The family whose members are networks; whoever builds those builds it (`dsnn.bayes.guides.ensemble`)."""

OURS: dict[str, Callable[..., Guide]] = {
    "point": point,
    "mean_field": mean_field,
    "low_rank": low_rank,
    "last_layer": last_layer,
    "rank1": rank1,
    "dropout": dropout,
    "aot": aot,
    "laplace": laplace,
}

_ANNEALED = "follows the gradient of the likelihood of all examples inside the guide; take AutoMultivariateNormal"
_BATCHED = "needs weights that share a leading axis, which layers do not; take AutoLowRankMultivariateNormal"
_ABSTRACT = "is a base class; take one of its subclasses, such as AutoNormal"
IMPOSSIBLE = {
    "AutoContinuous": _ABSTRACT,
    "AutoGuide": _ABSTRACT,
    "AutoGuideList": "is put together in Python, part by part; take one of its parts",
    "AutoDAIS": _ANNEALED,
    "AutoSemiDAIS": _ANNEALED,
    "AutoSurrogateLikelihoodDAIS": _ANNEALED,
    "AutoRVRS": "rejects draws by the likelihood of all examples inside the guide; take AutoMultivariateNormal",
    "AutoBatchedMultivariateNormal": _BATCHED,
    "AutoBatchedLowRankMultivariateNormal": _BATCHED,
    "AutoLaplaceApproximation": "needs second derivatives of the likelihood, which spikes do not have; take laplace",
}
"""Guides of NumPyro that cannot serve a spiking network, and why."""

_OURS_TO_SAY = {"self", "model", "prefix", "init_loc_fn", "init_strategy", "create_plates", "nonlinearity"}
_OURS_TO_SAY |= {"forward_mode_differentiation"}


def numpyro_guides() -> tuple[str, ...]:
    """Returns the names of NumPyro's guides that can serve here."""
    kinds = {name for name, kind in vars(autoguide).items() if inspect.isclass(kind) and issubclass(kind, AutoGuide)}
    return tuple(sorted(kinds - IMPOSSIBLE.keys()))


def family(name: str) -> Family:
    """Returns what a name stands for; the one place where names of families become functions and classes.

    Raises:
        ValueError: no such family, or one that cannot work, in one sentence.
    """
    if resolve.is_foreign(name):
        own: Family = resolve.piece("bayes.guide", name)
        return own
    if name in OURS:
        return OURS[name]
    if name in IMPOSSIBLE:
        raise ValueError(f"bayes.guide={name} {IMPOSSIBLE[name]}.")
    if name in numpyro_guides():
        return getattr(autoguide, name)
    known = (*OURS, ENSEMBLE, *numpyro_guides())
    hint = did_you_mean(name, known, "mean_field is usual.")
    raise ValueError(f"bayes.guide must be one of {', '.join(known)}, got {name!r}; {hint}")


def known_options(found: Family) -> dict[str, inspect.Parameter]:
    """Returns the options of a family that can be set by hand, from its signature."""
    signature = inspect.signature(found.__init__ if inspect.isclass(found) else found)
    return {name: option for name, option in signature.parameters.items() if name not in _OURS_TO_SAY}


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raises a ValueError in one sentence for a family that is not known, or an option that it has not."""
    if resolve.is_foreign(name):  # looked at once it is made, when it may be imported
        return
    if name == ENSEMBLE:
        if options:
            raise ValueError(
                f"bayes.guide=ensemble takes no bayes.options, got {_first(options)!r}; see bayes.members."
            )
        return
    known = known_options(family(name))
    for option, value in options.items():
        if option not in known:
            has = f"the options {', '.join(known)}" if known else "no options"
            raise ValueError(f"bayes.guide={name} takes {has}, got {option!r}; {did_you_mean(option, known, most=1)}")
        _check_value(f"bayes.options.{option}", value, known[option].default)


def made(name: str, usual: Mapping[str, Any], options: Mapping[str, Any]) -> Guide:
    """Returns the guide of a name.

    Args:
        name: of the family.
        usual: options that hold where ``options`` says nothing, where the family has them; ``scale`` is how wide a
            posterior begins, of NumPyro's guides too.
        options: by hand, see `known_options`.

    Raises:
        ValueError: see `check`, or a value that the family refuses.
    """
    check(name, options)
    found = family(name)
    if resolve.is_foreign(name) and not (inspect.isclass(found) and issubclass(found, AutoGuide)):
        return _own(name, found, usual, options)
    if inspect.isclass(found):
        return auto(found, usual.get("scale", 0.01), options)
    known = known_options(found)
    return found(**{option: value for option, value in usual.items() if option in known} | dict(options))


def _own(name: str, found: Any, usual: Mapping[str, Any], options: Mapping[str, Any]) -> Guide:
    """Returns a guide of one's own: an object, or what a class or function gives for the options."""
    ready = all(callable(getattr(found, method, None)) for method in METHODS) and not inspect.isclass(found)
    made = found if ready else resolve.called("bayes.guide", name, usual, options)
    if missing := [method for method in METHODS if not callable(getattr(made, method, None))]:
        raise ValueError(
            f"bayes.guide must have {', '.join(METHODS)}, got a {type(made).__name__} without {', '.join(missing)} "
            f"from {name}; see dsnn.bayes.guides.Guide, or name a class of NumPyro's AutoGuide."
        )
    if isinstance(made, Guide):
        return made
    return Guide(**{name: getattr(made, name) for name in Guide._fields if hasattr(made, name)})


def _check_value(name: str, value: Any, default: Any) -> None:
    """Numbers are positive and whole where the default is whole; switches are true or false; lists hold numbers."""
    if isinstance(default, bool):
        good, wanted = isinstance(value, bool), "true or false"
    elif isinstance(value, (list, tuple)):
        good, wanted = all(_positive(one, whole=True) for one in value), "a list of whole numbers above 0"
        good = good and bool(value) and not isinstance(default, (int, float))
    elif isinstance(default, float):
        good, wanted = _positive(value), "a positive number"
    elif default is None or isinstance(default, int):
        good, wanted = _positive(value, whole=True), "a whole number above 0"
    else:
        good, wanted = not isinstance(default, (list, tuple)), "a list of whole numbers above 0"
    if not good:
        own = "the guide's own choice" if default is None else repr(default)
        raise ValueError(f"{name} must be {wanted}, got {value!r}; leave it out for {own}.")


def _positive(value: Any, *, whole: bool = False) -> bool:
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    return number and 0 < value < math.inf


def _first(options: Mapping[str, Any]) -> str:
    return next(iter(options))
