"""Choices that the data make where nobody else does: network, batch, epochs, weight of KL terms, price of energy.

Each is a function of the number of examples, the entropy of the labels and the number of weights, and of nothing that
changes when inputs are scaled, classes renamed or energies counted in other units. They are printed, stored with the
run, and set by hand like any other option.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dsnn import data, tasks
from dsnn.bayes.priors import Prior
from dsnn.config import NAMED, STEPPED, STEPPED_NORMS, Config, ModelConfig, reads_images
from dsnn.parameters import Params


class Budget(NamedTuple):
    """How long learning takes.

    Attributes:
        updates: at least.
        most_updates: at most, where they are passes enough.
        epochs: passes over the training part at least.
        many_epochs: passes where they are within the most updates.
    """

    updates: int
    most_updates: int
    epochs: int
    many_epochs: int


DENSE = Budget(2500, 10_000, 20, 60)
CONVOLUTIONS = Budget(1000, 4000, 5, 30)
"""Weights that every position shares learn from all of them at each update, and an update takes ten times as long."""

SMALLEST_BATCH, LARGEST_BATCH = 8, 128

BATCHES = 20
"""Updates in an epoch that a batch leaves, between the two sizes."""

TEMPER = 20.0
"""What the divergence of all weights may weigh where learning begins, in units of what the labels carry."""

NATS_PER_WEIGHT = 2.2
"""Divergence of a weight at the start of learning, log(1 / 0.01) less what a fan-in prior takes from it."""

SHARE = 0.3
"""Share of what the labels carry that the energy of the ungated network is worth."""

SMALLEST_IMAGE = 16
"""Pixels on a side from which on an image or a frame of events is read by convolutions: two of them, pooled, fit."""

CHANNELS = (8, 24)
"""Channels of these convolutions."""

STEPS, CONV_STEPS = 16, 4
"""Time steps for which static data are shown, and for which images are shown to convolutions."""


Choice = float | str | list[int]


class Automatic(NamedTuple):
    """A configuration without open choices, and the choices that were made, by option."""

    config: Config
    chosen: dict[str, Choice]


def said(chosen: dict[str, Choice]) -> str:
    """Returns choices as options of a command line."""
    return ", ".join(f"{name}={f'{v:.4g}' if isinstance(v, float) else v}" for name, v in chosen.items())


def network(config: Config, split: data.Split) -> Automatic:
    """Returns the kind of network and its time steps: convolutions for images and frames of events, else dense layers.

    Dense layers that were named by hand are taken as they are.
    """
    chosen: dict[str, Choice] = {}
    model, own = config.model, config.train
    if model.architecture == "auto":
        by_hand = model.hidden != type(model)().hidden
        images = is_image(data.input_shape(split)) and own.encoding in ("direct", "rate", "latency")
        if images and not by_hand:
            model = dataclasses.replace(model, architecture="conv", channels=list(CHANNELS), hidden=[])
            chosen |= {"model.architecture": "conv", "model.channels": list(CHANNELS), "model.hidden": []}
        else:
            model = dataclasses.replace(model, architecture="mlp")
            chosen["model.architecture"] = "mlp"
    if not own.steps:
        own = dataclasses.replace(own, steps=CONV_STEPS if reads_images(model.architecture) else STEPS)
        if not split.temporal:
            chosen["train.steps"] = float(own.steps)
    for where, cell in (("options", model.cell), ("readout_options", model.readout_cell)):
        length = _length(split, own)
        if cell in STEPPED and "steps" not in getattr(model, where) and length:
            given: dict[str, Any] = {where: {"steps": length, **getattr(model, where)}}
            model = dataclasses.replace(model, **given)
            chosen[f"model.{where}.steps"] = float(length)
    if (norm := _norm(model)) and (length := _length(split, own)):
        options: dict[str, Any] = model.architecture_options
        model = dataclasses.replace(model, architecture_options=options | {"norm": norm | {"steps": length}})
        chosen["model.architecture_options.norm.steps"] = float(length)
    return Automatic(dataclasses.replace(config, model=model, train=own), chosen)


def _norm(model: ModelConfig) -> dict[str, Any]:
    """Returns the norm of a network of the zoo that has parameters for each step and is not told how many there are."""
    norm = model.architecture_options.get("norm") if model.architecture in NAMED else None
    named: dict[str, Any] = {"name": norm} if isinstance(norm, str) else dict(norm) if isinstance(norm, Mapping) else {}
    return named if named.get("name") in STEPPED_NORMS and "steps" not in named else {}


def _length(split: data.Split, own: Any) -> int:
    """Returns the number of time steps that a network will see; 0 where only the data's encoding knows."""
    if split.temporal:
        return int(np.shape(split.train.x)[1])
    return own.steps if own.encoding in ("direct", "rate", "latency") else 0


