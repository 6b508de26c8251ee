"""Networks that describe themselves: what they say is what they do, by enumeration, by hand and by what they send."""

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

import dsnn
from dsnn import energy
from dsnn.bayes import sites as compute_sites
from dsnn.bayes.energy import expected_energy
from dsnn.cells import LI, LIF, PLIF
from dsnn.deploy.activity import records
from dsnn.deploy.decided import on_grid
from dsnn.networks import Chain, Concatenate, Conv, Dense, Layer, Parallel, Pool, Residual, as_network, cut
from dsnn.networks.compact import compact
from dsnn.parameters import split
from dsnn.protocols import Axis, NeuronGroup, Output, Wire, Wiring
from dsnn.simulate.simulator import Simulator, keep_spikes

KEY = jax.random.key(0)
STEPS = 5
OWN = Path(__file__).parent / "own_package" / "src"


@pytest.fixture(scope="module")
def graphs() -> Iterator[Any]:
    """The networks of a user's package."""
    sys.path.insert(0, str(OWN))
    try:
        import ownlab.graphs

        yield ownlab.graphs
    finally:
        sys.path.remove(str(OWN))


def keys(count: int) -> list[Any]:
    return list(jax.random.split(KEY, count))


def nested(readout: str = "mean") -> Chain:
    """A residual block in a parallel branch in a chain, beside concatenated and recurrent layers."""
    k = keys(9)
    inner = Residual(Layer(Dense(3, 3, key=k[1], gain=3.0), LIF(0.8)))
    deep = Chain(
        first=Layer(Dense(4, 3, key=k[0], gain=3.0), PLIF()),
        block=inner,
        last=Layer(Dense(3, 2, key=k[2], gain=3.0), LIF(0.5)),
    )
    beside = Layer(Dense(4, 2, key=k[3], gain=3.0), LIF(0.9), recurrent_key=k[4])
    both = Concatenate(
        one=Layer(Dense(2, 1, key=k[5], gain=3.0), LIF(0.9)),
        other=Residual(
            Layer(Dense(2, 2, key=k[6], gain=3.0), LIF(0.7)), Layer(Dense(2, 2, key=k[7], gain=3.0), LIF(0.9))
        ),
    )
    return Chain(
        readout, sum=Parallel(deep=deep, beside=beside), both=both, readout=Layer(Dense(3, 3, key=k[8]), LI(0.9))
    )


def images() -> Chain:
    """Convolutions, pooling, a strided shortcut and a dense layer over a feature map."""
    k = keys(5)
    stem = Layer(Conv((6, 6, 2), 3, key=k[0], gain=3.0), LIF(0.9))
    body = Chain(
        a=Layer(Conv((6, 6, 3), 2, key=k[1], strides=(2, 2), gain=3.0), LIF(0.8)),
        b=Layer(Conv((3, 3, 2), 4, key=k[2], gain=3.0), LIF(0.8)),
    )
    block = Residual(body, Layer(Conv((6, 6, 3), 4, key=k[3], window=(1, 1), strides=(2, 2), gain=3.0), LIF(0.9)))
    last = Layer(Dense((1, 1, 4), 3, key=k[4]), LI(0.9), before=(Pool((3, 3, 4)),))
    return Chain(stem=stem, block=block, readout=last)


NETWORKS = {"nested": nested, "images": images}


class Ran:
    """A network that ran on grid weights, gated or not."""

    def __init__(self, network: Any, z: dict[str, Any] | None = None, batch: int = 4):
        self.model = as_network(network, "a test")
        template, params = split(self.model)
        params = on_grid(params)
        self.sites = compute_sites.sites(self.model)
        self.simulator = Simulator(template, STEPS)
        self.params = params if z is None else compute_sites.gate(self.sites, params, z)
        self.x = jnp.round(jax.random.normal(jax.random.key(7), (batch, *self.model.in_shape)) * 8) / 4
        self.logits, self.inputs, self.spikes = self.simulator.run(self.params, self.x, None, keep_spikes)
        built, _ = self.simulator.built(self.params)
        self.built = built
        self.events = compute_sites.measure(self.sites, built, self.inputs, self.spikes, held=True)


