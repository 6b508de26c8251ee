"""Networks that run all time steps at once: the same numbers as by steps, and what has no step is told so."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dsnn
from dsnn.networks import Chain, Concatenate, Conv, Dense, Layer, Parallel, Pool, Residual, Stack, as_network
from dsnn.simulate.early_exit import anytime, entropy_rule

KEY = jax.random.key(3)
XS = jax.random.normal(jax.random.key(1), (4, 6, 5))
OWN = Path(__file__).parent / "own_package" / "src"


@pytest.fixture(scope="module")
def parallel():
    """The networks of a user's package."""
    sys.path.insert(0, str(OWN))
    try:
        import ownlab.parallel

        yield ownlab.parallel
    finally:
        sys.path.remove(str(OWN))


@pytest.mark.parametrize("key", [None, KEY], ids=["still", "noisy"])
@pytest.mark.parametrize("running", [None, jnp.array([1.0, 0.0, 0.5, 1.0])], ids=["all", "some"])
@pytest.mark.parametrize("held", [False, True], ids=["given", "held"])
def test_both_forms_give_the_same_numbers(parallel, key, running, held) -> None:
    model = parallel.Either((5,), 3, key=KEY)
    options = {"steps": 4} if held else {}
    xs = XS[0] if held else XS

    def run(schedule: str):
        return dsnn.unroll(model, xs, key, lambda states, sent: sent, schedule, running=running, **options)

    (ours, state, sent), (theirs, other, by_step) = run("auto"), run("step")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, other, rtol=1e-5, atol=1e-6)
    assert sent.keys() == by_step.keys()
    for name in sent:
        np.testing.assert_allclose(sent[name], by_step[name], rtol=1e-5, atol=1e-6)


def test_the_sequence_form_is_what_runs(parallel, monkeypatch) -> None:
    model = parallel.Either((5,), 3, key=KEY)

    def refuse(*_, **__):
        raise AssertionError("ran by steps")

    expected = dsnn.unroll(model, XS)[0]
    monkeypatch.setattr(parallel.Either, "step", refuse)
    np.testing.assert_array_equal(dsnn.unroll(model, XS, state=model.init(6))[0], expected)
    with pytest.raises(AssertionError, match="ran by steps"):
        dsnn.unroll(model, XS, schedule="step")


def test_parallel_neurons_see_later_steps(parallel) -> None:
    """By hand: the first membrane is a sum over all steps, which no loop could know."""
    model = parallel.Together((5,), 3, key=KEY)
    outputs = dsnn.unroll(model, XS)[0]
    products = np.einsum("tbi,in->tbn", XS, model.first[...])
    membrane = np.einsum("ts,sbn->tbn", model.over[...], products)
    np.testing.assert_allclose(outputs, (membrane > 1) @ np.asarray(model.last[...]), rtol=1e-5, atol=1e-5)
    changed = dsnn.unroll(model, XS.at[-1].add(9.0))[0]
    assert not np.array_equal(outputs[0], changed[0])


def blocks(noise=None):
    """Layers of each kind in containers of each kind: pooled, recurrent, whose membranes are read, and noisy ones."""
    k = jax.random.split(KEY, 9)

    def cell(n):
        return dsnn.cells.LIF(0.8, noise=noise)

    conv = Layer(Conv((4, 4, 1), 3, key=k[0], window=(3, 3), padding="SAME", gain=3.0), cell(3))
    inner = Residual(Layer(Dense(5, 5, key=k[1], gain=3.0), cell(5)))
    deep = Chain(
        first=Layer(Dense((2, 2, 3), 5, key=k[2], gain=3.0), cell(5), before=(Pool((4, 4, 3)),)),
        block=inner,
        last=Layer(Dense(5, 2, key=k[3], gain=3.0), cell(2), recurrent_key=k[4]),
    )
    beside = Layer(Dense((4, 4, 3), 2, key=k[5], gain=3.0), cell(2), reads="membrane", recurrent_key=k[6])
    widened = Residual(deep, shortcut=beside)
    both = Concatenate(left=widened, right=Layer(Dense((4, 4, 3), 3, key=k[7]), cell(3)))
    return Chain("mean", stem=conv, both=both, readout=Layer(Dense(5, 2, key=k[8]), dsnn.cells.LI(0.9)))


