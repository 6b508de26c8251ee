"""Where each layer of the decided network should run, on an event-driven core or a dense engine, over draws."""

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from dsnn import energy, rng
from dsnn.bayes.objective import Draw
from dsnn.deploy import activity
from dsnn.deploy.decided import at_kept_steps, compacted, on_grid
from dsnn.native.programs import Program
from dsnn.networks.whole import Whole
from dsnn.run import assess_beliefs
from dsnn.run.assess_activity import Measured, of_kept, reads_analog
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

PLACEMENT_DRAWS = 8

# members are measured side by side, and NumPyro's handlers stand on one stack for all threads
_DRAWING = threading.Lock()


def placement(setup: "Setup", params: dict[str, Any], seen: Measured) -> dict[str, float]:
    """Returns where each layer of the decided network should run, over draws of weights and firing noise."""
    config, bayesian, deployed = setup.config.energy, setup.bayesian, seen.deployed
    if isinstance(deployed.small, Whole) or deployed.fixed is not None:  # engines are of the profile's width
        return {}
    core, engine = energy.profile(config.profile), energy.profile(config.engine or config.profile)
    inputs, stop = at_kept_steps(seen.inputs, deployed.kept_steps), deployed.executed(seen.decision.steps)
    analog, draws = reads_analog(setup), []
    for number in range(PLACEMENT_DRAWS):
        with _DRAWING:
            masked, fired = placing(setup)(
                assess_beliefs.guide_only(params),
                deployed.gates,
                seen.inputs,
                rng.stream(setup.root, "noise", number),
                np.int32(number),
            )
        small = compacted(bayesian.simulator, masked, deployed.gates)
        spikes = of_kept(setup.sites, small, fired, deployed)
        draws.append(activity.records(small, inputs, spikes, stop, held=bayesian.simulator.held, analog=analog))
    metrics: dict[str, float] = {}
    # without prices of memory the trade cannot be seen, but what there is can be compared
    placed = energy.place(draws, core, engine, "memory" if all(map(_prices_memory, (core, engine))) else "updates")
    for layer in placed:
        metrics |= {
            f"placement/{layer.name}/p_events": layer.probability,
            f"placement/{layer.name}/events_nj": layer.event_nj.mean,
            f"placement/{layer.name}/dense_nj": layer.dense_nj.mean,
            f"placement/{layer.name}/rate": layer.rate.mean,
            f"placement/{layer.name}/rate_low": layer.rate.low,
            f"placement/{layer.name}/rate_high": layer.rate.high,
            f"placement/{layer.name}/break_even_rate": min(layer.break_even_rate, 1e6),
        }
    return metrics | {
        "placement/best_nj": sum(layer.best_nj for layer in placed),
        "placement/events_nj": sum(layer.event_nj.mean for layer in placed),
        "placement/dense_nj": sum(layer.dense_nj.mean for layer in placed),
    }


def placing(setup: "Setup") -> Program:
    """Returns ``(params, gates, inputs, key, number) -> (gated parameters, spikes)`` of one draw of the weights.

    The whole network runs, not the compacted one, whose shape is another for every seed and every run.
    """
    bayesian, simulator = setup.bayesian, setup.bayesian.simulator

    def drawn(params: Any, gates: Any, inputs: Any, key: Any, number: Any) -> tuple[Any, Any]:
        weights = bayesian.draw(params, rng.stream(key, "weights"), number).weights
        masked = on_grid(simulator.template.fold(bayesian.network(Draw(weights, gates or None))))
        model, running = simulator.built(masked)
        steps = simulator.steps if simulator.held else None
        return masked, unroll(model, inputs, key, keep_spikes, steps=steps, running=running)[2]

    return setup.programs.setdefault("placing", Program(drawn))


def _prices_memory(profile: energy.Profile) -> bool:
    return profile.memory_included or profile.weight_pj_per_bit is not None
