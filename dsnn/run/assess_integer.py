"""What is reported of the integer network of a run with bits: widths, agreement with float32, accuracy."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dsnn import rng
from dsnn.deploy.decided import Deployed, at_kept_steps, ran, running
from dsnn.deploy.integer import integer_network
from dsnn.tasks.batching import in_batches

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

__all__ = ["assessed", "widths"]


def widths(
    setup: "Setup", params: dict[str, Any], deployed: Deployed
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns mean bits by layer and over all weights, and the width and chances of every unit for ``records.npz``."""
    bits = setup.bayesian.bits
    if bits is None:
        return {}, {}
    metrics: dict[str, float] = {}
    records: dict[str, np.ndarray] = {}
    chances = bits.chances(params)
    for kernel, own in deployed.widths.items():
        metrics[f"bits/{layer_of(kernel)}/mean"] = float(np.mean(own))
        records[f"bits/{layer_of(kernel)}"] = np.asarray(own)
    for kernel, chance in chances.items():
        records[f"bits_chance/{layer_of(kernel.removeprefix('bits.'))}"] = np.asarray(chance)
    sizes = [bits.initial[kernel].size for kernel in deployed.widths]
    means = [float(np.mean(own)) for own in deployed.widths.values()]
    return metrics | {"bits/mean": float(np.average(means, weights=sizes))}, records


def layer_of(kernel: str) -> str:
    """Returns the layer of a kernel; a recurrent one keeps its name."""
    return kernel.removesuffix(".synapse.kernel")


def assessed(setup: "Setup", deployed: Deployed, inputs: Any) -> dict[str, float]:
    """Returns how the integers fare: their accuracy with all steps, and whether float32 gives the same bits.

    Where float32 holds every sum exactly, its accuracy on the test part is that of the integers, whose bits are
    compared on the measured examples. Where it does not, the integers run on the whole test part themselves.

    Args:
        setup: of the run.
        deployed: in fixed point.
        inputs: the measured examples, encoded.
    """
    fixed, simulator, test = deployed.fixed, deployed.simulator, setup.split.test
    if fixed is None:
        return {}
    small: Any = deployed.small
    network, steps = integer_network(small), simulator.steps if simulator.held else None
    kept = at_kept_steps(inputs, deployed.kept_steps)
    integers, floats = network.run(kept, steps), ran(simulator, deployed.small, kept)
    same = (np.asarray(integers.logits) == np.asarray(floats.logits)).all((0, 2))
    for name, spikes in floats.kept.items():
        fired = np.asarray(integers.given[name]) * network.unit(name) == np.asarray(spikes)
        same &= fired.reshape(*fired.shape[:2], -1).all((0, 2))
    metrics = {
        "deployed/integer/exact": float(fixed.exact),
        "deployed/integer/agreement": float(same.mean()),
        "deployed/integer/saturating_layers": float(len(fixed.saturates)),
    }
    if not setup.task.facts.halts:
        return metrics
    if fixed.exact:
        last = running(setup.bayesian, deployed, test.x, setup.root)[-1]
    else:

        def logits(batch: Any) -> Any:
            encoded = setup.bayesian.simulator.encode(batch, rng.stream(setup.root, "data"))
            return network.run(at_kept_steps(encoded, deployed.kept_steps), steps).logits[-1]

        last = in_batches(logits, test.x, 500, axes=0)
    return metrics | {"deployed/integer/accuracy": float((last.argmax(-1) == np.asarray(test.y)).mean())}
