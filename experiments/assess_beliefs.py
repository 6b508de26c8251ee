"""What a run's posterior believes: draws of chosen parameters, doubt over the plane, and where doubt comes from."""

import fnmatch
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, evaluate, rng
from dsnn.bayes.priors import Hierarchical
from dsnn.bayes.sources import by_source

if TYPE_CHECKING:
    from dsnn.assemble import Setup

PANELS = 6
DRAWS = 400
MOMENT_DRAWS = 32
GRID = 48
MARGIN = 0.4
SHOWN_POINTS = 300
SPLIT_EXAMPLES = 512


def posterior(setup: "Setup", params: dict[str, Any], key: Any) -> dict[str, np.ndarray]:
    """Returns posterior and prior draws ``[draw]`` of single entries of the parameters that ``bayes.show`` names.

    Of every parameter those entries come first that lie farthest from zero in posterior standard deviations; points are
    left out. The key is consumed.
    """
    lifted, names = setup.lifted, _shown(setup)
    if not names:
        return {}
    drawn, before = rng.stream(key, "weights"), rng.stream(key, "init")

    # the guide's parameters and the entries are arguments, so that other seeds find the programs in the cache
    @jax.jit
    def moments(params: Any, own: Any) -> Any:
        """Mean and standard deviation of every entry; counted from one draw, so that a point has exactly none."""
        keys = jax.random.split(own, MOMENT_DRAWS)
        one = lambda k: {n: lifted.draw(params, k).weights[n] for n in names}  # noqa: E731
        first = one(keys[0])

        def add(total: Any, k: Any) -> Any:
            apart = jax.tree.map(jnp.subtract, one(k), first)
            return jax.tree.map(lambda t, a: t + jnp.stack([a, a**2]), total, apart), None

        start = jax.tree.map(lambda a: jnp.zeros((2, *a.shape)), first)
        sums = jax.lax.scan(add, start, keys)[0]
        means = jax.tree.map(lambda s: s / MOMENT_DRAWS, sums)
        return {n: (first[n] + m, jnp.sqrt(jnp.maximum(s - m**2, 0.0))) for n, (m, s) in means.items()}

    entries = _entries(jax.device_get(moments(params, drawn)))

    if not entries:
        return {}

    @jax.jit
    def collect(params: Any, own: Any, prior_key: Any, flat: Any) -> Any:
        def taken(values: Any) -> Any:
            return {name: values(name).ravel()[index] for name, index in flat.items()}

        def one(k: Any) -> Any:
            weights = lifted.draw(params, k).weights
            return taken(lambda name: weights[name])

        def believed(k: Any) -> Any:
            return taken(lambda name: _from_prior(lifted.weights.of(name), k))

        keys = [jax.random.split(k, DRAWS) for k in (own, prior_key)]
        return jax.lax.map(one, keys[0]), jax.lax.map(believed, keys[1])

    shapes = {name: lifted.initial[name].shape for name in names}
    flat = {name: np.zeros(PANELS, np.int32) for name in names}
    for place, (name, index) in enumerate(entries):
        flat[name][place] = np.ravel_multi_index(index, shapes[name]) if index else 0
    after, prior = jax.device_get(collect(params, drawn, before, flat))
    records: dict[str, np.ndarray] = {}
    for column, (name, index) in enumerate(entries):
        label = name.replace(".synapse.", ".").replace(".cell.", ".")
        label += f"[{','.join(map(str, index))}]" if index else ""
        records |= {f"posterior/{label}": after[name][:, column], f"prior/{label}": prior[name][:, column]}
    return records


def plane(setup: "Setup", predicted: Any) -> dict[str, np.ndarray]:
    """Returns total and epistemic uncertainty on a grid around the training examples, if these lie in the plane.

    Args:
        setup: the run.
        predicted: ``x -> Prediction``.
    """
    split = setup.split
    if data.input_shape(split) != (2,) or split.temporal:
        return {}
    points = np.asarray(split.train.x)
    low, high = points.min(0), points.max(0)
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    axes = [np.linspace(a, b, GRID, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1)
    made = predicted(grid.reshape(-1, 2))
    total = evaluate.entropy(made.probs)
    return {
        "plane/x": grid,
        "plane/total": total.reshape(GRID, GRID),
        "plane/epistemic": np.maximum(total - made.aleatoric, 0.0).reshape(GRID, GRID),
        "plane/points": points[:SHOWN_POINTS],
        "plane/labels": np.asarray(split.train.y[:SHOWN_POINTS]),
    }


def sources(setup: "Setup", params: dict[str, Any], key: Any) -> dict[str, float]:
    """Returns the mean epistemic uncertainty of test examples by its source, in nats; a key is consumed."""
    if not setup.config.bayes.sources:
        return {}
    found = by_source(setup.lifted)(params, data.sample(setup.split.test, SPLIT_EXAMPLES).x, key)
    return {f"uncertainty/from_{name}": float(getattr(found, name).mean()) for name in ("weights", "gates", "spikes")}


def _shown(setup: "Setup") -> list[str]:
    weights = setup.lifted.weights
    chosen = [n for p in setup.config.bayes.show for n in weights.template.names if fnmatch.fnmatchcase(n, p)]
    return [name for name in dict.fromkeys(chosen) if weights.of(name) is not None]


def _entries(moments: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, tuple[int, ...]]]:
    """Returns at most `PANELS` entries, the first of every parameter before the second of any."""
    found = []
    for order, (name, (mean, deviation)) in enumerate(moments.items()):
        spread = deviation > 0  # a point has no posterior
        score = np.where(spread, np.abs(mean) / np.maximum(deviation, 1e-30), -1.0)
        for rank, flat in enumerate(np.argsort(-score, axis=None)[:PANELS]):
            if spread.ravel()[flat]:
                index = tuple(int(i) for i in np.unravel_index(flat, mean.shape))
                found.append((rank, order, name, index))
    return [(name, index) for _, _, name, index in sorted(found)[:PANELS]]


def _from_prior(prior: Any, key: Any) -> Any:
    if not isinstance(prior, Hierarchical):
        return prior.sample(key)
    scales = {n: fn.sample(rng.stream(key, "init", i)) for i, (n, fn) in enumerate(prior.scales.items())}
    return prior.given(scales).sample(rng.stream(key, "weights"))
