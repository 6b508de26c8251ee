"""W6 of `benchmark`: its convolutions alone, and its network in other frameworks (imported by `benchmark_peers`)."""

from collections.abc import Callable
from typing import Any

import numpy as np

MANY_CHANNELS = 64


def products(spec: dict[str, Any], data: dict[str, np.ndarray]) -> list[tuple[str, list[Callable], tuple]]:
    """Returns (part, candidate forms, operands) of every convolution and matrix product of one training step.

    The first convolution sees images that are held, so it is done once; the others see all time steps.
    """
    import jax
    import jax.numpy as jnp

    def convolution(x: Any, kernel: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def product(x: Any, kernel: Any) -> Any:
        return x @ kernel

    def by_input(form: Callable) -> Callable:
        return lambda x, kernel, grad: jax.vjp(lambda x: form(x, kernel), x)[1](grad)

    def by_kernel(form: Callable) -> Callable:
        return lambda x, kernel, grad: jax.vjp(lambda kernel: form(x, kernel), kernel)[1](grad)

    rng_np = np.random.default_rng(1)
    rows, channels = spec["batch"] * spec["steps"], spec["channels"]
    side = round(spec["sizes"][0] ** 0.5)
    shapes = [(rows, side // 2, side // 2, channels), (rows, spec["sizes"][2] // 4), (rows, spec["sizes"][3])]
    signals = [jnp.asarray(data["x"])]
    signals += [jnp.asarray(rng_np.random(shape, np.float32) < 0.1, jnp.float32) for shape in shapes]
    found: list[tuple[str, list[Callable], tuple]] = []
    for i, signal in enumerate(signals):
        kernel = jnp.asarray(data[f"w{i}"])
        form = convolution if kernel.ndim == 4 else product
        grad = jax.random.normal(jax.random.key(i), jax.eval_shape(form, signal, kernel).shape)
        found.append(("forward", [form], (signal, kernel)))
        if i:
            found.append(("backward", [by_input(form)], (signal, kernel, grad)))
        found.append(("backward", [by_kernel(form)], (signal, kernel, grad)))
    return found


def torch_layers(spec: dict[str, Any], data: dict[str, np.ndarray], cells: list[Callable]) -> tuple[Any, list[Any]]:
    """Returns a function that gives the spikes of all layers, and its weights, of a PyTorch framework.

    Images are held, so the first convolution is done once and its currents are repeated; all else sees time folded
    into the batch, as the frameworks' containers do it.

    Args:
        spec: the workload.
        data: its arrays.
        cells: of each layer, functions from currents ``[time, batch, ...]`` to spikes.
    """
    import torch
    from torch.nn import functional

    steps, channels = spec["steps"], spec["channels"]
    # the faster layout of the two on CPUs: of few channels the first, of many the last
    layout = torch.contiguous_format if channels < MANY_CHANNELS else torch.channels_last
    x = torch.tensor(data["x"]).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    last = round((spec["sizes"][2] // 4 // channels) ** 0.5)
    # channels come first here, also where a dense layer reads what was pooled
    dense = data["w2"].reshape(last, last, channels, -1).transpose(3, 2, 0, 1).reshape(data["w2"].shape[1], -1)
    arrays = [data["w0"].transpose(3, 2, 0, 1), data["w1"].transpose(3, 2, 0, 1), dense, data["w3"].T]
    tensors = [torch.tensor(array.copy()) for array in arrays]
    weights = [torch.nn.Parameter(t.contiguous(memory_format=layout) if t.ndim == 4 else t) for t in tensors]

    def pooled(spikes: Any) -> Any:
        return functional.max_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (steps, -1))

    def run() -> list[Any]:
        currents = functional.conv2d(x, weights[0], padding=1)
        first = cells[0](currents.unsqueeze(0).expand(steps, *currents.shape))
        signal = pooled(first)
        second = cells[1](functional.conv2d(signal.flatten(0, 1), weights[1], padding=1).unflatten(0, (steps, -1)))
        third = cells[2](functional.linear(pooled(second).flatten(2), weights[2]))
        return [first, second, third, cells[3](functional.linear(third, weights[3]))]

    return run, weights
