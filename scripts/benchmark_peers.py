"""One worker of `benchmark`: another framework's network, in that framework's own interpreter.

``benchmark_peers.py snntorch|spikingjelly|norse|spyx SPEC``. Each uses the idiom that was fastest for it: products for
all time steps at once where the network allows, released defaults otherwise, nothing of ours. The neurons are the same
up to step order: SpikingJelly's and Norse's reset in the step of the spike, snnTorch's and Spyx's in the next, and
Spyx's also returns a spike one step after its membrane crossed.
"""

import importlib.metadata
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmark import BETA
from benchmark_images import torch_layers
from benchmark_turns import first_call, measure, peak_mb, wait_for_turn

# --- PyTorch: a network is a list of layers, a layer a function from currents or spikes [time, batch, in] to spikes


def snntorch_cell(spec: dict[str, Any], neurons: int, recurrent: Any, device: str) -> Callable:
    import snntorch
    import torch

    options = {"beta": BETA, "reset_mechanism": "subtract", "spike_grad": snntorch.surrogate.atan()}
    if recurrent is None:
        cell = snntorch.Leaky(**options).to(device)

        def run(currents: Any) -> Any:
            mem, out = cell.reset_mem(), []
            for current in currents:
                spikes, mem = cell(current, mem)
                out.append(spikes)
            return torch.stack(out)

        return run
    rcell = snntorch.RLeaky(linear_features=neurons, **options).to(device)
    rcell.recurrent.weight, rcell.recurrent.bias = recurrent, None

    def run_recurrent(currents: Any) -> Any:
        spikes, mem = rcell.init_rleaky()
        out = []
        for current in currents:
            spikes, mem = rcell(current, spikes, mem)
            out.append(spikes)
        return torch.stack(out)

    return run_recurrent


def spikingjelly_cell(spec: dict[str, Any], neurons: int, recurrent: Any, device: str) -> Callable:
    import torch
    from spikingjelly.activation_based import functional, neuron, surrogate

    mode = "m" if recurrent is None else "s"
    tau = 1.0 / (1.0 - BETA)
    cell = neuron.LIFNode(
        tau=tau, decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(), step_mode=mode
    ).to(device)

    def run(currents: Any) -> Any:
        functional.reset_net(cell)
        if recurrent is None:
            return cell(currents)
        spikes, out = torch.zeros_like(currents[0]), []
        for current in currents:
            spikes = cell(current + torch.nn.functional.linear(spikes, recurrent))
            out.append(spikes)
        return torch.stack(out)

    return run


def norse_cell(spec: dict[str, Any], neurons: int, recurrent: Any, device: str) -> Callable:
    import norse.torch as norse
    import torch
    from norse.torch.functional.reset import reset_subtract

    # v += dt tau_mem_inv (i - v): with the input scaled by 1 / (1 - beta), v = beta v + i
    inverse = torch.as_tensor((1.0 - BETA) / 1e-3, device=device)
    zero, one = torch.as_tensor(0.0, device=device), torch.as_tensor(1.0, device=device)
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=inverse, v_leak=zero, v_th=one, v_reset=zero, reset_method=reset_subtract
    )
    cell = norse.LIFBoxCell(parameters).to(device)
    scale = 1.0 / (1.0 - BETA)
    lifted = norse.Lift(cell)

    def run(currents: Any) -> Any:
        if recurrent is None:
            return lifted(scale * currents)[0]
        spikes, state, out = torch.zeros_like(currents[0]), None, []
        for current in currents:
            spikes, state = cell(scale * (current + torch.nn.functional.linear(spikes, recurrent)), state)
            out.append(spikes)
        return torch.stack(out)

    return run


TORCH_CELLS = {"snntorch": snntorch_cell, "spikingjelly": spikingjelly_cell, "norse": norse_cell}


