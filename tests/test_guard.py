"""What a network is held to: linear models with known answers, and fits that are repeated only where that is due."""

import dataclasses

import numpy as np
import pytest

from dsnn import data
from dsnn.assembly.assemble import build
from dsnn.assembly.guard import Candidate, guarded, is_worse, milder, twin_of
from dsnn.assembly.linear import linear_model
from dsnn.config import Config, ModelConfig, TrainConfig
from dsnn.learn import SviConfig
from dsnn.run import baselines
from dsnn.run.loop import Member
from dsnn.tasks import Losses
from dsnn.tasks.classes import class_losses
from dsnn.tasks.numbers import number_losses


def split_of(x, y, task="classification", classes=2, held=40) -> data.Split:
    parts = [data.Arrays(x[rows], y[rows]) for rows in (slice(2 * held, None), slice(held), slice(held, 2 * held))]
    return data.Split(*parts, classes, "toy", task=task)


def test_logistic_regression_finds_a_plane_and_its_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3)).astype(np.float32)
    odds = 2 * x[:, 0] - x[:, 1]
    y = (rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(np.int32)
    found = linear_model(split_of(x, y, held=1000))
    assert found is not None
    exact = np.log1p(np.exp(-np.where(y == 1, odds, -odds)))[1000:2000].mean()
    assert found.scores["test/nll"] == pytest.approx(exact, abs=0.01)
    assert found.losses is not None
    assert found.losses.error.mean() == pytest.approx(1 - found.scores["val/accuracy"])


def test_ridge_regression_answers_in_the_unit_of_the_targets() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 2)).astype(np.float32)
    y = (1000 + 50 * x[:, :1] + 10 * rng.normal(size=(3000, 1))).astype(np.float32)
    found = linear_model(data.standardised(split_of(x, y, "regression", 1, held=1000)))
    assert found is not None
    assert found.scores["test/rmse"] == pytest.approx(10, rel=0.05)
    assert found.scores["test/r2"] == pytest.approx(1 - 100 / 2600, abs=0.01)
    assert found.scores["test/nll"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 100), abs=0.05)
    assert found.losses is not None
    assert found.losses.error.mean() == pytest.approx(100 / 2600, rel=0.1)


def test_no_linear_model_of_one_class_or_of_a_label_a_step() -> None:
    x, y = np.ones((90, 2), np.float32), np.zeros(90, np.int32)
    assert linear_model(split_of(x, y)) is None
    series = data.Split(*[data.Arrays(np.zeros((4, 5, 2), np.float32), np.zeros((4, 5), np.int32))] * 3, 2, "s", True)
    assert linear_model(series) is None


def test_a_class_without_a_training_example_has_almost_no_probability() -> None:
    x = np.arange(60, dtype=np.float32)[:, None]
    y = (x[:, 0] > 30).astype(np.int32)
    y[0] = 2  # in the selecting part alone
    found = linear_model(split_of(x, y, classes=3, held=10))
    assert found is not None
    assert np.isfinite(found.scores["val/nll"])
    assert found.scores["val/nll"] > 2


def test_losses_by_hand() -> None:
    probs = np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    found = class_losses(probs, np.array([0, 1, 1]))
    assert found.error.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.nll, [np.log(2), np.log(10), 8.0])  # the last would be infinite
    numbers = number_losses(np.array([[1.0, 3.0]]), np.array([-2.0]), np.array([[0.0, 1.0]]))
    assert numbers.error.tolist() == [2.5]
    assert numbers.nll.tolist() == [2.0]


def test_worse_is_beyond_chance() -> None:
    """Of n paired differences the mean counts against its standard error."""
    base = Losses(np.zeros(100), np.full(100, 0.1))
    few, many = np.zeros(100), np.zeros(100)
    few[:2], many[:4] = 1, 1
    # 0.02 against 0.0141 is 1.42 standard errors, 0.04 against 0.0197 is 2.03
    assert not is_worse(base._replace(error=few), base)
    assert is_worse(base._replace(error=many), base)
    assert not is_worse(base, base._replace(error=many))
    noisy = 0.13 + np.tile([0.4, -0.4], 50)  # 0.03 more on average, with a standard error of 0.04
    assert not is_worse(base._replace(nll=noisy), base)
    assert is_worse(base._replace(nll=np.full(100, 0.13)), base)


