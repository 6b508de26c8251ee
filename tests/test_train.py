import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsnn import escape, learn, rng
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import ALIF, LIF
from dsnn.energy import profile
from dsnn.learn import Batch, SviConfig, optimizer
from dsnn.learn.optimizer import OptimizerConfig
from dsnn.learn.pricing import Pricing
from dsnn.networks.stack import convnet, mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, log_likelihood
from dsnn.store import checkpoint

ROOT = rng.root(0)
X = np.asarray(jax.random.uniform(jax.random.key(1), (48, 4)))
Y = (X[:, 0] > 0.5).astype(np.int32)
DATA = Batch(jnp.asarray(X), jnp.asarray(Y))


def bayesian() -> Bayesian:
    model = mlp((4,), (8,), 2, key=ROOT, gain=2.0)
    template, params = split(model)
    where = sites.sites(model)
    return Bayesian(
        Simulator(template, 4),
        WeightPosterior(template, params, priors.default(template)),
        GatePosterior(where),
        HaltingPosterior(4, joint=True),
        EnergyPrior(where, profile("45nm")),
        data_size=len(X),
    )


def learner(kind: str, **options: Any) -> learn.Learner:
    net = bayesian()
    tx = optimizer.optimizer(OptimizerConfig(0.01), 60)
    if kind == "svi":
        return learn.svi_learner(net, SviConfig(kl_weight=0.01, **options), tx, 60, ROOT)

    def loss(params: dict, batch: Batch, key: jax.Array) -> jax.Array:
        return -log_likelihood(net.simulator.logits(params, batch.x, key)[-1], batch.y).mean()

    return learn.map_learner(loss, net.simulator.template, net.weights.initial, tx, ROOT)


def run(rule: learn.Learner, state: object, epochs: int, start: int = 0) -> tuple[object, list[float]]:
    losses = []
    for epoch in learn.fit(rule, state, DATA, epochs=epochs, batch_size=16, root=ROOT, start=start):
        state = epoch.state
        losses += epoch.info.loss.tolist()
    return state, losses


@pytest.mark.parametrize("kind", ["map", "svi"])
def test_every_learner_learns_and_is_reproducible(kind: str) -> None:
    rule = learner(kind)
    _, first = run(rule, rule.init(), 8)
    _, again = run(rule, rule.init(), 8)
    assert first == again
    assert np.mean(first[-3:]) < np.mean(first[:3])


@pytest.mark.parametrize("kind", ["map", "svi"])
def test_going_on_is_the_same_as_never_stopping(kind: str, tmp_path: Path) -> None:
    rule = learner(kind, **({"budget_fraction": 0.5} if kind == "svi" else {}))
    whole, losses = run(rule, rule.init(), 5)
    half, first = run(rule, rule.init(), 2)
    checkpoint.save(tmp_path, 2, half)
    rest, second = run(rule, checkpoint.restore(tmp_path, 2, rule.init()), 5, start=2)
    assert losses == first + second
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(rest), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def test_points_without_a_prior_move_as_the_deterministic_twin_does() -> None:
    def cell(neurons: int) -> ALIF:
        taus = {"tau": np.full(neurons, 4.0), "tau_adp": np.full(neurons, 3.0)}
        return ALIF(**taus, learnable=("tau", "tau_adp"), threshold=0.1)

    model = mlp((4,), (8,), 2, key=ROOT, gain=4.0, cell=cell)
    template, params = split(model)
    weights = WeightPosterior(template, params, priors.point, guides.point())
    net = Bayesian(Simulator(template, 4), weights, data_size=len(X))
    assert {template.supports[name] for name in template.names} >= {"real", "positive"}

    def loss(params: dict, batch: Batch, key: jax.Array) -> jax.Array:
        return -log_likelihood(net.simulator.logits(params, batch.x, key)[-1], batch.y).mean()

    twin = learn.map_learner(loss, template, params, optax.sgd(0.5), ROOT)
    rule = learn.svi_learner(net, SviConfig(), optax.sgd(0.5 / len(X)), 60, ROOT)  # its loss is of all the data
    (one, first), (other, second) = (run(r, r.init(), 8) for r in (twin, rule))
    np.testing.assert_allclose(first, second, rtol=1e-4)
    points, found = learn.map_params(template, one), learn.svi_params(net, other)
    for name in template.names:
        moved, other_moved = points[name] - params[name], found[name] - params[name]
        assert np.abs(moved).max() > 1e-3, f"{name} has to move for this to say anything"
        np.testing.assert_allclose(other_moved, moved, rtol=0.01, atol=1e-5, err_msg=name)


