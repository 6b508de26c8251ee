"""Skipped time steps and residual blocks: energy by enumeration, and networks from which they are really gone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.infer import SVI, TraceMeanField_ELBO

import dsnn
from dsnn import escape
from dsnn.bayes import guides, priors
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.sites import gate, measure, sites
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.deploy.decided import at_kept_steps, compaction_error, deploy, ran
from dsnn.energy import count, price, profile
from dsnn.networks.compact import compact
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, mlp, running_logits
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, keep_spikes

KEY = jax.random.key(0)
XS = 3 * jax.random.uniform(jax.random.key(1), (6, 5, 3))


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0}[kind]


def test_expected_energy_with_blocks_and_steps_is_the_mean_over_all_settings() -> None:
    model = mlp((2,), (2,), 2, key=KEY, blocks=2)
    where = sites(model, held_input=False, analog_input=False, time_steps=3)
    assert where.groups == {"input": 2, "hidden0": 2, "blocks": 2, "time": 3}
    rng = np.random.default_rng(0)
    events = {w.name: rng.uniform(size=w.pre_sites) for w in where.wires}
    p = {n: rng.uniform(size=s) for n, s in where.groups.items()}
    flat, exact = np.concatenate(list(p.values())), 0.0
    for bits in itertools.product((0, 1), repeat=len(flat)):
        z = {n: np.asarray(a) for n, a in where.unflatten(jnp.asarray(bits, float)).items()}
        i, h, b, t = (z[n] for n in ("input", "hidden0", "blocks", "time"))
        step = 3.0 * (i * events["hidden0"]).sum() * h.sum() + 11.0 * h.sum()
        for k, source in ((0, 3.0), (1, 7.0 if b[0] else 3.0)):  # spikes added to spikes carry values
            step += b[k] * (source * (h * events[f"block{k}"]).sum() * h.sum() + 11.0 * h.sum())
        step += (7.0 if b.any() else 3.0) * (h * events["readout"]).sum() * 2 + 13.0 * 2
        exact += np.prod(np.where(bits, flat, 1 - flat)) * step * t.sum()
    p_given, e_given = ({n: jnp.asarray(v) for n, v in given.items()} for given in (p, events))
    ours = expected_energy(where, p_given, e_given, Prices())
    np.testing.assert_allclose(ours.total(3.0), exact, rtol=1e-5)


def test_the_memory_accounting_of_a_tiny_network_by_hand() -> None:
    """Every weight that an event meets is read, and every state read and written, at the profile's width."""
    hardware = profile("45nm-sram")
    model = mlp((2,), (3,), 2, key=KEY)
    where = sites(model)
    rates = {"hidden0": jnp.asarray([0.5, 1.0]), "readout": jnp.asarray([0.25, 0.5, 0.125])}
    z = {"input": jnp.asarray([1.0, 0.0]), "hidden0": jnp.asarray([1.0, 0.0, 1.0])}
    weight = hardware.bits * hardware.weight_pj_per_bit
    state = 2 * hardware.bits * hardware.state_pj_per_bit
    once = 0.5 * 2 * (hardware.mac_pj + weight)
    step = 0.375 * 2 * (hardware.ac_pj + weight)
    step += 2 * (hardware.neuron_pj("LIF") + state) + 2 * (hardware.neuron_pj("LI") + state)
    ours = expected_energy(where, z, rates, hardware, "memory")
    np.testing.assert_allclose(ours.once_nj, 1e-3 * once, rtol=1e-6)
    np.testing.assert_allclose(ours.step_nj, 1e-3 * step, rtol=1e-6)


def network(noise: float = 0.0) -> Stack:
    noisy = escape.Logistic(noise) if noise else None
    return mlp((3,), (6,), 2, key=KEY, gain=2.0, blocks=2, cell=lambda n: LIF(beta=0.8, noise=noisy))