def settings(sites: Any, seed: int, share: float = 0.6) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {name: jnp.asarray(draw.random(size) < share, jnp.float32) for name, size in sites.groups.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_sent_is_what_wires_say(name: str) -> None:
    network = NETWORKS[name]()
    ran = Ran(network)
    wiring = network.wiring()
    params = split(network)[1]
    named = {wire.kernel for wire in wiring.wires} | {a for group in wiring.neurons for a in group.arrays}
    assert {n for n, p in params.items() if p.ndim} == named & params.keys()
    for wire in ran.sites.wires:
        assert ran.events[wire.name].shape == (wire.pre_sites,)
        kernel = ran.params[wire.kernel]
        assert wire.pre_sites == kernel.shape[-2]
        assert wire.post_sites == kernel.shape[-1]
    assert float(ran.events["readout"].sum()) > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_is_the_masked_one_bit_for_bit(name: str, seed: int) -> None:
    z = settings(compute_sites.sites(as_network(NETWORKS[name](), "")), seed)
    ran = Ran(NETWORKS[name](), z)
    small = compact(ran.built, z)
    template, params = split(small)
    logits = Simulator(template, STEPS).logits(params, ran.x)
    np.testing.assert_array_equal(logits, ran.logits)
    sent = Simulator(template, STEPS).run(params, ran.x, None, keep_spikes)[2]
    assert energy.count(records(small, ran.x, sent, held=True, analog=True)).total.neurons > 0
    assert sum(p.size for p in params.values()) < sum(p.size for p in split(ran.model)[1].values())
    padded = compact(ran.built, z, multiple=2)
    template, params = split(padded)
    np.testing.assert_array_equal(Simulator(template, STEPS).logits(params, ran.x), ran.logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_every_site_closed_only_the_readout_answers(name: str) -> None:
    where = compute_sites.sites(as_network(NETWORKS[name](), ""))
    z = {group: jnp.zeros(size) for group, size in where.groups.items()}
    ran = Ran(NETWORKS[name](), z)
    small = compact(ran.built, z)
    template, params = split(small)
    np.testing.assert_array_equal(Simulator(template, STEPS).logits(params, ran.x), ran.logits)
    assert float(jnp.abs(ran.logits - ran.logits[:, :1]).max()) == 0


def brute_force(network: Chain, sites: Any, events: dict[str, Any], z: dict[str, np.ndarray], profile: Any) -> float:
    """Energy of one setting of hard gates, product by product and neuron by neuron, from the wiring alone."""
    wiring, total = network.wiring(), 0.0

    def runs(names: tuple[str, ...]) -> bool:
        return all(z[name.rpartition(":")[0]][int(name.rpartition(":")[2])] for name in names)

    def opened(axes: Any, unit: int) -> bool:
        return all(axis.index[unit] < 0 or z[axis.group][axis.index[unit]] for axis in axes)

    for wire in wiring.wires:
        priced = next(w for w in sites.wires if w.name == wire.name)
        summed = any(z[name.rpartition(":")[0]][int(name.rpartition(":")[2])] for name in wire.joined)
        price = profile.event_nj("analog" if wire.once or summed or wire.values == "analog" else "spikes", "updates")
        pairs = sum(
            float(events[wire.name][i])
            for i, j in itertools.product(range(priced.pre_sites), range(priced.post_sites))
            if runs(wire.within) and opened(wire.pre, i) and opened(wire.post, j)
        )
        # the spikes of the last step feed nothing back
        total += price * priced.fan * pairs * (1 if wire.once else STEPS - 1 if wire.recurrent else STEPS)
    for group in wiring.neurons:
        each = group.count // (1 if group.site is None else len(group.site.index))
        units = 1 if group.site is None else sum(opened((group.site,), i) for i in range(len(group.site.index)))
        kind = next(p.kind for p in sites.neurons if p.name == group.name)
        total += STEPS * profile.update_nj(kind, "updates") * each * units * runs(group.within)
    return total


def small_nested() -> Chain:
    """Three deep, and few enough sites to enumerate: 2 inputs, 2 + 2 + 1 channels, 1 block."""
    k = keys(5)
    block = Residual(Layer(Dense(2, 2, key=k[1], gain=3.0), LIF(0.8)))
    deep = Chain(
        first=Layer(Dense(2, 2, key=k[0], gain=3.0), LIF(0.8)),
        block=block,
        last=Layer(Dense(2, 1, key=k[2], gain=3.0), LIF(0.5)),
    )
    both = Parallel(deep=deep, beside=Layer(Dense(2, 1, key=k[3], gain=3.0), LIF(0.9), recurrent_key=k[4]))
    return Chain(sum=both, readout=Layer(Dense(1, 2, key=k[4]), LI(0.9)))


def test_the_expected_energy_is_the_mean_over_all_settings_of_the_gates() -> None:
    network = small_nested()
    ran, profile = Ran(network), energy.profile("45nm")
    sizes = ran.sites.groups
    assert sizes == {"input": 2, "sum": 1, "sum.deep.first": 2, "residual": 1}
    p = {name: np.linspace(0.3, 0.9, size) for name, size in sizes.items()}
    expected, every = 0.0, 0
    for bits in itertools.product([0, 1], repeat=sum(sizes.values())):
        z, flat, chance = {}, list(bits), 1.0
        for name, size in sizes.items():
            z[name], flat = np.array(flat[:size]), flat[size:]
            chance *= np.prod(np.where(z[name], p[name], 1 - p[name]))
        own = brute_force(network, ran.sites, ran.events, z, profile)
        hard = expected_energy(ran.sites, {n: jnp.asarray(v, jnp.float32) for n, v in z.items()}, ran.events, profile)
        assert float(hard.total(float(STEPS))) == pytest.approx(own, rel=1e-5, abs=1e-7)
        expected, every = expected + chance * own, every + 1
    assert every == 64
    soft = expected_energy(ran.sites, {n: jnp.asarray(v, jnp.float32) for n, v in p.items()}, ran.events, profile)
    assert float(soft.total(float(STEPS))) == pytest.approx(expected, rel=1e-5)


def test_images_are_priced_by_the_places_that_each_event_reaches() -> None:
    network, profile = images(), energy.profile("45nm")
    ran = Ran(network)
    z = {name: np.ones(size) for name, size in ran.sites.groups.items()}
    hard = expected_energy(ran.sites, {n: jnp.asarray(v, jnp.float32) for n, v in z.items()}, ran.events, profile)
    assert float(hard.total(float(STEPS))) == pytest.approx(
        brute_force(network, ran.sites, ran.events, z, profile), rel=1e-5
    )
    # by convolving what was sent with ones: every product of the stem's kernel with a nonzero input
    sent = np.asarray(ran.spikes["stem"])[0]
    ones = jnp.ones((3, 3, 2, 1))
    reached = jax.lax.conv_general_dilated(
        jnp.asarray(sent != 0, jnp.float32), ones, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    fan = next(wire.fan for wire in ran.sites.wires if wire.name == "stem")
    assert fan * float(ran.events["stem"].sum()) == pytest.approx(float(reached.sum((1, 2, 3)).mean()), rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_records_count_what_is_priced(name: str) -> None:
    network, profile = NETWORKS[name](), energy.profile("45nm")
    ran = Ran(network)
    counted = energy.count(records(ran.built, ran.inputs, ran.spikes, held=True, analog=True)).total
    ones = {n: jnp.ones(size) for n, size in ran.sites.groups.items()}
    priced = expected_energy(ran.sites, ones, ran.events, profile, "arithmetic")
    spikes, analog = (profile.event_nj(source, "arithmetic") for source in ("spikes", "analog"))
    assert counted.effective_acs * spikes + counted.effective_macs * analog == pytest.approx(
        float(priced.total(float(STEPS))), rel=1e-4
    )
    assert counted.neurons == sum(group.count for group in network.wiring().neurons)


def test_relaxed_gates_have_gradients_in_every_group() -> None:
    ran = Ran(nested())

    def loss(z: dict[str, jax.Array]) -> jax.Array:
        params = compute_sites.gate(ran.sites, on_grid(split(ran.model)[1]), z)
        return (ran.simulator.logits(params, ran.x) ** 2).sum()

    grads = jax.grad(loss)({name: jnp.full(size, 0.9) for name, size in ran.sites.groups.items()})
    assert all(float(jnp.abs(g).max()) > 1e-6 for g in grads.values()), grads


@pytest.mark.parametrize("readout", ["mean", "last", "sum"])
def test_a_chain_answers_as_it_names_and_stops_early(readout: str) -> None:
    from dsnn.simulate.early_exit import anytime, entropy_rule

    model = as_network(nested(readout), "a test")
    x = jax.random.normal(KEY, (70, *model.in_shape)) * 3
    outputs = dsnn.unroll(model, x, steps=STEPS)[0]
    logits = np.asarray(model.logits(outputs))
    decision = anytime(model, entropy_rule(0.8), STEPS)(x, None)
    stop = np.asarray(decision.steps)
    assert 1 <= stop.min() < stop.max() <= STEPS
    np.testing.assert_allclose(decision.logits, logits[stop - 1, np.arange(70)], rtol=1e-5, atol=1e-6)


def test_a_network_whose_logits_are_its_own_runs_all_steps_and_stops_where_they_say(graphs: Any) -> None:
    from dsnn.simulate.early_exit import anytime, entropy_rule

    class Squared(graphs.Unwired):
        def logits(self, outputs: Any, running: Any = None) -> Any:
            return jnp.cumsum(outputs**2, 0)

    model = as_network(Squared((4,), 3, key=KEY), "a test")
    x = jax.random.normal(KEY, (9, 4)) * 5
    logits = np.asarray(model.logits(dsnn.unroll(model, x, steps=STEPS)[0]))
    decision = anytime(model, entropy_rule(0.9), STEPS)(x, None)
    stop = np.asarray(decision.steps)
    assert stop.min() < stop.max()
    np.testing.assert_allclose(decision.logits, logits[stop - 1, np.arange(9)], rtol=1e-5)


OWNS = {"Branchy": (4,), "widening": (4, 4, 2), "Attention": (3, 4)}


@pytest.mark.parametrize("name", OWNS)
def test_networks_of_a_users_package_shrink_to_what_masks_say(name: str, graphs: Any) -> None:
    made = getattr(graphs, name)(OWNS[name], 3, key=KEY)
    where = compute_sites.sites(as_network(made, ""))
    for seed in range(3):
        z = settings(where, seed, 0.5)
        ran = Ran(getattr(graphs, name)(OWNS[name], 3, key=KEY), z)
        small = compact(ran.built, z)
        template, params = split(small)
        np.testing.assert_array_equal(Simulator(template, STEPS).logits(params, ran.x), ran.logits)


def test_heads_are_counted_by_hand(graphs: Any) -> None:
    network = graphs.Attention((3, 4), 2, key=KEY)
    ran, profile = Ran(network, batch=1), energy.profile("45nm")
    z = {"heads": jnp.asarray([1.0, 0.0])}
    ours = expected_energy(ran.sites, z, ran.events, profile, "arithmetic").total(float(STEPS))
    add, multiply = (profile.event_nj(source, "arithmetic") for source in ("spikes", "analog"))
    x, spikes = np.asarray(ran.x[0]), {name: np.asarray(value)[:, 0] for name, value in ran.spikes.items()}
    by_hand = multiply * 3 * (x != 0).sum() * 2  # three projections onto the two channels of one head, once
    by_hand += add * (spikes["key spikes"][:, :, :2] != 0).sum() * 3  # each key's spike meets three queries
    scores = spikes["values 0"]
    by_hand += multiply * (scores != 0).sum() * 2  # each score meets the two channels of its value
    mixed = spikes["out"].reshape(STEPS, 3, 4)[:, :, :2]
    by_hand += multiply * (mixed != 0).sum() * 2
    assert float(ours) == pytest.approx(float(by_hand), rel=1e-5)


def test_what_a_network_says_of_itself_is_checked(graphs: Any) -> None:
    good = graphs.Branchy((4,), 3, key=KEY).wiring()

    def refused(match: str, **changes: Any) -> None:
        class Says(graphs.Branchy):
            def wiring(self) -> Any:
                return good._replace(**changes)

        with pytest.raises(ValueError, match=match):
            compute_sites.sites(as_network(Says((4,), 3, key=KEY), "a test"))

    wire = good.wires[0]

    def first(**changes: Any) -> tuple[Any, ...]:
        return (wire._replace(**changes), *good.wires[1:])

    refused("must have a kernel that is a parameter", wires=first(kernel="fast.kernel"))
    refused("name groups of the wiring", wires=first(pre=(Axis("inputs", -2, np.arange(4)),)))
    refused("a site for each position along an axis", wires=first(pre=(Axis("input", -2, np.arange(3)),)))
    refused("sites 0 to 3", wires=first(pre=(Axis("input", -2, np.arange(4) + 1),)))
    refused("names of their own", wires=first(name="out"))
    refused('"spikes" or "analog"', wires=first(values="floats"))
    refused("group:number", wires=first(within=("fast:99",)))
    refused("at least one", groups={**good.groups, "input": 0})
    refused("somewhere in the wiring", groups={**good.groups, "fast": 9})
    refused("must not be called", groups={**good.groups, "time": 2})
    refused("belong to one wire", wires=(*good.wires, wire._replace(name="twice")))
    refused("so many for each position", neurons=(good.neurons[0]._replace(count=7), *good.neurons[1:]))


def test_a_parameter_that_no_wire_names_is_not_cut(graphs: Any) -> None:
    network = graphs.Branchy((4,), 3, key=KEY)
    network.gain = nnx.Param(jnp.ones(8))
    with pytest.raises(ValueError, match=r"must name every parameter.*'gain'"):
        cut(network, {"fast": np.arange(2)})
    with pytest.raises(ValueError, match="keep must name groups"):
        cut(graphs.Branchy((4,), 3, key=KEY), {"quick": np.arange(2)})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Chain(), "at least one part"),
        (
            lambda: Chain(a=Layer(Dense(3, 4, key=KEY), LIF(0.9)), b=Layer(Dense(5, 2, key=KEY), LIF(0.9))),
            "'b' must take",
        ),
        (lambda: Residual(Layer(Dense(3, 4, key=KEY), LIF(0.9))), "shape of its shortcut"),
        (lambda: Parallel(a=Layer(Dense(3, 4, key=KEY), LIF(0.9))), "two or more"),
        (
            lambda: Concatenate(a=Layer(Dense(3, 4, key=KEY), LIF(0.9)), b=Layer(Dense(4, 4, key=KEY), LIF(0.9))),
            "read one input",
        ),
        (lambda: Chain("median", a=Layer(Dense(3, 4, key=KEY), LIF(0.9))), "readout must be one of"),
        (lambda: as_network(3, "model.architecture=mine:net"), "model.architecture=mine:net must give a network"),
    ],
)
def test_networks_that_do_not_fit_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_wire_of_a_network_may_be_read_by_hand() -> None:
    """Two inputs, one neuron, one output: every number of the wiring by hand."""

    class Tiny(nnx.Module):
        in_shape, out_shape = (2,), (1,)

        def __init__(self) -> None:
            self.first, self.last = nnx.Param(jnp.asarray([[0.5], [2.0]])), nnx.Param(jnp.asarray([[1.0]]))

        def init(self, batch: int) -> Any:
            return LIF(0.5).init((batch, 1))

        def step(self, state: Any, x: Any, key: Any = None) -> Any:
            state, spikes = LIF(0.5).step(state, x @ self.first[...])
            return state, Output(spikes @ self.last[...], {"first": x, "last": spikes})

        def wiring(self) -> Any:
            return Wiring(
                {"input": 2, "hidden": 1},
                (
                    Wire(
                        "first",
                        "first",
                        (Axis("input", 0, np.arange(2)),),
                        (Axis("hidden", 1, np.arange(1)),),
                        once=True,
                    ),
                    Wire("last", "last", (Axis("hidden", 0, np.arange(1)),)),
                ),
                (NeuronGroup("hidden", Axis("hidden", 0, np.arange(1)), 1, LIF(0.5)),),
            )

    model = as_network(Tiny(), "a test")
    where = compute_sites.sites(model)
    template, params = split(model)
    x = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    _, inputs, sent = Simulator(template, 2).run(params, x, None, keep_spikes)
    # u = .5, .75 never above 1; u = 2, 2 - 1 + ... = 1/2 + 2 = 2.5: two spikes of one of two examples
    np.testing.assert_array_equal(sent["last"][:, :, 0], [[0, 1], [0, 1]])
    events = compute_sites.measure(where, model, inputs, sent, held=True)
    np.testing.assert_array_equal(events["first"], [0.5, 0.5])
    np.testing.assert_array_equal(events["last"], [0.5])


def test_a_closed_block_adds_nothing_up() -> None:
    """Behind an open residual block events are sums, and behind a closed one spikes: as in a stack."""
    network, profile = small_nested(), energy.profile("45nm")
    ran = Ran(network)
    wire = next(w for w in ran.sites.wires if w.name == "sum.deep.last")
    assert wire.sums == (("residual", 0),)
    assert not wire.analog
    z = {name: jnp.ones(size) for name, size in ran.sites.groups.items()}
    opened, closed = (
        float(expected_energy(ran.sites, z | {"residual": jnp.full(1, p)}, ran.events, profile).total(5.0))
        for p in (1.0, 0.0)
    )
    last = float(ran.events["sum.deep.last"].sum()) * STEPS
    body = float(ran.events["sum.deep.block.body"].sum()) * 2 * STEPS
    updates = 2 * STEPS * profile.update_nj("LIF", "updates")
    spikes, values = (profile.event_nj(source, "updates") for source in ("spikes", "analog"))
    assert opened - closed == pytest.approx(last * (values - spikes) + body * spikes + updates, rel=1e-4)


@pytest.mark.parametrize("first", ["parallel", "image"])
def test_a_thinned_network_still_says_what_it_is(first: str) -> None:
    k = keys(4)

    def made() -> Chain:
        if first == "parallel":
            both = Parallel(a=Layer(Dense(3, 2, key=k[0]), LIF(0.5)), b=Layer(Dense(3, 2, key=k[1]), LIF(0.9)))
            return Chain(both=both, last=Layer(Dense(2, 2, key=k[2]), LI(0.9)))
        pooled = Layer(Conv((2, 2, 3), 2, key=k[0]), LIF(0.5), before=(Pool((4, 4, 3)),))
        return Chain(first=pooled, last=Layer(Dense((2, 2, 2), 2, key=k[2]), LI(0.9)))

    z = {"input": jnp.asarray([1.0, 0.0, 1.0])}
    ran = Ran(made(), z | {n: jnp.ones(s) for n, s in Ran(made()).sites.groups.items() if n != "input"})
    small = compact(ran.built, z)
    where = compute_sites.sites(small)
    assert "input" not in where.groups  # what reads a part of its inputs has been thinned already
    template, params = split(small)
    logits, inputs, sent = Simulator(template, STEPS).run(params, ran.x, None, keep_spikes)
    np.testing.assert_array_equal(logits, ran.logits)
    assert energy.count(records(small, inputs, sent, held=True, analog=True)).total.neurons > 0
    again = compact(small, {name: jnp.asarray([1.0, 0.0]) for name in where.groups if name in ("both", "first")})
    assert again.in_shape == small.in_shape
    assert np.isfinite(Simulator(split(again)[0], STEPS).logits(split(again)[1], ran.x)).all()


def test_weights_of_any_name_have_a_prior(graphs: Any) -> None:
    from dsnn.bayes import priors

    template, params = split(as_network(graphs.Attention((3, 4), 2, key=KEY), "a test"))
    prior = priors.default(template)
    assert all(prior(name, value.shape) is not None for name, value in params.items())


def test_a_wire_over_which_nothing_goes_is_named(graphs: Any) -> None:
    class Silent(graphs.Branchy):
        def step(self, state: Any, x: Any, key: Any = None) -> Any:
            state, output = super().step(state, x, key)
            return state, output.out

    with pytest.raises(ValueError, match=r"must be in Output.sent, got output without 'into fast'"):
        Ran(Silent((4,), 3, key=KEY))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Chain(a=dsnn.networks.stack.mlp((3,), (2,), 2, key=KEY)), "a stack's layers go into a Chain"),
        (lambda: Chain(step=Layer(Dense(3, 4, key=KEY), LIF(0.9))), "must not be called"),
        (
            lambda: Chain(input=Layer(Dense(3, 4, key=KEY), LIF(0.9)), b=Layer(Dense(4, 2, key=KEY), LI(0.9))).wiring(),
            "name of its own",
        ),
        (
            lambda: compute_sites.sites(
                as_network(
                    Chain(time=Layer(Dense(3, 4, key=KEY), LIF(0.9)), b=Layer(Dense(4, 2, key=KEY), LI(0.9))), ""
                )
            ),
            "must not be called",
        ),
    ],
)
def test_names_and_parts_that_mean_something_else_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_guides_that_know_layers_say_so_or_find_the_last(graphs: Any) -> None:
    from dsnn.assembly.assemble import build
    from dsnn.run import schema

    words = ["data=digits", "model.architecture=ownlab.graphs:Branchy", "train.steps=2", "baseline=none"]
    setup = build(schema.compose([*words, "bayes.guide=last_layer"]))
    scales = sorted(name for name in setup.params(setup.learner.init()) if name.endswith(".scale"))
    assert scales == ["network.readout.synapse.bias.scale", "network.readout.synapse.kernel.scale"]
    with pytest.raises(ValueError, match="drops the inputs of a stack's layers"):
        build(schema.compose([*words, "bayes.guide=dropout"]))
    unwired = [words[0], "model.architecture=ownlab.graphs:Unwired", *words[2:], "bayes.guide=last_layer"]
    setup = build(schema.compose(unwired))
    with pytest.raises(ValueError, match="whose wiring"):
        setup.learner.init()


