"""The typed schema that Hydra composes against, and the way back from Hydra to plain dataclasses."""

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsnn import data, resolve
from dsnn.config import PYTHON, Config, as_dict
from dsnn.store import places

PATHS = ("run.root", "run.dir", "data.path", "data.root", "compute.cache", "export.nir", "model.compacted")
"""Options that name a file or a folder: ~ in front is one's home."""

WORDS = ("", "auto", "none")
"""Values of these that name none."""


def register() -> None:
    """Makes the schema and one ``data=<name>`` choice per data set known to Hydra."""
    OmegaConf.register_new_resolver("expanded", os.path.expanduser, replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name in (*data.names(), PYTHON):
        store.store(group="data", name=name, node={"name": name}, package="data")


@functools.cache
def options() -> dict[str, object]:
    """Returns every option by its dotted name, with its default."""
    flat: dict[str, object] = {}

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            flat[prefix + key] = value
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    container = OmegaConf.to_container(OmegaConf.structured(Config))
    assert isinstance(container, dict)
    walk(container, "")
    return flat


def is_open_ended(name: str) -> bool:
    """Returns whether an option is, or lies in, one whose keys are not known, such as ``data.options.steps``."""
    free = [option for option, default in options().items() if default == {}]
    return any(name == option or name.startswith(f"{option}.") for option in free)


def appended(override: str) -> str:
    """Returns an override that may add a key where keys are not known beforehand: ``data.options.steps=50``."""
    return f"++{override}" if is_open_ended(override.split("=", 1)[0]) else override


def completed(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides, with ``experiment=own`` where data are named and no experiment is.

    The choices of that experiment are made from the data; those of the first command were made for digits.
    """
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides if not override.startswith("-"))
    named = [given[name].strip("'\"") for name in ("data", "data.name") if name in given]
    own = any(name != "digits" for name in named) and "experiment" not in given
    return [*overrides, "experiment=own"] if own else list(overrides)


def at_home(override: str) -> str:
    """Returns an override whose path, or each of whose swept paths, begins with one's home where it began with ~.

    Hydra's grammar has no ~ in front of a value that is not quoted, and a shell leaves it where it is.
    """
    name, _, value = override.partition("=")
    if name.lstrip("+") not in PATHS or not value.startswith("~"):
        return override
    paths = [os.path.expanduser(part) if part.startswith("~") else part for part in value.split(",")]
    quoted = [path.replace("\\", "\\\\").replace("'", "\\'") for path in paths]
    return f"{name}=" + ",".join(f"'{path}'" for path in quoted)


def last(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides without those of an option that is given again later; what cannot be read stays."""
    kept: dict[object, str] = {}
    for k, text in enumerate(overrides):
        try:
            override = OverridesParser.create().parse_override(text)
            name: object = (override.key_or_group, override.package)
        except HydraException:
            name = k
        kept.pop(name, None)  # the last one stands where it was given
        kept[name] = text
    return list(kept.values())


def root(overrides: Sequence[str]) -> Path:
    """Returns ``run.root`` of overrides that may be swept, of the first of its values if it is."""
    register()
    words = []
    for text in overrides:
        override = OverridesParser.create().parse_override(text)
        if override.is_sweep_override() and not is_open_ended(override.key_or_group):
            text = f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
        words.append(appended(text))
    try:
        with hydra.initialize_config_dir(str(places.CONF), version_base="1.3"):
            found = hydra.compose("config", overrides=[*words, *searchpath()])
        return Path(found.run.root).expanduser().absolute()
    except HydraException:  # what is wrong is said where the jobs are composed
        return Path(Config().run.root).absolute()


def searchpath(more: Sequence[str] = ()) -> list[str]:
    """Returns the override that shows Hydra the configuration folders of one's own, if there are any.

    Args:
        more: further entries, such as ``pkg://package``.
    """
    entries = [*(f"file://{folder}" for folder in places.own()), *more]
    return ["hydra.searchpath=[" + ",".join(f"'{entry}'" for entry in entries) + "]"] if entries else []


def compose(overrides: Sequence[str]) -> Config:
    """Returns the checked configuration of one run.

    Raises:
        ValueError: an override that does not fit the schema, in one sentence.
    """
    register()
    try:
        words = [*(appended(o) for o in completed(last([*map(at_home, overrides)]))), *searchpath()]
        with hydra.initialize_config_dir(str(places.CONF), version_base="1.3"):
            return named(hydra.compose("config", overrides=words))
    except HydraException as error:
        said = [str(e).strip().splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e).strip()]
        sentence = ": ".join(dict.fromkeys(said)).removeprefix("Error merging override ").removeprefix("++")
        if listed := re.match(r"([\w.]+)=(.*): Invalid value assigned: str is not a ListConfig", sentence):
            name, value = listed.groups()
            sentence = f"{name} must be a list, got {value!r}; write '{name}=[{value}]'."
        raise ValueError(sentence if sentence.endswith((".", "?")) else f"{sentence}.") from None


def named(composed: Any, base: str | Path = "") -> Config:
    """Returns the checked configuration that this process's own command line names, with leave to run its pieces.

    Args:
        composed: OmegaConf's ``DictConfig``.
        base: as of `typed`.

    Raises:
        ValueError: as `typed`.
    """
    config = typed(composed, base)
    resolve.trust(*resolve.foreign_names(as_dict(config)))
    if config.trust:
        resolve.trust_stored()
    return config


def typed(composed: Any, base: str | Path = "") -> Config:
    """Returns the checked configuration of an OmegaConf ``DictConfig``.

    Args:
        composed: the ``DictConfig``.
        base: folder that paths are relative to, where that is not the current one.

    Raises:
        ValueError: a value of the wrong type or out of range, in one sentence.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    for name in PATHS:
        value = OmegaConf.select(own, name)
        if isinstance(value, str) and value not in WORDS:
            OmegaConf.update(own, name, os.path.join(base, os.path.expanduser(value)))
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), own))
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    return config