@pytest.mark.parametrize("key", [None, KEY], ids=["still", "noisy"])
@pytest.mark.parametrize("running", [None, jnp.array([1.0, 0.0, 0.5, 1.0, 1.0])], ids=["all", "some"])
@pytest.mark.parametrize("held", [False, True], ids=["given", "held"])
def test_blocks_run_layer_by_layer_as_by_steps(key, running, held) -> None:
    model = blocks(dsnn.escape.Logistic(0.2))
    xs = jax.random.uniform(KEY, (5, 6, 4, 4, 1))
    options = {"steps": 5} if held else {}
    xs = xs[0] if held else xs

    def run(schedule, record=lambda states, sent: (states, sent)):
        return dsnn.unroll(model, xs, key, record, schedule, running=running, **options)

    (ours, final, kept), (theirs, last, by_step) = run("layer"), run("step")
    assert jax.tree.structure(kept) == jax.tree.structure(by_step)
    for one, other in zip(jax.tree.leaves((ours, final, kept)), jax.tree.leaves((theirs, last, by_step)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    plain = run("auto", None)
    np.testing.assert_allclose(plain[0], ours, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(ours).max()) > 0.1


def test_the_gradients_of_blocks_are_the_same_by_layers_and_by_steps() -> None:
    model = blocks()
    graph, state = nnx.split(model)
    xs = jax.random.uniform(KEY, (5, 6, 4, 4, 1))

    def loss(state, schedule):
        return (dsnn.unroll(nnx.merge(graph, state), xs, schedule=schedule)[0] ** 2).mean()

    ours, theirs = (jax.grad(loss)(state, schedule) for schedule in ("layer", "step"))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_network_without_steps_gets_one_sentence(parallel) -> None:
    with pytest.raises(ValueError, match=r'the schedule "step" needs a network with step\(state, x, key\)'):
        dsnn.unroll(parallel.Together((5,), 3, key=KEY), XS, schedule="step")


def test_where_it_would_have_stopped_is_told_of_a_network_without_steps(parallel) -> None:
    """A rule reads the decisions in order although all of them were there at once."""
    model = as_network(parallel.Together((5,), 3, key=KEY), "it")
    rule = entropy_rule(0.6)
    decision = anytime(model, rule, 4, held=False)(XS)
    logits = model.logits(dsnn.unroll(model, XS)[0])
    for row, step in enumerate(decision.steps):
        np.testing.assert_allclose(decision.logits[row], logits[step - 1, row], rtol=1e-6)


def test_it_learns_a_posterior_and_all_its_steps_run(parallel) -> None:
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    fitted = dsnn.fit(x, y, network=parallel.Together, baseline="none", epochs=30, steps=4)
    assert "no step()" in fitted.setup.automatic["halting.enabled"]
    made = dsnn.predict(fitted, x)
    assert (made.probs.argmax(-1) == y).mean() > 0.8
    np.testing.assert_array_equal(made.steps, 4)
    assert fitted.network().network.first.shape == (5, 8)


def test_a_network_of_sequences_alone_is_saved_and_read(parallel, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    fitted = dsnn.fit(x, x[:, 0] > 0, network=parallel.Together, baseline="none", epochs=1, steps=4)
    fitted.save(tmp_path / "kept")
    again = dsnn.load(tmp_path / "kept", trust=True)
    np.testing.assert_array_equal(dsnn.predict(again, x).probs, dsnn.predict(fitted, x).probs)


def test_a_sequence_has_an_output_for_every_step(parallel, monkeypatch) -> None:
    model = parallel.Either((5,), 3, key=KEY)
    whole = parallel.Either.sequence
    cut = lambda self, *a, **o: (lambda state, out: (state, out._replace(out=out.out[:1])))(*whole(self, *a, **o))  # noqa: E731
    monkeypatch.setattr(parallel.Either, "sequence", cut)
    with pytest.raises(ValueError, match="sequence must give an output for each of the 4 time steps, got shape"):
        dsnn.unroll(model, XS)


def test_a_batch_of_none_runs_with_states_kept_now_and_then() -> None:
    model = Chain(a=Layer(Dense(3, 2, key=KEY), dsnn.cells.LIF(0.9)), o=Layer(Dense(2, 2, key=KEY), dsnn.cells.LI(0.9)))
    assert dsnn.unroll(model, jnp.zeros((4, 0, 3)), memory="sqrt", schedule="layer")[0].shape == (4, 0, 2)


@pytest.mark.parametrize("name", ["outputs", "fitting", "wiring", "a.b"])
def test_a_part_is_not_called_as_what_parts_have(name: str) -> None:
    part = Layer(Dense(3, 2, key=KEY), dsnn.cells.LIF(0.9))
    for container in (Parallel, Concatenate, Chain):
        with pytest.raises(ValueError, match=f"got '{name}'; rename it"):
            container(**{name: part, "z": Layer(Dense(3, 2, key=KEY), dsnn.cells.LIF(0.9))})


@pytest.mark.parametrize("name", ["layers", "share", "wiring", "a.b"])
def test_a_layer_is_not_called_as_what_stacks_have(name: str) -> None:
    with pytest.raises(ValueError, match=f"got '{name}'; rename it"):
        Stack("mean", **{name: Layer(Dense(3, 2, key=KEY), dsnn.cells.LIF(0.9))})
