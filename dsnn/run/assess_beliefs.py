"""What a run's posterior believes: draws of chosen parameters, doubt over the plane, and where doubt comes from."""

import fnmatch
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dsnn import data, evaluate, rng
from dsnn.bayes.norm_statistics import DECIDED, WHOLE
from dsnn.bayes.priors import Hierarchical
from dsnn.bayes.weight_posterior import ANSWERS
from dsnn.native.programs import Program
from dsnn.tasks import by_source

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

PANELS = 6
DRAWS = 400
MOMENT_DRAWS = 32
CHUNK = 16
"""Draws at a time, of which both numbers of draws are multiples."""
GRID = 48
MARGIN = 0.4
SHOWN_POINTS = 300
SPLIT_EXAMPLES = 512


def posterior(setup: "Setup", params: dict[str, Any], key: Any) -> dict[str, np.ndarray]:
    """Returns posterior and prior draws ``[draw]`` of single entries of the parameters that ``bayes.show`` names.

    Of every parameter those entries come first that lie farthest from zero in posterior standard deviations; points are
    left out. The key is consumed.
    """
    bayesian, names = setup.bayesian, _shown(setup)
    if not names:
        return {}
    drawn, before = rng.stream(key, "weights"), rng.stream(key, "init")
    spread = _Moments()
    for after, _ in _draws(setup, names, params, drawn, before, MOMENT_DRAWS):
        spread.add(after)
    entries = _entries(spread.found())
    if not entries:
        return {}
    flat = {name: np.zeros(PANELS, np.int32) for name in names}
    for place, (name, index) in enumerate(entries):
        flat[name][place] = np.ravel_multi_index(index, bayesian.weights.initial[name].shape) if index else 0

    def taken(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values[name].reshape(len(values[name]), -1)[:, index] for name, index in flat.items()}

    parts = [(taken(a), taken(b)) for a, b in _draws(setup, names, params, drawn, before, DRAWS)]
    after, prior = ({n: np.concatenate([part[side][n] for part in parts]) for n in names} for side in (0, 1))
    records: dict[str, np.ndarray] = {}
    for column, (name, index) in enumerate(entries):
        label = name.replace(".synapse.", ".").replace(".cell.", ".")
        label += f"[{','.join(map(str, index))}]" if index else ""
        records |= {f"posterior/{label}": after[name][:, column], f"prior/{label}": prior[name][:, column]}
    return records


class _Moments:
    """Mean and standard deviation of every entry over draws, from the first draw, so that a point has exactly none."""

    def __init__(self) -> None:
        self.first: dict[str, np.ndarray] = {}
        self.sums: dict[str, np.ndarray] = {}
        self.count = 0

    def add(self, values: dict[str, np.ndarray]) -> None:
        """Adds draws ``[draw, ...]``."""
        self.first = self.first or {name: drawn[0] for name, drawn in values.items()}
        for name, drawn in values.items():
            apart = drawn - self.first[name]
            self.sums[name] = self.sums.get(name, 0.0) + np.stack([apart.sum(0), (apart**2).sum(0)])
        self.count += len(next(iter(values.values())))

    def found(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns mean and standard deviation by name."""
        means = {name: sums / self.count for name, sums in self.sums.items()}
        return {n: (self.first[n] + m, np.sqrt(np.maximum(s - m**2, 0.0))) for n, (m, s) in means.items()}


def ahead(setup: "Setup", params: dict[str, Any]) -> None:
    """Begins to compile the draws of `posterior`, which are one program however many there are."""
    if names := _shown(setup):
        keys = jax.random.key_data(jax.random.split(setup.root, CHUNK))
        _drawing(setup, names).ahead(guide_only(params), keys, keys)


def guide_only(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters that draws of weights need, the same names before and after the rest is fitted."""
    found = {name: value for name, value in params.items() if not name.startswith(("halting.", DECIDED, WHOLE))}
    return {ANSWERS: np.ones((), np.float32)} | found


def _drawing(setup: "Setup", names: list[str]) -> Program:
    """Returns ``(params, keys, prior keys) -> (draws, prior draws)`` of `CHUNK` draws of whole parameters by name."""
    bayesian, impl = setup.bayesian, jax.random.key_impl(setup.root)

    def one(params: Any, key: Any, prior_key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        weights = bayesian.draw(params, jax.random.wrap_key_data(key, impl=impl)).weights
        prior_key = jax.random.wrap_key_data(prior_key, impl=impl)
        believed = {name: _from_prior(bayesian.weights.of(name), prior_key) for name in names}
        return {name: weights[name] for name in names}, believed

    # the guide's parameters are arguments, so that other seeds find the program in the cache
    every = lambda params, own, prior: jax.lax.map(lambda k: one(params, *k), (own, prior))  # noqa: E731
    return setup.programs.setdefault("draws", Program(every))


def _draws(
    setup: "Setup", names: list[str], params: dict[str, Any], own: Any, prior: Any, count: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yields posterior and prior draws ``[draw, ...]`` by name, some at a time; both keys are consumed."""
    program, params = _drawing(setup, names), guide_only(params)
    keys = [np.asarray(jax.random.key_data(jax.random.split(k, count))) for k in (own, prior)]
    for start in range(0, count, CHUNK):
        yield jax.device_get(program(params, *(k[start : start + CHUNK] for k in keys)))


def plane(setup: "Setup", predicted: Any) -> dict[str, np.ndarray]:
    """Returns total and epistemic uncertainty on a grid around the training examples, if these lie in the plane.

    Args:
        setup: the run.
        predicted: ``x -> Prediction``.
    """
    split = setup.split
    if data.input_shape(split) != (2,) or split.temporal:
        return {}
    train = data.looked_at(split.train)
    points = np.asarray(train.x)
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
        "plane/labels": np.asarray(train.y[:SHOWN_POINTS]),
    }


def sources(setup: "Setup", params: dict[str, Any], key: Any) -> dict[str, float]:
    """Returns the mean epistemic uncertainty of test examples by its source, in nats; a key is consumed."""
    if not setup.config.bayes.sources:
        return {}
    found = by_source(setup.bayesian)(params, data.sample(setup.split.test, SPLIT_EXAMPLES).x, key)
    return {f"uncertainty/from_{name}": float(getattr(found, name).mean()) for name in ("weights", "gates", "spikes")}


def _shown(setup: "Setup") -> list[str]:
    weights = setup.bayesian.weights
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
