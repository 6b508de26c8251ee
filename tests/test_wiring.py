"""One source of structure: a stack is the chain of its layers, sites are counted by hand, and kinds of one's own."""

import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dsnn import energy
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import gate, magnitudes, measure, sites
from dsnn.cells import LI, LIF, LTC
from dsnn.deploy.activity import records
from dsnn.deploy.decided import on_grid
from dsnn.networks import Chain, Conv, Dense, Layer, Pool, Residual, as_network, cut
from dsnn.networks.compact import compact
from dsnn.networks.indices import first_units, spread, summed
from dsnn.networks.stack import Stack
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, keep_spikes

KEYS = list(jax.random.split(jax.random.key(0), 12))
STEPS = 4
OWN = Path(__file__).parent / "own_package" / "src"


def cell(neurons: int) -> LIF:
    return LIF(beta=0.8, threshold=jnp.linspace(0.5, 1.0, neurons))


def image_layers() -> dict[str, Layer]:
    """A convolution, one behind pooling, a dense layer that reads a feature map, and one wired to itself."""
    k = KEYS
    return {
        "conv": Layer(Conv((8, 8, 2), 3, key=k[0], window=(3, 3), gain=5.0), cell(3)),
        "next": Layer(
            Conv((4, 4, 3), 4, key=k[1], strides=(2, 2), gain=5.0), cell(4), before=(Pool((8, 8, 3), kind="mean"),)
        ),
        "map": Layer(Dense((2, 2, 4), 5, key=k[2], gain=4.0), cell(5), recurrent_key=k[3]),
        "readout": Layer(Dense(5, 3, key=k[4]), LI(0.9)),
    }


def dense_layers() -> dict[str, Layer]:
    k = KEYS
    return {
        "first": Layer(Dense((2, 3), 6, key=k[0], gain=3.0), cell(6), recurrent_key=k[1]),
        "second": Layer(Dense(6, 4, key=k[2], gain=3.0), cell(4)),
        "readout": Layer(Dense(4, 2, key=k[3]), LI(0.9)),
    }


LAYERS = {"images": image_layers, "dense": dense_layers}
OPTIONS = {
    "held": {},
    "features": {"gate_features": True},
    "sequence": {"held_input": False, "analog_input": False, "time_steps": STEPS},
    "no input": {"gate_input": False},
}


class Ran:
    """A network that ran under gates."""

    def __init__(self, model: Any, options: dict[str, Any], inside: str, z: dict[str, Any] | None = None):
        template, params = split(model)
        params, held = on_grid(params), options.get("held_input", True)
        self.sites, self.inside, self.held = sites(model, **options), inside, held
        draw = np.random.default_rng(3)
        own = {name: jnp.asarray(draw.random(size) < 0.7, jnp.float32) for name, size in self.sites.groups.items()}
        self.z = own if z is None else z
        self.simulator = Simulator(template, STEPS, "direct" if held else "temporal")
        shape = (5, *model.in_shape) if held else (5, STEPS, *model.in_shape)
        self.x = jnp.round(jax.random.uniform(jax.random.key(9), shape) * 12) / 4
        self.params = gate(self.sites, params, self.z)
        self.logits, self.inputs, self.spikes = self.simulator.run(self.params, self.x, None, keep_spikes)
        self.built, self.running = self.simulator.built(self.params)
        self.events = measure(self.sites, self.built, self.inputs, self.spikes, held=held, running=self.running)

    def energy(self, z: dict[str, Any]) -> np.ndarray:
        return np.stack(expected_energy(self.sites, z, self.events, energy.profile("45nm-sram"), "memory"))

    def records(self, model: Any, spikes: Any) -> list[Any]:
        return records(model, self.inputs, spikes, np.asarray([4, 1, 2, 3, 4]), held=self.held, analog=True)

    def compacted(self, multiple: int = 1) -> tuple[dict[str, Any], Any, Any, Any]:
        """Parameters by name, logits and records of the network that is left."""
        closed = {name: z for name, z in self.z.items() if name != "time"}
        small = compact(self.built, closed, multiple=multiple)
        template, params = split(small)
        logits, _, spikes = Simulator(template, STEPS, self.simulator.encoding).run(params, self.x, None, keep_spikes)
        return {n.removeprefix(self.inside): p for n, p in params.items()}, logits, self.records(small, spikes), small


