"""Rules that update within a sequence, against updates written out step by step."""

import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsnn import data, parameters, rng
from dsnn.assembly import assemble
from dsnn.assembly.loading import check_trainable, load_data
from dsnn.assembly.network import build_model
from dsnn.bayes.likelihood import Categorical, Stepwise
from dsnn.cells import ALIF
from dsnn.config import Config, DataConfig, ModelConfig, TrainConfig
from dsnn.learn import Batch, map_params, natural, online, optimizer
from dsnn.learn.gradients import FPTT
from dsnn.networks.stack import mlp
from dsnn.run import schema
from dsnn.simulate.simulator import Simulator

ROOT = rng.root(0)
X = 2 * jax.random.normal(jax.random.key(4), (5, 13, 4))
RATE = 0.05


def forward(readout: str) -> tuple[Simulator, parameters.Params]:
    def cell(neurons: int) -> ALIF:
        return ALIF(tau=6.0, tau_adp=20.0, threshold=0.1, strength=0.5, learnable=("tau",), shape=(neurons,))

    model = mlp((4,), (6, 5), 3, key=jax.random.key(1), cell=cell, recurrent=(True, False), readout=readout, gain=2.0)
    template, params = parameters.split(model)
    return Simulator(template, 13, "temporal"), params


@pytest.mark.parametrize("readout", ["sum", "mean", "last"])
@pytest.mark.parametrize("labels", ["one", "every step"])
def test_truncated_updates_by_hand(readout: str, labels: str) -> None:
    """Windows of 5, 5 and 3 steps: the loss so far, its gradient within the window, one step of plain descent."""
    run, params = forward(readout)
    y = jax.random.randint(jax.random.key(5), (5,) if labels == "one" else (5, 13), 0, 3)
    likelihood = Categorical() if labels == "one" else Stepwise()
    learner = online.tbptt_learner(run, params, likelihood, optax.sgd(RATE), 5, ROOT)
    state, info = learner.step(learner.init(), Batch(X, y))
    assert state.step == 3

    raw = learner.init().params
    neurons, so_far, values = run.template.build(params).init((5,)), jnp.zeros((5, 3)), []
    for start in (0, 5, 10):

        def loss(raw: Any, neurons: Any, so_far: Any, start: int = start) -> Any:
            model = run.template.build(natural(run.template, raw))
            total = 0.0
            steps = range(start, min(start + 5, 13))
            for t in steps:
                neurons, out = model.step(neurons, X[:, t])
                so_far = out if readout == "last" else so_far + out
                if labels != "one":
                    total -= jnp.take_along_axis(jax.nn.log_softmax(out), y[:, t, None], 1).mean()
            if labels == "one":
                logits = so_far / (t + 1) if readout == "mean" else so_far
                total = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()
            return total, (neurons, so_far)

        (value, (neurons, so_far)), slope = jax.value_and_grad(loss, has_aux=True)(raw, neurons, so_far)
        raw = {name: raw[name] - RATE * slope[name] for name in raw}
        values.append(value)
    ours = map_params(run.template, state)
    assert max(float(jnp.abs(ours[name] - params[name]).max()) for name in ours) > 1e-3
    for name, value in raw.items():
        np.testing.assert_allclose(state.params[name], value, atol=1e-5)
    np.testing.assert_allclose(info.loss, values[-1] if labels == "one" else np.sum(values), rtol=1e-5)


@pytest.mark.parametrize("rule", ["tbptt", "fptt"])
def test_steps_that_are_skipped_teach_nothing(rule: str) -> None:
    run, params = forward("last")
    y = jax.random.randint(jax.random.key(5), (5, 13), 0, 3)

    def after(skip: int, y: jax.Array) -> Any:
        common = run, params, Stepwise(skip), optax.sgd(RATE)
        learner = (
            online.tbptt_learner(*common, 5, ROOT) if rule == "tbptt" else online.fptt_learner(*common, FPTT(5), ROOT)
        )
        return learner.step(learner.init(), Batch(X, y))[0].params["readout.synapse.kernel"]

    other = y.at[:, :4].set((y[:, :4] + 1) % 3)
    np.testing.assert_array_equal(after(4, y), after(4, other))
    assert float(jnp.abs(after(0, y) - after(0, other)).max()) > 1e-4
    assert float(jnp.abs(after(0, y) - after(4, y)).max()) > 1e-4


def test_readouts_that_need_all_steps_are_refused() -> None:
    run, params = forward("max")
    with pytest.raises(ValueError, match="take the readouts sum, mean, last, got 'max'"):
        online.tbptt_learner(run, params, Categorical(), optax.sgd(0.1), 5, ROOT)
    with pytest.raises(ValueError, match=r"got model\.readout=max; set model\.readout to one of sum, mean, last"):
        Config(learner="tbptt", model=ModelConfig(readout="max"))
    with pytest.raises(ValueError, match=r"so far of every window, got train\.loss=steps"):
        Config(learner="tbptt", train=TrainConfig(loss="steps"))


def test_an_input_that_is_held_is_no_sequence() -> None:
    config = Config(learner="tbptt", data=DataConfig("two-moons"), model=ModelConfig(hidden=[4]))
    with pytest.raises(ValueError, match="learner=tbptt learns along a sequence, two-moons is held"):
        check_trainable(load_data(config), config)
    assert config.train == TrainConfig()


