"""One worker of `benchmark`: our network, timed in turn with its matrix products alone; or the machine's own peaks.

``benchmark_ours.py VARIANT SPEC`` where VARIANT is ``dsnn`` with options: ``stochastic``,
``schedule=layer|step|fused``, ``memory=full|sqrt|K``, ``samples=S`` (posterior workloads), ``map=vmap|scan`` (how
samples are mapped).
"""

import itertools
import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import benchmark_images
import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmark import BETA
from benchmark_turns import first_call, measure, peak_mb, wait_for_turn

import dsnn
from dsnn import parameters, rng
from dsnn.cells import LIF
from dsnn.escape import Logistic
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack

OPTIONS = {"stochastic": "no", "schedule": "auto", "memory": "full", "samples": "1", "map": "vmap", "product": "auto"}
NOISE_WIDTH = 0.1
POSTERIOR_LOG_SCALE = -5.0


def parse_variant(text: str) -> dict[str, Any]:
    """Returns a variant's options.

    Raises:
        ValueError: an unknown option.
    """
    chosen = dict(OPTIONS)
    for item in filter(None, text.partition(":")[2].split(",")):
        name, _, given = item.partition("=")
        if name not in OPTIONS:
            raise ValueError(f"a variant's options are {', '.join(OPTIONS)}, got {name!r}.")
        chosen[name] = given or "yes"
    memory = chosen["memory"]
    return {
        **chosen,
        "stochastic": chosen["stochastic"] == "yes",
        "samples": int(chosen["samples"]),
        "memory": int(memory) if memory.isdigit() else memory,
    }


def network(
    spec: dict[str, Any], data: dict[str, np.ndarray], stochastic: bool, product: str = "auto"
) -> tuple[Any, Any]:
    """Returns the template and the parameters of the workload's network, with the given weights."""
    root = rng.root(0)
    sizes = spec["sizes"]
    dtype = None if spec["dtype"] == "float32" else spec["dtype"]
    layers = {}
    given: tuple[int, ...] = data["x"].shape[1:]
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        before: tuple[Pool, ...] = ()
        if i and spec["channels"] and len(given) == 3:
            before = (Pool(given),)
            given = before[0].out_shape
        synapse: Any
        if data[f"w{i}"].ndim == 4:
            synapse = Conv(given, spec["channels"], key=root, bias=False, dtype=dtype)
            given = synapse.out_shape
        else:
            synapse = Dense(given if before else n_in, n_out, key=root, bias=False, dtype=dtype, product=product)
            given = synapse.out_shape
        cell = LIF(beta=BETA, noise=Logistic(NOISE_WIDTH) if stochastic else None)
        layers[f"layer{i}"] = Layer(synapse, cell, recurrent_key=root if f"r{i}" in data else None, before=before)
    template, params = parameters.split(Stack(**layers))
    for i in range(len(sizes) - 1):
        params[f"layer{i}.synapse.kernel"] = jnp.asarray(data[f"w{i}"])
        if f"r{i}" in data:
            params[f"layer{i}.recurrent"] = jnp.asarray(data[f"r{i}"])
    return template, params


