"""Attention between tokens: equations by loops, heads as sites counted by hand, masked and smaller alike."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.infer import SVI, TraceMeanField_ELBO

import dsnn
from dsnn.bayes import guides, priors
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.objective import Draw
from dsnn.bayes.sites import gate, measure, sites
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF, ReLU
from dsnn.deploy.activity import records
from dsnn.deploy.decided import on_grid
from dsnn.energy import count
from dsnn.networks import Chain, Conv, Current, Dense, Fire, Layer, Residual, SelfAttention, SpikeDrivenAttention, TdBN
from dsnn.networks.compact import compact
from dsnn.networks.whole import Whole
from dsnn.parameters import folded, split
from dsnn.simulate.simulator import Simulator, keep_spikes, log_likelihood

KEYS = list(jax.random.split(jax.random.key(0), 12))
STEPS, WIDTH, BATCH = 4, 4, 5
KINDS = {"self": SelfAttention, "driven": SpikeDrivenAttention}


def cell(neurons: int) -> LIF:
    return LIF(beta=0.8, threshold=0.5)


def relu(neurons: int) -> ReLU:
    return ReLU()


def net(kind: str, shape: tuple[int, int] = (2, 3), heads: int = 2, make: Any = cell, **options: Any) -> Whole:
    """A stem, a block of attention beside a shortcut, and a readout."""
    inside = (*shape, WIDTH)
    attention = KINDS[kind](inside, heads, key=KEYS[1], cell=make, scale=0.7, **options)
    for number, name in enumerate(("query", "key", "value", "project")):
        kernel = getattr(attention, name).synapse.kernel
        kernel[...] = jax.random.normal(KEYS[4 + number], kernel.shape)
    return Whole(
        Chain(
            stem=Layer(Conv((*shape, 2), WIDTH, key=KEYS[0], gain=4.0), make(WIDTH)),
            block=Residual(attention),
            readout=Layer(Dense(inside, 3, key=KEYS[2], gain=3.0), LI(0.9)),
        )
    )


def alone(kind: str, width: int, heads: int, shape: tuple[int, int] = (2, 2), **options: Any) -> Any:
    made = KINDS[kind]((*shape, width), heads, key=KEYS[3], cell=cell, scale=0.7, **options)
    for number, name in enumerate(("query", "key", "value", "project")):
        kernel = getattr(made, name).synapse.kernel
        kernel[...] = jax.random.normal(KEYS[4 + number], kernel.shape)
    return made


# --- The equations


class ByHand:
    """An LIF neuron of beta 0.8 and threshold 0.5, in NumPy."""

    def __init__(self) -> None:
        self.membrane: Any = 0.0

    def __call__(self, current: np.ndarray) -> np.ndarray:
        membrane = np.float32(0.8) * self.membrane + current.astype(np.float32)
        spikes = (membrane > 0.5).astype(np.float32)
        self.membrane = membrane - np.float32(0.5) * spikes
        return spikes


@pytest.mark.parametrize(("kind", "heads", "width"), [("self", 2, 4), ("self", 1, 6), ("driven", 2, 4)])
def test_attention_is_the_equations_head_by_head(kind: str, heads: int, width: int) -> None:
    """Loops over heads, tokens and channels; a head of 6 channels over 4 tokens goes by its scores."""
    made, each = alone(kind, width, heads), width // heads
    weights = {n: np.asarray(getattr(made, n).synapse.kernel[...])[0, 0] for n in ("query", "key", "value", "project")}
    xs = np.asarray(jax.random.bernoulli(KEYS[0], 0.5, (STEPS, 1, 2, 2, width)), np.float32)
    found = np.asarray(dsnn.unroll(made, jnp.asarray(xs))[0])
    neurons = {name: ByHand() for name in (*weights, "attending")}
    for t in range(STEPS):
        tokens = xs[t, 0].reshape(4, width)
        q, k, v = (neurons[name](tokens @ weights[name]) for name in ("query", "key", "value"))
        if kind == "self":
            mixed = np.zeros((4, width))
            for head, i, j in itertools.product(range(heads), range(4), range(4)):
                own = slice(head * each, (head + 1) * each)
                mixed[i, own] += (q[i, own] * k[j, own]).sum() * v[j, own]
            reads = neurons["attending"](0.7 * mixed)
        else:
            reads = neurons["attending"](0.7 * (q * k).sum(0)) * v
        expected = neurons["project"](reads @ weights["project"])
        np.testing.assert_array_equal(found[t, 0].reshape(4, width), expected)
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [None, TdBN])
def test_answers_are_the_same_in_every_schedule(kind: str, norm: Any) -> None:
    model = net(kind, norm=norm)
    xs = jax.random.normal(KEYS[2], (STEPS, BATCH, *model.in_shape))
    for inputs, options in ((xs, {}), (xs[0], {"steps": STEPS})):
        layers, steps = (dsnn.unroll(model, inputs, None, None, how, **options)[0] for how in ("layer", "step"))
        np.testing.assert_allclose(layers, steps, rtol=1e-5, atol=1e-5)
        assert np.abs(layers).max() > 0.1


def test_both_orders_of_the_products_agree() -> None:
    """The order goes by the shapes: few channels in a head and many tokens, or the other way."""
    made = alone("self", 6, 1, (2, 2))
    assert made.by_scores
    assert not alone("self", 6, 2, (2, 2)).by_scores
    query, key, value = (jnp.round(2 * jax.random.uniform(k, (2, 2, 2, 6))) for k in KEYS[:3])
    q, k, v = (a.reshape(2, 4, 6) for a in (query, key, value))
    np.testing.assert_array_equal((q @ k.swapaxes(1, 2)) @ v, q @ (k.swapaxes(1, 2) @ v))


@pytest.mark.parametrize("heads", [0, 3, 8])
def test_heads_that_do_not_divide_the_width_get_a_sentence(heads: int) -> None:
    with pytest.raises(ValueError, match=f"must divide the width, 4, got {heads}; take one of 1, 2, 4"):
        SelfAttention((2, 2, 4), heads, key=KEYS[0], cell=cell)


def test_shapes_without_places_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"whose places are the tokens, got \(16, 4\)"):
        SpikeDrivenAttention((16, 4), 2, key=KEYS[0], cell=cell)
    with pytest.raises(ValueError, match="scale must be positive"):
        SelfAttention((2, 2, 4), 2, key=KEYS[0], cell=cell, scale=0.0)


# --- Heads as sites


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0, "ReLU": 17.0}[kind]


class Ran:
    """A network that ran under gates."""

    def __init__(self, model: Whole, z: dict[str, Any]):
        template, params = split(model)
        self.sites = sites(model)
        self.z = {name: jnp.ones(size) for name, size in self.sites.groups.items()} | z
        self.simulator = Simulator(template, STEPS)
        self.x = jnp.round(jax.random.uniform(jax.random.key(9), (BATCH, *model.in_shape)) * 12) / 4
        self.params = gate(self.sites, on_grid(params), self.z)
        self.logits, self.inputs, self.spikes = self.simulator.run(self.params, self.x, None, keep_spikes)
        self.built, _ = self.simulator.built(self.params)
        self.events = measure(self.sites, self.built, self.inputs, self.spikes, held=True)

    def energy(self, z: dict[str, Any]) -> float:
        everything = {name: jnp.ones(size) for name, size in self.sites.groups.items()}
        return float(expected_energy(self.sites, everything | z, self.events, Prices()).total(float(STEPS)))

    def compacted(self) -> tuple[Any, Any, Any]:
        small = compact(self.built, self.z)
        template, params = split(small)
        logits, _, spikes = Simulator(template, STEPS).run(params, self.x, None, keep_spikes)
        return logits, spikes, small


def settings(seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    z = {"stem": draw.random(WIDTH) < 0.7, "block.body.heads": np.array([seed % 2, 1]), "residual": [seed < 3]}
    return {name: jnp.asarray(value, jnp.float32) for name, value in z.items()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "shape"), [("self", (2, 3)), ("self", (1, 1)), ("driven", (2, 3))])
@pytest.mark.parametrize("make", [cell, relu])
def test_attention_counted_by_hand(kind: str, shape: tuple[int, int], make: Any, seed: int) -> None:
    """Loops over steps, examples, tokens, channels; with one token, a head of two channels goes by its scores."""
    z = settings(seed)
    ran = Ran(net(kind, shape, make=make), z)
    assert ran.sites.groups == {"input": 2, "stem": WIDTH, "block.body.heads": 2, "residual": 1}
    own = {name: np.asarray(value) for name, value in ran.z.items()}
    channel, head, runs = own["stem"], np.repeat(own["block.body.heads"], 2), bool(own["residual"][0])
    price, tokens, each = (3.0 if make is cell else 7.0), shape[0] * shape[1], 2
    sent = {name: np.asarray(value) for name, value in ran.spikes.items()}
    x, total = np.asarray(ran.x), 0.0
    for b, row, column, i in itertools.product(range(BATCH), range(shape[0]), range(shape[1]), range(2)):
        windows = sum(0 <= row + r < shape[0] and 0 <= column + c < shape[1] for r in (-1, 0, 1) for c in (-1, 0, 1))
        total += 7.0 * (x[b, row, column, i] != 0) * windows * channel.sum()
    stem = sent["block.body.query"].reshape(STEPS, BATCH, tokens, WIDTH)
    total += price * ((stem != 0) * channel).sum() * 3 * head.sum() * runs
    inside = {name.rpartition(".")[2]: signal for name, signal in sent.items() if name.startswith("block.body.")}
    between = {
        name: inside[name].reshape(STEPS, BATCH, tokens, WIDTH)
        for name in ("scores", "context", "mixed", "columns", "masked", "project")
        if name in inside
    }
    if kind == "self":
        by_scores = tokens < each
        names, meets = (("scores", "mixed"), tokens) if by_scores else (("context", "mixed"), each)
        assert {"scores", "context"} & between.keys() == {names[0]}
        for name in names:
            for t, b, n, c in itertools.product(range(STEPS), range(BATCH), range(tokens), range(WIDTH)):
                total += price * (between[name][t, b, n, c] != 0) * head[c] * meets * runs
    else:
        total += price * ((between["columns"] != 0) * head).sum() * runs
        if make is relu:
            total += price * ((between["masked"] != 0) * head).sum() * runs
    total += price * ((between["project"] != 0) * head).sum() * channel.sum() * runs
    read = sent["readout"].reshape(STEPS, BATCH, tokens, WIDTH)
    total += (7.0 if runs else price) * ((read != 0) * channel).sum() * 3
    neurons = tokens * channel.sum() + runs * tokens * (3 * head.sum() + channel.sum())
    neurons += runs * head.sum() * (tokens if kind == "self" else 1)
    total += BATCH * STEPS * ((11.0 if make is cell else 17.0) * neurons + 13.0 * 3)
    np.testing.assert_allclose(ran.energy(z), total / BATCH, rtol=1e-5)
    # and what is left of it runs as often, with the same answers bit for bit
    logits, spikes, small = ran.compacted()
    if make is cell:
        np.testing.assert_array_equal(logits, ran.logits)
    np.testing.assert_allclose(logits, ran.logits, rtol=1e-5, atol=1e-4)  # products of values are not exact
    assert np.abs(logits).max() > 0.1
    counted = count(records(small, ran.x, spikes, held=True, analog=True)).total
    assert counted.effective_macs * 7.0 + counted.effective_acs * 3.0 == pytest.approx(
        total / BATCH - STEPS * ((11.0 if make is cell else 17.0) * neurons + 13.0 * 3), rel=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_energy_of_soft_gates_is_the_mean_over_all_settings(kind: str) -> None:
    ran, p = Ran(net(kind), {}), {"block.body.heads": jnp.array([0.3, 0.8]), "residual": jnp.array([0.6])}
    mean = 0.0
    for bits in itertools.product([0.0, 1.0], repeat=3):
        z = {"block.body.heads": jnp.asarray(bits[:2]), "residual": jnp.asarray(bits[2:])}
        chance = np.prod([np.where(z[name] > 0, p[name], 1 - p[name]).prod() for name in p])
        mean += chance * ran.energy(z)
    assert ran.energy(p) == pytest.approx(mean, rel=1e-5)


def test_a_closed_head_leaves_all_its_rows() -> None:
    small = Ran(net("self"), {"block.body.heads": jnp.array([0.0, 1.0])}).compacted()[2]
    body = small.network.block.body
    assert body.heads == 1
    assert body.in_shape == (2, 3, 4)
    assert body.query.synapse.kernel.shape == body.value.synapse.kernel.shape == (1, 1, 4, 2)
    assert body.project.synapse.kernel.shape == (1, 1, 2, 4)
    assert body.attending.out_shape == (2, 3, 2)
    assert body.init(7)["attending"].cell.membrane.shape == (7, 2, 3, 2)


def membranes(kind: str) -> Whole:
    """A block that adds currents, without neurons behind its last projection, in the manner of MS-ResNet."""
    inside = (2, 2, 4)
    attention = KINDS[kind](inside, 2, key=KEYS[1], cell=cell, norm=TdBN, neurons=False, bias=(False, True))
    return Whole(
        Chain(
            stem=Current(Conv((2, 2, 1), 4, key=KEYS[0], gain=4.0), TdBN(4)),
            block=Residual(Chain(fire=Fire(inside, cell(4)), attention=attention)),
            last=Fire(inside, cell(4)),
            readout=Layer(Dense(inside, 2, key=KEYS[2]), LI(0.9)),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_currents_are_added_beside_attention(kind: str) -> None:
    model = folded(membranes(kind))
    ran = Ran(model, {"block.body.attention.heads": jnp.array([1.0, 0.0]), "stem": jnp.array([1.0, 0, 1, 1])})
    logits, _, small = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    assert split(small)[1]["network.block.body.attention.project.synapse.kernel"].shape == (1, 1, 2, 3)


# --- Gates and norms


def test_a_gates_gradient_behind_the_norms_is_that_of_all_settings() -> None:
    """Gates of channels, heads and the block, by all settings of a network with batch norms."""
    model = net("self", norm=TdBN)
    template, weights = split(model)
    where = sites(model, gate_input=False)
    x = jax.random.normal(KEYS[8], (12, *model.in_shape))
    y = jnp.arange(12) % 3
    posterior = WeightPosterior(template, weights, priors.point, guides.point())
    gates = GatePosterior(where, FAMILIES["bernoulli"])
    bayesian = Bayesian(Simulator(template, STEPS), posterior, gates, data_size=12)
    svi = SVI(bayesian.model, bayesian.guide, optax.sgd(1.0), TraceMeanField_ELBO())
    params = svi.get_params(svi.init(KEYS[0], x[:2], y[:2], bayesian.no_context()))
    context = bayesian.no_context()._replace(statistics=template.statistics, gates_weight=jnp.asarray(1e-9))

    def objective(logit: Any) -> Any:
        return -svi.loss.loss(KEYS[0], params | {"gates.logit": logit}, bayesian.model, bayesian.guide, x, y, context)

    def under(z: Any) -> Any:
        gated = bayesian.network(Draw(weights, where.unflatten(z)))
        return log_likelihood(bayesian.simulator.trained(gated | template.statistics, x)[0][-1], y).sum()

    every = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=where.total)))
    found = jax.jit(jax.vmap(under))(every)
    logit = jnp.linspace(-1.0, 1.5, where.total)
    expected = jax.grad(lambda a: jnp.where(every > 0, jax.nn.sigmoid(a), jax.nn.sigmoid(-a)).prod(1) @ found)(logit)
    np.testing.assert_allclose(jax.grad(objective)(logit), expected, rtol=2e-3, atol=2e-3)
    assert np.abs(where.unflatten(expected)["block.body.heads"]).min() > 1e-3, "every head is felt behind its norms"
