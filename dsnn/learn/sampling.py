"""The learner that does not optimise: No-U-Turn sampling of the weights of a small network, a chunk of draws an epoch.

An epoch of it is a number of transitions of every chain on all training examples, so that progress is shown, validated,
and kept in checkpoints as that of any learner. Neurons fire without noise, at the median of theirs. The surrogate
gradient is the force that moves the chains, and the true density weighs where they go (`dsnn.bayes.nuts`), so the draws
are of the exact posterior: no KL weight applies. The draws that are kept become the members of a family (`dsnn.bayes.
guides.draws`), from which everything else predicts.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import rng
from dsnn.bayes import guides, nuts
from dsnn.bayes.bayesian import Bayesian
from dsnn.learn import Batch, Info, Learner
from dsnn.learn.learner import blank
from dsnn.parameters import Params, count
from dsnn.types import Array, Float, Int, Key

MOST_WEIGHTS, MOST_EXAMPLES = 20_000, 5_000


@dataclasses.dataclass
class NutsConfig:
    """No-U-Turn sampling, see `dsnn.learn.sampling`; ``train.epochs`` and ``train.batch_size`` follow from it.

    Attributes:
        warmup: transitions of every chain that tune step size and mass matrix; none of them is kept.
        samples: transitions of every chain after those.
        chains: run side by side; with one, nothing says whether another would have found the same.
        thin: of so many transitions one is kept, a member of the predictive.
        chunk: transitions between checkpoints, at most.
        tree_depth: a path has at most 2 to this power steps, each of them a gradient over all examples.
        target: acceptance probability that the step size is tuned to.
        large: whether to run on more than 20 000 weights or 5 000 examples all the same.
    """

    warmup: int = 500
    samples: int = 500
    chains: int = 2
    thin: int = 5
    chunk: int = 50
    tree_depth: int = 8
    target: float = 0.8
    large: bool = False

    def __post_init__(self) -> None:
        for name in ("warmup", "samples", "chains", "thin", "chunk", "tree_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"nuts.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.target < 1:
            raise ValueError(f"nuts.target must be in (0, 1), got {self.target}; 0.8 is usual.")
        if self.kept * self.chains < 2:
            raise ValueError(
                f"nuts must keep two draws at least, got nuts.samples={self.samples} of {self.chains} chains with "
                f"nuts.thin={self.thin}; lower nuts.thin."
            )

    @property
    def kept(self) -> int:
        """Draws that are kept of every chain."""
        return self.samples // self.thin

    @property
    def epochs(self) -> int:
        """Chunks of the whole run."""
        return math.ceil((self.warmup + self.samples) / self.chunk)

    @property
    def moves(self) -> int:
        """Transitions of every chain in a chunk; those beyond the last sample are not kept."""
        return math.ceil((self.warmup + self.samples) / self.epochs)


class NutsState(NamedTuple):
    """What sampling carries from chunk to chunk.

    Attributes:
        chains: NumPyro's state of every chain, leaves ``[chain, ...]``.
        draws: kept draws by latent variable, unconstrained, ``[chain, draw, ...]``; zero where not yet drawn.
        energies: -log p(w, y | x) of each kept draw, in nats.
        moves: transitions done of every chain.
        divergences: of all chains, after the warm-up.
        gradients: evaluated so far, each over all examples.
    """

    chains: Any
    draws: Params
    energies: Float[Array, "chain draw"]
    moves: Int[Array, ""]
    divergences: Int[Array, ""]
    gradients: Float[Array, ""]


def family(initial: Params, config: NutsConfig) -> guides.Guide:
    """Returns the posterior family that holds the draws."""
    return guides.draws(initial, config.chains * config.kept)


def nuts_learner(
    bayesian: Bayesian, config: NutsConfig, root: Key[Array, ""], targets: jax.ShapeDtypeStruct | None = None
) -> Learner:
    """Returns the learner whose step is a chunk of transitions, given all training examples as its batch.

    Args:
        bayesian: a network without firing noise, gates or halting.
        config: how long, and how many chains.
        root: root key of the run.
        targets: shape and dtype of one example's target; None is a class.

    Raises:
        ValueError: a random likelihood, or a network or data too large for it.
    """
    _check_size(bayesian, config)
    sampler = nuts.sampler(bayesian, config.warmup, config.tree_depth, config.target)
    starts = nuts.positions(bayesian, config.chains, rng.stream(root, "init"))
    example = bayesian.simulator.example(bayesian.weights.initial)

    def begun(x: Array, y: Array) -> Any:
        return sampler.init(starts, x, y, rng.stream(root, "weights"))

    def init() -> NutsState:
        # shaped like a state of the data, which the first step puts in its place
        shapes = jax.eval_shape(begun, example, blank(targets))
        chains = jax.tree.map(_empty, shapes)
        draws = {n: jnp.zeros((config.chains, config.kept, *value.shape[1:])) for n, value in starts.items()}
        zero = jnp.zeros((), jnp.int32)
        return NutsState(chains, draws, jnp.zeros((config.chains, config.kept)), zero, zero, jnp.zeros(()))

    def move(state: NutsState, batch: Batch) -> NutsState:
        chains = sampler.step(state.chains, batch.x, batch.y)
        after = state.moves - config.warmup  # 0 is the first sample
        due = (after >= 0) & ((after + 1) % config.thin == 0)
        place = jnp.where(due, (after + 1) // config.thin - 1, config.kept)  # what lies beyond is dropped
        keep = lambda kept, value: kept.at[:, place].set(value, mode="drop")  # noqa: E731
        draws = {name: keep(kept, chains.z[name]) for name, kept in state.draws.items()}
        counted = jnp.where((after >= 0) & (after < config.samples), chains.diverging.sum(), 0)
        return NutsState(
            chains,
            draws,
            keep(state.energies, chains.potential_energy),
            state.moves + 1,
            state.divergences + counted.astype(jnp.int32),
            state.gradients + chains.num_steps.sum(),
        )

    def step(state: NutsState, batch: Batch) -> tuple[NutsState, Info]:
        fresh = begun(batch.x, batch.y)  # also tells NumPyro how long the warm-up is
        first = state.moves == 0
        state = state._replace(chains=jax.tree.map(lambda a, b: _chosen(first, a, b), fresh, state.chains))
        state = jax.lax.fori_loop(0, config.moves, lambda _, s: move(s, batch), state)
        return state, Info(state.chains.potential_energy.mean() / bayesian.data_size)

    return Learner(init, step)


def nuts_params(bayesian: Bayesian, config: NutsConfig, state: NutsState) -> Params:
    """Returns the parameters of `family`: the draws so far, and where the chains are in the places still to come.

    Any first few of them are spread over all chains and over their whole length.
    """
    weights, order = bayesian.weights, spread(config)
    reached = jnp.clip((state.moves - config.warmup) // config.thin, 0, config.kept)
    missing = jnp.arange(config.kept) >= reached

    def filled(kept: Array, now: Array) -> Array:
        mask = missing.reshape(1, -1, *[1] * (kept.ndim - 2))
        return jnp.where(mask, now[:, None], kept).reshape(-1, *kept.shape[2:])[order]

    raw = {name: filled(kept, state.chains.z[name]) for name, kept in state.draws.items()}
    found: Params = {guides.ENERGY: filled(state.energies, state.chains.potential_energy)}
    for name, value in weights.initial.items():
        if weights.of(name) is None:
            found[name] = jnp.broadcast_to(value, (len(order), *value.shape))
        else:
            found[f"{name}.point"] = weights.over.transform(name)(raw[name])
    return found | {name: jnp.exp(raw[name]).mean() for name in bayesian.likelihood.parameters()}


def spread(config: NutsConfig) -> np.ndarray:
    """Returns the order of kept draws, numbered chain by chain: chains take turns, in van der Corput's order."""
    bits = max((config.kept - 1).bit_length(), 1)
    reversed_ = [int(f"{k:0{bits}b}"[::-1], 2) for k in range(2**bits)]
    places = [k for k in reversed_ if k < config.kept]
    return np.asarray([chain * config.kept + place for place in places for chain in range(config.chains)])