def test_a_difference_that_does_not_matter_is_no_reason() -> None:
    base = Losses(np.zeros(1000), np.full(1000, 0.1), least=0.005)
    assert not is_worse(base._replace(nll=np.full(1000, 0.119)), base)
    few, many = np.zeros(1000), np.zeros(1000)
    few[:4], many[:6] = 1, 1
    assert not is_worse(base._replace(error=few), base)  # 0.004, 2.0 standard errors
    assert is_worse(base._replace(error=many), base)
    assert class_losses(np.eye(2), np.array([0, 0])).least == 0.005
    assert number_losses(np.ones((1, 1)), np.zeros(1), np.zeros((1, 1))).least == pytest.approx(0.04)


def losses(errors: int) -> Losses:
    return Losses(np.arange(100) < errors, np.zeros(100))._replace(error=(np.arange(100) < errors).astype(float))


@pytest.mark.parametrize(
    ("errors", "kept", "fits", "still"),
    [([2], 0, 1, ()), ([10, 3], 1, 2, ()), ([10, 20, 9], 2, 3, ("linear",)), ([10, 20, 30], 0, 3, ("linear",))],
)
def test_fits_are_repeated_until_one_holds(errors, kept, fits, still) -> None:
    """A rival without errors: 2 and 3 of 100 are within chance, 9 and more are not; of those the fewest are kept."""
    asked = []

    def again(number, reasons):
        asked.append((number, tuple(reasons)))
        return Candidate(number + 1, losses(errors[number + 1]))

    found = guarded(Candidate(0, losses(errors[0])), {"linear": losses(0) if errors != [10, 3] else losses(1)}, again)
    assert (found.made, found.fits, found.worse_than) == (kept, fits, still)
    assert asked == [(number, ("linear",)) for number in range(fits - 1)]
    assert found.reasons == ("linear",) * (fits - 1)


def test_only_automatic_choices_become_milder() -> None:
    config = dataclasses.replace(Config(), train=dataclasses.replace(Config().train, epochs=10))
    chosen = {"svi.kl_weight": 0.05, "svi.lam_nats": 0.2, "train.epochs": 10.0}
    less = milder(config, chosen, 0)
    assert less is not None
    assert less.svi.kl_weight == pytest.approx(0.01)
    assert less.svi.lam_nats == pytest.approx(0.04)
    assert less.svi.gates_weight == config.svi.gates_weight  # somebody's own
    assert less.train.epochs == 15
    assert milder(config, {"train.batch_size": 8.0}, 0) is None


def test_the_twin_has_neither_gates_nor_halting() -> None:
    twin = twin_of(Config())
    assert (twin.learner, twin.gates.enabled, twin.gates.time, twin.halting.enabled) == ("map", False, False, False)
    assert (twin.model, twin.train, twin.optimizer) == (Config().model, Config().train, Config().optimizer)
    shrinking = SviConfig(budget_fraction=0.5, decide_fraction=0.5, shrink_epochs=[2])
    assert twin_of(Config(svi=shrinking)).svi.shrink_epochs == []


def test_a_fit_that_is_repeated_answers_with_its_own_selected_epoch(tmp_path, monkeypatch) -> None:
    """Two fits, each with a file of its selected epoch; the second is kept, in the directory of the first."""
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    config = Config(model=ModelConfig(hidden=[2]), svi=SviConfig(kl_weight=-1.0), train=TrainConfig(1, 8, 2))
    first = Member(build(config, split_of(x, (x[:, 0] > 0).astype(np.int32))), tmp_path)
    chosen = first.setup.automatic["svi.kl_weight"]
    asked = []

    def scored(fit, part):
        asked.append(fit.member.selected_in)
        return {}, losses(10 if len(asked) == 1 else 0)

    monkeypatch.setattr(baselines, "scored", scored)
    monkeypatch.setattr(baselines, "_learned", lambda member, what: baselines.Fit(member, "second"))
    kept, found = baselines.held_to(baselines.Fit(first, "first"), baselines.Rivals({"linear": losses(0)}, {}))
    assert (kept.state, found["guard/fits"]) == ("second", 2)
    assert asked == [None, tmp_path / "baselines" / "fit2"]
    assert (kept.member.directory, kept.member.selected_in) == (tmp_path, asked[1])
    assert kept.member.setup.automatic == {"svi.kl_weight": pytest.approx(chosen / 5)}
