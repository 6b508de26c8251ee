"""The data that a configuration names, checked to be something that a run of it can learn."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse as sparse

from dsnn import data, resolve, rng, tasks
from dsnn.bayes.likelihood import UNLABELLED
from dsnn.config import OWN, PYTHON, Config
from dsnn.data import rows, stream, streams

UNIT_CODES = ("rate", "latency")
"""Encodings that read probabilities, or times of a first spike, out of values in [0, 1]."""

MAX_DENSE = 1 << 27
"""Values, half a gigabyte, up to which sparse rows are made dense; wider ones are so a batch at a time."""


def open_data(config: Config) -> data.Split:
    """Returns the data set that a configuration names, its arrays checked, whether or not a run can learn it."""
    c, split = config.data, _opened(config)
    split = data.folded(split, c.folds, c.fold, config.seed) if c.folds else split
    return data.viewed(_placed(split, config), c.view)


def _placed(split: data.Split, config: Config) -> data.Split:
    """Returns a split whose inputs are in memory, or read as they are used, as the configuration wants them."""
    if config.data.stream == streams.ALWAYS and config.learner != "convert":
        return streams.streamed(split)
    return streams.in_memory(split) if config.data.stream == streams.NEVER else split


def _opened(config: Config) -> data.Split:
    c = config.data
    options = dict(c.options)
    if c.name == PYTHON:
        return _own(config)
    if c.name in OWN:
        options["path"] = c.path
    if c.name in ("npz", "npy", "shards"):
        options["temporal"] = c.temporal
    if c.name in ("npy", "audio", "events", "images"):
        options["stream"] = c.stream
    return data.load(
        c.name, root=c.root, seed=config.seed, val_fraction=None if c.val_fraction < 0 else c.val_fraction, **options
    )


def _own(config: Config) -> data.Split:
    """Returns what a function of one's own reads, checked like every other data set."""
    c = config.data
    given = (data.default_root() if c.root is None else Path(c.root).expanduser(), config.seed)
    fraction = None if c.val_fraction < 0 else c.val_fraction
    made = resolve.called("data.source", c.source, {}, c.options, given=(*given, fraction))
    if isinstance(made, data.Stream):
        made = stream.split_of(made, config.seed, fraction)
    if not isinstance(made, data.Split):
        raise ValueError(
            f"data.source must give a dsnn.data.Split or a dsnn.data.Stream, got a {type(made).__name__} from "
            f"{c.source}; dsnn.data.Split(train, val, test, classes, name) takes dsnn.data.Arrays(x, y)."
        )
    return data.check(made)


def load_data(config: Config) -> data.Split:
    """Returns the data set of a configuration, checked, as a run learns it, with the roles of its held-out part."""
    return learnable(open_data(config), config)


def learnable(split: data.Split, config: Config) -> data.Split:
    """Returns what `open_data` read as a run learns it.

    Raises:
        ValueError: one sentence that says what a run cannot learn.
    """
    c, split = config.data, check_trainable(split, config)
    whole = config.learner in ("convert", "nuts") and f"learner={config.learner}"
    whole = whole or (config.population.size > 1 and f"population.size={config.population.size}")
    if whole and streams.is_streamed(split):
        raise ValueError(
            f"{whole} needs all training examples in memory, got {split.name}, which is read as it is used; set "
            f"data.stream=never."
        )
    for name in c.ood:
        other = data.input_shape(data.load(name, root=c.root))
        if other != data.input_shape(split):
            raise ValueError(
                f"data.ood must have the shape of the data, {data.input_shape(split)}, {name} has {other}."
            )
    if c.limit:
        split = data.limited(split, c.limit, _generator(config.seed))
    if config.train.unlabelled == "mask":
        split = _masked(split)
    if config.train.select != "last" and not data.size(split.val):
        raise ValueError(
            f"train.select={config.train.select} needs a validation part, {split.name} has none; set data.val_fraction."
        )
    if config.train.batch_size > data.size(split.train):
        raise ValueError(
            f"train.batch_size must be at most the {data.size(split.train)} training examples, got "
            f"{config.train.batch_size}; lower it, or set 0 for one that fits."
        )
    return prepared(split, config)


