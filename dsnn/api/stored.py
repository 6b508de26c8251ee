"""A fitted network in a folder: its configuration, its arrays, and what prediction has to know of the data.

The data themselves are not stored, but for the examples that certify the intervals of numbers. Pieces of one's own are
stored by their import path, and run again only where the process was told their names or is told to trust the folder.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dsnn import data, resolve, store
from dsnn.api.fitted import Fitted
from dsnn.api.given import SAVED
from dsnn.assembly.assemble import Setup
from dsnn.assembly.bayesian import network, reads_values, settings_of
from dsnn.assembly.loading import task_of
from dsnn.bayes.complete import complete
from dsnn.config import Config, as_dict, from_dict
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.store import untrusted

FORMAT = 1
FILE, ARRAYS = "fitted.json", "fitted.npz"
MAX_JSON, MAX_ARRAYS = 1 << 24, 1 << 34
"""Bytes that the two files of a folder may have."""

MAX_VALUES = 1 << 28
"""Numbers that an example may have."""


def save(fitted: Fitted, directory: str | Path) -> Path:
    """Writes a fitted network into a folder, which must be empty or hold an earlier one, and returns the folder.

    Raises:
        ValueError: the folder holds something else, or a piece has no import path.
    """
    place = Path(directory).expanduser()
    if place.exists() and (not place.is_dir() or {file.name for file in place.iterdir()} - {FILE, ARRAYS}):
        raise ValueError(f"a fitted network goes into an empty folder, got {place}, which holds other things.")
    facts, arrays = parts(fitted)
    place.mkdir(parents=True, exist_ok=True)
    store.write_arrays(place, ARRAYS, arrays)
    facts["sha256"] = hashlib.sha256((place / ARRAYS).read_bytes()).hexdigest()
    store.write_text(place, FILE, json.dumps(facts, indent=1))
    return place


def load(directory: str | Path, trust: bool = False) -> Fitted:
    """Returns the fitted network of a folder; it predicts what it predicted, bit for bit.

    Args:
        directory: that `save` wrote.
        trust: whether pieces of one's own that the folder names may be imported although this process has not named
            them.

    Raises:
        ValueError: no such folder, a damaged one, one of a newer version, or a piece that may not be imported.
    """
    place = Path(directory).expanduser()
    for name, most in ((FILE, MAX_JSON), (ARRAYS, MAX_ARRAYS)):
        if not (place / name).is_file():
            raise ValueError(f"a fitted network is a folder with {FILE} and {ARRAYS}, got {place} without {name}.")
        if (place / name).stat().st_size > most:
            raise ValueError(f"{place / name} may have {most} bytes, got {(place / name).stat().st_size}.")
    try:
        facts = untrusted.json_object(place / FILE, MAX_JSON)
        version, digest = facts["format"], facts["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place / FILE} must be what fitted.save wrote, got: {error}; save it again.") from None
    if version != FORMAT:
        raise ValueError(f"{place} must be of format {FORMAT}, got {version!r}; take the dsnn that saved it.")
    with (place / ARRAYS).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{place / ARRAYS} is damaged: its digest is not that of {FILE}; save it again.")
    arrays = untrusted.arrays(place / ARRAYS, most=MAX_ARRAYS)
    try:
        return whole(facts, arrays, trust)
    except (AttributeError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place / FILE} must be what fitted.save wrote, got {said}; save it again.") from error


def parts(fitted: Fitted, *, by_path: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what a fitted network is, as text and as arrays.

    Args:
        fitted: the network.
        by_path: whether another process is to find every piece of one's own by its import path.

    Raises:
        ValueError: a piece that has none.
    """
    setup = fitted.setup
    config, split = as_dict(setup.config), setup.split
    nameless = [name for name in resolve.foreign_names(config) if name.startswith(resolve.LOCAL)]
    if by_path and nameless:
        raise ValueError(
            f"what is saved is found again by its import path, got {', '.join(nameless)}, which has none; put it into "
            "a module and give that, or use cloudpickle."
        )
    arrays = {f"params/{name}": np.asarray(value) for name, value in fitted.params.items()}
    arrays |= {f"extra/{name}": value for name, value in split.extra.items() if _small(name)}
    if setup.task.facts.certifies and split.certify is not None:
        arrays |= {"certify/x": np.asarray(split.certify.x), "certify/y": np.asarray(split.certify.y)}
    x, y = split.train
    exits = {name: value for name, value in fitted.exits.metrics.items() if isinstance(value, int | float | str)}
    facts = {
        "format": FORMAT,
        "config": config,
        "data": {
            "x": list(x.shape),
            "y": list(y.shape),
            "classes": split.classes,
            "temporal": split.temporal,
            "task": split.task,
            "class_names": list(split.class_names),
            "analog": reads_values(setup.bayesian.simulator, split),
        },
        "losses": fitted.losses,
        "threshold": fitted.exits.threshold if math.isfinite(fitted.exits.threshold) else None,
        "exits": exits,
        "temperature": fitted.temperature,
        "automatic": setup.automatic,
        "metrics": fitted.metrics,
    }
    return facts, arrays


