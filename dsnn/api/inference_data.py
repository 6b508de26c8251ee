"""What a network believes in the form that ArviZ reads: draws, predictions and log likelihoods, as ``InferenceData``.

Groups, in ArviZ's names:

    posterior             weights by parameter, and gates as ``gates.<group>``, ``[chain, draw, ...]``
    prior                 the same weights under their prior
    posterior_predictive  ``y``, drawn given each draw of the weights
    log_likelihood        ``y``, log p(y | draw) of every example with all steps, in nats
    observed_data         ``y``, in the unit that it came in
    constant_data         ``gate_probability.<group>`` and ``gate_decided.<group>``, where there are gates

Chains of NUTS are ArviZ's chains; draws of any other posterior are independent and stand in one.
"""

import itertools
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, rng, tasks
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.objective import Draw
from dsnn.bayes.weight_posterior import ANSWERS
from dsnn.learn import sampling
from dsnn.parameters import Params, without_statistics
from dsnn.types import Array, Float, Key

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

PARTS = ("train", "val", "certify")


class Predicted(NamedTuple):
    """What draws say of examples: a target that each of them predicts, and the log likelihood of the real one."""

    y: np.ndarray
    log_likelihood: Float[np.ndarray, "sample n"]


def inference_data(setup: "Setup", params: Params, *, samples: int, seed: int, part: str) -> Any:
    """Returns the ``InferenceData`` of a fitted network.

    Args:
        setup: data and network.
        params: of the guide.
        samples: draws; an ensemble and chains of NUTS give all their members instead.
        seed: of the draws and of the firing noise.
        part: "train", "val", "certify", or "auto".

    Raises:
        ImportError: ArviZ is not installed.
        ValueError: no such part, no draws, a network of points, or a task without one target to draw.
    """
    tasks.refuse(setup.task, "arviz", setup.split.name)
    arviz = _arviz()
    part = _part(setup.split, part)
    bayesian, root = setup.bayesian, rng.root(seed)
    if samples < 1:
        raise ValueError(f"the number of draws must be at least 1, got {samples}.")
    prior = _prior(bayesian, params, samples, rng.stream(root, "init"))
    count = bayesian.weights.members if bayesian.weights.members > 1 else samples
    key = rng.stream(root, "noise")
    weights, gates = _posterior(bayesian, params, count, key)
    said = predicted(setup, params, part, count, key)

    def chains(values: Any) -> np.ndarray:
        if setup.config.learner == "nuts":
            return sampling.by_chain(setup.config.nuts, values)
        return np.asarray(values)[None]

    drawn = {name: chains(value) for name, value in weights.items()}
    drawn |= {f"gates.{name}": chains(value) for name, value in gates.items()}
    known = _gates(bayesian, params)
    observed = setup.task.targets(setup.split, part)
    return arviz.from_dict(
        posterior=drawn,
        prior={name: np.asarray(value)[None] for name, value in prior.items()},
        posterior_predictive={"y": chains(said.y)},
        log_likelihood={"y": chains(said.log_likelihood)},
        observed_data={"y": observed},
        constant_data=known or None,
        coords={"example": np.arange(len(observed))},
        dims={"y": ["example", *["output"] * (observed.ndim - 1)]},
        attrs={"inference_library": "dsnn", "part": part},
    )


def prior_predictive(setup: "Setup", params: Params, x: np.ndarray, samples: int, key: Key[Array, ""]) -> np.ndarray:
    """Returns probabilities or numbers ``[sample, n, output]`` under draws of the weights from their prior.

    Args:
        setup: of the network.
        params: of the guide, for what has no prior.
        x: inputs as the network reads them.
        samples: draws of the prior.
        key: drives the draws and the firing; consumed.
    """
    if samples < 1:
        raise ValueError(f"the number of draws must be at least 1, got {samples}.")
    bayesian, unit = setup.bayesian, data.target_scaling(setup.split)
    noise = bayesian.likelihood_parameters(params)

    def one(x: Array, sample: Array) -> Array:
        own = jax.random.fold_in(key, sample)
        outputs = _outputs(bayesian, bayesian.prior_draw(params, rng.stream(own, "init")), x, own)
        return setup.task.expected(noise, outputs)

    made = tasks.in_batches(jax.jit(lambda x: jax.lax.map(lambda s: one(x, s), jnp.arange(samples))), x, axes=1)
    return made if unit is None else made * unit.scale + unit.shift