def prepared(split: data.Split, config: Config) -> data.Split:
    """Returns the split with the roles of its held-out part and, where it is asked for, at one scale; once will do."""
    split = data.assign_roles(split, config.seed)
    scaled = config.data.standardise == "auto" and (split.temporal or config.train.encoding == "direct")
    split = data.standardised(rows.sparse_standardised(split)) if scaled else split
    return split if config.learner == "convert" else rows.on_device(split)


def check_trainable(split: data.Split, config: Config) -> data.Split:
    """Returns the split, once it is one that a run can learn; sparse rows that fit are made dense.

    Raises:
        ValueError: one sentence that says what a run cannot learn yet.
    """
    data.require_training(split)
    split = split if config.task == tasks.AUTO else split._replace(task=tasks.OWN)
    task = task_of(split, config)
    _check_task(task, split, config)
    task.check(split)
    if config.learner in ("fptt", "tbptt") and not split.temporal and config.train.encoding == "direct":
        raise ValueError(
            f"learner={config.learner} learns along a sequence, {split.name} is held; set train.encoding=scan or rate."
        )
    if not split.temporal and config.train.encoding in UNIT_CODES:
        split = data.require_unit_range(split)
    if config.learner == "convert":  # which takes sparse rows as they are
        return split
    wide = [part.x for part in (split.train, split.val, split.test) if sparse.issparse(part.x)]
    small = sum(x.shape[0] * x.shape[1] for x in wide) <= MAX_DENSE
    return _dense(split) if wide and small else split


def task_of(split: data.Split, config: Config) -> tasks.Task:
    """Returns the task of data as a configuration has it learned.

    Raises:
        ValueError: an option that is for another task, or one of one's own that is none.
    """
    own = config.train
    choice = tasks.Choice(
        config.task,
        config.task_options,
        every_step=own.loss == "steps",
        skip=own.skip,
        balanced=own.class_weight == "balanced",
        input_noise=config.bayes.noise == "input",
    )
    return tasks.of(split, choice)


def _check_task(task: tasks.Task, split: data.Split, config: Config) -> None:
    """Checks that what is asked for exists for the task."""
    facts, select = task.facts, config.train.select
    if facts.readout and config.model.readout != facts.readout:
        raise ValueError(
            f"{split.name} has {facts.has}, each read from that step's output, got model.readout="
            f"{config.model.readout}; set {facts.readout}."
        )
    if facts.learners and config.learner not in facts.learners:
        raise ValueError(
            f"{facts.has} are learned with learner=svi, map or nuts, got {config.learner} on {split.name}."
        )
    if config.data.ood:
        tasks.refuse(task, "ood", split.name)
    if select != "last" and select not in facts.best:
        known = ", ".join(("last", *facts.best))
        raise ValueError(f"train.select must be one of {known} for {facts.has}, got {select!r}; set one of them.")


def _generator(seed: int) -> np.random.Generator:
    """Returns what draws the examples of a limited run, from the root of all of its randomness."""
    key = rng.stream(rng.stream(rng.root(seed), "init"), "data")
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _masked(split: data.Split) -> data.Split:
    """Takes the labels of steps that have none from the training part."""
    labelled = split.extra.get("train/labelled")
    if labelled is None:
        return split
    y = np.where(labelled, np.asarray(split.train.y), UNLABELLED).astype(np.int32)
    return split._replace(train=data.Arrays(split.train.x, y))


def _dense(split: data.Split) -> data.Split:
    parts = {name: getattr(split, name) for name in ("train", "val", "test")}
    return split._replace(**{name: part._replace(x=_full(part.x)) for name, part in parts.items()})


def _full(x: Any) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else x
