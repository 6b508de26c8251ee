"""A deep ensemble of finished runs: the mean of its members' predictives, and which members belong together."""

import json
from pathlib import Path

import numpy as np
import pytest

from dsnn import evaluate
from dsnn.config import (
    Config,
    DataConfig,
    GatesConfig,
    HaltingConfig,
    ModelConfig,
    RunConfig,
    TrackConfig,
    TrainConfig,
)
from dsnn.run import ensemble, job
from dsnn.run.finished import finished


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    def run(seed: int, data: DataConfig) -> Path:
        config = Config(
            seed=seed,
            learner="map",
            data=data,
            model=ModelConfig(hidden=[8]),
            gates=GatesConfig(enabled=False),
            halting=HaltingConfig(enabled=False),
            train=TrainConfig(epochs=2, steps=4),
            run=RunConfig(dir=str(tmp_path_factory.mktemp("ensemble") / "run"), report=False),
            track=TrackConfig(tool="none"),
        )
        return job.run(config)[0]

    digits = DataConfig("digits")
    return [run(0, digits), run(1, digits), run(0, DataConfig("planted-channels", options={"examples": 200}))]


@pytest.mark.slow
def test_the_ensemble_is_the_mean_of_its_members(runs: list[Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "table.json"
    assert ensemble.main([f"run={runs[0]},{runs[1]}", f"json={out}"]) == 0
    assert "| ensemble |" in capsys.readouterr().out
    table = json.loads(out.read_text())
    members = [finished(run) for run in runs[:2]]
    probs = [ensemble.test_probabilities(member) for member in members]
    labels = np.asarray(members[0].setup.split.test.y)
    assert table["ensemble"]["test/nll"] == pytest.approx(evaluate.nll((probs[0] + probs[1]) / 2, labels))
    for run, own in zip(runs[:2], probs, strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        assert evaluate.nll(own, labels) == pytest.approx(metrics["test/nll"], rel=1e-5)  # as the run itself reported
    energies = [json.loads((run / "metrics.json").read_text())["energy/45nm/snn_nj"] for run in runs[:2]]
    assert table["ensemble"]["energy/nj"] == pytest.approx(sum(energies))


def test_members_must_belong_together(runs: list[Path], capsys) -> None:
    assert ensemble.main([f"run={runs[0]}"]) == 2
    assert "two runs or more, got 1" in capsys.readouterr().err
    assert ensemble.main([f"run={runs[0]},{runs[2]}"]) == 2
    assert "one test part" in capsys.readouterr().err
