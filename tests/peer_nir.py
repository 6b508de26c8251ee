"""Spikes of a NIR file in another framework, by that framework's own importer; run by test_nir.py in its interpreter.

Usage: python peer_nir.py FRAMEWORK NET.nir INPUT.npz OUTPUT.npz, inputs ``xs`` [time, example, ...] channels-first.
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


def run(network, x):
    state, outs = None, []
    for step in x:
        given = network(step) if state is None else network(step, state)
        out, state = given if isinstance(given, tuple) else (given, None)
        outs.append(out.detach().numpy())
    return np.stack(outs)


def main(framework, path, inputs, output):
    graph = nir.read(path)
    xs = torch.from_numpy(np.load(inputs)["xs"])
    with torch.no_grad():
        spikes = np.stack(list(globals()[framework](graph, xs)), 1)
    np.savez(output, spikes=spikes)


if __name__ == "__main__":
    main(*sys.argv[1:])
