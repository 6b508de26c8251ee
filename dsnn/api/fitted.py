"""A fitted network in a notebook's hands: what it predicts, where it computes, what is put to use."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from dsnn import data, parameters, resolve, rng, tasks
from dsnn.api.given import inputs_of
from dsnn.assembly.assemble import Setup
from dsnn.assembly.guard import Guarded
from dsnn.assembly.linear import LinearModel
from dsnn.config import typed
from dsnn.deploy import decided, exit_calibration
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.deploy.fold import fold_scaling
from dsnn.networks.compact import INPUT
from dsnn.networks.whole import Runnable
from dsnn.tasks import Sources

MAX_SAMPLES = 1 << 20


@dataclasses.dataclass
class Fitted:
    """A network with its posterior.

    Attributes:
        setup: data, model and learner.
        params: of the guide, in their natural spaces.
        losses: mean training loss of every epoch, per example in nats.
        exits: when examples stop, and what was certified of it.
        temperature: what class logits were divided by, or a number's noise multiplied by, after learning.
        linear: a linear model of the same examples, None where there is none.
        fits: how often it was fitted, and which simpler models it is worse than; None where nothing was compared.
        metrics: what metrics of one's own said.
        diagnostics: whether chains agree, by name, where the weights were sampled (``learner=nuts``).
    """

    setup: Setup
    params: dict[str, Any]
    losses: list[float]
    exits: Calibrated
    _predict: Any
    temperature: float = 1.0
    _step_price: float = 0.0
    linear: LinearModel | None = None
    fits: Guarded | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    diagnostics: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the columns of ``probs`` are called, in their order."""
        split = self.setup.split
        return split.class_names or tuple(map(str, range(split.classes)))

    @property
    def gates(self) -> dict[str, np.ndarray]:
        """Probability that each site runs, by group; empty without gates."""
        return {name: np.asarray(p) for name, p in self.setup.bayesian.running_probabilities(self.params).items()}

    def network(self) -> Runnable:
        """Returns the network to put to use: posterior means, closed sites removed, for inputs as they come.

        Of numbers its outputs are standardised; `target_scaling` brings them to their unit.
        """
        small = decided.deploy(self.setup.bayesian, self.params).small
        return small if self.scaling is None else fold_scaling(small, self.scaling)

    @property
    def scaling(self) -> data.Scaling | None:
        """How inputs are scaled before the network sees them; `predict` does it, and `network` has it folded in."""
        return data.scaling_of(self.setup.split)

    @property
    def target_scaling(self) -> data.Scaling | None:
        """How numbers were standardised, which `predict` undoes: ``shift + scale * output``; None for classes."""
        return data.target_scaling(self.setup.split)

    def uncertainty(self, x: Any, *, draws: tuple[int, int, int] = (8, 4, 4), seed: int = 0) -> Sources:
        """Returns where uncertainty comes from, in nats an example: aleatoric, weights, gates, firing, and in all.

        Args:
            x: inputs as `predict` takes them.
            draws: of weights, of gates under each, of firing under each of these.
            seed: of the draws.

        Raises:
            ValueError: a network of numbers, or with a label at every step.
        """
        split = self.setup.split
        tasks.refuse(self.setup.task, "sources", self.setup.task.facts.has)
        key = rng.stream(rng.root(seed), "noise")
        return tasks.by_source(self.setup.bayesian)(self.params, inputs_of(split, x), key, draws=draws)

    def prior_predictive(self, x: Any, *, samples: int = 32, seed: int = 0) -> np.ndarray:
        """Returns what the network gives under draws of its weights from their prior, all sites and steps running.

        Class probabilities ``[sample, n, class]``, or numbers ``[sample, n, output]`` in the targets' unit, without
        their noise. What has no prior stays as it was learned.

        Args:
            x: inputs of the shape that was fitted.
            samples: draws of the prior.
            seed: of the draws and of the firing noise.

        Raises:
            ValueError: inputs of another shape, or a network of points, which has no prior.
        """
        from dsnn.api.inference_data import prior_predictive  # ArviZ and all that it is for

        inputs = inputs_of(self.setup.split, x)
        return prior_predictive(self.setup, self.params, inputs, samples, rng.root(seed))

    def to_arviz(self, *, samples: int = 200, seed: int = 0, part: str = "auto") -> Any:
        """Returns an ArviZ ``InferenceData`` of draws and of what they predict, see `dsnn.api.inference_data`.

        Args:
            samples: draws of posterior and prior; of an ensemble and of chains, all that there are of the posterior.
            seed: of the draws and of the firing noise.
            part: whose targets are predicted, "train", "val" (that selects), "certify", or "auto": "val" where there is
                one, else "train".

        Raises:
            ImportError: ArviZ is not installed.
            ValueError: a part that is not there, or a network of points.
        """
        from dsnn.api.inference_data import inference_data

        return inference_data(self.setup, self.params, samples=samples, seed=seed, part=part)

    def save(self, directory: str | Path) -> Path:
        """Writes the network into a folder for `dsnn.load`, see `dsnn.api.stored.save`."""
        from dsnn.api.stored import save  # which builds on this module

        return save(self, directory)

    def more(self, epochs: int) -> "Fitted":
        """Returns the network after further epochs on the same examples, from the posterior that it has."""
        from dsnn.api.fitting import more  # which builds on this module

        return more(self, epochs)

    def __reduce__(self) -> tuple[Any, ...]:
        from dsnn.api.stored import parts

        facts, arrays = parts(self, by_path=False)
        names = {name for name in resolve.foreign_names(facts["config"]) if name.startswith(resolve.LOCAL)}
        return _unpickled, (facts, arrays, {name: resolve.piece("a piece", name) for name in names})

    def __copy__(self) -> "Fitted":
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: Any) -> "Fitted":
        return dataclasses.replace(self, params=dict(self.params), losses=list(self.losses))

    def __repr__(self) -> str:
        deployed = decided.deploy(self.setup.bayesian, self.params)
        full, small = parameters.count(deployed.full), parameters.count(parameters.split(deployed.small)[1])
        kept = [(name, int((np.asarray(g) > 0).sum()), len(g)) for name, g in deployed.gates.items()]
        sites = ", ".join(f"{name} {k} of {n}" for name, k, n in kept) or "no gates"
        model = deployed.simulator.template.build(deployed.full)
        lines = [
            f"Fitted, {len(self.losses)} epochs, loss {self.losses[-1]:.3f}",
            summary(model),
            f"sites kept: {sites}; parameters kept: {small} of {full}",
        ]
        if self.linear is not None:
            scores = {name[4:]: value for name, value in self.linear.scores.items() if name.startswith("val/")}
            worth = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            lines.append(f"{self.linear.name} on the selecting part: {worth}")
        if self.fits is not None and self.fits.worse_than:
            lines.append(f"worse than {', '.join(self.fits.worse_than)} on the selecting part, beyond chance")
        if self.setup.bayesian.halting is not None:
            lines.append(exit_calibration.said(self.exits))
        return "\n".join(lines)


