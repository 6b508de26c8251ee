"""One table of every cell, surrogate and noise: a new one joins by one line and gets every check below.

A cell's line says how to build it, what current makes it fire, and whether a key changes what it does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dsnn
from dsnn import cells, escape, surrogate
from dsnn.cells import (
    ALIF,
    BRF,
    IF,
    LI,
    LIF,
    LTC,
    PLIF,
    PSN,
    RF,
    AdEx,
    CuBaLIF,
    Izhikevich,
    MaskedPSN,
    Noisy,
    QuantisedReLU,
    ReLU,
    SignedIF,
    SlidingPSN,
    like,
)

STEPS, BATCH, NEURONS = 12, 3, 5
KEY, OTHER = jax.random.key(0), jax.random.key(1)
QUIET, NOISY = False, True

CELLS = {
    "LIF": (lambda: LIF(0.9), 1.0, QUIET),
    "LIF tau": (lambda: LIF(tau=10.0, input_scale="dt_over_tau", learnable=("tau", "threshold")), 8.0, QUIET),
    "LIF next": (lambda: LIF(0.9, reset_timing="next", reset="zero", learnable=("beta",)), 1.0, QUIET),
    "LIF refractory": (lambda: LIF(0.9, refractory=2.0, reset=-0.1, compare=">="), 1.0, QUIET),
    "LIF per neuron": (lambda: LIF(np.linspace(0.5, 0.9, NEURONS), noise=escape.Logistic(0.3)), 1.0, NOISY),
    "LIF logistic": (lambda: LIF(0.9, noise=escape.Logistic(0.3, learnable=("width",))), 1.0, NOISY),
    "LIF logistic atan": (lambda: LIF(0.9, noise=escape.Logistic(0.3), surrogate="atan"), 1.0, NOISY),
    "LIF gaussian next": (lambda: LIF(0.9, noise=escape.Gaussian(0.3), reset_timing="next"), 1.0, NOISY),
    "LIF hazard": (lambda: LIF(0.9, noise=escape.ExponentialHazard(0.2, 0.3)), 1.0, NOISY),
    "LIF jitter": (lambda: LIF(0.9, noise=escape.ThresholdJitter(0.5)), 1.0, NOISY),
    "Noisy current": (lambda: Noisy(LIF(0.9), current=escape.OrnsteinUhlenbeck(0.5)), 1.0, NOISY),
    "Noisy release": (lambda: Noisy(ALIF(0.9), release=escape.ReleaseFailure(0.5)), 1.0, NOISY),
    "IF": (lambda: IF(), 0.8, QUIET),
    "SignedIF": (lambda: SignedIF(), 0.8, QUIET),
    "PLIF": (lambda: PLIF(), 2.0, QUIET),
    "CuBaLIF": (lambda: CuBaLIF(0.9, 0.8, learnable=("alpha", "beta"), shape=(NEURONS,)), 0.5, QUIET),
    "CuBaLIF noise": (lambda: CuBaLIF(0.9, noise=escape.Logistic(0.2), refractory=1.0), 0.5, NOISY),
    "ALIF": (lambda: ALIF(0.9, learnable=("beta", "rho", "strength")), 1.0, QUIET),
    "yin.ALIF": (lambda: like("yin.ALIF"), 2.0, QUIET),
    "AdEx": (lambda: AdEx(dt=0.4, learnable=("tau", "rest", "jump")), 8.0, QUIET),
    "AdEx noise": (lambda: AdEx(dt=0.4, noise=escape.Logistic(2.0)), 8.0, NOISY),
    "Izhikevich": (lambda: Izhikevich(learnable=("a", "d")), 40.0, QUIET),
    "Izhikevich noise": (lambda: Izhikevich(noise=escape.Gaussian(1.0)), 40.0, NOISY),
    "RF": (lambda: RF(10.0, 2.0, learnable=("omega", "damping")), 80.0, QUIET),
    "RF noise": (lambda: RF(10.0, 2.0, noise=escape.Logistic(0.5)), 80.0, NOISY),
    "BRF": (lambda: BRF(10.0, 2.0, learnable=("omega", "damping", "gamma")), 80.0, QUIET),
    "BRF noise": (lambda: BRF(10.0, 2.0, noise=escape.ThresholdJitter(0.5)), 80.0, NOISY),
    "LTC": (lambda: LTC(NEURONS, key=KEY, learnable=("threshold",)), 1.0, QUIET),
    "LTC noise": (lambda: LTC(NEURONS, key=KEY, noise=escape.Gaussian(0.2)), 1.0, NOISY),
    "ReLU": (lambda: ReLU(), 1.0, QUIET),
    "QuantisedReLU": (lambda: QuantisedReLU(4, -4.0), 1.0, QUIET),
    "PSN": (lambda: PSN(STEPS, key=KEY, threshold=0.2), 2.0, QUIET),
    "PSN noise": (lambda: PSN(STEPS, key=KEY, threshold=0.2, noise=escape.Logistic(0.2)), 2.0, NOISY),
    "MaskedPSN": (lambda: MaskedPSN(STEPS, 3, key=KEY, threshold=0.2), 2.0, QUIET),
    "MaskedPSN noise": (lambda: MaskedPSN(STEPS, key=KEY, threshold=0.2, noise=escape.Gaussian(0.2)), 2.0, NOISY),
    "SlidingPSN": (lambda: SlidingPSN(3), 0.8, QUIET),
    "SlidingPSN noise": (lambda: SlidingPSN(1, noise=escape.Logistic(0.3)), 0.8, NOISY),
    "LI": (lambda: LI(0.9, learnable=("beta",)), 1.0, QUIET),
    "snntorch.Leaky": (lambda: like("snntorch.Leaky", beta=0.9, learn_beta=True), 1.0, QUIET),
    "snntorch.Leaky prompt": (lambda: like("snntorch.Leaky", beta=0.9, reset_delay=False), 1.0, QUIET),
    "snntorch.Synaptic": (lambda: like("snntorch.Synaptic", alpha=0.8, beta=0.9), 0.5, QUIET),
    "snntorch.Synaptic zero": (
        lambda: like("snntorch.Synaptic", alpha=0.8, beta=0.9, reset_mechanism="zero", learn_alpha=True), 0.5, QUIET),
    "spikingjelly.LIFNode": (lambda: like("spikingjelly.LIFNode", detach_reset=True), 2.0, QUIET),
    "spikingjelly.IFNode": (lambda: like("spikingjelly.IFNode", v_reset=None), 0.8, QUIET),
    "norse.LIF": (lambda: like("norse.LIF"), 4.0, QUIET),
    "norse.LIFBox": (lambda: like("norse.LIFBox"), 8.0, QUIET),
    "sinabs.LIF": (lambda: like("sinabs.LIF", tau_mem=5.0), 5.0, QUIET),
    "spyx.LIF": (lambda: like("spyx.LIF", beta=0.9), 1.0, QUIET),
    "spyx.IF": (lambda: like("spyx.IF"), 1.0, QUIET),
    "spyx.ALIF": (lambda: like("spyx.ALIF", beta=0.9, gamma=0.9), 1.0, QUIET),
    "spyx.CuBaLIF": (lambda: like("spyx.CuBaLIF", alpha=0.8, beta=0.9), 0.5, QUIET),
    "spyx.LI": (lambda: like("spyx.LI"), 1.0, QUIET),
    "nir.LIF": (lambda: like("nir.LIF", tau=0.01, dt=0.001), 8.0, QUIET),
}  # fmt: skip
READOUTS = ("LI", "spyx.LI")
COUNTS = ("sinabs.LIF",)
VALUES = ("ReLU", "QuantisedReLU")
AT_ONCE = ("PSN", "PSN noise")
"""Cells that run whole sequences and no single step (`tests/test_parallel_cells.py`)."""

NOISES = {
    "Logistic": lambda: escape.Logistic(0.3, learnable=("width",)),
    "Gaussian": lambda: escape.Gaussian(0.3, learnable=("width",)),
    "Concrete": lambda: escape.Concrete(escape.Logistic(0.3, learnable=("width",)), 0.2),
    "ExponentialHazard": lambda: escape.ExponentialHazard(0.5, 0.3, learnable=("rho0", "width")),
}

every_cell = pytest.mark.parametrize("name", CELLS)
every_noise = pytest.mark.parametrize("name", NOISES)
every_surrogate = pytest.mark.parametrize("name", surrogate.names())


def currents(name):
    xs = jax.random.uniform(jax.random.key(7), (STEPS, BATCH, NEURONS), minval=0.2, maxval=1.2)
    return CELLS[name][1] * xs


class Compiled:
    """A cell's unrolling as a function of (params, xs, key), compiled once for all tests of that cell."""

    def __init__(self, name):
        self.cell = CELLS[name][0]()
        graph, self.params, rest = nnx.split(self.cell, nnx.Param, ...)
        self.traces = 0

        def run(params, xs, key=None):
            self.traces += 1
            outputs, state, _ = dsnn.unroll(nnx.merge(graph, params, rest), xs, key)
            return outputs, state

        self.plain, self.run = run, jax.jit(run)