def programs(spec: dict[str, Any], data: dict[str, np.ndarray], options: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Returns forward(params, x, key), rates(params, x, key), step(state, x, y, key) and the first state."""
    template, params = network(spec, data, options["stochastic"], options["product"])

    def outputs(params: Any, x: Any, key: Any, record: Any = None) -> tuple[Any, Any]:
        key = key if options["stochastic"] else None
        out, _, records = dsnn.unroll(
            template.build(params),
            x,
            key,
            record,
            options["schedule"],
            memory=options["memory"],
            steps=spec["steps"] if spec["channels"] else None,
        )
        return out, records

    def forward(params: Any, x: Any, key: Any) -> Any:
        return outputs(params, x, key)[0]

    def rates(params: Any, x: Any, key: Any) -> list[Any]:
        _, spikes = outputs(params, x, key, lambda states, spikes: spikes)
        return [spikes[f"layer{i}"].mean() for i in range(len(spec["sizes"]) - 1)]

    def cross_entropy(params: Any, x: Any, y: Any, key: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, x, key).sum(0), y).mean()

    def expected_cross_entropy(posterior: Any, x: Any, y: Any, key: Any) -> Any:
        def one(key: Any) -> Any:
            draw, fire = jax.random.split(key)
            keys = jax.random.split(draw, len(posterior["mean"]))
            drawn = {
                name: mean + jnp.exp(posterior["log_scale"][name]) * jax.random.normal(k, mean.shape)
                for k, (name, mean) in zip(keys, posterior["mean"].items(), strict=True)
            }
            return cross_entropy(drawn, x, y, fire)

        keys = jax.random.split(key, options["samples"])
        return (jax.vmap(one)(keys) if options["map"] == "vmap" else jax.lax.map(one, keys)).mean()

    if spec["objective"] == "sum":

        def gradient(params: Any, x: Any, y: Any, key: Any) -> Any:
            return jax.grad(lambda p: forward(p, x, key).sum())(params)

        return forward, rates, gradient, params
    adam = optax.adam(1e-3)
    loss, start = cross_entropy, params
    if spec["objective"] == "posterior":
        loss = expected_cross_entropy
        start = {"mean": params, "log_scale": jax.tree.map(lambda a: jnp.full_like(a, POSTERIOR_LOG_SCALE), params)}

    def step(state: Any, x: Any, y: Any, key: Any) -> Any:
        params, opt_state = state
        grads = jax.grad(loss)(params, x, y, key)
        updates, opt_state = adam.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return forward, rates, step, (jax.tree.map(jnp.copy, start), adam.init(start))


def products(spec: dict[str, Any], data: dict[str, np.ndarray]) -> list[tuple[str, list[Callable], tuple]]:
    """Returns (part, candidate forms, operands) of every matrix product that one training step cannot do without.

    A feed-forward product may be done for all time steps at once, or per step in a scan with its result stored or used
    up. A recurrent one needs the spikes of the step before, so forward and input gradient are done per step; its weight
    gradient is one product.
    """

    def dot(a: Any, b: Any, left: int, right: int) -> Any:
        return jax.lax.dot_general(a, b, (((left,), (right,)), ((), ())), preferred_element_type=jnp.float32)

    def per_step(right: int) -> Callable:
        return lambda a, w: jax.lax.scan(lambda carry, row: (carry, dot(row, w, 1, right)), 0, a)[1]

    def per_step_unstored(right: int) -> Callable:  # the consumer stands in the loop, so no product goes to memory
        def run(a: Any, w: Any) -> Any:
            start = jnp.zeros((a.shape[1], w.shape[1 - right]))
            return jax.lax.scan(lambda _, row: (dot(row, w, 1, right), None), start, a)[0]

        return run

    def at_once(right: int) -> Callable:
        return lambda a, w: dot(a.reshape(-1, a.shape[-1]), w, 1, right)

    def weight(a: Any, g: Any) -> Any:
        return dot(a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1]), 0, 0)

    def weight_transposed(a: Any, g: Any) -> Any:
        return weight(g, a)

    dtype = jnp.dtype(spec["dtype"])
    rng_np = np.random.default_rng(1)
    time_batch = (spec["steps"], spec["batch"])
    # the time of a dense product hangs on shapes, not on values
    signals = [jnp.asarray(data["x"], dtype)]
    signals += [jnp.asarray(rng_np.random((*time_batch, n), np.float32) < 0.1, dtype) for n in spec["sizes"][1:-1]]
    found: list[tuple[str, list[Callable], tuple]] = []
    for i, signal in enumerate(signals):
        w = jnp.asarray(data[f"w{i}"], dtype)
        grad = jnp.asarray(rng_np.standard_normal((*time_batch, w.shape[1]), np.float32), dtype)
        found.append(("forward", [at_once(0), per_step(0), per_step_unstored(0)], (signal, w)))
        if i > 0:
            found.append(("backward", [at_once(1), per_step(1), per_step_unstored(1)], (grad, w)))
        found.append(("backward", [weight, weight_transposed], (signal, grad)))
        if f"r{i}" in data:
            r = jnp.asarray(data[f"r{i}"], dtype)
            found.append(("forward", [per_step(0), per_step_unstored(0)], (grad, r)))
            found.append(("backward", [per_step(1), per_step_unstored(1)], (grad, r)))
            found.append(("backward", [weight, weight_transposed], (grad, grad)))
    return found


def floors(spec: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Returns actions that do a forward pass's and a whole training step's products, each in its fastest form."""
    listed = benchmark_images.products if spec["channels"] else products
    best = [(part, _fastest(forms, operands), operands) for part, forms, operands in listed(spec, data)]

    def together(chosen: list[tuple[str, Callable, tuple]]) -> Callable[[], Any]:
        run = jax.jit(lambda operands: [form(*o) for (_, form, _), o in zip(chosen, operands, strict=True)])
        given = [o for _, _, o in chosen]
        return lambda: jax.block_until_ready(run(given))

    return {
        "floor_forward": together([entry for entry in best if entry[0] == "forward"]),
        "floor_step": together(best),
    }


def _fastest(forms: list[Callable], operands: tuple) -> Callable:
    def action(form: Callable) -> Callable[[], Any]:
        compiled = jax.jit(form)
        return lambda: jax.block_until_ready(compiled(*operands))

    timed = measure({str(k): action(form) for k, form in enumerate(forms)}, 5)
    return forms[int(min(timed, key=lambda k: timed[k]["median_s"]))]


def work(variant: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Returns everything measured of one variant on one workload."""
    options = parse_variant(variant)
    data = dict(np.load(spec["data"]))
    forward, rates, step, state = programs(spec, data, options)
    _, params = network(spec, data, options["stochastic"])
    x, y = jnp.asarray(data["x"], jnp.float32), jnp.asarray(data["y"])
    updates = spec["objective"] != "sum"
    root = rng.root(0)
    keys = [rng.stream(root, "noise", i) for i in range(16)]
    key = keys[0]
    before = peak_mb()

    box: dict[str, Any] = {"state": state, "calls": 0}

    def compile_and_run() -> None:
        box["step"] = jax.jit(step, donate_argnums=(0,) if updates else ()).lower(state, x, y, key).compile()
        box["forward"] = jax.jit(forward).lower(params, x, key).compile()
        train()

    def train() -> None:
        box["calls"] += 1
        out = box["step"](box["state"], x, y, keys[box["calls"] % len(keys)])
        if updates:
            box["state"] = out
        jax.block_until_ready(out)

    def infer() -> None:
        jax.block_until_ready(box["forward"](params, x, key))

    first = first_call(compile_and_run)
    measured = measure({"forward": infer, "step": train}, min(5, spec["repeats"]))
    peak = _device_peak_mb() or peak_mb() - before
    spike_rates = [float(rate) for rate in jax.jit(rates)(params, x, key)]
    measured = measure({"forward": infer, "step": train, **floors(spec, data)}, spec["repeats"], turn=wait_for_turn)
    samples = options["samples"] if spec["objective"] == "posterior" else 1
    program = box["step"].memory_analysis()
    return {
        "version": dsnn.__version__,
        "compile_s": first - measured["step"]["median_s"],
        "forward": measured["forward"],
        "step": measured["step"],
        # the forward pass timed alone is one sample's, whatever the number that training maps over
        "floor_forward_s": measured["floor_forward"]["median_s"],
        "floor_step_s": samples * measured["floor_step"]["median_s"],
        "peak_mb": peak,
        "program_mb": program.temp_size_in_bytes / 1e6,
        "spike_rates": spike_rates,
        "finite": jax.tree.all(jax.tree.map(lambda a: bool(jnp.isfinite(a).all()), box["state"])),
    }


def _device_peak_mb() -> float | None:
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e6 if stats else None


def machine(device: str) -> dict[str, Any]:
    """Returns what the machine is, with its rate of products and of copies measured here."""
    kind = jax.devices()[0]
    if kind.platform != ("gpu" if device == "cuda" else device):
        raise RuntimeError(f"no {device} device is visible to JAX, only {kind.platform}")
    n = 2048 if device == "cpu" else 8192
    out: dict[str, Any] = {
        "device": kind.device_kind if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "jax": jax.__version__,
    }

    def median_s(function: Callable, *operands: Any) -> float:
        return measure({"": lambda: jax.block_until_ready(function(*operands))}, 5)[""]["median_s"]

    for dtype in ("float32",) if device == "cpu" else ("float32", "bfloat16"):
        seconds = median_s(jax.jit(jnp.matmul), jnp.ones((n, n), dtype), jnp.ones((n, n), dtype))
        out[f"product_gflops_{dtype}"] = round(2 * n**3 / seconds / 1e9)
    big = jnp.ones(2**26 if device == "cpu" else 2**29)
    out["copy_gb_per_s"] = round(2 * big.nbytes / median_s(jax.jit(lambda a: a + 1), big) / 1e9, 1)
    return out


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    dsnn.keep_memory()
    print(json.dumps(machine(sys.argv[2]) if sys.argv[1] == "machine" else work(sys.argv[1], json.loads(sys.argv[2]))))
