"""Products without neurons, neurons without products, and blocks that add, and, or veto: exact against hand counts."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dsnn
from dsnn import energy
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import gate, measure, sites
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.deploy.decided import on_grid
from dsnn.networks import (
    BNTT,
    TEBN,
    Chain,
    Concatenate,
    Conv,
    Current,
    Dense,
    Fire,
    Layer,
    Pool,
    Pooled,
    Residual,
    Stack,
    TdBN,
    Whole,
    as_network,
)
from dsnn.networks.compact import compact
from dsnn.parameters import folded, split
from dsnn.simulate.simulator import Simulator, keep_spikes
from dsnn.simulate.unroll import unroll_trained

KEYS = list(jax.random.split(jax.random.key(4), 16))
STEPS = 4


def cell(neurons: int, noise: Any = None) -> LIF:
    return LIF(beta=0.75, threshold=jnp.linspace(0.5, 1.0, neurons), noise=noise)


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0, "Linear": 1e9}[kind]


def membranes(noise: Any = None) -> Chain:
    """A stream of currents: a block beside it, one beside a product that widens it, and neurons at its end."""
    k = KEYS
    body = Chain(
        fire=Fire((3,), cell(3, noise)),
        first=Layer(Dense(3, 2, key=k[1], gain=3.0), cell(2, noise)),
        second=Current(Dense(2, 3, key=k[2], gain=2.0)),
    )
    wide = Chain(fire=Fire((3,), cell(3, noise)), only=Current(Dense(3, 4, key=k[3], gain=3.0)))
    return Chain(
        stem=Current(Dense(4, 3, key=k[0], gain=2.0)),
        one=Residual(body),
        two=Residual(wide, Current(Dense(3, 4, key=k[4], gain=1.0))),
        fire=Fire((4,), cell(4, noise)),
        readout=Layer(Dense(4, 2, key=k[5]), LI(0.5)),
    )


def spikes(connect: str, noise: Any = None) -> Chain:
    """Blocks of spikes over images: pooled before both ways, and widened beside a strided product."""
    k = KEYS
    image, wide = (3, 3, 2), (2, 2, 3)

    def layer(shape: Any, features: int, key: Any, **options: Any) -> Layer:
        return Layer(Conv(shape, features, key=key, gain=4.0, **options), cell(features, noise))

    body = Chain(a=layer(image, 2, k[1]), b=Current(Conv(image, 2, key=k[2], gain=4.0)), c=Fire(image, cell(2, noise)))
    return Chain(
        stem=layer((6, 6, 1), 2, k[0]),
        pool=Pooled(Pool((6, 6, 2))),
        one=Residual(body, connect=connect),
        two=Residual(
            layer(image, 3, k[3], strides=(2, 2)), layer(image, 3, k[4], window=(1, 1), strides=(2, 2)), connect
        ),
        readout=Layer(Dense(wide, 2, key=k[5]), LI(0.5)),
    )


def stepwise(noise: Any = None) -> Chain:
    """Currents behind norms that treat each step by itself, added up."""
    k = KEYS
    body = Chain(fire=Fire((3,), cell(3, noise)), only=Current(Dense(3, 3, key=k[1], gain=3.0), _by_step(TEBN, 1)))
    return Chain(
        stem=Current(Dense(4, 3, key=k[0], gain=2.0), _by_step(BNTT, 0)),
        one=Residual(body),
        fire=Fire((3,), cell(3, noise)),
        readout=Layer(Dense(3, 2, key=k[5]), LI(0.5)),
    )


def _by_step(kind: Any, seed: int) -> Any:
    """A norm whose steps differ from each other, by numbers on a grid."""
    norm, draw = kind(3, STEPS), np.random.default_rng(seed)
    own = norm.by_step if kind is TEBN else norm.scale
    own[...] = jnp.asarray(draw.integers(2, 9, own.shape) / 4.0, jnp.float32)
    return norm


NETWORKS = {
    "currents": membranes,
    "add": lambda noise=None: spikes("add", noise),
    "and": lambda noise=None: spikes("and", noise),
    "iand": lambda noise=None: spikes("iand", noise),
}


class Ran:
    """A network that ran under gates, of inputs and kernels on a grid so coarse that sums of values are exact."""

    def __init__(self, model: Any, z: dict[str, Any] | None = None):
        whole = as_network(folded(model), "a test")
        self.template, params = split(whole)
        self.sites = sites(whole)
        self.z = {name: jnp.ones(size) for name, size in self.sites.groups.items()} if z is None else z
        self.simulator = Simulator(self.template, STEPS)
        self.x = jnp.round(jax.random.uniform(KEYS[9], (5, *model.in_shape)) * 4) / 2
        # no weight is zero on the grid: an event there would cost nothing
        params = {
            n: jnp.where(v == 0, 2.0**-5, v) if n.endswith("kernel") else v for n, v in on_grid(params, 5).items()
        }
        self.params = gate(self.sites, params, self.z)
        self.logits, self.inputs, self.spikes = self.simulator.run(self.params, self.x, None, keep_spikes)
        self.built = self.simulator.built(self.params)[0]
        self.events = measure(self.sites, self.built, self.inputs, self.spikes, held=True)

    def energy(self, z: dict[str, Any]) -> float:
        return float(expected_energy(self.sites, z, self.events, Prices()).total(float(STEPS)))

    def drawn(self, seed: int, share: float = 0.7) -> dict[str, Any]:
        draw = np.random.default_rng(seed)
        z = {n: (draw.random(s) < share).astype(np.float32) for n, s in self.sites.groups.items()}
        for values in z.values():
            values[draw.integers(len(values))] = 1.0  # a group without open sites keeps a silent one
        return {name: jnp.asarray(values) for name, values in z.items()}

    def compacted(self) -> tuple[Any, Any, list[Any]]:
        """The smaller network, its logits, and records of its run."""
        small = compact(self.built, self.z)
        template, params = split(small)
        logits, _, sent = Simulator(template, STEPS).run(params, self.x, None, keep_spikes)
        return small, logits, records(small, self.inputs, sent, held=True, analog=True)


# --- What runs


@pytest.mark.parametrize("name", [*NETWORKS, "stepwise"])
@pytest.mark.parametrize("running", [None, jnp.array([1.0, 0.0, 0.5, 1.0])], ids=["all", "some"])
@pytest.mark.parametrize("held", [False, True], ids=["given", "held"])
def test_all_steps_at_once_are_the_steps(name: str, running: Any, held: bool) -> None:
    model = (NETWORKS | {"stepwise": stepwise})[name](dsnn.escape.Logistic(0.2))
    xs = jax.random.uniform(KEYS[7], (STEPS, 3, *model.in_shape))
    options = {"steps": STEPS} if held else {}

    def run(schedule: str) -> Any:
        def record(states: Any, sent: Any) -> Any:
            return states, sent

        return dsnn.unroll(model, xs[0] if held else xs, KEYS[8], record, schedule, running=running, **options)

    ours, theirs = run("layer"), run("step")
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(ours[0]).max()) > 0.1


def test_a_stream_of_currents_is_the_loop_that_its_equations_say() -> None:
    model: Any = membranes()
    x = np.asarray(jax.random.uniform(KEYS[7], (STEPS, 5, 4)))

    def kernel(layer: Any) -> np.ndarray:
        return np.asarray(layer.synapse.kernel[...], np.float64)

    membrane: dict[str, Any] = {}

    def fired(name: str, current: np.ndarray) -> np.ndarray:
        threshold = np.linspace(0.5, 1.0, current.shape[-1])
        u = 0.75 * membrane.get(name, 0.0) + current
        spikes = (u > threshold).astype(np.float64)
        membrane[name] = u - threshold * spikes
        return spikes

    one, two, expected, answer = model.one.body, model.two, [], 0.0
    for step in x:
        stream = step @ kernel(model.stem)
        inner = fired("inner", fired("first", stream) @ kernel(one.first))
        stream = stream + inner @ kernel(one.second)
        stream = stream @ kernel(two.shortcut) + fired("second", stream) @ kernel(two.body.only)
        answer = 0.5 * answer + fired("last", stream) @ kernel(model.readout)
        expected.append(answer)
    np.testing.assert_allclose(dsnn.unroll(model, jnp.asarray(x))[0], np.stack(expected), rtol=1e-5, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_a_product_and_neurons_of_their_own_are_the_layer_of_both() -> None:
    norm = TdBN(6, alpha=0.5)
    synapse = Dense(5, 6, key=KEYS[0], gain=2.0)
    apart = Chain(product=Current(synapse, norm), neurons=Fire((6,), LIF(0.75)))
    together = Layer(synapse, LIF(0.75), norm=norm)
    xs = jax.random.normal(KEYS[1], (STEPS, 8, 5))
    np.testing.assert_array_equal(dsnn.unroll(apart, xs)[0], dsnn.unroll(Chain(both=together), xs)[0])
    (ours, after), (theirs, other) = (unroll_trained(Whole(m), xs) for m in (apart, Chain(both=together)))
    np.testing.assert_array_equal(ours, theirs)
    assert 0 < float(ours.mean()) < 1
    for name in ("mean", "variance"):
        np.testing.assert_array_equal(after[f"network.product.norm.{name}"], other[f"network.both.norm.{name}"])


TABLE = {"add": [0, 1, 1, 2], "and": [0, 0, 0, 1], "iand": [0, 1, 0, 0]}


@pytest.mark.parametrize("connect", TABLE)
def test_a_block_is_its_truth_table_and_a_closed_one_its_shortcut(connect: str) -> None:
    beside, given = jnp.array([0.0, 1, 0, 1]), jnp.array([0.0, 0, 1, 1])
    block: Any = Residual(Fire((4,), cell(4)), connect=connect)
    np.testing.assert_array_equal(block.joined(beside, given), TABLE[connect])
    for share in (0.0, 0.25, 1.0):
        block.share = nnx.data(jnp.asarray(share))
        expected = (1 - share) * beside + share * jnp.array(TABLE[connect])
        np.testing.assert_array_equal(block.joined(beside, given), expected)


# --- What is said


def test_a_stream_of_currents_is_one_group_of_channels() -> None:
    ran = Ran(membranes())
    assert ran.sites.groups == {"input": 4, "stem": 3, "one.body.first": 2, "two": 4, "residual": 2}
    values = {wire.name: ("analog" if wire.analog else "spikes") for wire in ran.sites.wires}
    assert values == {
        "stem": "analog", "one.body.first": "spikes", "one.body.second": "spikes",
        "two.body.only": "spikes", "two.shortcut": "analog", "readout": "spikes",
    }  # fmt: skip
    updated = {
        group.name: group.each * (1 if group.sites is None else len(group.sites.index)) for group in ran.sites.neurons
    }
    assert {name: count for name, count in updated.items() if count} == {
        "one.body.fire.neurons": 3, "one.body.first.neurons": 2, "two.body.fire.neurons": 3, "fire.neurons": 4,
        "readout.neurons": 2,
    }  # fmt: skip


@pytest.mark.parametrize("connect", TABLE)
def test_only_what_is_added_is_a_sum(connect: str) -> None:
    ran = Ran(spikes(connect))
    assert ran.sites.groups == {"input": 1, "stem": 2, "one.body.a": 2, "two": 3, "residual": 2} or (
        ran.sites.groups == {"stem": 2, "one.body.a": 2, "two": 3, "residual": 2}
    )
    wires = {wire.name: wire for wire in ran.sites.wires}
    assert not any(wire.analog for name, wire in wires.items() if name != "stem")
    sums = {"two.body": (("residual", 0),), "two.shortcut": (("residual", 0),), "readout": (("residual", 1),)}
    assert {n: w.sums for n, w in wires.items() if w.sums} == (sums if connect == "add" else {})
    sent = np.asarray(ran.spikes["readout"])
    assert set(np.unique(sent)) == ({0.0, 1.0, 2.0} if connect == "add" else {0.0, 1.0})


# --- What it costs


def by_hand(ran: Ran) -> float:
    """Energy of an inference, counted wire by wire from what was sent; nothing of the wiring is read."""
    z, sent, total = (
        {n: np.asarray(v) for n, v in ran.z.items()},
        {n: np.asarray(s) for n, s in ran.spikes.items()},
        0.0,
    )
    stem, first, two, (one_runs, two_runs) = z["stem"], z["one.body.first"], z["two"], z["residual"]
    batch = len(ran.x)
    for b in range(batch):
        total += 7.0 * ((np.asarray(ran.x)[b] != 0) * z["input"]).sum() * stem.sum()
        for t in range(STEPS):
            fired = {name: (sent[name][t, b] != 0) for name in sent if name != "output"}
            total += 3.0 * (fired["one.body.first"] * stem).sum() * first.sum() * one_runs
            total += 3.0 * (fired["one.body.second"] * first).sum() * stem.sum() * one_runs
            total += 3.0 * (fired["two.body.only"] * stem).sum() * two.sum() * two_runs
            total += 7.0 * (fired["two.shortcut"] * stem).sum() * two.sum()
            total += 3.0 * (fired["readout"] * two).sum() * 2
            total += 11.0 * ((stem.sum() + first.sum()) * one_runs + stem.sum() * two_runs + two.sum()) + 13.0 * 2
    return total / batch


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_stream_of_currents_counted_by_hand(seed: int) -> None:
    z = Ran(membranes()).drawn(seed)
    z["residual"] = jnp.asarray([seed % 2, seed // 2], jnp.float32)
    ran = Ran(membranes(), z)
    np.testing.assert_allclose(ran.energy(z), by_hand(ran), rtol=1e-5)
    counted = energy.count(ran.compacted()[2]).total
    ours = 7.0 * counted.effective_macs + 3.0 * counted.effective_acs
    updates = {"LIF": 11.0, "LI": 13.0}
    assert counted.neuron_updates.keys() == updates.keys()  # and none of what has no neurons
    ours += sum(updates[kind] * number for kind, number in counted.neuron_updates.items())
    np.testing.assert_allclose(ours, by_hand(ran), rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_expected_energy_is_the_mean_over_all_settings(name: str) -> None:
    whole = Ran(NETWORKS[name]())
    draw = np.random.default_rng(0)
    p = {n: jnp.asarray(draw.uniform(0.2, 0.9, s)) for n, s in whole.sites.groups.items()}
    flat, exact = np.concatenate(list(p.values())), 0.0

    def of(z: Any) -> Any:
        return expected_energy(whole.sites, z, whole.events, Prices()).total(float(STEPS))

    settings = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=len(flat))))
    weights = np.prod(np.where(settings > 0, flat, 1 - flat), 1)
    each = jax.jit(jax.vmap(lambda bits: of(whole.sites.unflatten(bits))))(settings)
    exact = float((weights * np.asarray(each)).sum())
    np.testing.assert_allclose(whole.energy(p), exact, rtol=1e-4)


# --- What is left of it


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(6))
def test_the_compacted_network_is_the_masked_one_bit_for_bit(name: str, seed: int) -> None:
    z = Ran(NETWORKS[name]()).drawn(seed)
    z["residual"] = jnp.asarray([seed % 2, seed // 2 % 2], jnp.float32)
    ran = Ran(NETWORKS[name](), z)
    small, logits, kept = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    assert sum(p.size for p in jax.tree.leaves(nnx.state(small, nnx.Param))) < sum(p.size for p in ran.params.values())
    # nobody pays for what is gone, and the sites are those that are left
    np.testing.assert_allclose(
        sum(r.total_updates for r in kept if isinstance(r, energy.NeuronRecord)),
        sum(float(g.running(z)) * float(np.prod([z[n][i] for n, i in g.inside])) for g in ran.sites.neurons) * STEPS,
    )
    left = sites(small).groups
    assert all(left[n] == max(int(z[n].sum()), 1) for n in left if n != "residual")
    assert left.get("residual", 0) == int(z["residual"].sum())


def test_currents_behind_norms_of_each_step_are_cut_with_them() -> None:
    z = {"input": jnp.ones(4), "stem": jnp.asarray([1.0, 0.0, 1.0]), "residual": jnp.ones(1)}
    ran = Ran(stepwise(), z)
    small, logits, kept = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    assert small.network.stem.out_shape == small.network.fire.in_shape == (2,)
    everything = Ran(stepwise())
    assert float(jnp.abs(everything.logits - ran.logits).max()) > 1e-3
    # no neurons, but a multiply-accumulate for each current and step
    hardware = energy.profile("45nm")
    ours = expected_energy(ran.sites, z, ran.events, hardware).total(float(STEPS))
    np.testing.assert_allclose(ours, energy.price(energy.count(kept), hardware, "updates").total_nj, rtol=1e-5)
    assert not any(wire.once for wire in ran.sites.wires if wire.name != "stem")


def test_logits_are_told_apart() -> None:
    """The test above could not fail if every gate left the logits as they are."""
    for name, make in NETWORKS.items():
        whole = Ran(make())
        for group in whole.sites.groups:
            closed = whole.z | {group: jnp.zeros_like(whole.z[group])}
            assert float(jnp.abs(Ran(make(), closed).logits - whole.logits).max()) > 1e-3, (name, group)


# --- What cannot be meant


def test_a_connection_that_is_none_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"connect must be one of add, and, iand, got 'adn'; did you mean 'and'"):
        Residual(Fire((3,), cell(3)), connect="adn")


def test_logic_of_sums_gets_a_sentence() -> None:
    def block(connect: str, key: Any) -> Residual:
        return Residual(Layer(Dense(3, 3, key=key), cell(3)), connect=connect)

    ends = {"stem": Layer(Dense(4, 3, key=KEYS[0]), cell(3)), "readout": Layer(Dense(3, 2, key=KEYS[1]), LI(0.5))}
    summed = Chain(stem=ends["stem"], a=block("add", KEYS[2]), b=block("and", KEYS[3]), readout=ends["readout"])
    with pytest.raises(ValueError, match=r'connect="and" must combine spikes, got sums of spikes in \'b\''):
        summed.wiring()
    valued = Chain(stem=Current(Dense(4, 3, key=KEYS[0])), b=block("iand", KEYS[3]), readout=ends["readout"])
    with pytest.raises(ValueError, match=r'connect="iand" must combine spikes, got analog values in \'b\''):
        valued.wiring()


def test_neurons_alone_in_a_branch_get_a_sentence() -> None:
    own = Layer(Dense(3, 3, key=KEYS[1]), cell(3))
    model = Chain(
        stem=Current(Dense(4, 3, key=KEYS[0])), both=dsnn.networks.Parallel(a=own, b=Fire((3,), cell(3))),
        readout=Layer(Dense(3, 2, key=KEYS[2]), LI(0.5)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"are the channels that they read, so 'both.b' cannot be"):
        model.wiring()


def test_neurons_that_read_the_input_leave_it_without_sites() -> None:
    model = Chain(fire=Fire((4,), cell(4)), readout=Layer(Dense(4, 2, key=KEYS[0]), LI(0.5)))
    assert sites(Whole(model)).groups == {}


def test_a_stack_takes_whole_layers() -> None:
    with pytest.raises(ValueError, match="must have a product and neurons, got 'a' without; put it into a Chain"):
        Stack(a=Current(Dense(4, 3, key=KEYS[0])), b=Layer(Dense(3, 2, key=KEYS[0]), LI(0.5)))


def test_channels_beside_each_other_are_read_by_neurons_and_pooling() -> None:
    k = KEYS
    both = Concatenate(
        left=Current(Conv((4, 4, 1), 2, key=k[0], gain=3.0)), right=Current(Conv((4, 4, 1), 3, key=k[1], gain=3.0))
    )

    def make() -> Chain:
        return Chain(
            both=both,
            pool=Pooled(Pool((4, 4, 5))),
            fire=Fire((2, 2, 5), cell(5)),
            readout=Layer(Dense((2, 2, 5), 2, key=k[2]), LI(0.5)),
        )

    ran = Ran(make(), {"both": jnp.asarray([1.0, 0, 0, 1, 1])})
    small, logits, _ = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    assert small.network.fire.out_shape == (2, 2, 3)
    assert small.network.pool.in_shape == (4, 4, 3)
