"""The programs that take a finished run up again: rules compared, and wall time."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from dsnn import evaluate
from dsnn.config import Config, DataConfig, HaltingConfig, ModelConfig, RunConfig, TrackConfig, TrainConfig
from dsnn.deploy.decided import deploy, running
from dsnn.run import exit_rule, exits, job, measured_speed, schema
from dsnn.run.finished import finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"examples": 400, "steps": 6, "channels": 6}
    config = Config(
        data=DataConfig("planted-difficulty", val_fraction=0.5, options=options),
        model=ModelConfig(hidden=[8]),
        train=TrainConfig(epochs=1, encoding="temporal"),
        halting=HaltingConfig(feature="learned", fit="held_out", price=0.01, risk=0.2),
        run=RunConfig(dir=str(tmp_path_factory.mktemp("exits") / "run"), report=False),
        track=TrackConfig(tool="none"),
    )
    return job.run(config)[0]


@pytest.mark.slow
def test_a_finished_run_is_taken_up_as_it_stood(run: Path) -> None:
    again = finished(run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert again.settled.threshold == metrics["halting/threshold"]
    assert measured_speed.sizes(again)["steps_mean"] == pytest.approx(metrics["deployed/steps_mean"], abs=0.02)


@pytest.mark.slow
def test_rules_are_compared_on_a_finished_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "PRICES", np.array([1e-3, 1e-2, 1.0]))
    monkeypatch.setattr(exits, "RISKS", (0.2,))
    assert exits.main([f"run={run}", f"json={tmp_path}/x.json", f"figure={tmp_path}/x.png", "splits=2"]) == 0
    (table,) = json.loads((tmp_path / "x.json").read_text())
    assert {"variational", "variational_price", "dt_snn", "seenn", "fixed"} == table["curves"].keys()
    steps = np.array(table["lambda_curve"])[:, 0]
    assert steps[-1] <= steps[0], "dearer steps are fewer"
    assert all(row["broken"] <= 2 for row in table["certified"])
    assert len(table["spearman"]) == len(exits.PRICES)
    said = capsys.readouterr().out
    assert "DT-SNN" in said
    for block in said.split("\n\n"):
        lines = [line for line in block.strip().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, "the rows of a table are as wide as its header"


@pytest.mark.slow
def test_wall_time_of_a_finished_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_speed, "EXAMPLES", {1: 4, 256: 512})
    assert measured_speed.main([f"run={run}", f"json={tmp_path}/x.json", "repeats=2"]) == 0
    (table,) = json.loads((tmp_path / "x.json").read_text())
    for batch in (1, 256):
        found = table[f"batch {batch}"]
        full = min(found["us_per_example"][name] for name in measured_speed.FULL)
        assert found["times_as_fast"]["deployed"] == pytest.approx(full / found["us_per_example"]["deployed"])
    assert table["parameters_deployed"] <= table["parameters_full"]


def test_a_batch_that_the_test_part_does_not_fill_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"steps_mean": 1.0, "steps_total": 2, "parameters_deployed": 3, "parameters_full": 4}
    facts |= {"bytes_deployed": 5, "bytes_full": 6}
    monkeypatch.setattr(measured_speed, "programs", lambda run: {})
    monkeypatch.setattr(measured_speed, "sizes", lambda run: facts)

    def timed(run: object, forms: object, batch: int, repeats: int) -> dict[str, float]:
        full = min(measured_speed.EXAMPLES[batch], 40 // batch * batch)
        return dict.fromkeys((*measured_speed.FULL, measured_speed.SAME, "compacted", "early", "deployed"), 1.0 / full)

    monkeypatch.setattr(measured_speed, "time_batch", timed)
    test = SimpleNamespace(x=np.zeros((40, 3)))
    small = SimpleNamespace(directory=Path("run"), setup=SimpleNamespace(split=SimpleNamespace(test=test)))
    table = measured_speed.measured(small, 1)
    assert [name for name in table if name.startswith("batch")] == ["batch 1", "batch 32"]
    rows = measured_speed.markdown([table]).splitlines()
    assert [row.split(" | ")[1] for row in rows[2:]] == ["1", "32"]


def test_what_cannot_be_meant_gets_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.main([]) == 2
    assert exits.main([f"run={tmp_path}/none"]) == 2
    assert measured_speed.main(["run=x", "batch=3"]) == 2
    said = capsys.readouterr().err
    assert "run=DIR" in said
    assert "the options are run, json, repeats, trust, got batch" in said


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_step_at_which_an_example_stops_follows_its_planted_difficulty(seed: int, tmp_path: Path) -> None:
    found = {}
    for name, overrides in {"priced": [], "free": ["svi.lam=0", "halting.price=0"]}.items():
        quiet = [f"run.dir={tmp_path}/{name}", "run.report=false", "track.tool=none"]
        config = schema.compose(["experiment=planted_difficulty", f"seed={seed}", *quiet, *overrides])
        again = finished(job.run(config)[0])
        setup, (params, threshold, _) = again.setup, again.settled
        logits = running(setup.bayesian, deploy(setup.bayesian, params), setup.split.test.x, setup.root)
        stop = evaluate.exit_steps(exit_rule.scores(setup, params, logits)["variational"], threshold)
        varied = len(set(stop.tolist())) > 1
        hard = setup.split.truth["test/difficulty"]
        found[name] = float(stats.spearmanr(stop, hard).statistic) if varied else 0.0
        right = logits.argmax(-1) == setup.split.test.y
        at_stop = np.take_along_axis(right, stop[None] - 1, 0).mean()
        print(f"seed {seed} {name}: Spearman {found[name]:.3f}, {stop.mean():.2f} steps of {len(logits)}, "
              f"accuracy {at_stop:.3f}, at all steps {right[-1].mean():.3f}", flush=True)  # fmt: skip
    assert found["priced"] >= 0.8
    assert found["free"] < 0.2