def by_chain(config: NutsConfig, values: Any) -> np.ndarray:
    """Returns what stands in the order of `nuts_params` as ``[chain, draw, ...]``."""
    values = np.asarray(values)
    return values[np.argsort(spread(config))].reshape(config.chains, config.kept, *values.shape[1:])


def diagnostics(state: NutsState) -> dict[str, float]:
    """Returns what says whether the chains agree, of the draws that are kept, and what they cost.

    The effective sample size is at most about the number of draws kept. Where weights trade places (hidden neurons may
    be permuted) R-hat is large although predictions agree.
    """
    r_hat, size = nuts.diagnosed({name: np.asarray(value) for name, value in state.draws.items()})
    return {
        "nuts/r_hat_max": r_hat,
        "nuts/ess_min": min(size, float(state.energies.size)),
        "nuts/divergences": float(state.divergences),
        "nuts/gradients": float(state.gradients),
        "nuts/draws": float(state.energies.size),
    }


def _check_size(bayesian: Bayesian, config: NutsConfig) -> None:
    weights, examples = count(bayesian.weights.initial), bayesian.data_size
    if config.large or (weights <= MOST_WEIGHTS and examples <= MOST_EXAMPLES):
        return
    passes = config.chains * config.epochs * config.moves * 2**config.tree_depth
    raise ValueError(
        f"learner=nuts is for at most {MOST_WEIGHTS} weights and {MOST_EXAMPLES} examples, got {weights} and "
        f"{examples}, on which it may take {passes:.2g} gradients over all examples; take learner=svi, or set "
        "nuts.large=true."
    )


def _empty(shape: jax.ShapeDtypeStruct) -> Array:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape.shape)
    return jnp.zeros(shape.shape, shape.dtype)


def _chosen(condition: Array, yes: Array, no: Array) -> Array:
    return jnp.where(condition, yes, no)