def plain(found: list[Any]) -> list[Any]:
    return [(type(record).__name__, dataclasses.asdict(record)) for record in found]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_stack_is_the_chain_of_its_layers(name: str, option: str) -> None:
    if name == "dense" and option == "features":
        pytest.skip("it has no feature map")
    stack = Ran(Stack(**LAYERS[name]()), OPTIONS[option], "")
    chain = Ran(as_network(Chain(**LAYERS[name]()), "a test"), OPTIONS[option], "network.")
    assert list(stack.sites.groups.items()) == list(chain.sites.groups.items())
    assert [w.name for w in stack.sites.wires] == [w.name for w in chain.sites.wires]
    own = {n.removeprefix("network."): p for n, p in chain.params.items()}
    assert stack.params.keys() == own.keys()
    for parameter, value in stack.params.items():
        np.testing.assert_array_equal(value, own[parameter])
    np.testing.assert_array_equal(stack.logits, chain.logits)
    assert min(float(np.sum(e)) for e in stack.events.values()) > 0
    for wire, value in stack.events.items():
        np.testing.assert_allclose(value, chain.events[wire], rtol=1e-6)  # a held input is averaged over its steps
    soft = {group: 0.2 + 0.7 * z for group, z in stack.z.items()}
    for values in (stack.z, soft):
        np.testing.assert_allclose(stack.energy(values), chain.energy(values), rtol=1e-5)
    scores = magnitudes(stack.sites, stack.params, stack.events)
    for group, score in magnitudes(chain.sites, chain.params, chain.events).items():
        np.testing.assert_allclose(score, scores[group], rtol=1e-5)
    if option != "sequence":  # records are of networks all of whose steps run
        ours, theirs = (ran.records(ran.built, ran.spikes) for ran in (stack, chain))
        assert str(plain(ours)) == str(plain(theirs))
    for multiple in (1, 4):
        params, logits, kept, small = stack.compacted(multiple)
        others, theirs, also, same = chain.compacted(multiple)
        assert params.keys() == others.keys()
        for parameter, value in params.items():
            np.testing.assert_array_equal(value, others[parameter])
        np.testing.assert_array_equal(logits, theirs)
        assert str(plain(kept)) == str(plain(also))
        assert sites(small).groups == sites(same).groups  # what is read in part is no site any more
        assert "next" not in sites(small).groups or option != "features"
        if option != "sequence":  # there, steps are left out too
            np.testing.assert_array_equal(logits, stack.logits)


def test_residual_blocks_of_a_stack_are_those_of_a_chain() -> None:
    k = KEYS

    def layers(block: Any) -> dict[str, Any]:
        return {
            "first": Layer(Dense(4, 5, key=k[0], gain=3.0), LIF(0.8)),
            "one": block(Layer(Dense(5, 5, key=k[1], gain=2.0), LIF(0.8), recurrent_key=k[2])),
            "two": block(Layer(Dense(5, 5, key=k[3], gain=2.0), LIF(0.7))),
            "readout": Layer(Dense(5, 2, key=k[4]), LI(0.9)),
        }

    def skipping(layer: Layer) -> Layer:
        layer.skip = True
        return layer

    z = {"input": jnp.asarray([1.0, 1, 0, 1]), "first": jnp.asarray([1.0, 0, 1, 1, 1]), "blocks": jnp.asarray([1.0, 0])}
    stack = Ran(Stack(**layers(skipping)), {}, "", z)
    alike = {("residual" if name == "blocks" else name): value for name, value in z.items()}
    chain = Ran(as_network(Chain(**layers(Residual)), "a test"), {}, "network.", alike)
    assert list(stack.sites.groups.values()) == list(chain.sites.groups.values())
    np.testing.assert_array_equal(stack.logits, chain.logits)
    np.testing.assert_allclose(stack.energy(z), chain.energy(alike), rtol=1e-5)
    halves = jnp.asarray([0.5, 0.25])
    soft = (z | {"blocks": halves}, alike | {"residual": halves})
    np.testing.assert_allclose(stack.energy(soft[0]), chain.energy(soft[1]), rtol=1e-5)
    (params, logits, kept, small), (others, theirs, also, _) = stack.compacted(), chain.compacted()
    assert small.names == ("first", "one", "readout")
    assert {n.replace("one.", "one.body.") for n in params} == others.keys()
    np.testing.assert_array_equal(logits, theirs)
    np.testing.assert_array_equal(logits, stack.logits)

    def counted(found: list[Any]) -> Any:
        return dataclasses.asdict(energy.count(found).total)

    assert counted(kept) == counted(also)