def predicted(setup: "Setup", params: Params, part: str, samples: int, key: Key[Array, ""]) -> Predicted:
    """Returns what posterior draws say of a part, in the targets' unit; a predictive with this key has them too.

    Args:
        setup: data and network.
        params: of the guide.
        part: of the data.
        samples: draws.
        key: as the predictive takes it; consumed.
    """
    bayesian, arrays = setup.bayesian, getattr(setup.split, part)
    task = setup.task
    own_noise = bayesian.likelihood_parameters(params)

    def one(x: Array, y: Array, first: Array, sample: Array) -> tuple[Array, Array]:
        own = jax.random.fold_in(key, sample)
        outputs = tasks.drawn(bayesian, params, x, key, sample)[-1]
        drawing = jax.random.fold_in(rng.stream(own, "data"), first)
        return task.draw(own_noise, outputs, drawing), task.log_prob(own_noise, outputs, y)

    every = jax.jit(lambda x, y, first: jax.lax.map(lambda s: one(x, y, first, s), jnp.arange(samples)))
    numbered = itertools.count()  # batches draw their targets apart

    def run(x: Array, y: Array) -> Any:
        return every(x, y, jnp.asarray(next(numbered)))

    drawn, log_prob = tasks.in_batches(run, arrays.x, beside=(arrays.y,), axes=1)
    unit = data.target_scaling(setup.split)
    if unit is not None:
        outputs = drawn.shape[-1]
        drawn = drawn * unit.scale + unit.shift
        log_prob = log_prob - np.log(np.broadcast_to(unit.scale, outputs)).sum()
    return Predicted(drawn, log_prob)


def _outputs(bayesian: Bayesian, draw: Draw, x: Array, key: Key[Array, ""]) -> Array:
    """Returns the outputs after all steps."""
    return bayesian.simulator.logits(bayesian.network(draw), x, key, bayesian.adapt(key, x.shape[0]))[-1]


def _posterior(
    bayesian: Bayesian, params: Params, samples: int, key: Key[Array, ""]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns draws of the weights and of the gates, before the answers' temperature, which is no part of either."""
    plain = {name: value for name, value in params.items() if name != ANSWERS}

    def one(sample: Array) -> tuple[Params, dict[str, Array]]:
        own = jax.random.fold_in(key, sample)
        draw = bayesian.draw(plain, rng.stream(own, "weights"), sample)
        return without_statistics(draw.weights), draw.gates or {}

    return jax.device_get(jax.jit(lambda: jax.lax.map(one, jnp.arange(samples)))())


def _prior(bayesian: Bayesian, params: Params, samples: int, key: Key[Array, ""]) -> dict[str, Any]:
    keys = jax.random.split(key, samples)
    own = without_statistics(params)  # they are no draws
    return jax.device_get(jax.jit(lambda: jax.lax.map(lambda k: bayesian.prior_draw(own, k).weights, keys))())


def _gates(bayesian: Bayesian, params: Params) -> dict[str, np.ndarray]:
    """Returns how likely each site runs, and which of them the decided network keeps."""
    decided = bayesian.centre(params).gates or {}
    found = {f"gate_probability.{name}": np.asarray(p) for name, p in bayesian.running_probabilities(params).items()}
    return found | {f"gate_decided.{name}": np.asarray(gate) > 0 for name, gate in decided.items()}


def _part(split: data.Split, part: str) -> str:
    filled = [name for name in PARTS if (one := getattr(split, name)) is not None and data.size(one)]
    if part == "auto":
        return "val" if "val" in filled else "train"
    if part not in filled:
        raise ValueError(f"part must be auto or one of {', '.join(filled)}, which have examples, got {part!r}.")
    return part


def _arviz() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it announces its next version to whoever imports it
            import arviz
    except ImportError:
        raise ImportError(
            "InferenceData is made by ArviZ, got an installation without it; pip install 'dsnn[arviz]'."
        ) from None
    return arviz