def work_torch(peer: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Returns everything measured of a PyTorch framework."""
    import torch

    device = spec["device"]
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # as JAX does there
    data = dict(np.load(spec["data"]))
    x, y = torch.tensor(data["x"], dtype=torch.float32, device=device), torch.tensor(data["y"], device=device).long()
    depth = len(spec["sizes"]) - 1
    if spec["channels"]:
        cells = [TORCH_CELLS[peer](spec, n, None, device) for n in spec["sizes"][1:]]
        images, weights = torch_layers(spec, data, cells)
    else:
        weights = [torch.nn.Parameter(torch.tensor(data[f"w{i}"].T.copy(), device=device)) for i in range(depth)]
    recurrent = [
        torch.nn.Parameter(torch.tensor(data[f"r{i}"].T.copy(), device=device)) if f"r{i}" in data else None
        for i in range(depth)
    ]
    parameters = [*weights, *(r for r in recurrent if r is not None)]
    if not spec["channels"]:
        cells = [TORCH_CELLS[peer](spec, spec["sizes"][i + 1], recurrent[i], device) for i in range(depth)]
    updates = spec["objective"] != "sum"
    adam = torch.optim.Adam(parameters, lr=1e-3)
    half = torch.autocast(device, torch.bfloat16, enabled=spec["dtype"] == "bfloat16")

    def layers() -> list[Any]:
        if spec["channels"]:
            return images()
        signal, out = x, []
        for weight, cell in zip(weights, cells, strict=True):
            with half:
                currents = torch.nn.functional.linear(signal, weight)
            signal = cell(currents.float())
            out.append(signal)
        return out

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def infer() -> None:
        with torch.no_grad():
            layers()
        wait()

    def train() -> None:
        adam.zero_grad()
        out = layers()[-1]
        loss = torch.nn.functional.cross_entropy(out.sum(0), y) if updates else out.sum()
        loss.backward()
        if updates:
            adam.step()
        wait()

    with torch.no_grad():
        spike_rates = [float(layer.mean()) for layer in layers()]
    before = peak_mb()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = first_call(train)
    measured = measure({"forward": infer, "step": train}, spec["repeats"], turn=wait_for_turn)
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak_mb() - before
    return _record(peer, first, measured, peak, spike_rates)


# --- Spyx


def work_spyx(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns everything measured of Spyx: its Sequential under its own run, in one jitted step on split state."""
    import jax
    import jax.numpy as jnp
    import optax
    import spyx
    from flax import nnx

    data = dict(np.load(spec["data"]))
    x, y = jnp.asarray(data["x"], jnp.float32), jnp.asarray(data["y"])
    rngs = nnx.Rngs(0)
    blocks: list[Any] = []
    dtype = jnp.dtype(spec["dtype"])
    for i, (n_in, n_out) in enumerate(itertools.pairwise(spec["sizes"])):
        linear = nnx.Linear(n_in, n_out, use_bias=False, dtype=dtype, rngs=rngs)
        linear.kernel[...] = jnp.asarray(data[f"w{i}"])
        options = {"beta": BETA, "activation": spyx.axn.arctan(), "rngs": rngs}
        cell = (spyx.nn.RLIF if f"r{i}" in data else spyx.nn.LIF)((n_out,), **options)
        if f"r{i}" in data:
            cell.recurrent_w[...] = jnp.asarray(data[f"r{i}"])
        blocks += [linear, cell]
    model = spyx.nn.Sequential(*blocks)
    graph, weights, rest = nnx.split(model, lambda path, value: path[-1] in {"kernel", "recurrent_w"}, ...)
    updates = spec["objective"] != "sum"
    adam = optax.adam(1e-3)

    @jax.jit
    def forward(weights: Any, x: Any) -> Any:
        return spyx.nn.run(nnx.merge(graph, weights, rest), x)[0]

    def loss(weights: Any, x: Any, y: Any) -> Any:
        out = forward(weights, x)
        return optax.softmax_cross_entropy_with_integer_labels(out.sum(0), y).mean() if updates else out.sum()

    def step(state: Any, x: Any, y: Any) -> Any:
        weights, opt_state = state
        grads = jax.grad(loss)(weights, x, y)
        if not updates:
            return grads
        changes, opt_state = adam.update(grads, opt_state, weights)
        return optax.apply_updates(weights, changes), opt_state

    compiled = jax.jit(step, donate_argnums=(0,) if updates else ())
    box = {"state": (jax.tree.map(jnp.copy, weights), adam.init(weights) if updates else None)}

    def train() -> None:
        out = compiled(box["state"], x, y)
        if updates:
            box["state"] = out
        jax.block_until_ready(out)

    def infer() -> None:
        jax.block_until_ready(forward(weights, x))

    before = peak_mb()
    first = first_call(train) + first_call(infer)
    measured = measure({"forward": infer, "step": train}, spec["repeats"], turn=wait_for_turn)
    stats = jax.devices()[0].memory_stats()
    peak = stats["peak_bytes_in_use"] / 1e6 if stats else peak_mb() - before
    prefixes = [spyx.nn.Sequential(*blocks[: 2 * i + 2]) for i in range(len(spec["sizes"]) - 1)]
    spike_rates = [float(jnp.mean(spyx.nn.run(prefix, x)[0])) for prefix in prefixes]
    return _record("spyx", first, measured, peak, spike_rates)


def _record(peer: str, first: float, measured: dict[str, Any], peak: float, spike_rates: list[float]) -> dict[str, Any]:
    return {
        "version": importlib.metadata.version(peer),
        "compile_s": max(0.0, first - measured["step"]["median_s"]),
        "forward": measured["forward"],
        "step": measured["step"],
        "peak_mb": peak,
        "spike_rates": spike_rates,
    }


if __name__ == "__main__":
    name, specification = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(work_spyx(specification) if name == "spyx" else work_torch(name, specification)))