compiled = functools.cache(Compiled)


def assert_equal_trees(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 0, "atol": 0} | tolerance))


def test_every_name_that_the_packages_export_has_a_line():
    built = {type(getattr(cell, "cell", cell)).__name__ for cell in (build() for build, _, _ in CELLS.values())}
    made_by_functions = {"IF", "PLIF"}
    exported = {name for name in cells.__all__ if isinstance(getattr(cells, name), type) and not name.endswith("State")}
    assert exported - {"Noisy"} <= built
    assert made_by_functions | {"Noisy"} <= {name.split()[0] for name in CELLS}
    assert set(cells.presets()) <= {name.split()[0] for name in CELLS}
    escapes = {name for name in escape.__all__ if hasattr(getattr(escape, name), "log_prob")}
    assert escapes == NOISES.keys()


@every_cell
def test_cell_shapes_dtypes_and_state(name):
    cell = compiled(name).cell
    assert isinstance(cell, nnx.Module)
    state = cell.init((BATCH, NEURONS))
    assert isinstance(state, tuple)
    if name not in VALUES:
        assert state._fields
        assert state.membrane.shape == (BATCH, NEURONS)
    if name in AT_ONCE:
        return
    after, output = jax.eval_shape(cell.step, state, currents(name)[0])
    assert output.shape == (BATCH, NEURONS)
    assert output.dtype == jnp.float32
    for first, later in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        counts = jnp.issubdtype(first.dtype, jnp.integer)  # of steps, the same for all
        expected = ((), jnp.int32) if counts else ((BATCH, NEURONS), jnp.float32)
        assert (first.shape, first.dtype) == (later.shape, later.dtype) == expected
    if name not in (*READOUTS, *VALUES):
        assert {"threshold", "noise", "surrogate"} <= set(dir(cell))
    if not name.startswith("LTC") and name not in ("LIF per neuron", "CuBaLIF"):
        image = jax.eval_shape(cell.step, cell.init((2, 3, 4, 6)), jnp.zeros((2, 3, 4, 6)))[1]
        assert image.shape == (2, 3, 4, 6)