def whole(facts: dict[str, Any], arrays: dict[str, np.ndarray], trust: bool) -> Fitted:
    """Returns the fitted network of `parts`.

    Raises:
        ValueError: a configuration that this version does not know, or a piece that may not be imported.
    """
    config = from_dict(facts["config"])
    if trust:
        resolve.trust(*resolve.foreign_names(facts["config"]))
    split = _placeholder(facts["data"], arrays, config)
    bayesian, sites = network(config, split, settings_of(config), traced=False)
    setup = Setup(config, split, bayesian, sites, settings_of(config), automatic=dict(facts["automatic"]))
    start = "params/"
    kept = {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start)}
    params = complete(bayesian, kept, ARRAYS)
    threshold = math.inf if facts["threshold"] is None else float(facts["threshold"])
    exits = Calibrated(params, threshold, dict(facts["exits"]))
    losses, found = list(facts["losses"]), dict(facts["metrics"])
    return Fitted(setup, params, losses, exits, setup.task.predictor(bayesian), facts["temperature"], metrics=found)


def _placeholder(facts: dict[str, Any], arrays: dict[str, np.ndarray], config: Config) -> data.Split:
    """Returns data of the shape that was learned from, one example a part."""
    for name in ("x", "y"):
        sizes = facts[name]
        if not all(isinstance(n, int) and n >= 0 for n in sizes) or math.prod(sizes[1:]) > MAX_VALUES:
            raise ValueError(
                f"an example may have {MAX_VALUES} values, got the shape {sizes} of {name}; save it again."
            )
    x = np.full((1, *facts["x"][1:]), 0.5 if facts["analog"] else 0.0, np.float32)
    y = np.zeros((1, *facts["y"][1:]), np.int32)
    certify = None
    if "certify/x" in arrays:
        certify = data.Arrays(arrays["certify/x"], arrays["certify/y"])
    start = "extra/"
    extra = {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start)}
    empty = data.Arrays(x[:0], y[:0])
    one = data.Arrays(x, y)
    made = data.Split(
        one,
        empty,
        one,
        facts["classes"],
        SAVED,
        facts["temporal"],
        facts["task"],
        tuple(facts["class_names"]),
        extra=extra,
        certify=certify,
    )
    targets = y.astype(task_of(made, config).facts.dtype)
    return made._replace(train=one._replace(y=targets), val=empty._replace(y=targets[:0]), test=one._replace(y=targets))


def _small(name: str) -> bool:
    """Returns whether something of `Split.extra` is of the columns, and not of examples."""
    return not name.startswith(("train/", "val/", "test/", "certify/")) or name == "train/lengths"
