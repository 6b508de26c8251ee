"""The typed schema that Hydra composes against, and the way back from Hydra to plain dataclasses."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsnn import data
from dsnn.config import Config

CONF = Path(__file__).resolve().parent.parent / "conf"


def register() -> None:
    """Makes the schema and one ``data=<name>`` choice per data set known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name in data.names():
        store.store(group="data", name=name, node={"name": name}, package="data")


@functools.cache
def open_ended() -> tuple[str, ...]:
    """Returns the options whose keys are not known beforehand, such as ``data.options``."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            if isinstance(value, dict):
                yield prefix + field.name
            elif dataclasses.is_dataclass(value):
                yield from walk(value, f"{prefix}{field.name}.")

    return tuple(walk(Config(), ""))


def is_open_ended(name: str) -> bool:
    """Returns whether an option, such as ``data.options.steps``, is or lies in one whose keys are not known."""
    return any(name == option or name.startswith(f"{option}.") for option in open_ended())


def appended(override: str) -> str:
    """Returns an override that may add a key where keys are not known beforehand: ``data.options.steps=50``."""
    return f"++{override}" if is_open_ended(override.split("=", 1)[0]) else override


def compose(overrides: Sequence[str]) -> Config:
    """Returns the checked configuration of one run.

    Raises:
        ValueError: an override that does not fit the schema, in one sentence.
    """
    register()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return typed(hydra.compose("config", overrides=[appended(o) for o in overrides]))
    except HydraException as error:
        said = [str(e).strip().splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e).strip()]
        raise ValueError(": ".join(dict.fromkeys(said)).removeprefix("Error merging override ")) from None


def typed(composed: DictConfig) -> Config:
    """Returns the checked configuration.

    Raises:
        ValueError: a value of the wrong type or out of range, in one sentence.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), own))
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    return config
