"""Where windows stand that move over an image: what is padded, and how many places there are."""

from typing import Any

import numpy as np

from dsnn.types import Float

__all__ = ["Padding", "around", "padded", "pair", "places", "reached"]

Padding = str | tuple[tuple[int, int], ...]


def pair(name: str, given: Any) -> tuple[int, int]:
    """Returns numbers for the two axes of an image, of one for both or of two.

    Args:
        name: of the option, for the sentence.
        given: what a user gives.

    Raises:
        ValueError: anything but one or two positive integers.
    """
    each = (given, given) if isinstance(given, int) else tuple(given) if isinstance(given, tuple | list) else ()
    if len(each) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in each):
        raise ValueError(f"{name} must be a positive integer, or two for height and width, got {given!r}.")
    return int(each[0]), int(each[1])


def padded(given: Any) -> Padding:
    """Returns "SAME", "VALID" or zeros (before, behind) for each of two axes, of what a user gives.

    Args:
        given: one of the names, a number for all sides, one for each axis, or a pair for each axis.

    Raises:
        ValueError: anything else.
    """
    if given in ("SAME", "VALID"):
        return str(given)
    each = [given, given] if isinstance(given, int) else list(given) if isinstance(given, tuple | list) else []
    pairs = [tuple(one) if isinstance(one, tuple | list) else (one, one) for one in each]
    numbers = [n for both in pairs for n in both]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    whole = whole and all(len(both) == 2 for both in pairs)
    if len(pairs) != 2 or not whole:
        raise ValueError(
            f'padding must be "SAME", "VALID", a number, or numbers or pairs of numbers for two axes, got {given!r}.'
        )
    return tuple((int(low), int(high)) for low, high in pairs)


def places(
    sizes: tuple[int, ...], windows: tuple[int, ...], strides: tuple[int, ...], padding: Padding
) -> tuple[int, ...]:
    """Returns how many places of each axis a window stands at.

    Args:
        sizes: of the image.
        windows: of the window, from its first to its last place.
        strides: steps of the window.
        padding: of `padded`.
    """
    if padding == "SAME":
        return tuple(-(-n // s) for n, s in zip(sizes, strides, strict=True))
    more = [0] * len(sizes) if isinstance(padding, str) else [sum(pair) for pair in padding]
    return tuple((n + m - w) // s + 1 for n, m, w, s in zip(sizes, more, windows, strides, strict=True))


def around(
    sizes: tuple[int, ...], windows: tuple[int, ...], strides: tuple[int, ...], padding: Padding
) -> tuple[tuple[int, int], ...]:
    """Returns how many zeros stand before and behind each axis; arguments as of `places`."""
    if not isinstance(padding, str):
        return padding
    if padding == "VALID":
        return ((0, 0),) * len(sizes)
    out = places(sizes, windows, strides, padding)
    each = (max((o - 1) * s + w - n, 0) for n, o, w, s in zip(sizes, out, windows, strides, strict=True))
    return tuple((total // 2, total - total // 2) for total in each)


def reached(n: int, out: int, window: int, stride: int, low: int, dilation: int = 1) -> Float[np.ndarray, " place"]:
    """Returns how many windows of one axis see each of its ``n`` places.

    Args:
        n: places.
        out: windows.
        window: places that each sees.
        stride: from one window to the next.
        low: zeros before the first place.
        dilation: from one place of a window to the next.
    """
    behind = np.arange(n)[:, None] - (np.arange(out) * stride - low)
    return ((behind >= 0) & (behind < window * dilation) & (behind % dilation == 0)).sum(1).astype(float)
