"""Tokens that leave early: who goes on by hand, the same in every schedule, and nothing is computed for what left."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import gate, measure, sites
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.deploy.decided import on_grid
from dsnn.energy import count
from dsnn.networks import Chain, Conv, Dense, Layer, Pool, Residual, SelfAttention, TdBN, TokenExit, tokens_left
from dsnn.networks.compact import compact
from dsnn.networks.tokens import choice, returned, taken
from dsnn.networks.whole import Whole
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, keep_spikes
from dsnn.simulate.unroll import unroll_trained

KEYS = list(jax.random.split(jax.random.key(0), 12))
STEPS, BATCH, WIDTH, SHAPE = 4, 6, 4, (2, 4, 4)
TOKENS, KEPT = 8, 4


def cell(neurons: int) -> LIF:
    return LIF(beta=0.8, threshold=0.5)


def block(shape: tuple[int, ...]) -> Chain:
    """An encoder block for as many tokens as there are."""
    attention = SelfAttention(shape, 2, key=KEYS[1], cell=cell)
    for number, layer in enumerate((attention.query, attention.key, attention.value, attention.project)):
        layer.synapse.kernel[...] = 1.5 * jax.random.normal(KEYS[4 + number], layer.synapse.kernel.shape)
    mixing = Layer(Conv((*shape[:2], WIDTH), WIDTH, key=KEYS[2], window=(1, 1), gain=2.0), cell(WIDTH))
    return Chain(attention=Residual(attention), mixing=Residual(mixing))


def exit_(share: float, *, rejoin: bool = True, **options: Any) -> TokenExit:
    return TokenExit(SHAPE, block(tokens_left(SHAPE, share)), key=KEYS[9], rejoin=rejoin, **options)


def net(share: float = 0.5, **options: Any) -> Whole:
    """A stem, blocks on some of eight tokens, and a readout of their mean."""
    made = exit_(share, **options)
    if made.score is not None:
        made.score.synapse.kernel[...] = jnp.asarray([1.0, -0.5, 0.25, 2.0]).reshape(1, 1, 4, 1)
    mean = Pool(made.out_shape, made.out_shape[:2], "mean")
    return Whole(
        Chain(
            stem=Layer(Conv((2, 4, 2), WIDTH, key=KEYS[0], gain=4.0), cell(WIDTH)),
            rest=made,
            readout=Layer(Dense(mean.out_shape, 3, key=KEYS[3], gain=9.0), LI(0.9), before=(mean,)),
        )
    )


# --- Who goes on


@pytest.mark.parametrize(("share", "kept"), [(1.0, 9), (0.5, 5), (0.34, 4), (1 / 3, 3), (0.01, 1)])
def test_so_many_tokens_go_on(share: float, kept: int) -> None:
    assert tokens_left((3, 3, 4), share) == (kept, 1, 4)


def test_the_tokens_of_the_largest_scores_go_on_in_their_order() -> None:
    scores = jnp.asarray([[0.5, 3.0, 1.0, 2.0], [1.0, 1.0, 0.0, 1.0]])
    chosen, shares = choice(scores, 2)
    assert chosen.tolist() == [[1, 3], [0, 1]], "of equal scores the first"
    np.testing.assert_allclose(shares[0], jax.nn.sigmoid(jnp.asarray([1.0, 0.0])))
    x = jax.random.normal(KEYS[0], (3, 2, 2, 2, 5))
    some = taken(x, chosen)
    back = np.array(x)
    for t, b in itertools.product(range(3), range(2)):
        for place, token in enumerate(chosen[b].tolist()):
            np.testing.assert_array_equal(some[t, b, place, 0], x[t, b, token // 2, token % 2])
            back[t, b, token // 2, token % 2] += 1
    np.testing.assert_array_equal(returned(x, chosen, some + 1), back)
    np.testing.assert_array_equal(returned(x[:1], chosen, some + 1)[0], back[0])


@pytest.mark.parametrize("rejoin", [True, False])
@pytest.mark.parametrize("score", ["learned", "random"])
def test_the_body_runs_on_what_went_on_alone(score: str, rejoin: bool) -> None:
    """By hand: scores of the first step, the body by itself on these tokens, and the others as they were."""
    made = exit_(0.5, score=score, rejoin=rejoin)
    xs = jax.random.bernoulli(KEYS[5], 0.4, (STEPS, BATCH, *SHAPE)).astype(jnp.float32)
    found, whole = np.asarray(dsnn.unroll(Whole(made), xs)[0]), np.asarray(xs).reshape(STEPS, BATCH, TOKENS, WIDTH)
    scores = whole[0].sum(-1) if score == "learned" else np.tile(made.drawn[...], (BATCH, 1))
    expected = whole.copy()
    for b in range(BATCH):
        chosen = np.sort(np.argsort(-scores[b], kind="stable")[:KEPT])
        out, _, _ = dsnn.unroll(Whole(made.body), jnp.asarray(whole[:, b : b + 1, chosen, None]))
        expected[:, b, chosen] = np.asarray(out)[:, 0, :, 0]
        if not rejoin:
            np.testing.assert_array_equal(found[:, b], np.asarray(out)[:, 0])
    if rejoin:
        np.testing.assert_array_equal(found.reshape(whole.shape), expected)
        assert (expected != whole).any()
    if score == "random":
        assert len(np.unique(scores, axis=0)) == 1
        assert exit_(0.5, score=score).score is None


@pytest.mark.parametrize("running", [None, (1.0, 1, 1, 1), (0.0, 1, 0, 1), (0.0, 0.3, 0.6, 1), (0.5, 0.25, 1, 0)])
@pytest.mark.parametrize("rejoin", [True, False])
def test_one_step_after_the_other_is_all_of_them_at_once(running: Any, rejoin: bool) -> None:
    """What is decided is what the first step that runs said, also where steps are skipped or run in part."""
    model = net(rejoin=rejoin)
    xs = jax.random.normal(KEYS[2], (STEPS, BATCH, *model.in_shape))
    running = None if running is None else jnp.asarray(running)
    for inputs, options in ((xs, {}), (xs[0], {"steps": STEPS})):
        layers, steps = (
            dsnn.unroll(model, inputs, None, None, how, running=running, **options) for how in ("layer", "step")
        )
        np.testing.assert_allclose(layers[0], steps[0], rtol=1e-5, atol=1e-5)
        for one, other in zip(jax.tree.leaves(layers[1]), jax.tree.leaves(steps[1]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        assert np.abs(layers[0]).max() > 0.1


def test_the_choice_of_the_first_step_holds_in_what_goes_on_later() -> None:
    model = net()
    xs = jax.random.normal(KEYS[2], (STEPS, BATCH, *model.in_shape))
    whole, _, _ = dsnn.unroll(model, xs)
    first, state, _ = dsnn.unroll(model, xs[:1])
    rest, _, _ = dsnn.unroll(model, xs[1:], state=state)
    np.testing.assert_allclose(jnp.concatenate([first, rest]), whole, rtol=1e-5, atol=1e-5)
    fresh, _, _ = dsnn.unroll(model, xs[1:])
    assert np.abs(fresh - rest).max() > 1e-2


def test_an_example_does_not_see_its_neighbours() -> None:
    model = net()
    xs = jax.random.normal(KEYS[2], (STEPS, BATCH, *model.in_shape))
    np.testing.assert_allclose(dsnn.unroll(model, xs[:, ::-1])[0][:, ::-1], dsnn.unroll(model, xs)[0], atol=1e-6)


# --- What it costs


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return 17.0 if kind.startswith("Hold") else {"LIF": 11.0, "LI": 13.0}[kind]


def test_tokens_that_left_cost_nothing() -> None:
    """Counted by hand over the tokens that went on; the smaller network is the masked one bit for bit."""
    model = net()
    template, params = split(model)
    where = sites(model)
    z = {name: jnp.ones(size) for name, size in where.groups.items()}
    z |= {"stem": jnp.asarray([1.0, 0, 1, 1]), "rest.body.attention.body.heads": jnp.asarray([0.0, 1])}
    assert list(where.groups) == [
        "input", "stem", "rest.body.attention.body.heads", "residual"
    ]  # fmt: skip
    params = gate(where, on_grid(params), z)
    x = jnp.round(jax.random.uniform(KEYS[8], (BATCH, 2, 4, 2)) * 12) / 4
    simulator = Simulator(template, STEPS)
    logits, inputs, spikes = simulator.run(params, x, None, keep_spikes)
    built, _ = simulator.built(params)
    events = measure(where, built, inputs, spikes, held=True)
    found = float(expected_energy(where, z, events, Prices()).total(float(STEPS)))
    sent, total = {name: np.asarray(value) for name, value in spikes.items()}, 0.0
    channel, head = np.asarray(z["stem"]), np.repeat(np.asarray(z["rest.body.attention.body.heads"]), 2)
    for b, row, column, i in itertools.product(range(BATCH), range(2), range(4), range(2)):
        windows = sum(0 <= row + r < 2 and 0 <= column + c < 4 for r in (-1, 0, 1) for c in (-1, 0, 1))
        total += 7.0 * (np.asarray(x)[b, row, column, i] != 0) * windows * channel.sum()
    inside = "rest.body.attention.body."
    assert sent[f"{inside}query"].shape == (STEPS, BATCH, KEPT, 1, WIDTH)
    total += 3.0 * ((sent["rest.score"] != 0) * channel).sum()
    total += 3.0 * ((sent[f"{inside}query"] != 0) * channel).sum() * 3 * head.sum()
    for name, meets in (("context", 2), ("mixed", 2), ("project", channel.sum())):
        total += 3.0 * ((sent[f"{inside}{name}"] != 0) * head).sum() * meets
    total += 7.0 * ((sent["rest.body.mixing.body"] != 0) * channel).sum() * channel.sum()
    total += 7.0 * ((sent["readout"].reshape(STEPS, BATCH, WIDTH) != 0) * channel).sum() * 3
    updates = 11.0 * (TOKENS * channel.sum() + KEPT * (4 * head.sum() + 2 * channel.sum())) + 17.0 * TOKENS + 39.0
    total += BATCH * STEPS * updates
    assert found == pytest.approx(total / BATCH, rel=1e-5)
    small = compact(built, z)
    answers, _, kept = Simulator(split(small)[0], STEPS).run(split(small)[1], x, None, keep_spikes)
    np.testing.assert_array_equal(answers, logits)
    assert np.abs(logits).max() > 0.1
    counted = count(records(small, x, kept, held=True, analog=True)).total
    assert counted.effective_macs * 7.0 + counted.effective_acs * 3.0 + STEPS * updates == pytest.approx(
        total / BATCH, rel=1e-5
    )


def test_fewer_tokens_are_fewer_operations() -> None:
    """The compiler counts what the program computes."""

    def operations(share: float) -> float:
        shape = (8, 8, 16)
        body = Layer(Conv((*tokens_left(shape, share)[:2], 16), 16, key=KEYS[0], window=(1, 1)), LIF(0.9))
        model = Whole(TokenExit(shape, Residual(body), key=KEYS[1]))
        template, params = split(model)

        def run(params: Any, x: Any) -> Any:
            return dsnn.unroll(template.build(params), x, schedule="layer")[0]

        compiled = jax.jit(run).lower(params, jnp.zeros((STEPS, 4, *shape))).compile()
        return float(compiled.cost_analysis()["flops"])

    assert 0.5 < operations(0.5) / operations(1.0) < 0.6


# --- Learning


def test_the_gradient_of_a_score_is_straight_through() -> None:
    """What the body adds, times the slope of the logistic function at the score over the last that went on."""
    kernel = jnp.asarray([0.5, -1.0, 0.25, 2.0])
    made = TokenExit(
        SHAPE, Residual(Layer(Conv((KEPT, 1, 4), 4, key=KEYS[1], window=(1, 1)), LI(0.0))), key=KEYS[0], rejoin=True
    )
    made.score.synapse.kernel[...] = kernel.reshape(1, 1, 4, 1)  # type: ignore[union-attr]
    template, params = split(Whole(made))
    xs = jax.random.normal(KEYS[2], (2, BATCH, *SHAPE))
    weight = jax.random.normal(KEYS[4], (2, BATCH, *SHAPE))

    def loss(params: Any) -> Any:
        return (weight * dsnn.unroll(template.build(params), xs)[0]).sum()

    found = jax.grad(loss)(params)["network.score.synapse.kernel"].reshape(4)
    added = np.asarray(dsnn.unroll(Whole(made), xs)[0] - xs).reshape(2, BATCH, TOKENS, 4)
    x, w = np.asarray(xs).reshape(2, BATCH, TOKENS, 4), np.asarray(weight).reshape(2, BATCH, TOKENS, 4)
    scores, expected = x[0] @ np.asarray(kernel), np.zeros(4)
    for b in range(BATCH):
        last = np.sort(scores[b])[-KEPT]
        for n in range(TOKENS):
            share = 1 / (1 + np.exp(last - scores[b, n]))
            expected += (w[:, b, n] * added[:, b, n]).sum() * share * (1 - share) * x[0, b, n]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("options", [{}, {"rejoin": False}, {"score": "random"}])
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    template, params = split(net(**options))
    x = jax.random.normal(KEYS[2], (16, 2, 4, 2))

    def loss(params: Any) -> Any:
        return jnp.square(Simulator(template, STEPS).logits(params, x)[-1] - 1).mean()

    for name, slope in jax.grad(loss)(params).items():
        assert np.abs(slope).max() > 0, name


def test_norms_are_of_the_tokens_that_go_on() -> None:
    """A norm behind an exit measures the tokens that reach it."""
    body = Residual(Layer(Conv((KEPT, 1, 4), 4, key=KEYS[1], window=(1, 1), bias=False), cell(4), norm=TdBN(4)))
    made = TokenExit(SHAPE, body, key=KEYS[0])
    xs = jax.random.bernoulli(KEYS[5], 0.4, (1, BATCH, *SHAPE)).astype(jnp.float32)
    _, after = unroll_trained(Whole(made), xs)
    tokens = np.asarray(xs).reshape(BATCH, TOKENS, 4)
    order = np.argsort(-tokens.sum(-1), axis=1, kind="stable")[:, :KEPT]
    went = np.take_along_axis(tokens, order[..., None], 1).reshape(-1, 4)
    raw = went @ np.asarray(body.body.synapse.kernel[...])[0, 0]
    np.testing.assert_allclose(after["network.body.body.norm.mean"], 0.1 * raw.mean(0), rtol=1e-4, atol=1e-6)


# --- Sentences


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_token_budget_out_of_range_gets_a_sentence(share: float) -> None:
    with pytest.raises(ValueError, match=rf"must be in \(0, 1\], got {share}; without any there is nothing"):
        tokens_left(SHAPE, share)


def test_what_does_not_fit_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"places of a feature map \(height, width, channel\), got \(9, 4\)"):
        tokens_left((9, 4), 0.5)
    with pytest.raises(ValueError, match=r"takes \(k, 1, 4\) with k from 1 to 8, as tokens_left says, got \(2, 4, 4\)"):
        TokenExit(SHAPE, block(SHAPE), key=KEYS[0])
    with pytest.raises(ValueError, match="score must be one of learned, random, got 'entropy'"):
        exit_(0.5, score="entropy")
    wide = Layer(Conv((KEPT, 1, 4), 6, key=KEYS[0], window=(1, 1)), cell(6))
    with pytest.raises(ValueError, match=r"a body of one shape, \(4, 1, 4\), got out_shape \(4, 1, 6\); set rejoin"):
        TokenExit(SHAPE, wide, key=KEYS[0], rejoin=True)
    alone = Layer(Conv((KEPT, 1, 4), 4, key=KEYS[0], window=(1, 1)), cell(4))
    readout = Layer(Dense(SHAPE, 2, key=KEYS[1]), LI(0.9))
    with pytest.raises(ValueError, match=r"blocks that add to what they read .* got 'inner' without; set rejoin=False"):
        sites(Whole(Chain(inner=TokenExit(SHAPE, alone, key=KEYS[0], rejoin=True), readout=readout)))