def test_a_loss_that_is_not_finite_names_its_step() -> None:
    net = bayesian()

    def loss(params: dict, batch: Batch, key: jax.Array) -> jax.Array:
        return jnp.where(batch.y.sum() >= 0, jnp.nan, 0.0) + 0 * params["readout.synapse.bias"].sum()

    rule = learn.map_learner(loss, net.simulator.template, net.weights.initial, optax.sgd(0.1), ROOT)
    with pytest.raises(learn.TrainingError, match=r"got nan at step 0 .* lower optimizer.learning_rate"):
        run(rule, rule.init(), 1)


def test_the_price_of_energy_closes_gates() -> None:
    rules = [learner("svi", lam=lam) for lam in (30.0, 0.0)]
    dear, cheap = (run(rule, rule.init(), 20)[0] for rule in rules)
    net = bayesian()
    open_dear, open_cheap = (
        float(jnp.concatenate(list(net.gate_probabilities(learn.svi_params(net, s)).values())).mean())
        for s in (dear, cheap)
    )
    assert open_dear < open_cheap - 0.05


def test_dual_ascent_moves_the_price_towards_the_budget() -> None:
    rule = learner("svi", budget_fraction=0.1, lam=1.0, measure_every=1, budget_fall_fraction=0.0)
    state, _ = run(rule, rule.init(), 3)
    assert float(state.duals.log_lam) > 0.0, "above the budget the price has to rise"
    rule = learner("svi", budget_nj=1e9, lam=1.0, measure_every=1)
    state, _ = run(rule, rule.init(), 3)
    assert float(state.duals.log_lam) < 0.0, "below the budget it has to fall"


@pytest.mark.parametrize("gain", [0.0, 3.0])
def test_what_is_spent_beyond_the_budget_raises_the_price_at_once(gain: float) -> None:
    """By the gain times its log, at most one, and only as long as it is spent."""
    options = {"lam": 1.0, "measure_every": 1, "budget_fall_fraction": 0.0, "budget_rate": 0.0, "budget_gain": gain}
    batch, over = Batch(DATA.x[:16], DATA.y[:16]), []
    for fraction in (0.1, 0.5):
        rule = learner("svi", budget_fraction=fraction, **options)
        state, info = jax.jit(rule.step)(rule.init(), batch)
        over.append(float(state.duals.over))
        np.testing.assert_allclose(float(info.lam), math.exp(gain * over[-1]), rtol=1e-5)
    assert over[0] == 1.0
    assert 0.0 < over[1] < -math.log(0.5)


@pytest.mark.parametrize(
    ("updates", "options", "rate"),
    [
        (4290, {"decide_fraction": 0.5, "measure_every": 20}, 25 * 20 / 2145),
        (4290, {"decide_fraction": 0.4, "ungated_fraction": 0.2, "measure_every": 20}, 25 * 20 / 1716),
        (60, {}, 0.5),
        (100_000, {}, 0.1),
        (60, {"budget_rate": 0.0}, 0.0),
        (60, {"budget_rate": 0.7}, 0.7),
    ],
)
def test_prices_go_as_far_in_a_short_run_as_in_a_long_one(updates: int, options: dict, rate: float) -> None:
    config = SviConfig(budget_fraction=0.5, **options)
    np.testing.assert_allclose(Pricing(bayesian(), config, updates).rate, rate, rtol=1e-6)


def test_a_budget_is_free_as_long_as_every_site_runs() -> None:
    options = {"lam": 1.0, "measure_every": 1, "budget_fall_fraction": 0.0, "ungated_fraction": 0.5}
    rule = learner("svi", budget_fraction=0.1, **options)
    state, _ = run(rule, rule.init(), 3)
    assert float(state.duals.over) == 0.0
    assert float(state.duals.log_lam) == 0.0


def test_a_share_of_the_energy_is_of_the_network_with_every_gate_open() -> None:
    net, config = bayesian(), SviConfig(budget_fraction=0.5, measure_every=1, memory=0.0, budget_fall_fraction=0.0)
    rule, batch = learn.svi_learner(net, config, optax.sgd(0.0), 60, ROOT), Batch(DATA.x[:16], DATA.y[:16])
    state, step = rule.init(), jax.jit(rule.step)
    _, open_ = step(state, batch)
    count, (params, opt_state) = state.svi.optim_state
    shut = net.gates.decide(params, jnp.zeros(net.gates.sites.total, bool))
    state = state._replace(svi=state.svi._replace(optim_state=(count, (shut, opt_state))))
    state, closed = step(state, batch)
    assert float(closed.energy_nj) < 0.2 * float(open_.energy_nj), "only outputs run any more"
    everything, _ = net.measure(learn.svi_params(net, state), batch.x, rng.stream(ROOT, "noise", 0), gated=False)
    whole = float(net.energy.expected({}, everything).total(4.0))
    np.testing.assert_allclose([float(closed.budget_nj), float(open_.budget_nj)], 0.5 * whole, rtol=1e-5)