def test_flipout_leaves_a_network_of_ones_own_its_draws(graphs: Any) -> None:
    from dsnn.assembly.assemble import build
    from dsnn.learn import Batch
    from dsnn.run import schema

    words = ["data=digits", "model.architecture=ownlab.graphs:Branchy", "train.steps=2", "baseline=none"]
    losses = []
    for flips in ("true", "false"):
        setup = build(schema.compose([*words, f"bayes.flipout={flips}"]))
        batch = Batch(jnp.asarray(setup.split.train.x[:4]), jnp.asarray(setup.split.train.y[:4]))
        losses.append(float(jax.jit(setup.learner.step)(setup.learner.init(), batch)[1].loss))
    assert losses[0] == losses[1]


def test_neurons_whose_cost_is_stated_are_priced_by_it() -> None:
    class Priced(nnx.Module):
        in_shape, out_shape = (2,), (2,)

        def __init__(self) -> None:
            self.kernel = nnx.Param(jnp.eye(2))

        def init(self, batch: int) -> Any:
            return LIF(0.5).init((batch, 2))

        def step(self, state: Any, x: Any, key: Any = None) -> Any:
            state, spikes = LIF(0.5).step(state, x @ self.kernel[...])
            return state, Output(spikes, {"in": x})

        def wiring(self) -> Any:
            cost = energy.NeuronCost(macs=3, acs=1, compares=1, states=1)
            return Wiring({}, (Wire("in", "kernel"),), (NeuronGroup("out", None, 2, cost),))

    where = compute_sites.sites(as_network(Priced(), "a test"))
    assert energy.neuron_cost(where.neurons[0].kind)[:4] == (3, 1, 1, 1)
    keep = np.asarray([True, False])
    assert cut(
        Chain(a=Layer(Dense(2, 2, key=KEY), LIF(0.9)), b=Layer(Dense(2, 1, key=KEY), LI(0.9))), {"a": keep}
    ).a.out_shape == (1,)


def test_a_stack_without_sites_is_not_told_that_it_describes_nothing() -> None:
    from dsnn.assembly.assemble import build
    from dsnn.run import schema

    words = ["data=digits", "model.hidden=[]", "gates.input=false", "train.steps=2", "baseline=none"]
    setup = build(schema.compose(words))
    assert not setup.sites.total
    assert "gates.enabled" not in setup.automatic
