"""What a converted network is worth: beside its deep network, rate-coded, and on address events.

The three run one converted network on the same examples and are scored alike: they are one file.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn import convert, data, energy, evaluate, rng
from dsnn.bayes.allocate import allocate
from dsnn.config import Config
from dsnn.convert import learning
from dsnn.convert.options import entry
from dsnn.deploy import activity
from dsnn.native import products as products
from dsnn.run import assess_energy
from dsnn.run.conversion import TOGETHER, converted, deep_of, running_probs, scores
from dsnn.simulate.row_sampling import K_PUBLISHED, SAMPLINGS, address_events, draws_for
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll

MATCHED_EXAMPLES = 250
COUNTED_EXAMPLES = 32
TRIED_EXAMPLES = 2000
NEARLY = 0.005  # half a point of accuracy
_CALIBRATION = {"nll": evaluate.nll, "ece": evaluate.ece}
CONVERTED = ("dense", "dense_skipping", "pruned")
"""Rivals that are the deep network which was converted, as it is or with zeros skipped: their accuracy is known."""


def assess(config: Config, split: data.Split, directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains, converts and tests; returns metrics and the arrays for ``records.npz``."""
    c, labels = config.convert, np.asarray(split.test.y)
    network = deep_of(config, split, directory)
    metrics: dict[str, Any] = scores("deep", learning.predict_deep(network, split.test.x), labels)
    if data.size(split.val):
        metrics["deep/val_accuracy"] = learning.accuracy(network, split.val)
    made = converted(config, network, split)
    metrics |= {f"convert/limit/{name}": limit for name, limit in made.limits.items()}
    if c.draws:
        addressed, probs = _addressed(config, split, network, made)
        metrics |= addressed
    else:
        held, probs = _held(config, split, network, made)
        metrics |= held
    tempered, probs = _tempered(config, split, made, probs)
    metrics |= tempered
    metrics |= scores("test", probs, labels) | scores("deployed", probs, labels)
    metrics |= {f"rival/{name}/accuracy": metrics["deep/accuracy"] for name in CONVERTED}
    names = ("compute/steps_mean", "compute/steps_total", "deployed/steps_mean")
    metrics |= dict.fromkeys(names, float(config.train.steps))
    return metrics, {"test/probs": probs, "test/y": labels}