def test_every_group_has_its_own_price() -> None:
    config = {"budget_sites": {"input": 4, "hidden0": 1}, "measure_every": 1, "budget_fall_fraction": 0.0}
    rule = learner("svi", **config)
    state, _ = run(rule, rule.init(), 3)  # all inputs may stay, and all neurons but one have to go
    log_input, log_hidden = (float(state.duals.log_sites[group]) for group in ("input", "hidden0"))
    assert log_input <= 0.0 < log_hidden


@pytest.mark.parametrize("family", ["hard_concrete", "magnitude"])
def test_a_budget_of_sites_is_kept_to_the_site_and_decided_gates_stand_still(family: str) -> None:
    config = SviConfig(
        kl_weight=0.01, budget_sites={"input": 2, "hidden0": 3}, decide_fraction=0.5, measure_every=1, budget_rate=0.5
    )
    net = bayesian()
    net = dataclasses.replace(net, gates=dataclasses.replace(net.gates, family=FAMILIES[family]))
    tx = optimizer.optimizer(OptimizerConfig(0.02), 60, decided=learn.decided_from(config, 60))
    rule = learn.svi_learner(net, config, tx, 60, ROOT)
    state, counts = rule.init(), []
    for epoch in learn.fit(rule, state, DATA, epochs=20, batch_size=16, root=ROOT):
        state = epoch.state
        gates = net.gate_probabilities(learn.svi_params(net, state))
        counts.append([int((np.asarray(p) > 0.5).sum()) for p in gates.values()])
    assert counts[-1] == [2, 3]
    assert counts[0] == [4, 8]
    assert len({tuple(c) for c in counts[10:]}) == 1
    final = np.concatenate([np.asarray(p) for p in gates.values()])
    assert (np.minimum(final, 1 - final) < 1e-6).all(), "a decided gate has no doubt left"


@pytest.mark.parametrize("budget", [{"budget_sites": {"conv0": 1, "features": 3}}, {"budget_fraction": 0.6},
                                    {"budget_sites": {"conv0": 1, "features": 3}, "budget_fraction": 0.9}])  # fmt: skip
def test_features_are_kept_where_their_channels_are(budget: dict[str, Any]) -> None:
    cell = lambda neurons: LIF(beta=0.8, noise=escape.Logistic(0.3))  # noqa: E731
    model = convnet((6, 6, 1), (3,), (4,), 3, key=ROOT, window=(3, 3), gain=4.0, cell=cell)
    template, params = split(model)
    where = sites.sites(model, gate_features=True, gate_input=False)
    data_ = Batch(jax.random.uniform(ROOT, (16, 6, 6, 1)), jnp.arange(16) % 3)
    weights, prices = WeightPosterior(template, params, priors.default(template)), profile("45nm")
    net = Bayesian(
        Simulator(template, 4), weights, GatePosterior(where), energy=EnergyPrior(where, prices), data_size=16
    )
    config = SviConfig(decide_fraction=0.5, measure_every=1, budget_rate=0.5, **budget)
    tx = optimizer.optimizer(OptimizerConfig(0.02), 20, decided=learn.decided_from(config, 20))
    rule = learn.svi_learner(net, config, tx, 20, ROOT)
    state, step = rule.init(), jax.jit(rule.step)
    for _ in range(12):
        state, info = step(state, data_)
    own = learn.svi_params(net, state)
    opened = {name: np.asarray(p) > 0.5 for name, p in net.gate_probabilities(own).items()}
    channels = np.tile(opened["conv0"], 4)
    assert opened["features"].any()
    assert not (opened["features"] & ~channels).any()
    if "budget_sites" in budget:
        assert opened["conv0"].sum() <= 1
        assert opened["features"].sum() <= 3
        assert "budget_fraction" in budget or (opened["conv0"].sum(), opened["features"].sum()) == (1, 3)
    decided = net.centre(own).gates
    assert decided is not None
    kept = sum(int((np.asarray(z) > 0).sum()) for z in decided.values())
    np.testing.assert_allclose(info.kept_fraction, kept / where.total, atol=1e-6)


