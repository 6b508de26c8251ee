"""Spikes of a NIR file in another framework, by that framework's own importer; run by test_nir.py in its interpreter.

Usage: python peer_nir.py FRAMEWORK NET.nir INPUT.npz OUTPUT.npz, inputs ``xs`` [time, example, ...] channels-first.
With the framework ``native`` a network of SpikingJelly's own is run and written to NET.nir.
"""

import sys

import nir
import numpy as np
import torch


def snntorch(graph, xs):
    from snntorch import utils
    from snntorch.import_nir import import_from_nir

    network = import_from_nir(graph)
    for n in range(xs.shape[1]):
        utils.reset(network)
        yield run(network, xs[:, n])


def norse(graph, xs):
    from norse.torch.utils.import_nir import from_nir

    network = from_nir(graph, dt=1e-4)
    for n in range(xs.shape[1]):
        yield run(network, xs[:, n])


def spikingjelly(graph, xs):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    network = import_from_nir(graph, dt=1e-4)
    for n in range(xs.shape[1]):
        yield run(network, xs[:, n : n + 1])[:, 0]


def spyx(graph, xs):
    from spyx.nir import from_nir

    _, spikes = from_nir(graph, xs.numpy(), dt=1e-4)
    yield from np.moveaxis(np.asarray(spikes), 1, 0)


def native(path, xs):
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        layer.Linear(20, 30, bias=False),
        neuron.CUBALIFNode(c_decay=0.75, v_decay=0.875, v_threshold=1.0, v_reset=0.0),
        layer.Linear(30, 10),
        neuron.CUBALIFNode(c_decay=0.8, v_decay=0.9, v_threshold=1.0, v_reset=0.0),
    )
    for weights, gain in zip(network.parameters(), (2.0, 2.0, 0.0), strict=True):
        weights.data = torch.round(gain * weights.data * 256) / 256
    export_to_nir(network, xs[0], path, dt=1e-4)
    functional.reset_net(network)
    spikes = np.stack([network(x).numpy() for x in xs])
    yield from np.moveaxis(spikes, 1, 0)


def run(network, x):
    state, outs = None, []
    for step in x:
        given = network(step) if state is None else network(step, state)
        out, state = given if isinstance(given, tuple) else (given, None)
        outs.append(out.detach().numpy())
    return np.stack(outs)


def main(framework, path, inputs, output):
    xs = torch.from_numpy(np.load(inputs)["xs"])
    graph = path if framework == "native" else nir.read(path)
    with torch.no_grad():
        spikes = np.stack(list(globals()[framework](graph, xs)), 1)
    np.savez(output, spikes=spikes)


if __name__ == "__main__":
    main(*sys.argv[1:])