def ungated(given: Automatic) -> Automatic:
    """Returns the choice of no gates, for a network that does not say what of it could be spared."""
    config = given.config
    config = dataclasses.replace(config, gates=dataclasses.replace(config.gates, enabled=False))
    return Automatic(config, given.chosen | {"gates.enabled": "false, since the network has no wiring()"})


def waiting(given: Automatic) -> Automatic:
    """Returns the choice that all steps run, for a network that cannot run one step after another."""
    config = given.config
    config = dataclasses.replace(config, halting=dataclasses.replace(config.halting, enabled=False))
    return Automatic(config, given.chosen | {"halting.enabled": "false, since the network has no step()"})


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether a shape is that of an image of some size, ``[height, width(, channel)]``."""
    return len(shape) in (2, 3) and min(shape[:2]) >= SMALLEST_IMAGE


def schedule(config: Config, split: data.Split) -> Automatic:
    """Returns batch size and epochs for the training part: small data in small batches, and updates enough."""
    chosen: dict[str, Choice] = {}
    count, own = data.size(split.train), config.train
    batch = own.batch_size
    if not batch:
        batch = min(max(2 ** int(math.log2(max(count / BATCHES, 1))), SMALLEST_BATCH), LARGEST_BATCH, count)
        chosen["train.batch_size"] = float(batch)
    epochs = own.epochs
    if not epochs:
        updates = own.updates_per_epoch or max(count // batch, 1)
        budget = CONVOLUTIONS if reads_images(config.model.architecture) else DENSE
        wanted = min(max(budget.many_epochs * updates, budget.updates), budget.most_updates)
        epochs = max(math.ceil(wanted / updates), budget.epochs)
        chosen["train.epochs"] = float(epochs)
    train = dataclasses.replace(own, batch_size=batch, epochs=epochs)
    return Automatic(dataclasses.replace(config, train=train), chosen)


def weights(
    config: Config, split: data.Split, prior: Prior, initial: Params, task: tasks.Task | None = None
) -> Automatic:
    """Returns the weights of the divergences and the price of energy, in units of what the labels carry.

    Args:
        config: with its open choices.
        split: the data.
        prior: of the parameters.
        initial: parameters by name.
        task: what is learned; None is the data's own.
    """
    chosen: dict[str, Choice] = {}
    svi, task = config.svi, tasks.of(split) if task is None else task
    nats = task.nats(np.asarray(split.train.y))
    if svi.kl_weight < 0:
        uncertain = sum(value.size for name, value in initial.items() if prior(name, value.shape) is not None)
        weight = min(
            task.facts.most_tempered, TEMPER * data.size(split.train) * nats / (NATS_PER_WEIGHT * max(uncertain, 1))
        )
        chosen["svi.kl_weight"] = weight
        svi = dataclasses.replace(svi, kl_weight=weight)
    if svi.gates_weight < 0:
        chosen["svi.gates_weight"] = svi.kl_weight
        svi = dataclasses.replace(svi, gates_weight=svi.kl_weight)
    if svi.lam < 0 and svi.budgeted:  # which finds its price itself
        svi = dataclasses.replace(svi, lam=0.0)
    elif svi.lam < 0:
        share = svi.lam_nats or SHARE * nats
        chosen["svi.lam_nats"] = share
        svi = dataclasses.replace(svi, lam=0.0, lam_nats=share)
    return Automatic(dataclasses.replace(config, svi=svi), chosen)
