"""How many address events each layer gets, and where they fall: a posterior over draws under the energy prior.

This is ours, and not Oak Ridge's, whose draws follow p with a number that is given. A network run on address events
has a noise that is known (`dsnn.simulate.row_sampling.variance`): with K_l draws a layer's preactivation is, by the
central limit theorem, Normal with the deep network's mean and variance V_l / K_l. That makes the number of draws
continuous,

    log K_l ~ Uniform(log least, log most) exp(-λ E(K)),   E(K) = sum_l K_l fan_l price   (nJ per inference),
    y_l = a_l W_l + b_l + sqrt(V_l(a_l, r_l) / K_l) ε,   a_{l+1} = clip(y_l, 0, 1),   y ~ Categorical(logits),

and NumPyro infers q(log K_l), each a Normal through a sigmoid. The addresses are drawn from q(i) ∝ x_i r_i in place of
p ∝ x_i, importance weights keeping every estimate unbiased; the factors r_l are learned with the same objective.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, SigmoidTransform
from numpyro.infer import SVI, Trace_ELBO

from dsnn.bayes.energy import Prices
from dsnn.data import epoch_permutation
from dsnn.networks.layers import Dense
from dsnn.networks.stack import Stack
from dsnn.networks.wiring import described_by
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.simulate.row_sampling import variance
from dsnn.simulate.simulator import log_likelihood
from dsnn.types import Array, Float, Int, Key


class Allocation(NamedTuple):
    """What was inferred.

    Attributes:
        draws: posterior median of K by layer, rounded.
        low: 5 % quantile of K by layer.
        high: 95 % quantile.
        proposals: factors r by layer, ``[input]``, with geometric mean 1.
        energy_nj: modelled energy of the synapses with these draws.
        losses: negative ELBO per example, ``[update]``.
    """

    draws: dict[str, int]
    low: dict[str, float]
    high: dict[str, float]
    proposals: dict[str, Float[Array, " input"]]
    energy_nj: float
    losses: Float[Array, " update"]


def surrogate_logits(
    stack: Stack,
    x: Float[Array, "batch *feature"],
    draws: dict[str, Array],
    key: Key[Array, ""],
    proposals: dict[str, Array] | None = None,
) -> Float[Array, "batch class"]:
    """Returns logits with the noise of independent address events as a Normal one; the key is consumed.

    Args:
        stack: dense layers of a converted network, rates in [0, 1].
        x: inputs, at least 0.
        draws: K by layer, positive and not necessarily whole.
        key: drives the noise.
        proposals: factors r by layer.
    """
    signal = x.reshape(x.shape[0], -1)
    for index, (name, layer) in enumerate(stack.layers()):
        kernel = layer.synapse.kernel[...]
        spread = variance(signal, kernel, draws[name], None if proposals is None else proposals[name])
        noise = jax.random.normal(jax.random.fold_in(key, index), spread.shape)
        # the root's slope at zero is infinite, and a silent example has no variance
        signal = layer.synapse(signal) + jnp.sqrt(jnp.maximum(spread, 1e-12)) * noise
        if name != stack.names[-1]:
            signal = jnp.clip(signal, 0.0, 1.0)
    return signal


@dataclasses.dataclass(frozen=True)
class DrawPosterior:
    """The number of draws K of every layer, log-uniform a priori, and its proposals, in plain NumPyro.

    Attributes:
        fans: inputs and outputs of each layer by name.
        low: log of the fewest draws.
        high: log of the most.
        learn_proposals: whether the factors r are learned.
    """

    fans: dict[str, tuple[int, ...]]
    low: float
    high: float
    learn_proposals: bool = True

    def prior(self) -> dict[str, Array]:
        """Samples K by layer, inside a model."""
        uniform = dist.Uniform(self.low, self.high)
        return {name: jnp.exp(numpyro.sample(f"{name}.log_draws", uniform)) for name in self.fans}

    def posterior(self) -> None:
        """Samples log K of each layer, a Normal through a sigmoid, inside a guide, which also learns the proposals."""
        for name in self.fans:
            location = numpyro.param(f"{name}.location", jnp.zeros(()))
            scale = numpyro.param(f"{name}.scale", jnp.asarray(0.1), constraint=constraints.positive)
            through = [SigmoidTransform(), AffineTransform(self.low, self.high - self.low)]
            numpyro.sample(f"{name}.log_draws", dist.TransformedDistribution(dist.Normal(location, scale), through))
        self.proposals()

    def proposals(self) -> dict[str, Array] | None:
        """Returns the factors r by layer, inside a model or a guide; None where draws follow p."""
        if not self.learn_proposals:
            return None
        logs = {name: numpyro.param(f"{name}.proposal", jnp.zeros(fan[0])) for name, fan in self.fans.items()}
        return {name: jnp.exp(value - value.mean()) for name, value in logs.items()}

    def quantile(self, params: Params, name: str, z: float) -> float:
        """Returns K at so many standard deviations of what the sigmoid reads; 0 is its median."""
        raw = params[f"{name}.location"] + z * params[f"{name}.scale"]
        return float(jnp.exp(self.low + (self.high - self.low) * jax.nn.sigmoid(raw)))

    def factors(self, params: Params) -> dict[str, Float[Array, " input"]]:
        """Returns the factors r among the guide's parameters; ones where draws follow p."""
        logs = {name: params.get(f"{name}.proposal", jnp.zeros(fan[0])) for name, fan in self.fans.items()}
        return {name: jnp.exp(value - value.mean()) for name, value in logs.items()}


