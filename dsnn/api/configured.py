"""The configuration that a call of `dsnn.fit` means."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsnn.api.fitted import Fitted
from dsnn.config import (
    NAMED,
    OF_STACKS,
    BayesConfig,
    Config,
    DataConfig,
    GatesConfig,
    HaltingConfig,
    ModelConfig,
    TrainConfig,
    typed,
)
from dsnn.learn import SviConfig
from dsnn.learn.optimizer import OptimizerConfig
from dsnn.suggest import did_you_mean

PATHS = {
    "hidden": "model",
    "cell": "model",
    "beta": "model",
    "architecture": "model",
    "channels": "model",
    "recurrent": "model",
    "noise": "model",
    "noise_width": "model",
    "gain": "model",
    "readout": "model",
    "steps": "train",
    "epochs": "train",
    "batch_size": "train",
    "encoding": "train",
    "learning_rate": "optimizer",
    "lam": "svi",
    "kl_weight": "svi",
    "budget_fraction": "svi",
    "budget_nj": "svi",
    "budget_sites": "svi",
    "decide_fraction": "svi",
    "shrink_epochs": "svi",
    "patience": "train",
    "eval_every": "train",
    "transform": "train",
    "accumulate": "optimizer",
    "optimizer": "optimizer.name",
    "optimizer_options": "optimizer.options",
    "cell_options": "model.options",
    "network_options": "model.architecture_options",
    "guide": "bayes",
    "family": "gates",
    "task": "",
    "task_options": "",
    "metrics": "",
    "callbacks": "",
}


def _filled(given: Any, usual: Any) -> Any:
    """Returns options as they were given, and where they are at their default, as they usually are here."""
    values = {}
    for option in dataclasses.fields(given):
        own, other = getattr(given, option.name), getattr(usual, option.name)
        if dataclasses.is_dataclass(own):
            values[option.name] = _filled(own, other)
            continue
        factory = option.default_factory
        default = option.default if factory is dataclasses.MISSING else factory()
        values[option.name] = other if own == default else own
    return type(given)(**values)


def _option(called: str, group: str, name: str, value: Any) -> Any:
    """Returns an option of a call as the configuration has it; one layer is a list of one."""
    place = {one.name: one.default_factory for one in dataclasses.fields(Config)}[group] if group else Config
    kind = typed.hints(place)[name]
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return typed.checked(called, kind, [value] if kind == list[int] and number else value)


def check_call(temporal: Any, halting: Any, start: Any, config: Any, held_out: Any, several: dict[str, Any]) -> None:
    """Checks the kinds of what a call gives besides data and options."""
    if config is not None and not isinstance(config, Config):
        raise ValueError(f"config must be a dsnn.config.Config, got a {type(config).__name__}; dsnn.config.Config().")
    if start is not None and not isinstance(start, Fitted):
        raise ValueError(f"start must be what dsnn.fit returned, got a {type(start).__name__}.")
    if halting is not None and not isinstance(halting, bool | HaltingConfig):
        raise ValueError(f"halting must be true, false or a dsnn.config.HaltingConfig, got {halting!r}.")
    typed.checked("temporal", bool, temporal)
    typed.checked("held_out", float | None, held_out)
    for name, pieces in several.items():
        if isinstance(pieces, str) or not isinstance(pieces, Sequence):
            raise ValueError(f"{name} must be a list of functions, got {pieces!r}; [function] is one.")


def configured(
    config: Config | None,
    options: dict[str, Any],
    bayesian: bool,
    halting: bool | HaltingConfig | None,
    seed: int,
    sizes: tuple[int, int],
) -> Config:
    """Returns the configuration of a fit; ``sizes`` are the examples that train, and all."""
    usual = Config(
        experiment="fit",
        data=DataConfig(standardise="auto"),
        bayes=BayesConfig(temperature=-1.0),
        gates=GatesConfig(open_probability=0.95),
        svi=SviConfig(
            kl_weight=-1.0,
            gates_weight=-1.0,
            lam=-1.0,
            ungated_fraction=0.3,
            lam_warmup_fraction=0.2,
            decide_fraction=0.25,
        ),
        optimizer=OptimizerConfig(learning_rate=6e-3, noise_factor=10.0),
        model=ModelConfig(architecture="auto"),
        train=TrainConfig(epochs=0, batch_size=0, steps=0),
    )
    start = usual if config is None else _filled(config, usual)
    if halting is not None:
        how = dataclasses.replace(start.halting, enabled=halting) if isinstance(halting, bool) else halting
        start = dataclasses.replace(start, halting=how)
    groups: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name not in PATHS:
            hint = did_you_mean(name, PATHS, "others go in config.", most=1)
            raise ValueError(f"fit takes the options {', '.join(PATHS)}, got {name!r}; {hint}")
        group, _, renamed = PATHS[name].partition(".")
        groups.setdefault(group, {})[renamed or name] = _option(name, group, renamed or name, value)
    top = groups.pop("", {})
    parts = {group: dataclasses.replace(getattr(start, group), **values) for group, values in groups.items()} | top
    learner = "map" if not bayesian else start.learner if config is not None else "svi"
    made = dataclasses.replace(
        start, learner=learner, seed=seed, data=DataConfig(standardise=start.data.standardise), **parts
    )
    if made.model.architecture in NAMED and (unread := [name for name in OF_STACKS if name in options]):
        raise ValueError(
            f"{unread[0]} is of the networks mlp and conv, got it with network={made.model.architecture!r}; its "
            "options are in network_options."
        )
    size, whole = sizes
    if made.train.batch_size > size and learner != "nuts":
        raise ValueError(
            f"batch_size must be at most the {size} examples that train, of {whole}, got {made.train.batch_size}; "
            "lower it."
        )
    return made