def test_a_budget_of_energy_keeps_the_likeliest_sites_that_it_pays_for_and_halting_the_rest() -> None:
    config = SviConfig(kl_weight=0.01, budget_fraction=0.4, decide_fraction=0.5, measure_every=1, budget_rate=0.5)
    net = bayesian()
    tx = optimizer.optimizer(OptimizerConfig(0.02), 60, decided=learn.decided_from(config, 60))
    rule = learn.svi_learner(net, config, tx, 60, ROOT)
    state, step = rule.init(), jax.jit(rule.step)
    for _ in range(31):  # the last of them decides
        before, likely = state, net.gate_probabilities(learn.svi_params(net, state))
        state, _ = step(state, Batch(DATA.x[:16], DATA.y[:16]))
    kept = net.gate_probabilities(learn.svi_params(net, state))
    flat, p = (np.concatenate([np.asarray(a) for a in groups.values()]) for groups in (kept, likely))
    kept_sites, closed = flat > 0.5, flat <= 0.5
    assert 1 <= kept_sites.sum() < len(flat)
    assert p[kept_sites].min() >= p[closed].max(), "the likeliest sites are kept"

    def spent(sites: np.ndarray) -> float:
        opened = net.gates.sites.unflatten(jnp.asarray(sites, jnp.float32))
        return float(net.energy.expected(opened, before.events).total(before.mean_steps))

    full = float(net.energy.expected({}, before.whole_events).total(4.0))
    one_more = kept_sites.copy()
    one_more[np.flatnonzero(closed)[np.argmax(p[closed])]] = True
    assert spent(kept_sites) <= 0.4 * full * 1.0001 or kept_sites.sum() == 1
    assert spent(one_more) > 0.4 * full * 0.9999


def test_a_budget_that_is_too_small_leaves_one_site_of_each_group() -> None:
    """The likeliest: without one, what reads the group would have nothing to read, and what it reads would be paid."""
    config = SviConfig(kl_weight=0.01, budget_nj=1e-9, decide_fraction=0.9, measure_every=1)
    net = bayesian()
    rule = learn.svi_learner(net, config, optax.sgd(1e-3), 20, ROOT)
    state, step = rule.init(), jax.jit(rule.step)
    for _ in range(3):  # the last of them decides
        likely = net.gate_probabilities(learn.svi_params(net, state))
        state, _ = step(state, Batch(DATA.x[:16], DATA.y[:16]))
    kept = net.gate_probabilities(learn.svi_params(net, state))
    assert kept.keys() == {"input", "hidden0"}
    for group, p in kept.items():
        assert (p > 0.5).sum() == 1
        assert likely[group][int(p.argmax())] == likely[group].max()


def test_halting_without_gates_pays_for_all_sites_at_the_steps_that_it_runs() -> None:
    net, lam = dataclasses.replace(bayesian(), gates=None), 2.0
    rule = learn.svi_learner(net, SviConfig(kl_weight=0.0, lam=lam), optax.sgd(0.0), 60, ROOT)
    free = learn.svi_learner(net, SviConfig(kl_weight=0.0), optax.sgd(0.0), 60, ROOT)
    batch = Batch(DATA.x[:16], DATA.y[:16])
    state, info = jax.jit(rule.step)(rule.init(), batch)
    _, unpriced = jax.jit(free.step)(free.init(), batch)
    params = learn.svi_params(net, state)
    assert not any(name.startswith("gates.") for name in params)
    assert net.gate_probabilities(params) == net.running_probabilities(params) == {}
    assert float(info.kept_fraction) == 1.0
    spent = net.energy.expected({}, state.events).total(state.mean_steps)
    np.testing.assert_allclose(info.energy_nj, spent, rtol=1e-6)
    np.testing.assert_allclose(info.loss - unpriced.loss, lam * spent, rtol=0.1)  # of other spikes
    early = learn.svi_learner(net, SviConfig(lam=50.0), optimizer.optimizer(OptimizerConfig(0.05), 60), 60, ROOT)
    last, _ = run(early, early.init(), 20)
    assert float(last.mean_steps) < float(state.mean_steps) - 0.2


def test_a_budget_names_groups_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"\(input: 4, hidden0: 8\), got hidden1: 3"):
        learner("svi", budget_sites={"hidden1": 3})


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        (OptimizerConfig, {"warmup_fraction": 1.0}, "in \\[0, 1\\), got 1.0"),
        (SviConfig, {"particles": 0}, "particles must be at least 1, got 0"),
        (SviConfig, {"budget_nj": 1.0, "budget_fraction": 0.5}, "got both"),
        (SviConfig, {"budget_fraction": 1.5}, "got 1.5"),
        (SviConfig, {"lam": -2.0}, "svi.lam must not be negative, or -1 for automatic, got -2.0"),
        (SviConfig, {"measure_every": 0}, "measure_every must be at least 1"),
    ],
)
def test_bad_values_get_a_sentence(config, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)