def allocate(
    stack: Stack,
    x: Float[Array, "n *feature"],
    y: Int[Array, " n"],
    lam: float | int,
    prices: Prices,
    key: Key[Array, ""],
    *,
    updates: int = 400,
    batch_size: int = 128,
    least: float | int = 2.0,
    most: float | int = 4096.0,
    learning_rate: float = 0.03,
    learn_proposals: bool = True,
) -> Allocation:
    """Returns the posterior over draws per layer, and the proposals, of a converted network with fixed weights.

    Args:
        stack: dense layers of a converted network.
        x: training inputs, at least 0.
        y: labels.
        lam: price of energy in nats per nJ and example, above 0.
        prices: energy profile; an event costs its arithmetic.
        key: consumed.
        updates: of variational inference.
        batch_size: examples per update.
        least: fewest draws of a layer.
        most: most draws of a layer.
        learning_rate: of Adam.
        learn_proposals: whether r is learned; otherwise draws follow p.

    Raises:
        ValueError: a price that is not positive, a range that is none, or a layer that is not dense.
    """
    if not lam > 0:
        raise ValueError(f"lam must be positive, got {lam}; without a price of energy every layer takes all draws.")
    if not 0 < least < most:
        raise ValueError(f"draws must range from least above 0 to a larger most, got {least} to {most}.")
    odd = [name for name, one in stack.layers() if not isinstance(one.synapse, Dense) or len(one.before)]
    if odd:
        raise ValueError(f"address events need dense layers without pooling, got {odd[0]}.")
    fans: dict[str, tuple[int, ...]]
    fans = {wire.name: (wire.senders, wire.receivers) for wire in described_by(stack).wires if not wire.recurrent}
    names, number = tuple(fans), x.shape[0]
    event_nj = prices.event_nj("spikes", "arithmetic")
    found = DrawPosterior(fans, float(jnp.log(least)), float(jnp.log(most)), learn_proposals)

    def energy(draws: dict[str, Array]) -> Array:
        fetched: Any = sum(draws[name] * fans[name][1] for name in names)
        return event_nj * fetched

    def model(x: Array, y: Array) -> None:
        noise = numpyro.prng_key()
        draws = found.prior()
        logits = surrogate_logits(stack, x, draws, noise, found.proposals())
        numpyro.factor("likelihood", number * log_likelihood(logits, y).mean())
        numpyro.factor("energy", -lam * number * energy(draws))

    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, updates))
    svi = SVI(model, lambda x, y: found.posterior(), tx, Trace_ELBO())
    order = _batches(number, batch_size, updates, key)

    @jax.jit
    def learn(x: Array, y: Array) -> tuple[dict[str, Array], Array]:
        state = svi.init(stream(key, "init"), x[:1], y[:1])
        state, losses = jax.lax.scan(lambda s, i: svi.update(s, x[i], y[i]), state, order)
        return svi.get_params(state), losses / number

    params, losses = learn(jnp.asarray(x), jnp.asarray(y))
    draws = {name: max(1, round(found.quantile(params, name, 0.0))) for name in names}
    return Allocation(
        draws,
        {name: found.quantile(params, name, -1.645) for name in names},
        {name: found.quantile(params, name, 1.645) for name in names},
        found.factors(params),
        float(energy({name: jnp.asarray(float(k)) for name, k in draws.items()})),
        losses,
    )


def _batches(number: int, batch_size: int, updates: int, key: Key[Array, ""]) -> Int[Array, "update example"]:
    """Returns which examples each update sees; the key is consumed."""
    epochs = range(-(-updates // (number // batch_size)))
    return jnp.concatenate([epoch_permutation(stream(key, "data", e), number, batch_size) for e in epochs])[:updates]