def by_hand() -> Stack:
    """A convolution, pooling, a recurrent layer over the feature map, a residual block and a readout."""
    k = KEYS
    return Stack(
        conv=Layer(Conv((6, 6, 1), 2, key=k[0], window=(3, 3), padding="VALID", gain=5.0), cell(2)),
        map=Layer(Dense((2, 2, 2), 4, key=k[1], gain=4.0), cell(4), recurrent_key=k[2], before=(Pool((4, 4, 2)),)),
        block=Layer(Dense(4, 4, key=k[3], gain=3.0), cell(4), skip=True),
        readout=Layer(Dense(4, 2, key=k[4]), LI(0.9)),
    )


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0}[kind]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_stack_counted_by_hand(seed: int) -> None:
    """Loops over steps, examples, places, senders and receivers; nothing of the wiring is read."""
    draw = np.random.default_rng(seed)
    sizes = {"conv": 2, "features": 8, "map": 4, "blocks": 1}
    z = {name: (draw.random(size) < 0.7).astype(np.float32) for name, size in sizes.items()}
    z["blocks"][:] = seed % 2
    ran = Ran(by_hand(), {"gate_features": True}, "", {n: jnp.asarray(v) for n, v in z.items()})
    assert ran.sites.groups == sizes
    x, fired = np.asarray(ran.x), {name: np.asarray(s) for name, s in ran.spikes.items()}
    channels, places, map_, runs = z["conv"], z["features"], z["map"], bool(z["blocks"][0])
    total, batch = 0.0, len(x)
    for b, row, column in itertools.product(range(batch), range(6), range(6)):
        windows = sum(0 <= row - i < 4 and 0 <= column - j < 4 for i in range(3) for j in range(3))
        total += 7.0 * (x[b, row, column, 0] != 0) * windows * channels.sum()  # once
    for t, b in itertools.product(range(STEPS), range(batch)):
        for row, column, channel in itertools.product(range(2), range(2), range(2)):
            window = fired["conv"][t, b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
            opened = places[4 * row + 2 * column + channel] * channels[channel]
            total += 3.0 * (window.max() != 0) * opened * map_.sum()
        spikes, added = fired["map"][t, b], fired["block"][t, b] * runs
        total += 3.0 * ((spikes != 0) * map_).sum() * map_.sum() * (t < STEPS - 1)  # read at the next step
        total += 3.0 * ((spikes != 0) * map_).sum() * map_.sum() * runs
        total += (7.0 if runs else 3.0) * ((spikes + added != 0) * map_).sum() * 2
        total += 11.0 * (16 * channels.sum() + map_.sum() * (1 + runs)) + 13.0 * 2
    ours = expected_energy(ran.sites, ran.z, ran.events, Prices()).total(float(STEPS))
    np.testing.assert_allclose(ours, total / batch, rtol=1e-5)
    # and what is left of it runs as often
    params, logits, _, small = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    spikes = Simulator(split(small)[0], STEPS).run(params, ran.x, None, keep_spikes)[2]
    counted = energy.count(records(small, ran.x, spikes, held=True, analog=True)).total
    sent = 7.0 * counted.effective_macs + 3.0 * counted.effective_acs
    updates = STEPS * (11.0 * (16 * channels.sum() + map_.sum() * (1 + runs)) + 13.0 * 2)
    np.testing.assert_allclose(sent + updates, total / batch, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_gate_is_one_product_with_its_kernel_and_gathers_nothing(name: str) -> None:
    model = Stack(**LAYERS[name]())
    where, params = sites(model, gate_features=name == "images"), split(model)[1]
    z = {group: jnp.full(size, 0.5) for group, size in where.groups.items()}
    text = str(jax.make_jaxpr(lambda z: gate(where, params, z))(z))
    assert "gather" not in text
    gated = sum(bool(wire.senders) for wire in where.wires)
    assert text.count(" mul ") == gated + (name == "images")  # a feature's gate meets that of its channel first


@pytest.mark.parametrize(
    ("index", "sites_"),
    [
        (np.arange(4), 4),
        (np.tile(np.arange(3), 4), 3),
        (np.arange(2, 5), 6),
        (np.array([2, 0, -1, 2]), 3),
        (np.array([-1, -1]), 2),
        (np.arange(0), 3),
    ],
)
def test_values_of_sites_reach_their_units_and_come_back(index: np.ndarray, sites_: int) -> None:
    values, weights = jnp.arange(1.0, sites_ + 1), jnp.arange(1.0, len(index) + 1)
    expected = [values[i] if i >= 0 else 1.0 for i in index]
    np.testing.assert_array_equal(spread(values, index), np.asarray(expected).reshape(-1))
    back = np.zeros(sites_)
    for i, weight in zip(index, weights, strict=True):
        back[i] += weight * (i >= 0)
    np.testing.assert_array_equal(summed(weights, index, sites_), back)


def test_units_that_share_all_their_sites_are_one_sender() -> None:
    first, kinds = first_units([np.array([1, 0, 1, -1, 0, -1]), np.array([0, 0, 0, -1, 1, -1])], 6)
    assert first.tolist() == [0, 1, 3, 4, 5]
    assert kinds.tolist() == [0, 1, 0, 2, 3, 4]
    assert first_units([np.tile(np.arange(3), 2)], 6)[1].tolist() == [0, 1, 2, 0, 1, 2]
    assert first_units([], 2)[0].tolist() == [0, 1]


class Scaled(nnx.Module):
    """A product and a normalisation of fixed statistics, which folds into it."""

    def __init__(self, inputs: int, neurons: int, *, key: Any):
        self.inner = Dense(inputs, neurons, key=key, gain=3.0)
        self.in_shape, self.out_shape = self.inner.in_shape, self.inner.out_shape
        self.scale = nnx.Param(jnp.linspace(0.5, 2.0, neurons))

    @property
    def kernel(self) -> Any:
        return self.inner.kernel

    def __call__(self, x: Any) -> Any:
        return self.inner(x) * self.scale[...]

    def fold(self) -> Dense:
        plain = nnx.clone(self.inner)
        plain.kernel[...] = plain.kernel[...] * self.scale[...]
        plain.bias[...] = plain.bias[...] * self.scale[...]
        return plain


def test_a_layer_is_folded_before_it_is_cut() -> None:
    model = Stack(hidden=Layer(Scaled(4, 6, key=KEYS[0]), LIF(0.8)), readout=Layer(Dense(6, 2, key=KEYS[1]), LI(0.9)))
    x = jnp.round(jax.random.uniform(KEYS[2], (5, 4)) * 16) / 8
    z = jnp.asarray([1.0, 0, 1, 1, 0, 1])
    small = compact(model, {"hidden": z, "input": jnp.asarray([1.0, 0, 1, 1])})
    assert type(small.hidden.synapse) is Dense
    assert small.hidden.synapse.kernel.shape == (3, 4)
    assert type(cut(model, {"hidden": np.flatnonzero(z)}).hidden.synapse) is Dense  # without gates as well
    model.readout.synapse.kernel[...] = model.readout.synapse.kernel[...] * z[:, None]
    model.hidden.synapse.inner.kernel[...] = model.hidden.synapse.inner.kernel[...].at[1].set(0.0)
    masked, ours = (Simulator(split(m)[0], STEPS).logits(split(m)[1], x) for m in (model, small))
    np.testing.assert_allclose(ours, masked, atol=1e-5)
    assert float(jnp.abs(masked).max()) > 0.1
    model.hidden.synapse.fold = None  # type: ignore[method-assign]  # a parameter then that no wire names
    with pytest.raises(ValueError, match=r"must have a kernel that is a parameter"):
        compact(model, {"hidden": z})


def test_a_stack_with_a_parameter_that_no_wire_names_is_not_cut() -> None:
    model: Any = Stack(**dense_layers())
    model.second.gain = nnx.Param(jnp.ones(4))
    with pytest.raises(ValueError, match=r"must name every parameter.*'second.gain' of shape \(4,\)"):
        compact(model, {"first": jnp.ones(6)})


class Halved(nnx.Module):
    """A cell whose constants lie beside its neurons, and which knows how to be cut."""

    def __init__(self, halves: Any):
        self.halves = nnx.Variable(jnp.stack([halves, halves]).T)  # neurons first

    def init(self, shape: Any) -> Any:
        return jnp.zeros(shape)

    def step(self, state: Any, current: Any, key: Any = None) -> Any:
        state = 0.5 * state + current
        return state, jnp.where(state > self.halves[...].sum(1), 1.0, 0.0)

    def cut(self, index: np.ndarray) -> "Halved":
        return Halved(self.halves[...][jnp.asarray(index), 0])


@pytest.mark.parametrize("chained", [False, True])
def test_a_cell_that_knows_how_is_cut_by_itself(chained: bool) -> None:
    layers = {
        "hidden": Layer(Dense(4, 3, key=KEYS[0], gain=3.0), Halved(jnp.asarray([0.1, 0.2, 0.3]))),
        "readout": Layer(Dense(3, 2, key=KEYS[1]), LI(0.9)),
    }
    model = as_network(Chain(**layers), "a test") if chained else Stack(**layers)
    small: Any = compact(model, {"hidden": jnp.asarray([1.0, 0.0, 1.0])})
    left = small.network if chained else small
    np.testing.assert_allclose(left.hidden.cell.halves[...][:, 0], [0.1, 0.3])


def test_products_inside_neurons_are_recorded_of_every_network() -> None:
    def layers() -> dict[str, Layer]:
        return {
            "hidden": Layer(Dense(4, 3, key=KEYS[0], gain=3.0), LTC(3, key=KEYS[1])),
            "readout": Layer(Dense(3, 2, key=KEYS[2]), LI(0.9)),
        }

    stack, chain = (Ran(m, {}, "") for m in (Stack(**layers()), as_network(Chain(**layers()), "a test")))
    ours, theirs = (plain(ran.records(ran.built, ran.spikes)) for ran in (stack, chain))
    assert str(ours) == str(theirs)
    assert [fields["name"] for _, fields in ours if fields.get("internal")] == [
        "hidden.membrane_kernel",
        "hidden.adaptation_kernel",
    ]


@pytest.fixture(scope="module")
def grouped() -> Iterator[Any]:
    """A network of a user's package with a site kind of its own."""
    sys.path.insert(0, str(OWN))
    try:
        import ownlab.head_groups

        yield ownlab.head_groups.GroupedAttention
    finally:
        sys.path.remove(str(OWN))


def test_a_site_kind_of_ones_own_is_one_file(grouped: Any) -> None:
    """Groups of heads: sites, gates, energy by enumeration, and a smaller network that is the masked one."""
    profile = energy.profile("45nm")
    whole = Ran(as_network(grouped((3, 4), 2, key=KEYS[0]), ""), {}, "", {"head groups": jnp.ones(2)})
    assert whole.sites.groups == {"head groups": 2}
    p, expected, each = jnp.asarray([0.3, 0.8]), 0.0, []
    for bits in itertools.product([0.0, 1.0], repeat=2):
        z = jnp.asarray(bits)
        ran = Ran(as_network(grouped((3, 4), 2, key=KEYS[0]), ""), {}, "", {"head groups": z})
        hard = expected_energy(ran.sites, ran.z, whole.events, profile).total(float(STEPS))
        each.append(float(hard))
        expected += float(jnp.where(z > 0, p, 1 - p).prod()) * float(hard)
        np.testing.assert_array_equal(ran.compacted()[1], ran.logits)
    soft = expected_energy(whole.sites, {"head groups": p}, whole.events, profile).total(float(STEPS))
    assert float(soft) == pytest.approx(expected, rel=1e-5)
    # heads do not meet, so their energies add up
    assert each[3] - each[2] == pytest.approx(each[1] - each[0], rel=1e-4)
    assert each[3] > each[2] > each[0]