@pytest.mark.parametrize("schedule", ["layer", "step"])
def test_skipped_steps_are_as_if_they_had_not_been(schedule: str) -> None:
    model, runs = network(), jnp.asarray([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    out, final, spikes = dsnn.unroll(model, XS, None, keep_spikes, schedule, running=runs)
    kept = jnp.flatnonzero(runs)
    short, last, fewer = dsnn.unroll(model, XS[kept], None, keep_spikes, schedule)
    np.testing.assert_allclose(out[kept], short, atol=1e-6)
    assert not out[0].any()
    assert not spikes["hidden0"][3].any()
    np.testing.assert_array_equal(spikes["block1"][kept], fewer["block1"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), final, last)
    logits = running_logits(out, "mean", runs)
    np.testing.assert_allclose(logits[kept], running_logits(short, "mean"), atol=1e-6)
    np.testing.assert_allclose(logits[3], logits[2])
    with pytest.raises(ValueError, match="readouts"):
        running_logits(out, "last", runs)


def test_both_schedules_agree_on_steps_that_run_in_part_and_have_slopes() -> None:
    model, runs = network(), jnp.asarray([0.3, 1.0, 0.6, 0.0, 0.9, 0.5])
    by_layer, by_step = (dsnn.unroll(model, XS, KEY, None, s, running=runs)[0] for s in ("layer", "step"))
    np.testing.assert_allclose(by_layer, by_step, atol=1e-5)
    slope = jax.grad(lambda r: dsnn.unroll(model, XS, running=r)[0][-1].sum())(runs)
    assert np.isfinite(slope).all()
    assert (slope != 0).all()


def test_a_residual_block_adds_its_spikes_to_its_input() -> None:
    model = network()
    out, _, spikes = dsnn.unroll(model, XS, None, keep_spikes)
    first = spikes["hidden0"] + spikes["block0"]
    block = dsnn.unroll(Stack(alone=Layer(model.block1.synapse, LIF(beta=0.8))), first)[0]
    np.testing.assert_array_equal(spikes["block1"], block)
    assert spikes["block1"].any()
    readout = dsnn.unroll(Stack(alone=Layer(model.readout.synapse, LI(beta=0.9))), first + spikes["block1"])[0]
    np.testing.assert_allclose(out, readout, atol=1e-5)
    with pytest.raises(ValueError, match="must give the shape it takes"):
        Layer(Dense(3, 4, key=KEY), LIF(), skip=True)
    with pytest.raises(ValueError, match="cannot be residual blocks"):
        Stack(a=Layer(Dense(3, 3, key=KEY), LIF(), skip=True), b=Layer(Dense(3, 3, key=KEY), LIF()))


def test_closed_blocks_and_neurons_leave_the_network_and_its_outputs_stay() -> None:
    model = network()
    where = sites(model, held_input=False)
    z = {
        "input": jnp.asarray([1.0, 0.0, 1.0]),
        "hidden0": jnp.asarray([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]),
        "blocks": jnp.asarray([0.0, 1.0]),
    }
    template, params = split(model)
    masked = Simulator(template, 6, "temporal").built(gate(where, params, z))[0]
    small = compact(model, z)
    assert small.names == ("hidden0", "block1", "readout")
    assert small.block1.synapse.kernel.shape == (4, 4)
    np.testing.assert_allclose(dsnn.unroll(masked, XS)[0], dsnn.unroll(small, XS)[0], atol=1e-5)
    assert float(jnp.abs(dsnn.unroll(small, XS)[0] - dsnn.unroll(model, XS)[0]).max()) > 1e-3
    # and the prior's energy is that of what ran
    _, _, spikes = dsnn.unroll(small, XS, None, keep_spikes)
    counted = price(count(records(small, XS, spikes, held=False, analog=True)), profile("45nm"), "updates").total_nj
    _, _, spikes = dsnn.unroll(masked, XS, None, keep_spikes)
    events = measure(where, masked, XS, spikes, held=False)
    np.testing.assert_allclose(expected_energy(where, z, events, profile("45nm")).total(6.0), counted, rtol=1e-5)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        compact(model, {"blocks": jnp.asarray([0.5, 1.0])})


def test_a_deployed_network_has_neither_closed_steps_nor_closed_blocks() -> None:
    model = network(noise=0.3)
    template, params = split(model)
    where = sites(model, held_input=False, time_steps=6)
    net = Bayesian(
        Simulator(template, 6, "temporal"),
        WeightPosterior(template, params, priors.default(template), guides.mean_field(0.02), flipout=True),
        GatePosterior(where),
        energy=EnergyPrior(where, profile("45nm")),
        data_size=8,
    )
    x, y = jnp.swapaxes(XS, 0, 1), jnp.arange(5) % 2
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    start = jax.jit(svi.init)(KEY, x, y, net.no_context())
    state, loss = jax.jit(svi.update)(start, x, y, net.no_context())
    assert np.isfinite(loss)
    own = net.constrain(state.optim_state[1][0])
    groups = net.gates.sites.unflatten(jnp.ones(net.gates.sites.total))  # type: ignore[union-attr]
    groups |= {"time": jnp.asarray([1.0, 0, 1, 1, 0, 1]), "blocks": jnp.asarray([0.0, 1])}
    deployed = deploy(net, net.gates.decide(own, jnp.concatenate(list(groups.values())) > 0))
    assert deployed.small.names == ("hidden0", "block1", "readout")
    assert deployed.kept_steps.tolist() == [0, 2, 3, 5]
    model, runs = net.simulator.built(deployed.masked)
    masked, short = ran(net.simulator, model, XS, None, runs), at_kept_steps(XS, deployed.kept_steps)
    assert compaction_error(masked, ran(net.simulator, deployed.padded, short, None), deployed.kept_steps) < 1e-5
    decision = deployed.run(XS)
    assert decision.steps.tolist() == [6] * 5  # of the clock, on which two steps are skipped
    assert deployed.executed(decision.steps).tolist() == [4] * 5
    expected = net.simulator.built(deployed.masked)
    logits = expected[0].logits(dsnn.unroll(expected[0], XS, running=expected[1])[0], expected[1])[-1]
    np.testing.assert_allclose(decision.logits, logits, atol=1e-5)
