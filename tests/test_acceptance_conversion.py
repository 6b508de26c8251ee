"""What the studies of conversion claim, run again on the published sets; runs that are finished are not repeated."""

import os
from pathlib import Path

import pytest

from dsnn.run import job, schema

pytestmark = pytest.mark.slow
ROOT = os.environ.get("DSNN_ACCEPTANCE", "")


def metrics_of(name: str, folder: Path) -> dict[str, float]:
    """Runs an experiment as it is configured; DSNN_ACCEPTANCE names a folder that keeps the runs."""
    directory = Path(ROOT or folder) / name
    config = schema.compose([f"experiment={name}", f"run.dir={directory}", "track.tool=none", "run.report=false"])
    return job.run(config)[1]  # type: ignore[return-value]


@pytest.mark.data("20newsgroups")
def test_newsgroups(tmp_path: Path) -> None:
    found = metrics_of("address_newsgroups", tmp_path)
    assert found["deep/accuracy"] >= 0.66
    assert found["stochastic/points_from_deep"] >= -1.5
    assert found["stochastic/share_of_macs"] <= 1 / 20


@pytest.mark.data("mnist")
def test_a_converted_network_made_bayesian(tmp_path: Path) -> None:
    found = metrics_of("convert_bayes", tmp_path)
    assert found["test/nll"] < found["converted/nll"]
    assert found["test/ece"] < found["converted/ece"]
    assert found["test/accuracy"] >= found["converted/accuracy"]
    assert found["compute/steps_mean"] < found["compute/steps_total"]


@pytest.mark.data("mnist")
def test_mnist_on_address_events(tmp_path: Path) -> None:
    found = metrics_of("address_mnist", tmp_path)
    assert found["stochastic/points_from_deep"] >= -0.5
    assert found["conversion/45nm/synapses/deep_over_stochastic"] >= 38


@pytest.mark.data("mnist")
def test_quantised_activations_are_followed_by_neurons_that_may_take_a_spike_back(tmp_path: Path) -> None:
    found = metrics_of("qcfs_mnist", tmp_path)
    assert found["converted/accuracy_4"] >= found["deep/accuracy"] - 0.003
    assert found["converted/accuracy_8"] >= found["deep/accuracy"] - 0.001


@pytest.mark.data("mnist")
def test_a_convolutional_network_by_largest_and_other_activations(tmp_path: Path) -> None:
    found = metrics_of("convert_mnist", tmp_path)
    assert found["deep/accuracy"] >= 0.989
    assert found["converted/max+half/accuracy_50"] >= 0.977
    assert found["converted/accuracy_50"] >= 0.985
    assert found["match/correlation_least"] >= 0.99
