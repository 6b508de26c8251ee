"""Bias of the energy's gradient through spikes against exact enumeration: python -m experiments.event_bias.

Two layers of noisy neurons small enough to sum over all that they may fire. The energy charges every spike at each of
its targets, and its exact gradient is that of the enumerated distribution, whose recursion is written out here.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes import sites
from dsnn.bayes.behaviour import behaviour
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.cells import LIF
from dsnn.escape import Logistic
from dsnn.networks.stack import mlp
from dsnn.parameters import Params, split
from dsnn.simulate.simulator import Simulator

WIDTH, BETA, STEPS, HIDDEN, CLASSES = 0.3, 0.8, 3, (2, 2), 2
DRAWS, COPIES = 40, 500
"""Passes, and how often each of the two examples is in a pass."""

CASES: dict[str, dict[str, Any]] = {
    "reset by subtraction": {},
    "reset to zero": {"reset": "zero"},
    "no reset": {"reset": "none"},
    "reset detached": {"detach_reset": True},
    "fires once": {"refractory": np.inf},
    "surrogate atan": {"surrogate": "atan"},
    "surrogate fast_sigmoid": {"surrogate": "fast_sigmoid"},
}


class Prices(NamedTuple):
    """A nJ for every spike at each of its targets, nothing else."""

    def event_nj(self, source: Any, accounting: Any) -> float:
        """Returns the price of an event."""
        return 1.0 if source == "spikes" else 0.0

    def update_nj(self, kind: str, accounting: Any) -> float:
        """Returns the price of an update."""
        return 0.0


def network(options: dict[str, Any], seed: int) -> tuple[Simulator, EnergyPrior, Params]:
    """Returns how a network runs, its differentiated energy, and its parameters."""

    def cell(neurons: int) -> LIF:
        shape = () if "surrogate" in options else (neurons,)
        learnable = () if "surrogate" in options else ("threshold", "beta")
        return LIF(beta=BETA, noise=Logistic(WIDTH), learnable=learnable, shape=shape, **options)

    template, params = split(mlp((2,), HIDDEN, CLASSES, key=jax.random.key(seed), gain=1.5, cell=cell))
    where = sites.sites(template.build(params))
    return Simulator(template, STEPS), EnergyPrior(where, Prices(), "arithmetic", differentiated=True), params


def energy_of(simulator: Simulator, energy: EnergyPrior, params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the energy in nJ of a pass, as the objective has it; the key is consumed."""
    ran = simulator.observed(params, x, key)
    return behaviour(energy, {}, ran, None, held=True, counts=False).spent_nj


def exact(params: Any, x: jax.Array, options: dict[str, Any]) -> jax.Array:
    """Returns the expected energy, summed over everything that the hidden neurons may fire.

    Args:
        params: of the network, with thresholds and decays where they are learned.
        x: held inputs ``[batch, input]``.
        options: of the cells.
    """
    count, fans = sum(HIDDEN), np.repeat([HIDDEN[1], CLASSES], HIDDEN)
    every = np.array(list(itertools.product((0.0, 1.0), repeat=STEPS * count)), np.float32)
    trains = jnp.asarray(every.reshape(-1, STEPS, count))

    def chance(train: jax.Array, row: jax.Array) -> jax.Array:
        likely, u, fired = jnp.ones(()), [jnp.zeros(n) for n in HIDDEN], [jnp.zeros(n) for n in HIDDEN]
        for at_step in train:
            signal = row
            for index, spikes in enumerate(jnp.split(at_step, [HIDDEN[0]])):
                name = f"hidden{index}"
                beta, threshold = (params.get(f"{name}.cell.{key}", v) for key, v in (("beta", BETA), ("threshold", 1)))
                drive = signal @ params[f"{name}.synapse.kernel"] + params[f"{name}.synapse.bias"]
                u[index] = beta * u[index] + drive
                p = jax.nn.sigmoid((u[index] - threshold) / WIDTH)
                if "refractory" in options:
                    p, fired[index] = p * (1 - fired[index]), fired[index] + spikes
                likely = likely * jnp.where(spikes > 0, p, 1 - p).prod()
                if "refractory" not in options:
                    left = {"zero": u[index] * (1 - spikes), "none": u[index]}
                    u[index] = left.get(options.get("reset", ""), u[index] - spikes * threshold)
                signal = spikes
        return likely

    p = jax.vmap(lambda row: jax.vmap(lambda train: chance(train, row))(trains))(x)
    return (p @ (trains.sum(1) @ jnp.asarray(fans, jnp.float32))).mean()


def measure(options: dict[str, Any], seed: int, draws: int = DRAWS) -> dict[str, float]:
    """Returns bias and standard error in units of the exact gradient's length, cosine, and the energies."""
    simulator, energy, params = network(options, seed)
    x = jax.random.normal(jax.random.key(1000 + seed), (2, 2)) + 0.5
    value, slope = jax.jit(jax.value_and_grad(lambda params: exact(params, x, options)))(params)
    many = jnp.tile(x, (COPIES, 1))

    def of_pass(key: jax.Array) -> Any:
        return jax.value_and_grad(lambda params: energy_of(simulator, energy, params, many, key))(params)

    one = jax.jit(lambda keys: jax.lax.map(of_pass, keys))
    found, slopes = one(jax.random.split(jax.random.key(7), draws))
    rows = np.concatenate([np.reshape(leaf, (draws, -1)) for leaf in jax.tree.leaves(slopes)], 1)
    truth = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slope)])
    length, mean, chance = np.linalg.norm(truth), rows.mean(0), rows.var(0).sum() / draws
    bias = float(np.sqrt(max(((mean - truth) ** 2).sum() - chance, 0)) / length)
    return {
        "bias": bias,
        "standard error": float(np.sqrt(chance) / length),
        "cosine": float(mean @ truth / np.linalg.norm(mean) / length),
        "length": float(np.linalg.norm(mean) / length),
        "spread": float(np.sqrt(rows.var(0).sum() * COPIES) / length),
        "energy": float(found.mean()),
        "exact energy": float(value),
    }


def main() -> None:
    """Prints a table, means over five networks."""
    print(f"{STEPS} steps, {' + '.join(map(str, HIDDEN))} neurons, mean of 5 networks\n")
    heads: list[str] = []
    for name, options in CASES.items():
        rows = [measure(options, seed) for seed in range(5)]
        if not heads:
            heads = list(rows[0])
            print(f"| neurons | {' | '.join(heads)} | least cosine |\n|{'---|' * (len(heads) + 2)}")
        means = (np.mean([row[head] for row in rows]) for head in heads)
        least = min(row["cosine"] for row in rows)
        print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} | {least:.3f} |", flush=True)


if __name__ == "__main__":
    main()
