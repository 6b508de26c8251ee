"""What every test shares: a quiet, offline process, the data marker, and the tracer-leak check."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two test processes share one GPU

import jax
import pytest

ADDRESSES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "kmnist": "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "qtdb": "https://raw.githubusercontent.com/byin-cwi/Efficient-spiking-networks/main/data/",
    "fsdd": "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",
    "nmnist-small": "https://github.com/bamsumit/slayerPytorch (example/NMNISTsmall)",
    "20newsgroups": "https://ndownloader.figshare.com/files/5975967",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--leaks", action="store_true", help="run every test under jax.checking_leaks (slow)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked data(name, ...) whose files are absent, and says where they are to be had."""
    for mark in item.iter_markers("data"):
        for name in mark.args:
            root = os.environ.get("DSNN_DATA", "")
            if not root or not (Path(root) / name).is_dir():
                pytest.skip(f"needs {name} under DSNN_DATA={root or '(unset)'}; the files are at {ADDRESSES[name]}")


@pytest.fixture(autouse=True)
def _check_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getoption("--leaks"):
        yield
        return
    with jax.checking_leaks():
        yield


@pytest.fixture
def checking_leaks() -> Iterator[None]:
    """Holds one test to leaving no tracer behind."""
    with jax.checking_leaks():
        yield
