"""The names that somebody who misspelt one may have meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[object], otherwise: str = "leave it out.", *, most: int = 3) -> str:
    """Returns "did you mean 'a' or 'b'?", or what to do ``otherwise`` where nothing is near.

    A dotted name is also found by its last part: ``epochs`` for ``train.epochs``.

    Args:
        name: what was given.
        known: what there is.
        otherwise: end of the sentence without a name to suggest.
        most: names to suggest.
    """
    names = [str(one) for one in known]
    tails = difflib.get_close_matches(_tail(str(name)), {_tail(one) for one in names}, n=most)
    near = difflib.get_close_matches(str(name), names, n=most)
    near += [one for tail in tails for one in names if _tail(one) == tail]
    near = list(dict.fromkeys(near))[:most]
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def _tail(name: str) -> str:
    return name.rsplit(".", 1)[-1]
