"""How a preset refuses what it cannot follow."""

from typing import Any


def refuse(preset: str, **options: tuple[Any, Any]) -> None:
    """Raises a ValueError for the first option whose value is not the one that the preset follows.

    Args:
        preset: its name.
        **options: by name, (value received, value followed).
    """
    for name, (received, followed) in options.items():
        if received is not followed and received != followed:
            raise ValueError(
                f"preset {preset} follows {name}={followed!r} only, got {received!r}; leave it out, or build the cell "
                "from the options of dsnn.cells.LIF."
            )
