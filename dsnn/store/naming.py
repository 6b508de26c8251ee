"""What names a run: the leaves of its configuration and the content of what it reads."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

__all__ = ["ELSEWHERE", "config_hash", "flat_config", "plain"]

ELSEWHERE = ("run", "track", "resume", "data.root", "hydra", "compute", "population")
"""Configuration keys that say where a run lives, how it is watched and on what it is computed, not what."""


def config_hash(
    config: Mapping[str, Any], exclude: Collection[str] = ELSEWHERE, reads: Mapping[str, str] | None = None
) -> str:
    """Twelve hexadecimal digits that name what `config` computes.

    Args:
        config: The resolved configuration, nested mappings of plain values.
        exclude: Dotted keys left out; a key leaves out everything below it.
        reads: What the run reads beside its configuration, a digest of each by name.
    """
    leaves = flat_config(config, exclude)
    named = leaves if reads is None else {"config": leaves, "reads": dict(reads)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def flat_config(config: Mapping[str, Any], exclude: Collection[str] = ELSEWHERE) -> dict[str, Any]:
    """The leaves of `config` by dotted key, without the excluded branches."""
    leaves: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if prefix in exclude:
            return
        if isinstance(value, dict) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), below)
        else:
            leaves[prefix] = value

    walk("", plain(config))
    return leaves


def plain(value: Any) -> Any:
    """`value` in the types that YAML and JSON share."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    return str(value)