def _unpickled(facts: dict[str, Any], arrays: dict[str, np.ndarray], pieces: dict[str, Any]) -> Fitted:
    """Returns a network that was pickled: whoever unpickles trusts what it names."""
    from dsnn.api.stored import whole

    for name, piece in pieces.items():
        resolve.hold(name, piece)
    return whole(facts, arrays, trust=True)


def predict(fitted: Fitted, x: Any, *, samples: int | float = 32, level: float = 0.9, seed: int | float = 0) -> Any:
    """Returns the posterior predictive: ``probs`` ``[n, class]``, ``aleatoric`` entropies and mean ``steps`` ``[n]``.

    It is a `dsnn.tasks.Prediction`, a `dsnn.tasks.Regression`, a `dsnn.tasks.Sequence`, or what a task of one's own
    gives. Of numbers it is their ``mean`` and the interval from ``lower`` to ``upper``, ``[n, output]`` in the targets'
    unit. Where held-out examples suffice the interval is conformal: it holds the share ``level`` of new examples.

    Args:
        fitted: what `fit` returned.
        x: inputs of the shape that was fitted.
        samples: posterior draws.
        level: share of examples that the intervals of numbers hold, in (0, 1).
        seed: of the draws and of the firing noise.

    Raises:
        ValueError: inputs of another shape, or an input that is not finite.
    """
    samples, seed = int(typed.checked("samples", int, samples)), int(typed.checked("seed", int, seed))
    if not 1 <= samples <= MAX_SAMPLES:
        raise ValueError(f"the number of posterior samples must be at least 1, got {samples}; {MAX_SAMPLES} at most.")
    if not 0 < typed.checked("level", float, level) < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.9 is nine of ten examples.")
    inputs = inputs_of(fitted.setup.split, x)
    key, split = rng.stream(rng.root(seed), "noise"), fitted.setup.split
    task = fitted.setup.task
    exits = {"threshold": fitted.exits.threshold} if task.facts.halts else {}

    def ask(x: Any, **options: Any) -> Any:
        return fitted._predict(fitted.params, x, key, samples=samples, **exits, **options)

    return task.told(ask, inputs, split, level)


def where(fitted: Fitted) -> Any:
    """Returns the map of where computation runs, a matplotlib figure with one square per compute site.

    Raises:
        ValueError: the network has no gates.
    """
    from dsnn.plots import gate_map  # drawing takes a second to import

    gates = fitted.gates
    if not gates:
        raise ValueError("the map shows gates, and this network has none; fit it with bayesian=True.")
    deployed = decided.deploy(fitted.setup.bayesian, fitted.params)
    kept = {name: int((np.asarray(gate) > 0).sum()) for name, gate in deployed.gates.items()}
    ordered = {INPUT: gates[INPUT], **gates} if INPUT in gates else gates
    return gate_map(ordered, data.input_shape(fitted.setup.split), kept)


def summary(model: Any) -> str:
    """Returns what printing a model shows; of a stack, its layers, shapes, cells, parameters and products."""
    return repr(model)
