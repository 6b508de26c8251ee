"""A run that converts: its metrics, its going on as a Bayesian one, and that sparse rows stay sparse."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from dsnn import convert, data, rng, store
from dsnn.convert import learning
from dsnn.run import assess_conversion, job, schema

QUICK = ("track.tool=none", "run.report=false", "convert.learning_rate=0.02", "train.steps=8")


def composed(directory: Path, *overrides: str) -> object:
    return schema.compose([*QUICK, f"run.dir={directory}", *overrides])


@pytest.mark.slow
def test_address_events_are_scored_and_priced_beside_the_others(tmp_path: Path) -> None:
    config = composed(
        tmp_path / "run", "learner=convert", "model.hidden=[24]", "convert.method=percentile", "convert.epochs=8",
        "convert.draws=[48,32]", "convert.sweep=[1]", "convert.steps=[4,8]", "convert.runs=2", "convert.lam=[0.1]",
    )  # fmt: skip
    directory, metrics = job.run(config)
    assert (directory / "DONE").exists()
    assert metrics["deep/accuracy"] > 0.85
    assert metrics["stochastic/accuracy"] > metrics["deep/accuracy"] - 0.15
    assert metrics["test/accuracy"] == pytest.approx(metrics["stochastic/accuracy"], abs=0.05)
    assert metrics["deep/macs"] == 64 * 24 + 24 * 10
    assert metrics["stochastic/acs"] == pytest.approx(48 * 24 + 32 * 10, rel=1e-3)
    prefix = "conversion/45nm/synapses"
    assert metrics[f"{prefix}/deep_nj"] == pytest.approx(metrics["deep/macs"] * 4.6e-3)
    assert metrics[f"{prefix}/stochastic_nj"] == pytest.approx(metrics["stochastic/acs"] * 0.9e-3)
    ratio = metrics[f"{prefix}/deep_nj"] / metrics[f"{prefix}/stochastic_nj"]
    assert metrics[f"{prefix}/deep_over_stochastic"] == pytest.approx(ratio)
    for accounting in ("updates", "memory"):  # what conversion papers leave out costs something
        assert metrics[f"conversion/45nm/{accounting}/deep_over_stochastic"] < ratio
    assert metrics["conversion/45nm/synapses/zero_skipping_nj"] < metrics[f"{prefix}/deep_nj"]
    assert metrics["law/error95_510"] < metrics["law/error95_10"]
    assert metrics["rate/same_budget_steps"] in (4, 8)
    assert "allocated/0.1/spread/learned_accuracy" in metrics
    again = job.run(config)[1]
    assert again == metrics  # it is finished, and not run again


@pytest.mark.slow
def test_sparse_rows_give_what_dense_ones_give(tmp_path: Path) -> None:
    split = data.load("digits")

    def flat(part: data.Arrays, sparse: bool) -> data.Arrays:
        x = np.asarray(part.x[:300], np.float32).reshape(-1, 64)
        return data.Arrays(csr_array(x) if sparse else x, part.y[:300])

    config = composed(
        tmp_path / "run", "learner=convert", "model.hidden=[16]", "convert.method=max", "convert.epochs=4",
        "convert.draws=[32,16]", "convert.steps=[8]",
    )  # fmt: skip
    found = []
    for sparse in (False, True):
        parts = {name: flat(getattr(split, name), sparse) for name in ("train", "val", "test")}
        folder = tmp_path / f"sparse{sparse}"
        folder.mkdir()
        metrics, records = assess_conversion.assess(config, split._replace(**parts), folder)
        assert records["test/probs"].shape == (len(parts["test"].y), 10)
        found.append(metrics)
    dense, sparse = found
    assert sparse["deep/accuracy"] == pytest.approx(dense["deep/accuracy"], abs=0.02)
    assert sparse["stochastic/acs"] == pytest.approx(dense["stochastic/acs"], rel=0.02)
    assert sparse["rate/acs_8"] == pytest.approx(dense["rate/acs_8"], rel=0.05)


@pytest.mark.slow
def test_convolutions_are_tested_over_steps_and_layers_compared(tmp_path: Path) -> None:
    directory, metrics = job.run(
        composed(
            tmp_path / "run", "learner=convert", "model.architecture=conv", "model.channels=[6,6]", "convert.epochs=4",
            "convert.method=qcfs", "convert.steps=[2,8]", "convert.match=32", "convert.batch_size=32",
        )
    )  # fmt: skip
    assert metrics["converted/accuracy"] == metrics["converted/accuracy_8"] == metrics["test/accuracy"]
    assert metrics["match/correlation_least"] > 0.9
    assert metrics["conversion/45nm/updates/deep_over_converted"] > 0
    assert store.read_arrays(directory, "deep.npz")


@pytest.mark.slow
def test_a_converted_network_goes_on_as_a_bayesian_one(tmp_path: Path) -> None:
    config = composed(
        tmp_path / "run", "model.hidden=[24]", "model.noise=none", "convert.method=percentile", "convert.epochs=8",
        "train.epochs=2", "bayes.samples=2", "bayes.prior_scale=0.3",
    )  # fmt: skip
    directory, metrics = job.run(config)
    assert metrics["converted/accuracy"] > 0.5
    assert metrics["test/accuracy"] > metrics["converted/accuracy"] - 0.05
    assert metrics["converted/steps"] == metrics["compute/steps_total"] == 8
    saved = store.read_arrays(directory, "parameters.npz")
    assert saved["hidden0.synapse.kernel.loc"].shape == (64, 24)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("learner=convert",), "learner=convert needs a conversion"),
        (("convert.draws=[3]", "convert.method=max"), "convert.draws are for learner=convert"),
        (("convert.method=max", "population.size=2"), "got more of them"),
        (("learner=convert", "convert.method=maximum"), "convert.method must be one of"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(tmp_path: Path, overrides: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed(tmp_path, *overrides)


def test_r14_a_killed_conversion_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ("learner=convert", "convert.method=max", "model.hidden=[8]", "convert.epochs=4", "convert.steps=[4]")
    quick = (*quick, "train.checkpoint_s=0")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    metrics = job.run(composed(whole, *quick))[1]
    scored, times = learning.accuracy, iter(range(9))

    def dies(*given: Any) -> float:
        if next(times) == 2:  # in the third epoch, before its line is written
            raise KeyboardInterrupt
        return scored(*given)

    with monkeypatch.context() as patch:
        patch.setattr(learning, "accuracy", dies)
        with pytest.raises(KeyboardInterrupt):
            job.run(composed(killed, *quick))
    assert [record["step"] for record in store.read_history(killed)] == [1, 2]
    again = job.run(composed(killed, *quick))[1]
    assert (killed / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    clocks = ("time/", "carbon/")
    assert {k: v for k, v in again.items() if not k.startswith(clocks)} == {
        k: v for k, v in metrics.items() if not k.startswith(clocks)
    }


@pytest.mark.parametrize("lost", ["killed", "deleted", "cut", "history"])
def test_a_deep_network_that_has_learned_is_not_begun_anew(lost: str, tmp_path: Path, monkeypatch) -> None:
    """After its last epoch there is a checkpoint and no epoch to come, which would give the trained network."""
    quick = ("learner=convert", "convert.method=max", "model.hidden=[8]", "convert.epochs=2", "convert.steps=[4]")
    run, deep_file = tmp_path / "run", tmp_path / "run" / "deep.npz"
    wrote = store.write_arrays

    def dies(directory: Path, name: str, arrays: Any) -> Path:
        if name == "deep.npz":
            raise KeyboardInterrupt
        return wrote(directory, name, arrays)

    metrics = job.run(composed(tmp_path / "whole", *quick))[1]
    with monkeypatch.context() as patch:
        if lost == "killed":
            patch.setattr(store, "write_arrays", dies)
        with pytest.raises(KeyboardInterrupt) if lost == "killed" else contextlib.nullcontext():
            job.run(composed(run, *quick))
    if lost == "deleted":
        deep_file.unlink()
    elif lost == "cut":
        deep_file.write_bytes(deep_file.read_bytes()[:60])
    elif lost == "history":
        (run / "history.jsonl").unlink()
    again = job.run(composed(run, *quick))[1]
    assert store.read_history(run) == store.read_history(tmp_path / "whole")
    for name in ("deep/accuracy", "deep/nll", "test/accuracy", "test/nll"):
        assert again[name] == metrics[name]
    ours, theirs = store.read_arrays(run, "deep.npz"), store.read_arrays(tmp_path / "whole", "deep.npz")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_batches_larger_than_the_examples_are_one_sentence() -> None:
    arrays = data.Arrays(np.zeros((5, 4), np.float32), np.zeros(5, np.int32))
    model = convert.deep_mlp(4, (), 2, key=rng.root(0))
    with pytest.raises(ValueError, match=r"at most the 5 training examples, got 8; set convert.batch_size=5"):
        next(learning.fit_deep(model, arrays, epochs=1, batch_size=8, root=rng.root(0)))
