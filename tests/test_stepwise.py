"""A class at every time step: likelihood, scores, schedules of papers, selection, and a whole run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import evaluate, store
from dsnn.bayes.likelihood import UNLABELLED, Stepwise
from dsnn.config import Config, DataConfig, ModelConfig, TrainConfig
from dsnn.learn import optimizer
from dsnn.networks import initializers
from dsnn.report import write_report
from dsnn.run import assess, job, schema
from dsnn.run.finished import finished
from dsnn.simulate.sequential_images import Scan
from dsnn.tasks import sequencer
from dsnn.tasks.steps import RISKS, THRESHOLDS
from experiments.learning_memory import working_bytes

TIME, BATCH, CLASSES = 6, 3, 4


def test_the_likelihood_of_a_sequence_is_the_sum_over_its_labelled_steps() -> None:
    outputs = jax.random.normal(jax.random.key(0), (TIME, BATCH, CLASSES))
    y = jax.random.randint(jax.random.key(1), (BATCH, TIME), 0, CLASSES).at[1, 4].set(UNLABELLED)
    log_p = np.asarray(jax.nn.log_softmax(outputs))
    expected = [sum(log_p[t, b, y[b, t]] for t in range(2, TIME) if y[b, t] >= 0) for b in range(BATCH)]
    np.testing.assert_allclose(Stepwise(skip=2).of_sequence({}, outputs, y), expected, rtol=1e-5)
    # one class per sequence, learned at every step, weighs as much as one label
    mean = Stepwise(mean=True).of_sequence({}, outputs, jnp.array([1, 0, 3]))
    np.testing.assert_allclose(mean, [log_p[:, 0, 1].mean(), log_p[:, 1, 0].mean(), log_p[:, 2, 3].mean()], rtol=1e-5)
    with pytest.raises(ValueError, match="skip must leave a step of 6, got 6"):
        Stepwise(skip=6).of_sequence({}, outputs, y)


def test_a_tolerance_in_time_forgives_a_border_that_is_near() -> None:
    labels = np.array([[0, 0, 0, 1, 1, 1, 2, 2]])
    predicted = np.array([[0, 1, 1, 1, 1, 2, 2, 0]])
    assert evaluate.tolerant_accuracy(predicted, labels, 0) == 4 / 8
    assert evaluate.tolerant_accuracy(predicted, labels, 1) == 6 / 8
    assert evaluate.tolerant_accuracy(predicted, labels, 2) == 7 / 8
    assert evaluate.tolerant_accuracy(predicted, labels, 1, labels == 2) == 1 / 2


def test_calibration_is_measured_block_by_block() -> None:
    probs = np.full((50, 8, 2), 0.5)
    probs[:, :4] = (0.9, 0.1)
    labels = np.zeros((50, 8), int)
    labels[:25, :4] = 1  # sure and half wrong in the first block, unsure and right by rule in the second
    counted = np.ones((50, 8), bool)
    counted[:, 6:] = False
    blocks = evaluate.block_calibration(probs, labels, counted, block=4)
    np.testing.assert_array_equal(blocks.first, [0, 4])
    np.testing.assert_allclose(blocks.ece, [0.4, 0.5])
    np.testing.assert_allclose(blocks.accuracy, [0.5, 1.0])


def test_rates_fall_as_papers_say_and_differ_between_groups() -> None:
    params = {"hidden0.cell.tau": jnp.ones(2), "hidden0.synapse.kernel": jnp.ones(2)}
    grads = jax.tree.map(jnp.ones_like, params)

    def moves(schedule: str, updates: int) -> dict[str, np.ndarray]:
        config = optimizer.OptimizerConfig(
            0.1, name="sgd", schedule=schedule, decay_epochs=2, factors={"*.tau": 3.0}, warmup_fraction=0.0
        )
        tx = optimizer.optimizer(config, total_steps=8, epochs=4)
        state, moved = tx.init(params), []
        for _ in range(updates):
            change, state = tx.update(grads, state, params)
            moved.append({name: -float(c[0]) for name, c in change.items()})
        return {name: np.array([one[name] for one in moved]) for name in params}

    np.testing.assert_allclose(moves("step", 8)["hidden0.synapse.kernel"], [0.1] * 4 + [0.05] * 4, rtol=1e-5)
    linear = moves("linear", 8)
    np.testing.assert_allclose(linear["hidden0.synapse.kernel"], 0.1 * np.repeat([1, 0.75, 0.5, 0.25], 2), rtol=1e-5)
    np.testing.assert_allclose(linear["hidden0.cell.tau"], 3 * linear["hidden0.synapse.kernel"], rtol=1e-5)
    both = optimizer.OptimizerConfig(0.1, name="sgd", schedule="constant", warmup_fraction=0.0,
                                    factors={"*": 5.0, "*.tau": 3.0})  # fmt: skip
    tx = optimizer.optimizer(both, total_steps=8)
    change, _ = tx.update(grads, tx.init(params), params)
    assert [float(change[name][0]) for name in params] == pytest.approx([-0.3, -0.5]), "the last pattern counts"
    config = optimizer.OptimizerConfig(factors={"*.taus": 3.0})
    with pytest.raises(ValueError, match=r"'\*.taus' matches none of hidden0.cell.tau"):
        optimizer.optimizer(config, 8).init(params)


def test_kernels_begin_as_their_names_say() -> None:
    key = jax.random.key(0)
    for name, bound in (("xavier", (6 / 40) ** 0.5), ("joint_xavier", (6 / 76) ** 0.5), ("torch", 0.5)):
        kernel = np.asarray(initializers.kernel(name, key, (4, 36), beside=36))
        assert 0.95 * bound < np.abs(kernel).max() <= bound
    back = np.asarray(initializers.kernel("orthogonal", key, (36, 36)))
    np.testing.assert_allclose(back @ back.T, np.eye(36), atol=1e-5)
    assert not np.any(initializers.kernel("zeros", key, (3, 3)))
    assert np.asarray(initializers.kernel("normal", key, (400, 400))).std() == pytest.approx(1 / 20, rel=0.02)


def test_constants_are_drawn_neuron_by_neuron() -> None:
    drawn = np.asarray(initializers.constant("tau", {"normal": [20.0, 5.0]}, jax.random.key(0), 4000))
    assert drawn.mean() == pytest.approx(20, abs=0.3)
    assert 5 <= drawn.min() < 8
    drawn = np.asarray(initializers.constant("omega", {"uniform": [3.0, 5.0]}, jax.random.key(0), 4000))
    assert 3 <= drawn.min() < 3.01 < 4.99 < drawn.max() <= 5
    assert initializers.constant("tau", 7.0, jax.random.key(0), 3) == 7.0
    with pytest.raises(ValueError, match=r"model.options.tau must be a number, .* got {'gauss': \[1, 2\]}"):
        ModelConfig(options={"tau": {"gauss": [1, 2]}})


def wave(place: Path, classes: int = 3, n: int = 40, time: int = 12) -> Path:
    """Writes sequences whose label at each step is the channel of the last spike; 0 before the first."""
    draw = np.random.default_rng(0)
    which, when = draw.integers(0, classes, (n, time)), draw.random((n, time)) < 0.5
    x = np.eye(classes, dtype=np.float32)[which] * when[..., None]
    y = np.zeros((n, time), np.int32)
    for t in range(time):
        y[:, t] = np.where(when[:, t], which[:, t], y[:, t - 1] if t else 0)
    np.savez(place, x_train=x[:20], y_train=y[:20], x_val=x[20:30], y_val=y[20:30], x_test=x[30:], y_test=y[30:])
    return place


def stepwise(tmp_path: Path, *more: str) -> Config:
    return schema.compose(
        [
            "data=npz", f"data.path={wave(tmp_path / 'wave.npz')}", "data.temporal=true", "learner=map",
            "model.hidden=[8]", "model.recurrent=true", "model.noise=none", "model.readout=last", "bayes.samples=1",
            "train.batch_size=10", "train.eval_every=1", "train.watch_test=true", "run.report=false", "track.tool=none",
            f"run.dir={tmp_path / 'run'}", "train.checkpoint_s=0", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_learns_a_label_at_every_step_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    directory, metrics = job.run(
        stepwise(tmp_path, "train.epochs=30", "optimizer.learning_rate=0.05", "train.select=accuracy")
    )
    assert metrics["test/accuracy"] > 0.5  # chance is a third, 120 steps
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    best = max(history, key=lambda record: record["val/accuracy"])
    assert metrics["selected/epoch"] == best["epoch"]
    assert metrics["val/accuracy"] == pytest.approx(best["val/accuracy"])
    assert metrics["test/accuracy"] == pytest.approx(best["test/accuracy"])
    assert metrics["test/accuracy_best_epoch"] == max(record["test/accuracy"] for record in history)
    assert metrics["test/accuracy_tolerant"] >= metrics["test/accuracy"] == metrics["test/accuracy_labelled"]
    assert 0 < metrics["firing/hidden0"] < 1
    assert metrics["energy/45nm/rival/lstm_nj"] > metrics["energy/45nm/rival/dense_nj"]
    assert store.read_arrays(directory, "records.npz")["blocks/ece"].shape == (1,)
    _calls_are_chosen_on_what_certifies_and_scored_on_test(directory, metrics)
    page = write_report(directory).read_text()
    for figure in ("step_calibration", "detection", "believed_sequence"):
        assert f'id="{figure}"' in page
    assert "Inference decided" not in page, "nothing was decided"


def _calls_are_chosen_on_what_certifies_and_scored_on_test(directory: Path, metrics: dict) -> None:
    setup, settled = finished(directory)[1:3]
    predict, key = sequencer(setup.bayesian), assess.predictive_key(setup)
    curves = {}
    for part in ("certify", "test"):
        arrays = getattr(setup.split, part)
        probs = predict(settled.params, arrays.x, key, samples=setup.config.bayes.samples).probs
        counted = setup.task.counted(setup.split, part)
        curves[part] = evaluate.detection_curve(probs, np.asarray(arrays.y), counted, THRESHOLDS)
    kept = [risk for risk in RISKS if np.isfinite(evaluate.threshold_within(curves["certify"], risk))]
    assert kept, "a risk that can be kept is needed for this to say anything"
    for risk in kept:
        at = evaluate.threshold_within(curves["certify"], risk)
        here = curves["test"].threshold == at
        assert metrics[f"test/detection/{risk:g}/threshold"] == pytest.approx(at)
        for name in ("risk", "coverage", "miss_rate", "median_delay"):
            expected, key_of = float(getattr(curves["test"], name)[here][0]), f"test/detection/{risk:g}/{name}"
            assert metrics.get(key_of, np.nan) == pytest.approx(
                expected if np.isfinite(expected) else np.nan, nan_ok=True
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["model.readout=mean"], "wave has a label at every step, each read from that step's output"),
        (["train.skip=12"], "train.skip must be below the 12 steps, got 12"),
    ],
)
def test_settings_that_a_label_at_every_step_does_not_allow(change: list[str], message: str, tmp_path: Path) -> None:
    message = message.replace("wave", "npz")
    with pytest.raises(ValueError, match=message):
        job.build(stepwise(tmp_path, *change))


def test_a_label_at_every_step_has_no_early_answer(tmp_path: Path) -> None:
    assert job.build(stepwise(tmp_path, "learner=svi")).bayesian.halting is None


def test_selection_needs_a_validation_part() -> None:
    config = Config(data=DataConfig("digits", val_fraction=0.0), train=TrainConfig(select="nll"))
    with pytest.raises(ValueError, match=r"train.select=nll needs a validation part"):
        job.build(config)


@pytest.mark.slow
def test_forward_propagation_through_time_takes_the_memory_of_its_window() -> None:
    short, long = (working_bytes(steps, window=10) for steps in (100, 400))
    assert long <= 1.05 * short  # the sequences themselves are not counted
    assert working_bytes(400) > 3 * working_bytes(100)


def test_images_become_sequences() -> None:
    x = jnp.arange(24.0).reshape(2, 3, 4, 1) / 24
    rows = Scan("rows")
    assert rows.shape((3, 4, 1)) == (3, 4)
    np.testing.assert_array_equal(rows(x)[1, 0], x[0, 1, :, 0])
    pixels = Scan("pixels", threshold=0.25, window=3)
    assert (pixels.shape((3, 4, 1)), pixels.analog) == ((12, 3), False)
    np.testing.assert_array_equal(pixels(x)[5:8, 0], [[0, 0, 1], [0, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(pixels(x)[-1, 0], [1, 0, 0])  # what comes after the last pixel is blank
    shuffled = Scan("pixels", permuted=3)(x)
    np.testing.assert_array_equal(np.sort(shuffled[:, 0, 0]), np.sort(x[0].ravel()))
    assert not np.array_equal(shuffled[:, 0, 0], x[0].ravel())
    fields = Scan("pixels", units=5)
    assert fields(x).shape == (12, 2, 5) == (fields.shape((3, 4, 1))[0], 2, fields.shape((3, 4, 1))[1])
    assert int(fields(x)[6, 0].argmax()) == 1  # a grey level of a quarter is what the second of five prefers
    with pytest.raises(ValueError, match="leaves no grey levels"):
        Scan(threshold=0.5, units=5)