@every_cell
def test_cell_fires_and_a_key_decides_what_it_may(name):
    """Same key, same output; other key, other output where there is noise; and one compilation for all keys."""
    this, xs = compiled(name), currents(name)
    outputs, _ = this.run(this.params, xs, KEY)
    before = this.traces
    again, _ = this.run(this.params, xs, KEY)
    other, _ = this.run(this.params, xs + 0.0, OTHER)
    assert this.traces == before
    np.testing.assert_array_equal(outputs, again)
    assert bool(np.any(np.asarray(outputs) != np.asarray(other))) == (CELLS[name][2] is NOISY)
    if name in (*READOUTS, *VALUES):
        return
    assert 0 < outputs.sum() < (np.inf if name in COUNTS else outputs.size), "it never fires, or always"
    if name not in COUNTS:
        assert set(np.unique(outputs)) == {0, 1}


@every_cell
def test_cell_without_a_key_is_deterministic_and_a_scan_is_a_loop(name):
    this, xs = compiled(name), currents(name)
    outputs, state = this.run(this.params, xs)
    np.testing.assert_array_equal(outputs, this.run(this.params, xs)[0])
    if name in AT_ONCE:
        return
    step, looped = jax.jit(this.cell.step), this.cell.init((BATCH, NEURONS))
    for x, expected in zip(xs, outputs, strict=True):
        looped, output = step(looped, x)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    assert_equal_trees(looped, state, rtol=2e-5, atol=1e-5)