def test_layers_after_the_recurrent_ones_are_not_wired_to_themselves() -> None:
    config = ModelConfig(hidden=[6, 5], recurrent=True, feedforward=[4], noise="none", surrogate="atan")
    model = build_model(config, (3,), 2, jax.random.key(0))
    assert model.names == ("hidden0", "hidden1", "hidden2", "readout")
    assert [getattr(model, name).recurrent is not None for name in model.names] == [True, True, False, False]
    with pytest.raises(ValueError, match=r"for an mlp, got model\.architecture=conv"):
        ModelConfig(architecture="conv", feedforward=[4])


def in_pytorch(
    folder: Path, params: parameters.Params, xs: np.ndarray, ys: np.ndarray, window: int, rate: float
) -> Any:
    """Yin et al. 2021 written down a second time, in another framework: its losses, right answers and parameters."""
    python = os.environ.get("DSNN_PEERS_PYTHON")
    if not python:
        pytest.skip("needs an interpreter that has PyTorch in DSNN_PEERS_PYTHON")
    request, answer = folder / "request.npz", folder / "answer.npz"
    own = {name: np.asarray(value) for name, value in params.items()}
    np.savez(request, xs=xs.astype(np.uint8), ys=ys, window=window, rate=rate, **own)
    subprocess.run([python, str(Path(__file__).with_name("peer_sequence.py")), request, answer], check=True)
    return np.load(answer)


@pytest.mark.peers
def test_the_published_recipe_in_pytorch_makes_the_same_updates(tmp_path: Path) -> None:
    overrides = ["experiment=psmnist_alif", "data=two-moons", "train.encoding=temporal", "model.hidden=[7,6]"]
    config = schema.compose([*overrides, "model.feedforward=[5]", "train.epochs=1"])
    model = build_model(config.model, (4,), 3, jax.random.key(2))
    template, params = parameters.split(model)
    rng_ = np.random.default_rng(0)
    xs, ys = rng_.random((6, 50, 30, 4)) < 0.4, rng_.integers(0, 3, (6, 30))
    theirs = in_pytorch(tmp_path, params, xs, ys, 20, config.optimizer.learning_rate)

    tx = optimizer.optimizer(config.optimizer, 18, epochs=1)
    learner = online.tbptt_learner(Simulator(template, 50, "temporal"), params, Categorical(), tx, 20, ROOT)
    state, losses = learner.init(), []
    for x, y in zip(xs, ys, strict=True):
        state, info = learner.step(state, Batch(jnp.asarray(x, jnp.float32).swapaxes(0, 1), jnp.asarray(y)))
        losses.append(float(info.loss))
    np.testing.assert_allclose(losses, theirs["losses"], atol=1e-4)
    for name, value in map_params(template, state).items():
        assert float(jnp.abs(value - params[name]).max()) > 1e-3, name
        np.testing.assert_allclose(value, theirs[name], atol=2e-4, rtol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.xfail(strict=False, reason="three of eight blocks differ by 7 to 13 %, as two runs of one framework do")
def test_the_first_epoch_of_permuted_mnist_agrees_with_the_recipe_in_pytorch(tmp_path: Path) -> None:
    """Over an hour. The same start and the same batches, within 5 % in each eighth of the epoch. Printed beside: how
    far two runs of ours come apart, one of which starts a millionth beside the other.
    """
    try:
        setup = assemble.build(schema.compose(["experiment=psmnist_alif"]))
    except data.DataError:
        pytest.skip("needs MNIST, in DSNN_DATA or downloaded before")
    config, part = setup.config, setup.split.train
    order = np.asarray(data.epoch_permutation(rng.stream(setup.root, "data", 0), len(part.x), config.train.batch_size))
    encode = jax.jit(lambda x: setup.bayesian.simulator.encode(x, None))
    xs = np.stack([np.asarray(encode(jnp.asarray(part.x[index]))) > 0 for index in order])
    params, window, rate = setup.bayesian.weights.initial, config.tbptt.window, config.optimizer.learning_rate
    theirs = in_pytorch(tmp_path, params, xs, np.asarray(part.y)[order], window, rate)["losses"]

    def epoch(start: parameters.Params) -> list[float]:
        learner = assemble.build(config, setup.split, start).learner
        step, state, losses = jax.jit(learner.step), learner.init(), []
        for index in order:
            state, info = step(state, Batch(jnp.asarray(part.x[index]), jnp.asarray(part.y[index])))
            losses.append(float(info.loss))
        return losses

    ours = epoch(params)
    beside = epoch({name: v * (1 + 1e-6 * jax.random.normal(ROOT, v.shape)) for name, v in params.items()})
    runs = [np.array([np.mean(part) for part in np.array_split(np.asarray(run), 8)]) for run in (ours, beside, theirs)]
    print(*(" ".join(f"{value:.3f}" for value in row) for row in runs), sep="\n")
    np.testing.assert_allclose(ours[:3], theirs[:3], rtol=2e-2)
    np.testing.assert_allclose(runs[0], runs[2], rtol=0.05)