def _tempered(
    config: Config, split: data.Split, made: convert.Converted, probs: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Returns class probabilities at the temperature that suits the examples that select, and what that was worth.

    Rates and counts of events know which class is largest and not how sure that is: their scale is the converter's.
    """
    labels, select = np.asarray(split.test.y), np.asarray(split.val.y)
    untempered = {f"uncalibrated/{name}": score(probs, labels) for name, score in _CALIBRATION.items()}
    if not len(select):
        return untempered, probs
    draws = dict(zip(made.stack.names, config.convert.draws, strict=False))
    if draws:
        seen, _ = _stochastic(config, made, split.val.x, draws, rng.stream(rng.root(config.seed), "data", 1))
    else:
        steps = config.train.steps
        seen = running_probs(made.stack, split.val.x, steps, [steps])[steps]
    temperature = evaluate.fit_temperature(_logs(seen), select)
    return {**untempered, "calibration/temperature": temperature}, evaluate.with_temperature(_logs(probs), temperature)


def _logs(probs: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probs, np.finfo(np.float32).tiny))


def _held(
    config: Config, split: data.Split, network: nnx.Sequential, made: convert.Converted
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns accuracies of held inputs over steps, of the other normalisations, and the comparison of layers."""
    c, labels, steps = config.convert, np.asarray(split.test.y), config.train.steps
    at = sorted({*c.steps, steps})
    calibrated = c.calibrate or c.method == "calibrated"
    if calibrated:  # each number of steps has biases of its own
        probs: dict[int, np.ndarray] = {}
        for t in at:
            stack = made.stack if t == steps else converted(config, network, split, steps=t).stack
            probs |= running_probs(stack, split.test.x, t, [t])
    else:
        probs = running_probs(made.stack, split.test.x, max(at), at)
    metrics: dict[str, Any] = {f"converted/accuracy_{t}": evaluate.accuracy(p, labels) for t, p in probs.items()}
    if calibrated or c.signed_neurons:
        plain = converted(config, network, split, calibrated=False, signed_neurons=False)
        found = running_probs(plain.stack, split.test.x, max(at), at)
        metrics |= {f"converted/plain/accuracy_{t}": evaluate.accuracy(p, labels) for t, p in found.items()}
    metrics |= scores("converted", probs[steps], labels)
    for name in c.methods:
        method, fraction, start = entry(name)
        # the largest activation is that of all training examples
        other = convert.convert(network, split.train.x, method, percentile=c.percentile, fraction=fraction, start=start)
        found = running_probs(other.stack, split.test.x, max(at), at)
        metrics |= {f"converted/{name}/accuracy_{t}": evaluate.accuracy(p, labels) for t, p in found.items()}
    if c.match:
        stack = made.stack
        if calibrated:
            stack = converted(config, network, split, calibrated=False).stack  # its biases are for few steps
        rows = convert.match_layers(network, stack, made.limits, data.sample(split.test, MATCHED_EXAMPLES).x, c.match)
        for row in rows:
            metrics |= {
                f"match/{row.name}/{field}": getattr(row, field)
                for field in ("correlation", "error", "bias", "clipped", "rate")
            }
        metrics["match/correlation_least"] = min(row.correlation for row in rows)
    x = jnp.asarray(data.sample(split.test, COUNTED_EXAMPLES).x)
    spikes = jax.jit(lambda x: unroll(made.stack, x, None, keep_spikes, steps=steps)[2])(x)
    records = activity.records(made.stack, x, spikes, held=True, analog=True)
    metrics["compute/spike_rate"] = energy.spike_rate(records)
    metrics |= _beside_rivals(config, records, assess_energy.nonzero_inputs(made.stack, x))
    return metrics | _priced(config, {"converted": records}, energy.ann_twin(records)), probs[steps]


def _addressed(
    config: Config, split: data.Split, network: nnx.Sequential, made: convert.Converted
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns accuracy and cost of the stochastic network, and of conventional ones beside it."""
    c, steps, labels = config.convert, config.train.steps, np.asarray(split.test.y)
    root = rng.root(config.seed)
    draws = dict(zip(made.stack.names, c.draws, strict=False))
    if len(c.draws) != len(made.stack.names):
        raise ValueError(f"convert.draws needs a number for each of {', '.join(made.stack.names)}, got {c.draws}.")
    metrics: dict[str, Any] = {}
    for factor in c.sweep:
        scaled = {name: max(1, round(factor * k)) for name, k in draws.items()}
        probs, ran = _stochastic(config, made, split.val.x, scaled, rng.stream(root, "data", 1))
        metrics[f"sweep/{factor:g}/val_accuracy"] = evaluate.accuracy(probs, np.asarray(split.val.y))
        records = convert.address_records(made.stack, ran, scaled, steps, c.sampling)
        metrics[f"sweep/{factor:g}/acs"] = _synaptic(records)
    for lam in c.lam:
        metrics |= _allocated(config, split, made, draws, lam)
    runs = [_stochastic(config, made, split.test.x, draws, rng.stream(root, "data", 2 + run)) for run in range(c.runs)]
    accuracies = [evaluate.accuracy(probs, labels) for probs, _ in runs]
    probs, ran = runs[0]
    metrics |= scores("stochastic", probs, labels)
    metrics |= {"stochastic/accuracy": float(np.mean(accuracies)), "stochastic/accuracy_sd": float(np.std(accuracies))}
    metrics |= {f"stochastic/draws/{name}": k for name, k in draws.items()}
    spread = 100 * (
        metrics["stochastic/accuracy"] - evaluate.accuracy(learning.predict_deep(network, split.test.x), labels)
    )
    metrics["stochastic/points_from_deep"] = spread
    networks = {"stochastic": convert.address_records(made.stack, ran, draws, steps, c.sampling)}
    budget = _synaptic(networks["stochastic"])
    # a conventional network: spikes of every input at a rate, with unscaled weights, and with data normalisation
    ones = dict.fromkeys(made.limits, 1.0)
    units, shape = convert.read(network), data.input_shape(split)
    plain = convert.Converted(convert.to_stack(units, [*ones.values()], shape, convert.integrate_and_fire()), ones)
    at = sorted({*c.steps, steps})
    on = data.sample(split.val, TRIED_EXAMPLES)
    sure = evaluate.accuracy(learning.predict_deep(network, on.x), np.asarray(on.y)) - NEARLY
    for name, other in (("rate", plain), ("normalised", made)):
        # the fewest steps at which it is nearly the deep network on validation examples, or all of them
        tried, _ = _rate_coded(other, on.x, at, rng.stream(root, "data", 101))
        enough = [t for t in at if evaluate.accuracy(tried[t], np.asarray(on.y)) >= sure]
        metrics[f"{name}/steps"] = min(enough, default=max(at))
        found, events = _rate_coded(other, split.test.x, at, rng.stream(root, "data", 100))
        metrics |= {f"{name}/accuracy_{t}": evaluate.accuracy(p, labels) for t, p in found.items()}
        for t in at:
            networks[f"{name}_{t}"] = convert.rate_records(other.stack, events, t)
            metrics[f"{name}/acs_{t}"] = _synaptic(networks[f"{name}_{t}"])
        nearest = min(at, key=lambda t: abs(metrics[f"{name}/acs_{t}"] - budget))
        metrics[f"{name}/same_budget_steps"] = nearest
        metrics[f"{name}/same_budget_accuracy"] = metrics[f"{name}/accuracy_{nearest}"]
    dense = energy.ann_twin(networks["stochastic"])
    nonzero = _nonzero(network, split, dense)
    skipping = energy.skip_zeros(dense, nonzero)
    metrics |= _beside_rivals(config, networks["stochastic"], nonzero)
    costs = _priced(config, networks | {"zero_skipping": skipping}, dense)
    macs = energy.count(dense).total.effective_macs
    metrics |= {
        "stochastic/acs": budget,
        "deep/macs": macs,
        "deep/macs_nonzero": energy.count(skipping).total.effective_macs,
        "stochastic/share_of_macs": budget / macs,
        "stochastic/share_of_nonzero_macs": budget / energy.count(skipping).total.effective_macs,
    }
    for accounting in ("synapses", *energy.ACCOUNTINGS):
        prefix = f"conversion/{Path(config.energy.profile).stem}/{accounting}"
        ours = costs[f"{prefix}/stochastic_nj"]
        for name in ("rate", "normalised"):
            t = metrics[f"{name}/steps"]
            metrics[f"{name}/accuracy"] = metrics[f"{name}/accuracy_{t}"]
            costs[f"{prefix}/{name}_over_stochastic"] = costs[f"{prefix}/{name}_{t}_nj"] / ours
    if isinstance(split.test.x, np.ndarray):
        metrics |= _law(made, np.asarray(data.sample(split.test, 100).x), rng.stream(root, "data", 102))
    return metrics | costs, probs


def _law(made: convert.Converted, x: np.ndarray, key: Any) -> dict[str, float]:
    """Returns the error that 95 % of estimates stay below with k ln N draws, as a share of Z times the largest weight.

    The estimates are those of the first layer's preactivations, from independent draws.
    """
    kernel = getattr(made.stack, made.stack.names[0]).synapse.kernel[...]
    rows = jnp.asarray(x.reshape(len(x), -1))
    metrics: dict[str, float] = {}
    for k in (K_PUBLISHED, 50, 10):
        number = draws_for(kernel.shape[0], k)
        drawn = address_events(rows, number, key)
        error = jnp.abs(products.gather(*drawn, kernel) - rows @ kernel)
        share = error / (rows.sum(1, keepdims=True) * jnp.abs(kernel).max())
        metrics |= {f"law/draws_{k}": number, f"law/error95_{k}": float(jnp.quantile(share, 0.95))}
    return metrics


def _allocated(
    config: Config, split: data.Split, made: convert.Converted, draws: dict[str, int], lam: float
) -> dict[str, Any]:
    """Returns what learned numbers of draws and proposals are worth, beside draws in the given proportions."""
    if not isinstance(split.train.x, np.ndarray):
        raise ValueError(f"draws are learned on dense inputs, {split.name} has sparse rows; leave convert.lam empty.")
    root, labels = rng.root(config.seed), np.asarray(split.test.y)
    profile = energy.profile(config.energy.profile)
    found = allocate(made.stack, jnp.asarray(split.train.x), jnp.asarray(split.train.y), lam, profile, root)
    fans = {name: layer.out_shape[0] for name, layer in made.stack.layers()}
    acs = sum(k * fans[name] for name, k in found.draws.items())
    shares = {name: k / sum(n * fans[other] for other, n in draws.items()) for name, k in draws.items()}
    same = {name: max(1, round(acs * share)) for name, share in shares.items()}
    metrics: dict[str, Any] = {f"allocated/{lam:g}/acs": acs, f"allocated/{lam:g}/energy_nj": found.energy_nj}
    for name, k in found.draws.items():
        metrics[f"allocated/{lam:g}/draws/{name}"] = k
        metrics[f"allocated/{lam:g}/draws_low/{name}"] = found.low[name]
        metrics[f"allocated/{lam:g}/draws_high/{name}"] = found.high[name]
    arms = {
        "learned": (found.draws, found.proposals),
        "learned_draws": (found.draws, None),
        "given": (same, None),
        "given_learned_proposals": (same, found.proposals),
    }
    for sampling in SAMPLINGS:
        for name, (numbers, proposals) in arms.items():
            key = rng.stream(root, "data", 50)
            probs, _ = _stochastic(config, made, split.test.x, numbers, key, proposals, sampling)
            metrics[f"allocated/{lam:g}/{sampling}/{name}_accuracy"] = evaluate.accuracy(probs, labels)
            metrics[f"allocated/{lam:g}/{sampling}/{name}_nll"] = evaluate.nll(probs, labels)
    return metrics


def _stochastic(
    config: Config,
    made: convert.Converted,
    x: Any,
    draws: dict[str, int],
    key: Any,
    proposals: dict[str, Any] | None = None,
    sampling: str = "",
) -> tuple[np.ndarray, convert.Stochastic]:
    """Returns class probabilities, and what ran on average over all examples."""
    c, steps = config.convert, config.train.steps
    graph, state = nnx.split(made.stack)

    @jax.jit
    def run(state: Any, x: Any, key: Any) -> convert.Stochastic:
        options: dict[str, Any] = {"sampling": sampling or c.sampling, "order": c.order, "signed": c.signed}
        options["proposals"] = proposals
        return convert.stochastic(nnx.merge(graph, state), x, draws, key, steps=steps, **options)

    probs, total, seen = [], None, 0
    for start in range(0, x.shape[0], TOGETHER):
        part = x[start : start + TOGETHER]
        ran = run(state, _inputs(part, _width(x)), jax.random.fold_in(key, start))
        probs.append(np.asarray(jax.nn.softmax(ran.logits)))
        own = jax.tree.map(np.asarray, ran._replace(rates={n: r.mean(0, keepdims=True) for n, r in ran.rates.items()}))
        own = own._replace(logits=np.zeros(0))
        share = part.shape[0] / (seen + part.shape[0])
        total = own if total is None else jax.tree.map(lambda a, b, s=share: (1 - s) * a + s * b, total, own)
        seen += part.shape[0]
    return np.concatenate(probs), total  # type: ignore[return-value]


def _rate_coded(
    made: convert.Converted, x: Any, at: list[int], key: Any, batch: int = 100
) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    """Returns class probabilities after the steps ``at`` of one run, and its events per step."""
    graph, state = nnx.split(made.stack)
    steps = max(at)

    @jax.jit
    def run(state: Any, x: Any, key: Any) -> Any:
        ran = convert.rate_coded(nnx.merge(graph, state), x, steps, key)
        return jax.nn.softmax(ran.logits[jnp.asarray([t - 1 for t in at])]), ran.events

    parts, total, seen = [], None, 0
    for start in range(0, x.shape[0], batch):
        part = x[start : start + batch]
        probs, events = run(state, _inputs(part, _width(x)), jax.random.fold_in(key, start))
        parts.append(np.asarray(probs))
        seen += part.shape[0]
        share, own = part.shape[0] / seen, jax.tree.map(np.asarray, events)
        total = own if total is None else jax.tree.map(lambda a, b, s=share: (1 - s) * a + s * b, total, own)
    return dict(zip(at, np.concatenate(parts, 1), strict=True)), total  # type: ignore[return-value]


def _inputs(x: Any, width: int) -> Any:
    return jnp.asarray(x) if isinstance(x, np.ndarray) else convert.sparse_rows(x, width)


def _width(x: Any) -> int:
    """Returns a width that all sparse rows fit, so that one program serves every batch; 0 for dense ones."""
    return 0 if isinstance(x, np.ndarray) else max(1, int(np.diff(x.indptr).max(initial=1)))


def _synaptic(records: list[energy.Record]) -> float:
    """Returns the accumulates of synapses alone."""
    synapses = [r for r in records if isinstance(r, energy.SynapseRecord)]
    return energy.count(synapses).total.effective_acs


def _nonzero(network: nnx.Sequential, split: data.Split, dense: list[energy.Record]) -> dict[str, np.ndarray]:
    """Returns the share of nonzero inputs and activations that the deep network's layers read, by their names."""
    x = data.sample(split.test, 1000).x
    nonzero: Any = x != 0
    shares = [np.asarray(nonzero.sum(0)).reshape(-1) / x.shape[0]]
    shares += [(a != 0).mean(0).reshape(-1) for a in convert.activations(network, x)]
    names = [record.name for record in dense if isinstance(record, energy.SynapseRecord)]
    return dict(zip(names, shares, strict=False))


def _beside_rivals(config: Config, records: list[energy.Record], nonzero: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns energies beside the rivals'; the dense one is the network that was converted, and nothing is pruned."""
    trained = {f"rival/{name}/trained": 1 for name in CONVERTED}
    return assess_energy.costs(config.energy, records, records, config.train.steps, nonzero, sequence=False) | trained


def _priced(config: Config, networks: dict[str, list[energy.Record]], dense: list[energy.Record]) -> dict[str, float]:
    """Returns energies by profile and accounting, and what the deep network costs as a multiple of each.

    "synapses" is the accounting of conversion papers: multiply-accumulates against accumulates, nothing else.
    """
    metrics: dict[str, float] = {}
    every = {"deep": dense, **networks}
    for profile_name in dict.fromkeys((config.energy.profile, *config.energy.also)):
        profile = energy.profile(profile_name)
        for accounting in ("synapses", *energy.ACCOUNTINGS):
            prefix = f"conversion/{Path(profile_name).stem}/{accounting}"
            for name, records in every.items():
                own = records
                if accounting == "synapses":
                    own = [r for r in records if isinstance(r, energy.SynapseRecord)]
                charged: Any = "arithmetic" if accounting == "synapses" else accounting
                priced = energy.price(energy.count(own), profile, charged)
                metrics[f"{prefix}/{name}_nj"] = priced.total_nj
            for name in networks:
                metrics[f"{prefix}/deep_over_{name}"] = metrics[f"{prefix}/deep_nj"] / metrics[f"{prefix}/{name}_nj"]
    return metrics
