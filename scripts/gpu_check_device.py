"""One worker of `gpu_check`: the machine, the kernels against the scan, or programs on the device against the CPU.

``gpu_check_device.py machine|kernels|programs tiny|whole`` prints JSON as its last line. Tiny sizes run the kernels
operation by operation, so that a machine without a GPU can walk through.
"""

import contextlib
import json
import platform
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_turns import measure
from lowered import calls, deployed, params_of, predictive, training

import dsnn
from dsnn.assembly.assemble import build
from dsnn.cells import LIF
from dsnn.escape import Gaussian, Logistic
from dsnn.parameters import split
from dsnn.run import schema
from dsnn.simulate import fused_lif

CELLS: dict[str, Callable[[], LIF]] = {
    "deterministic, subtract": lambda: LIF(0.95),
    "deterministic, zero": lambda: LIF(0.95, reset="zero", surrogate="fast_sigmoid"),
    "logistic, subtract": lambda: LIF(0.95, noise=Logistic(0.1, learnable=("width",))),
    "logistic, surrogate": lambda: LIF(0.95, noise=Logistic(0.1), surrogate="triangle"),
    "gaussian, zero": lambda: LIF(0.95, noise=Gaussian(0.2), reset="zero", learnable=("beta", "threshold")),
}
SHAPES = {"whole": ((100, 128, 512), (25, 64, 25088), (101, 7, 33)), "tiny": ((6, 3, 11),)}
MOST_DIFFER = 1e-4
"""Share of spikes that may differ on a device, whose kernels round exponentials otherwise than its other programs."""


def machine(_: str) -> dict[str, Any]:
    """Returns what the machine is."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "capability": getattr(device, "compute_capability", ""),
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "dsnn": dsnn.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def kernels(size: str) -> dict[str, Any]:
    """Returns how far the kernels are from the scan, and the times of a gradient by both."""
    rows = [_kernel(name, make(), shape, size) for name, make in CELLS.items() for shape in SHAPES[size]]
    return {"rows": rows}


def _kernel(name: str, cell: LIF, shape: tuple[int, ...], size: str) -> dict[str, Any]:
    template, params = split(cell)
    currents = 0.3 * jax.random.normal(jax.random.key(1), shape) + 0.1
    weigh, key = jax.random.normal(jax.random.key(2), shape), jax.random.key(3)

    def run(params: Any, currents: Any, schedule: str) -> Any:
        def loss(params: Any, currents: Any) -> Any:
            spikes = dsnn.unroll(template.build(params), currents, key, schedule=schedule)[0]
            return (spikes * weigh).sum(), spikes

        return jax.grad(loss, (0, 1), has_aux=True)(params, currents)

    with fused_lif.interpreted() if size == "tiny" else contextlib.nullcontext():
        compiled = {
            way: jax.jit(run, static_argnums=2).lower(params, currents, way).compile() for way in ("layer", "fused")
        }
    (scanned, expected), (own, spikes) = (compiled[way](params, currents) for way in ("layer", "fused"))
    differ = float((spikes != expected).mean())
    # one spike that differs changes all that follows of its neuron: gradients are compared where spikes are equal
    same = (spikes == expected).all(0)
    largest = float(jnp.abs(scanned[1]).max())
    gradient = float((jnp.abs(own[1] - scanned[1]) * same).max()) / largest
    if not differ:  # what all neurons share is comparable where no spike differs
        pairs = zip(jax.tree.leaves(own[0]), jax.tree.leaves(scanned[0]), strict=True)
        shared = (float(jnp.abs(a - b).max() / jnp.maximum(jnp.abs(b).max(), 1e-12)) for a, b in pairs)
        gradient = max(gradient, *shared)
    actions = {way: lambda f=f: jax.block_until_ready(f(params, currents)) for way, f in compiled.items()}
    times = measure(actions, 3 if size == "tiny" else 20)
    scan_ms, fused_ms = (1e3 * times[way]["median_s"] for way in ("layer", "fused"))
    ok = differ <= MOST_DIFFER and gradient <= 1e-5
    described = f"{name}, {'x'.join(map(str, shape))}"
    return {
        "name": described, "differ": differ, "gradient": gradient, "scan_ms": scan_ms, "fused_ms": fused_ms, "ok": ok
    }  # fmt: skip


def programs(size: str) -> dict[str, Any]:
    """Returns how far training, prediction and the deployed network on the device are from those on the CPU."""
    overrides = ["experiment=digits", *(["model.hidden=[16]", "data.limit=128"] if size == "tiny" else [])]
    setup = build(schema.compose(overrides))
    params = params_of(setup)
    train, batch = setup.split.train, setup.config.train.batch_size
    function, (settings, *_) = training(setup)
    state = setup.learner.init()
    arrays = type(setup.split.train)(*(jnp.asarray(a[: 4 * batch]) for a in train))
    cases = {"training": (lambda *given: function(*given)[1], (setup.settings, state, arrays, jnp.asarray(0)))}
    del settings
    cases["predictive"] = predictive(setup, params, _Patch())
    cases["deployed"] = deployed(setup, params)
    return {"rows": [_program(name, *case) for name, case in cases.items()]}


def _program(name: str, function: Callable[..., Any], operands: tuple[Any, ...]) -> dict[str, Any]:
    """Returns a program's difference from what the same program without our C gives on the CPU."""
    compiled = jax.jit(function).lower(*operands)
    found = calls(compiled.as_text()) if jax.default_backend() != "cpu" else set()
    there = jax.device_get(compiled.compile()(*operands))
    with jax.default_device(jax.devices("cpu")[0]):
        exported = jax.export.export(jax.jit(lambda *given: jax.tree.leaves(function(*given))), platforms=["cpu"])
        here = jax.device_get(jax.jit(exported(*operands).call)(*jax.device_put(operands, jax.devices("cpu")[0])))
    pairs = list(zip(jax.tree.leaves(there), here, strict=True))
    difference = max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b)).mean()) for a, b in pairs)
    scale = max(float(np.abs(np.asarray(b, np.float64)).mean()) for _, b in pairs)
    share = difference / max(scale, 1e-9)
    return {"name": name, "difference": share, "calls": sorted(found), "ok": share <= 1e-2 and not found}


class _Patch:
    """Sets an attribute until it is undone, as pytest's fixture does."""

    def __init__(self) -> None:
        self._old: list[tuple[Any, str, Any]] = []

    def setattr(self, target: Any, name: str, value: Any) -> None:
        """Sets an attribute."""
        self._old.append((target, name, getattr(target, name)))
        setattr(target, name, value)

    def undo(self) -> None:
        """Restores them."""
        while self._old:
            setattr(*self._old.pop())


if __name__ == "__main__":
    parts = {"machine": machine, "kernels": kernels, "programs": programs}
    print(json.dumps(parts[sys.argv[1]](sys.argv[2])))