@every_cell
def test_cell_is_mapped_over_a_batch_and_over_keys(name):
    """An example does not see its neighbours, and a mapped key does what it does alone."""
    this, xs = compiled(name), currents(name)
    mapped = jax.jit(jax.vmap(lambda xs: this.plain(this.params, xs)[0], 1, 1))(xs[:, :, None])
    np.testing.assert_allclose(mapped[:, :, 0], this.run(this.params, xs)[0], rtol=1e-5, atol=1e-6)
    if CELLS[name][2] is NOISY:
        mapped = jax.jit(jax.vmap(lambda key: this.plain(this.params, xs, key)[0]))(jnp.stack([KEY, OTHER]))
        np.testing.assert_allclose(mapped[1], this.run(this.params, xs, OTHER)[0], rtol=1e-5, atol=1e-6)


@every_cell
def test_cell_is_differentiable(name):
    """Gradients in the input and in every parameter are finite and not all zero."""
    this, xs = compiled(name), currents(name)

    def loss(params, xs, key):
        outputs, _ = this.plain(params, xs, key)
        return (outputs * jnp.linspace(0.5, 1.5, STEPS)[:, None, None]).sum()

    for key in (None, KEY) if CELLS[name][2] is NOISY else (None,):
        gradients = jax.jit(jax.grad(loss, (0, 1)))(this.params, xs, key)
        for leaf in jax.tree.leaves(gradients):
            assert np.all(np.isfinite(leaf))
            assert np.any(leaf != 0)


@every_surrogate
def test_surrogate_is_finite_shaped_and_usable_in_a_cell(name):
    u = jnp.linspace(-3, 3, 60).reshape(3, 20)
    slope = jax.jit(lambda u: surrogate.derivative(name, u))(u)
    assert slope.shape == u.shape
    assert slope.dtype == u.dtype
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(jax.vmap(surrogate.get(name))(u), slope, rtol=1e-4, atol=1e-7)
    far = surrogate.derivative(name, jnp.array([-1e30, 1e30]))
    assert np.all(np.isfinite(far))
    assert surrogate.derivative(name, u.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    cell = LIF(0.9, surrogate=name)
    gradient = jax.grad(lambda x: cell.step(cell.init((2, 4)), x)[1].sum())(jnp.full((2, 4), 0.9))
    np.testing.assert_allclose(gradient, surrogate.derivative(name, jnp.float32(0.9) - 1), rtol=1e-6)


@every_noise
def test_noise_contract(name):
    noise = NOISES[name]()
    graph, params, rest = nnx.split(noise, nnx.Param, ...)
    u = jnp.linspace(-1, 1, 600).reshape(3, 200)

    @jax.jit
    def spike(params, u, key):
        return nnx.merge(graph, params, rest).spike(u, key)

    spikes = spike(params, u, KEY)
    assert spikes.shape == u.shape
    assert spikes.dtype == u.dtype
    assert set(np.unique(spikes)) == {0, 1}
    np.testing.assert_array_equal(spikes, spike(params, u, KEY))
    assert np.any(spikes != spike(params, u, OTHER))
    assert spike._cache_size() == 1
    np.testing.assert_array_equal(noise.spike(u), noise.spike(u))
    keys = jax.random.split(KEY, 3)
    np.testing.assert_array_equal(jax.vmap(noise.spike)(u, keys)[1], noise.spike(u[1], keys[1]))
    assert noise.probability(u).shape == noise.log_prob(u, spikes).shape == u.shape
    assert np.all(noise.log_prob(u, spikes) <= 0)
    for loss in (lambda n: n.spike(u, KEY).sum(), lambda n: n.log_prob(u, spikes).sum()):
        gradients = jax.grad(lambda p, loss=loss: loss(nnx.merge(graph, p, rest)))(params)
        for leaf in jax.tree.leaves(gradients):
            assert np.all(np.isfinite(leaf))
            assert np.any(leaf != 0)
