"""What is asked of single options, in one sentence each."""

from typing import Any


def one_of(name: str, value: str, allowed: Any) -> None:
    """Raises a sentence where an option is none of those that there are."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def positive(name: str, value: float) -> None:
    """Raises a sentence where an option is not positive and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}.")


def fraction(name: str, value: float, *, closed: bool = False) -> None:
    """Raises a sentence where an option is outside [0, 1), or [0, 1] where that is closed."""
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ValueError(f"{name} must be in [0, 1{']' if closed else ')'}, got {value}.")
