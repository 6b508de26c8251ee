"""Membranes and spikes of other frameworks, written by their own code; run by test_presets.py in their interpreter.

Usage: python peer_traces.py REQUEST.json INPUT.npz OUTPUT.npz. The request has "cells", a list of [preset, parameters],
and "surrogates", a list of [original, parameters]; the input has xs [time, batch, neuron] and u. For each cell the
output holds "<index>/membrane" and "<index>/spikes", or "<index>/missing" with the reason, and for each surrogate its
derivative at u under the name of the original.
"""

import json
import sys
from pathlib import Path

import numpy as np


def snntorch(name, xs, parameters):
    import snntorch as snn
    import torch

    cell = getattr(snn, name)(**parameters)
    state = [torch.zeros(xs.shape[1:]) for _ in range(2 if name == "Synaptic" else 1)]
    for x in torch.from_numpy(xs):
        spikes, *state = cell(x, *state)
        yield state[-1], spikes


def spikingjelly(name, xs, parameters):
    import torch
    from spikingjelly.activation_based import neuron

    cell = getattr(neuron, name)(**parameters)
    for x in torch.from_numpy(xs):
        spikes = cell(x)
        yield cell.v, spikes


def norse(name, xs, parameters):
    import torch
    from norse.torch.functional import lif, lif_box, reset

    parameters = dict(parameters)
    dt = parameters.pop("dt", 0.001)
    if "reset_method" in parameters:
        parameters["reset_method"] = getattr(reset, "reset_" + parameters["reset_method"])
    parameters = {k: torch.as_tensor(v) if isinstance(v, float) else v for k, v in parameters.items()}
    zeros = torch.zeros(xs.shape[1:])
    v = zeros + parameters.get("v_leak", 0.0)
    if name == "LIF":
        p, step, state = lif.LIFParameters(**parameters), lif.lif_feed_forward_step, lif.LIFFeedForwardState(v, zeros)
    else:
        p, step = lif_box.LIFBoxParameters(**parameters), lif_box.lif_box_feed_forward_step
        state = lif_box.LIFBoxFeedForwardState(v)
    for x in torch.from_numpy(xs):
        spikes, state = step(x, state, p, dt)
        yield state.v, spikes


def sinabs(name, xs, parameters):
    import torch
    from sinabs import activation, layers

    parameters = dict(parameters)
    spike_fn = parameters.pop("spike_fn", "MultiSpike")
    most = parameters.pop("max_num_spikes_per_bin", None)
    spike = activation.MaxSpike(most) if spike_fn == "MaxSpike" else getattr(activation, spike_fn)
    layer = getattr(layers, name)(**parameters, spike_fn=spike, record_states=True)
    spikes = layer(torch.from_numpy(np.moveaxis(xs, 0, 1).copy()))
    yield from zip(layer.recordings["v_mem"].moveaxis(1, 0), spikes.moveaxis(1, 0), strict=True)


def spyx(name, xs, parameters):
    import spyx.nn as snn
    from flax import nnx

    shape = xs.shape[2:]
    cell = getattr(snn, name)(shape, **parameters, rngs=nnx.Rngs(0))
    state = cell.initial_state(xs.shape[1])
    for x in xs:
        spikes, state = cell(x, state)
        yield state[:, : shape[0]], spikes


def slope(framework, name, parameters, u):
    """Returns the surrogate derivative of a framework at u, by its own backward pass."""
    if framework == "spyx":
        import jax
        from spyx import axn

        return jax.vmap(jax.grad(getattr(axn, name)(**parameters)))(u)
    import torch

    x = torch.from_numpy(u).requires_grad_()
    if framework == "snntorch":
        from snntorch import surrogate

        spikes = getattr(surrogate, name)(**parameters)(x)
    elif framework == "spikingjelly":
        from spikingjelly.activation_based import surrogate

        spikes = getattr(surrogate, name)(**parameters)(x)
    elif framework == "norse":
        from norse.torch.functional.threshold import threshold

        spikes = threshold(x, name, **parameters)
    else:
        from sinabs.activation import surrogate_gradient_fn

        return getattr(surrogate_gradient_fn, name)(**parameters)(torch.from_numpy(u) + 1, 1.0)
    return torch.autograd.grad(spikes.sum(), x)[0]


def array(a):
    return np.array(a.detach().numpy() if hasattr(a, "detach") else a)


def main(request, inputs, output):
    given = json.loads(Path(request).read_text())
    archive = np.load(inputs)
    xs, found = archive["xs"], {}
    for index, (preset, parameters) in enumerate(given["cells"]):
        framework, name = preset.split(".")
        try:
            trace = [[array(a) for a in pair] for pair in globals()[framework](name, xs, parameters)]
        except ImportError as error:
            found[f"{index}/missing"] = np.array(str(error))
            continue
        found[f"{index}/membrane"] = np.stack([membrane for membrane, _ in trace])
        found[f"{index}/spikes"] = np.stack([spikes for _, spikes in trace])
    for original, parameters in given["surrogates"]:
        try:
            found[original] = array(slope(*original.split("."), parameters, archive["u"]))
        except ImportError:
            continue
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
