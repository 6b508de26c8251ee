"""A deep network is trained and converted: a run of its own, or what comes before a Bayesian one."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn import convert, data, evaluate, parameters, rng, store
from dsnn.config import Config
from dsnn.convert import learning
from dsnn.convert.options import deep_network
from dsnn.run import signals
from dsnn.run.console import at_once, console
from dsnn.run.signals import Interrupted
from dsnn.simulate.unroll import unroll
from dsnn.store import checkpoint
from dsnn.tasks.batching import in_batches

DEEP, CHECKPOINTS = "deep.npz", "checkpoints/deep"
TOGETHER = 250
"""Examples at a time; the noise of a stochastic network is drawn by them, so that another number is another draw."""


class Begun(NamedTuple):
    """What training on starts from: the converted network's parameters, and what it and the deep network are worth."""

    params: dict[str, Any]
    metrics: dict[str, Any]


def deep_of(config: Config, split: data.Split, directory: Path) -> nnx.Sequential:
    """Returns the trained deep network of a run, from its directory if it is there."""
    c, root = config.convert, rng.root(config.seed)
    shape, model = data.input_shape(split), config.model
    network = deep_network(
        c, model.architecture, shape, model.hidden, model.channels, split.classes, rng.stream(root, "init")
    )
    if (saved := _saved(network, directory)) is not None:
        if (done := checkpoint.latest(directory / CHECKPOINTS)) == c.epochs:  # history as it was, if it was damaged
            checkpoint.put_back(directory / CHECKPOINTS, done, directory, (store.HISTORY,))
        return saved
    options: dict[str, Any] = {name: getattr(c, name) for name in ("learning_rate", "weight_decay", "l2")}

    def resumed(state: learning.DeepState) -> tuple[int, learning.DeepState]:
        nonlocal network
        done, state = _resumed(directory, state)
        network = learning.with_state(network, state)  # where all epochs are done, none follows that gives it
        return done, state

    options |= {"batch_size": c.batch_size, "root": root, "resumed": resumed}
    began = written = time.monotonic()
    with signals.after_this_epoch(at_once) as asked:
        for epoch in learning.fit_deep(network, split.train, epochs=c.epochs, **options):
            network, done, said = epoch.network, epoch.number, ""
            if data.size(split.val):
                record = {
                    "step": done,
                    "deep/loss": epoch.loss,
                    "deep/val_accuracy": learning.accuracy(network, split.val),
                }
                store.append_history(directory, record)
                said = f", validation accuracy {record['deep/val_accuracy']:.4f}"
            console.print(f"deep network, epoch {done}/{c.epochs}: loss {epoch.loss:.3f}{said}")
            if asked or done == c.epochs or time.monotonic() - written > config.train.checkpoint_s:
                history = directory / store.HISTORY
                checkpoint.save(directory / CHECKPOINTS, done, epoch.state, [history] if history.exists() else [])
                written = time.monotonic()
            if asked and done < c.epochs:
                raise Interrupted(
                    f"stopped after epoch {done} of {c.epochs} of the deep network, checkpoint written; the same "
                    f"command (or run.dir={directory}) goes on.",
                    asked[0],
                )
    console.print(f"deep network: {time.monotonic() - began:.0f} s")
    arrays = {_name(path): np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(network))}
    store.write_arrays(directory, DEEP, arrays)
    return network


def _saved(network: nnx.Sequential, directory: Path) -> nnx.Sequential | None:
    """Returns the network with the weights that an earlier process learned, if their file is there and whole."""
    graph, state = nnx.split(network)
    try:
        saved = store.read_arrays(directory, DEEP)
    except store.RunDirError as error:
        console.print(f"{error} The deep network is learned again.", markup=False)
        return None
    flat = nnx.to_flat_state(state)
    if any(_name(path) not in saved or saved[_name(path)].shape != value[...].shape for path, value in flat):
        return None
    return nnx.merge(graph, nnx.from_flat_state([(p, v.replace(jnp.asarray(saved[_name(p)]))) for p, v in flat]))


def _resumed(directory: Path, state: learning.DeepState) -> tuple[int, learning.DeepState]:
    """Returns the epochs that are done of the newest checkpoint, and the state there; history goes back with it."""
    place = directory / CHECKPOINTS
    for done in reversed(checkpoint.steps(place)):
        try:
            state = checkpoint.restore(place, done, state)
        except checkpoint.CheckpointError as error:
            console.print(f"{error} Going back to the checkpoint before it.", markup=False)
            continue
        checkpoint.put_back(place, done, directory, (store.HISTORY,))
        console.print(f"going on after epoch {done} of the deep network")
        return done, state
    (directory / store.HISTORY).unlink(missing_ok=True)
    return 0, state


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def converted(config: Config, network: nnx.Sequential, split: data.Split, **options: Any) -> convert.Converted:
    """Returns the conversion that a configuration asks for; ``options`` take the place of its own."""
    c = config.convert
    given: dict[str, Any] = {"method": c.method, "percentile": c.percentile, "fraction": c.fraction}
    given |= {
        "calibrated": c.calibrate or None,
        "signed_neurons": c.signed_neurons,
        "steps": config.train.steps,
    } | options
    x = data.sample(split.train, c.examples).x if c.examples else split.train.x
    return convert.convert(network, x, **given)


def running_probs(stack: Any, x: Any, steps: int, at: list[int], batch: int = TOGETHER) -> dict[int, np.ndarray]:
    """Returns class probabilities of a network with held inputs, after each of the steps ``at``."""
    graph, state = nnx.split(stack)

    @jax.jit
    def run(state: Any, x: Any) -> Any:
        network = nnx.merge(graph, state)
        logits = network.logits(unroll(network, x, steps=steps)[0])
        return jax.nn.softmax(logits[jnp.asarray([t - 1 for t in at])])

    return dict(zip(at, in_batches(lambda b: run(state, b), x, batch, axes=1), strict=True))


def scores(name: str, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns accuracy, NLL, ECE and Brier score under ``name/``."""
    return {
        f"{name}/accuracy": evaluate.accuracy(probs, labels),
        f"{name}/nll": evaluate.nll(probs, labels),
        f"{name}/ece": evaluate.ece(probs, labels),
        f"{name}/brier": evaluate.brier(probs, labels),
    }


def begin(config: Config, split: data.Split, directory: Path) -> Begun:
    """Trains and converts the deep network of a run that goes on from it."""
    network = deep_of(config, split, directory)
    made, steps = converted(config, network, split), config.train.steps
    labels = np.asarray(split.test.y)
    probs = running_probs(made.stack, split.test.x, steps, [steps])[steps]
    metrics = scores("deep", learning.predict_deep(network, split.test.x), labels) | scores("converted", probs, labels)
    metrics["converted/steps"] = steps
    return Begun(parameters.split(made.stack)[1], metrics)
