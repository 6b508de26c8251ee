"""NeuroBench itself, run on a network exported to it, counts what we count.

Needs an interpreter that has `neurobench` and `snntorch`: DSNN_PEERS_PYTHON=/path/to/python pytest -m peers.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from jax import lax

from dsnn.energy import NeuronRecord, SynapseRecord, count

pytestmark = pytest.mark.peers

BETA, STEPS, BATCH = 0.9, 12, 6

NEUROBENCH = """
import json, sys
import numpy as np, snntorch as snn, torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
from neurobench.models import SNNTorchModel

data = np.load(sys.argv[1])
beta = float(data["beta"])
conv = torch.nn.Conv2d(2, 3, 3, padding=int(data["pad"]))
dense = torch.nn.Linear(data["dense"].shape[0], data["dense"].shape[1])
out = torch.nn.Linear(data["out"].shape[0], data["out"].shape[1])
with torch.no_grad():
    conv.weight.copy_(torch.tensor(data["conv"]).permute(3, 2, 0, 1)); conv.bias.zero_()
    for layer, name in ((dense, "dense"), (out, "out")):
        layer.weight.copy_(torch.tensor(data[name]).T); layer.bias.zero_()
lif = lambda last=False: snn.Leaky(beta=beta, init_hidden=True, output=last, reset_mechanism="subtract")
flatten = torch.nn.Flatten()  # channels first; the dense weights were permuted to match
net = torch.nn.Sequential(conv, lif(), flatten, dense, lif(), out, lif(True))
x = torch.tensor(data["x"]).permute(1, 0, 4, 2, 3)  # [time, batch, h, w, c] to [batch, time, c, h, w]
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
metrics = [[ConnectionSparsity, ParameterCount], [ActivationSparsity, SynapticOperations]]
print("RESULT" + json.dumps(Benchmark(SNNTorchModel(net), loader, [], [], metrics).run(quiet=True)))
"""


def leaky(currents):
    """snnTorch's Leaky with reset by subtraction: the reset of a spike is applied at the next step."""
    membrane, spikes = np.zeros_like(currents[0]), []
    for current in currents:
        membrane = np.float32(BETA) * membrane + current - (membrane > 1)
        spikes.append((membrane > 1).astype(np.float32))
    return np.stack(spikes)


def network(analog, padding, seed=0):
    rng = np.random.default_rng(seed)
    side = 7 if padding == "SAME" else 5

    def pruned(*shape, scale):
        weights = (scale * rng.standard_normal(shape)).astype(np.float32)
        return weights * (rng.uniform(size=shape) < 0.7)

    weights = {
        "conv": pruned(3, 3, 2, 3, scale=0.4),
        "dense": pruned(side * side * 3, 10, scale=0.3),
        "out": pruned(10, 4, scale=0.8),
    }
    x = rng.uniform(size=(STEPS, BATCH, 7, 7, 2)).astype(np.float32)
    x = x * (x < 0.6) if analog else (x < 0.3).astype(np.float32)
    convolved = np.stack(
        [
            lax.conv_general_dilated(s, weights["conv"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
            for s in x
        ]
    )
    first = leaky(convolved)
    second = leaky(first.reshape(STEPS, BATCH, -1) @ weights["dense"])
    third = leaky(second @ weights["out"])
    return weights, x, (first, second, third), side


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("analog", [False, True])
def test_neurobench_counts_the_same_on_an_exported_network(tmp_path, analog, padding):
    python = os.environ.get("DSNN_PEERS_PYTHON")
    if not python:
        pytest.skip("name an interpreter that has neurobench and snntorch in DSNN_PEERS_PYTHON")
    weights, x, spikes, side = network(analog, padding)
    first_channels = weights["dense"].reshape(side, side, 3, 10).transpose(2, 0, 1, 3).reshape(-1, 10)
    exported = {"x": x, "beta": BETA, "pad": int(padding == "SAME"), **weights, "dense": first_channels}
    np.savez(tmp_path / "network.npz", **exported)
    done = subprocess.run(
        [python, "-c", NEUROBENCH, str(tmp_path / "network.npz")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.split("RESULT")[1])

    def events(values):
        return (values != 0).sum(axis=0).mean(axis=0)

    layers = [(x, "conv"), (spikes[0].reshape(STEPS, BATCH, -1), "dense"), (spikes[1], "out")]
    records = []
    for (inputs, name), fired in zip(layers, spikes, strict=True):
        conv = (
            {"strides": (1, 1), "padding": padding, "source": "analog" if analog else "spikes"}
            if name == "conv"
            else {}
        )
        shapes = (inputs.shape[2:], fired.shape[2:])
        kernel = weights[name]
        records += [
            SynapseRecord(
                name, "conv" if conv else "dense", *shapes, events(inputs), STEPS,
                kernel_shape=kernel.shape, connected=kernel != 0, bias=True, **conv,
            ),
            NeuronRecord(name, "LIF", fired.shape[2:], updates=STEPS, spikes=events(fired)),
        ]  # fmt: skip
    ours = count(records)
    assert ours.total.spikes > 10
    assert theirs["SynapticOperations"] == pytest.approx(ours.synaptic_operations, rel=1e-9)
    assert theirs["ActivationSparsity"] == pytest.approx(ours.activation_sparsity, abs=1e-9)
    assert theirs["ConnectionSparsity"] == pytest.approx(ours.connection_sparsity, abs=5e-5)  # rounded to 4 decimals
    assert theirs["ParameterCount"] == ours.total.weights + ours.total.biases
