"""Bias and variance of every gradient estimator against exact enumeration: python -m experiments.gradient_bias.

Two noisy networks small enough to sum over all their spike trains; the loss is squared distance of a leaky readout
from a target. Everything is measured in units of the exact gradient's length, over all parameters.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dsnn import parameters, unroll
from dsnn.cells import LI, LIF
from dsnn.escape import Concrete, Logistic
from dsnn.learn import gradients
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack

WIDTH = 0.3
STEPS, BATCH = 3, 2
DRAWS = 20_000
GROWTH_DRAWS = 2_000
SCORE_SAMPLES = 8
SIZES = ((2, 3), (8, 3), (32, 3), (128, 3), (32, 10), (32, 30))
TEMPERATURES = (0.02, 0.1, 0.5)
SURROGATES = ("atan", "fast_sigmoid", "sigmoid", "triangle", "multi_gaussian", "straight_through")


class Row(NamedTuple):
    """What is measured of one estimator on one network, in units of the exact gradient's length.

    Attributes:
        name: of the estimator.
        bias: length of mean - exact, less what chance alone would give.
        error: standard error of that length.
        cosine: between the mean and the exact gradient.
        spread: standard deviation of one forward pass's gradient, all parameters together.
    """

    name: str
    bias: float
    error: float
    cosine: float
    spread: float


def network(hidden: tuple[int, ...], cell: Callable[[], Any], seed: int) -> tuple[parameters.Template, dict[str, Any]]:
    """Returns a recurrent first layer, further layers, and a leaky readout of one value."""
    key, layers, inputs = jax.random.key(seed), {}, 2
    for index, size in enumerate(hidden):
        make, back = jax.random.split(jax.random.fold_in(key, index))
        synapse = Dense(inputs, size, key=make, gain=1.5)
        layers[f"hidden{index}"] = Layer(synapse, cell(), recurrent_key=back if index == 0 else None)
        inputs = size
    layers["readout"] = Layer(Dense(inputs, 1, key=jax.random.fold_in(key, 99)), LI(beta=0.5))
    return parameters.split(Stack(**layers))


def loss(outputs: jax.Array) -> jax.Array:
    """Returns the squared distance from 0.7, summed over time, per example."""
    return ((outputs - 0.7) ** 2).sum((0, 2))


def measure(hidden: tuple[int, ...], seed: int) -> list[Row]:
    """Returns the rows of one network."""
    xs = jax.random.normal(jax.random.key(1000 + seed), (STEPS, BATCH, 2)) + 0.5
    template, params = network(hidden, lambda: LIF(beta=0.8, noise=Logistic(WIDTH)), seed)
    exact = _flat(gradients.exact_gradient(template.build, params, xs, loss)[1])
    rows = []

    def pathwise(name: str, cell: Callable[[], Any]) -> None:
        build = network(hidden, cell, seed)[0].build
        one = jax.grad(lambda p, key: loss(unroll(build(p), xs, key)[0]).mean())
        rows.append(_row(name, exact, _draws(lambda key: one(params, key), DRAWS), 1))

    pathwise("expected derivative", lambda: LIF(beta=0.8, noise=Logistic(WIDTH)))
    for name in SURROGATES:
        pathwise(name, functools.partial(_surrogate, name))
    for hard in (True, False):
        for t in TEMPERATURES:
            kind = "straight-through concrete" if hard else "relaxed concrete"
            pathwise(f"{kind}, temperature {t:g}", functools.partial(_concrete, t, hard))
    for baseline in ("none", "leave_one_out", "control_variate"):

        def estimate(key: Any, baseline: str = baseline) -> Any:
            options: dict[str, Any] = {"samples": SCORE_SAMPLES, "baseline": baseline}
            return gradients.score_gradient(template.build, params, xs, loss, key, **options)[1]

        drawn = _draws(estimate, DRAWS // SCORE_SAMPLES)
        rows.append(_row(f"score function, {baseline.replace('_', ' ')}", exact, drawn, SCORE_SAMPLES))
    return rows


def growth(width: int, steps: int, seed: int) -> dict[str, float]:
    """Returns the spread of one pass for three estimators on a network that may be too large to enumerate.

    The unit is the length of the mean gradient of the expected derivative.
    """
    xs = jax.random.normal(jax.random.key(1000 + seed), (steps, BATCH, 2)) + 0.5
    template, params = network((width,), lambda: LIF(beta=0.8, noise=Logistic(WIDTH)), seed)
    relaxed = network((width,), lambda: _concrete(0.1, True), seed)[0]

    def pathwise(build: Callable[[Any], Any]) -> np.ndarray:
        one = jax.grad(lambda p, key: loss(unroll(build(p), xs, key)[0]).mean())
        return _draws(lambda key: one(params, key), GROWTH_DRAWS)

    def score(key: Any) -> Any:
        return gradients.score_gradient(template.build, params, xs, loss, key, samples=SCORE_SAMPLES)[1]

    expected = pathwise(template.build)
    length = np.linalg.norm(expected.mean(0))
    drawn = {
        "expected derivative": (expected, 1),
        "straight-through concrete, temperature 0.1": (pathwise(relaxed.build), 1),
        "score function, leave one out": (_draws(score, GROWTH_DRAWS // SCORE_SAMPLES), SCORE_SAMPLES),
    }
    return {name: float(np.sqrt(rows.var(0).sum() * passes) / length) for name, (rows, passes) in drawn.items()}


def _surrogate(name: str) -> LIF:
    return LIF(beta=0.8, noise=Logistic(WIDTH), surrogate=name)


def _concrete(temperature: float, hard: bool) -> LIF:
    return LIF(beta=0.8, noise=Concrete(Logistic(WIDTH), temperature, hard=hard))


def _draws(estimate: Callable[[Any], Any], count: int) -> np.ndarray:
    found = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(7), count))
    return np.concatenate([np.reshape(leaf, (count, -1)) for leaf in jax.tree.leaves(found)], 1)


def _flat(grads: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


def _row(name: str, exact: np.ndarray, drawn: np.ndarray, passes: int) -> Row:
    length = np.linalg.norm(exact)
    mean, chance = drawn.mean(0), drawn.var(0).sum() / len(drawn)
    squared = ((mean - exact) ** 2).sum() - chance
    cosine = float(mean @ exact / np.linalg.norm(mean) / length)
    spread = float(np.sqrt(drawn.var(0).sum() * passes) / length)
    return Row(name, float(np.sqrt(max(0.0, squared)) / length), float(np.sqrt(chance) / length), cosine, spread)


def main() -> None:
    """Prints a table for each network, the mean over seeds."""
    for hidden in ((2,), (2, 2)):
        runs = [measure(hidden, seed) for seed in range(5)]
        print(f"\n{STEPS} steps, {' + '.join(map(str, hidden))} units, mean of 5 networks\n")
        print("| estimator | bias | standard error | cosine | spread of one pass |\n|---|---|---|---|---|")
        for rows in zip(*runs, strict=True):
            means = np.asarray([row[1:] for row in rows]).mean(0)
            print(f"| {rows[0].name} | " + " | ".join(f"{value:.3f}" for value in means) + " |", flush=True)
    heads = " | ".join(f"{width} units, {steps} steps" for width, steps in SIZES)
    print(f"\nSpread of one pass as a network grows, mean of 3 networks\n\n| estimator | {heads} |")
    print("|---" * (len(SIZES) + 1) + "|")
    columns = [[growth(width, steps, seed) for seed in range(3)] for width, steps in SIZES]
    for name in columns[0][0]:
        means = [np.mean([one[name] for one in column]) for column in columns]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in means) + " |", flush=True)


if __name__ == "__main__":
    main()
