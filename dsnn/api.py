"""Inference in a notebook: ``fit`` arrays, ``predict`` others, and see ``where`` the network computes.

    fitted = dsnn.fit(x, y, hidden=[64], epochs=50)
    probs = dsnn.predict(fitted, x_new).probs
    dsnn.where(fitted)

The same parts as a run of ``python -m experiments.run``, without its directory.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, deploy, exit_calibration, parameters, rng, train
from dsnn.assemble import Setup, build
from dsnn.bayes.predict import Predict, Prediction, predictor
from dsnn.compact import INPUT
from dsnn.config import Config, DataConfig, GatesConfig, HaltingConfig, TrainConfig
from dsnn.data.split import own_fraction, seeded_mask
from dsnn.exit_calibration import Calibrated
from dsnn.fold import fold_scaling
from dsnn.models import Stack
from dsnn.train import SviConfig

PATHS = {
    "hidden": "model",
    "cell": "model",
    "beta": "model",
    "architecture": "model",
    "channels": "model",
    "recurrent": "model",
    "noise": "model",
    "noise_width": "model",
    "gain": "model",
    "readout": "model",
    "steps": "train",
    "epochs": "train",
    "batch_size": "train",
    "encoding": "train",
    "learning_rate": "optimizer",
    "lam": "svi",
    "kl_weight": "svi",
    "budget_fraction": "svi",
    "budget_sites": "svi",
    "decide_fraction": "svi",
}


@dataclasses.dataclass
class Fitted:
    """A network with its posterior.

    Attributes:
        setup: data, model and learner.
        params: of the guide, in their natural spaces.
        losses: mean training loss of every epoch, per example in nats.
        exits: when examples stop, and what was certified of it.
    """

    setup: Setup
    params: dict[str, Any]
    losses: list[float]
    exits: Calibrated
    _predict: Predict

    @property
    def gates(self) -> dict[str, np.ndarray]:
        """Probability that each site runs, by group; empty without gates."""
        return {name: np.asarray(p) for name, p in self.setup.lifted.running_probabilities(self.params).items()}

    def network(self) -> Stack:
        """Returns the network to put to use: posterior means, closed sites removed, for inputs as they come."""
        small = deploy.deploy(self.setup.lifted, self.params).small
        return small if self.scaling is None else fold_scaling(small, self.scaling)

    @property
    def scaling(self) -> data.Scaling | None:
        """How inputs are scaled before the network sees them; `predict` does it, and `network` has it folded in."""
        return data.scaling_of(self.setup.split)

    def __repr__(self) -> str:
        deployed = deploy.deploy(self.setup.lifted, self.params)
        full, small = parameters.count(deployed.full), parameters.count(parameters.split(deployed.small)[1])
        kept = [(name, int((np.asarray(g) > 0).sum()), len(g)) for name, g in deployed.gates.items()]
        sites = ", ".join(f"{name} {k} of {n}" for name, k, n in kept) or "no gates"
        model = self.setup.lifted.forward.template.build(deployed.full)
        lines = [
            f"Fitted, {len(self.losses)} epochs, loss {self.losses[-1]:.3f}",
            summary(model),
            f"sites kept: {sites}; parameters kept: {small} of {full}",
        ]
        if self.setup.lifted.feature is not None:
            lines.append(exit_calibration.said(self.exits))
        return "\n".join(lines)


def fit(
    x: Any,
    y: Any,
    *,
    temporal: bool = False,
    bayesian: bool = True,
    halting: bool | HaltingConfig | None = None,
    held_out: float | None = None,
    seed: int = 0,
    config: Config | None = None,
    **options: Any,
) -> Fitted:
    """Returns a spiking network fitted to class labels: a posterior over weights and sites, and when examples stop.

    The posterior is tempered by default, so that its KL term suits the size of the data; ``kl_weight=1`` tempers
    nothing.

    A part of the examples trains nothing: half of it fits when examples stop, the other half certifies what stopping
    early may cost, by default at most 1 % more errors or the least that so many examples can certify. With fewer than
    50 to certify, all steps run. Printing what is returned says which.

    Args:
        x: inputs ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``.
        y: class numbers from 0, ``[n]``.
        temporal: whether the second axis of ``x`` is time.
        bayesian: False is the deterministic twin: point weights, no gates, all steps.
        halting: False runs all steps of every example; or how they stop, a `dsnn.config.HaltingConfig`.
        held_out: share of the examples that trains nothing, in [0, 1); by default a fifth, and 5 000 at most; 0 trains
            on all of them and runs all steps.
        seed: root of every random stream.
        config: a whole configuration to start from.
        **options: of it by their last names: hidden, cell, beta, architecture, channels, recurrent, noise, noise_width,
            gain, readout, steps, epochs, batch_size, encoding, learning_rate, lam, kl_weight, budget_fraction,
            budget_sites, decide_fraction. Epochs, batch, KL weight and λ are chosen from the data where they are not
            given (`dsnn.automatic`); ``fitted.setup.automatic`` says how.

    Raises:
        ValueError: data or an option that does not fit, in one sentence.
        TrainingError: the loss stopped being finite.
    """
    inputs, labels = np.asarray(x, np.float32), np.asarray(y)
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or len(labels) != len(inputs) or not len(labels):
        raise ValueError(f"y must be class numbers from 0, one for each of {len(inputs)} inputs, got {labels.dtype}.")
    if held_out is not None and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}; 0.2 holds out a fifth of the examples.")
    whole = data.Arrays(inputs, labels.astype(np.int32))
    classes = max(int(labels.max()) + 1, 2)
    mask = seeded_mask(np.asarray(whole.y), seed, own_fraction(held_out, len(inputs)))
    part, held = (data.Arrays(inputs[rows], whole.y[rows]) for rows in (~mask, mask))
    split = data.check(data.Split(part, held, whole, classes, "yours", temporal))
    typed = _configured(config, options, bayesian, halting, seed, (data.size(part), len(inputs)))
    setup = build(typed, split)
    state = jax.jit(setup.learner.init)()
    learned = setup.split.train  # scaled, where the data ask for it
    batch = train.Batch(jnp.asarray(learned.x), jnp.asarray(learned.y))
    losses = []
    own = setup.config.train
    for epoch in train.fit(setup.learner, state, batch, epochs=own.epochs, batch_size=own.batch_size, root=setup.root):
        state = epoch.state
        losses.append(float(epoch.info.loss.mean()))
    params = setup.lifted.finish(setup.params(state), batch.x, batch.y, rng.stream(setup.root, "weights"))
    predict = predictor(setup.lifted)
    exits = _exits(setup, params, state, predict)
    return Fitted(setup, exits.params, losses, exits, predict)


def predict(fitted: Fitted, x: Any, *, samples: int = 32, seed: int = 0) -> Prediction:
    """Returns the posterior predictive: ``probs`` ``[n, class]``, ``aleatoric`` entropies and mean ``steps`` ``[n]``.

    Args:
        fitted: what `fit` returned.
        x: inputs of the shape that was fitted.
        samples: posterior draws.
        seed: of the draws and of the firing noise.

    Raises:
        ValueError: inputs of another shape, or an input that is not finite.
    """
    inputs = np.asarray(x, np.float32)
    wanted = fitted.setup.split.train.x.shape[1:]
    if inputs.shape[1:] != wanted:
        raise ValueError(f"x must be [n, {', '.join(map(str, wanted))}], got shape {inputs.shape}.")
    inputs = inputs if fitted.scaling is None else fitted.scaling(inputs)
    key = rng.stream(rng.root(seed), "noise")
    return fitted._predict(fitted.params, inputs, key, samples=samples, threshold=fitted.exits.threshold)


def where(fitted: Fitted) -> Any:
    """Returns the map of where computation runs, a matplotlib figure with one square per compute site.

    Raises:
        ValueError: the network has no gates.
    """
    from dsnn.plots import gate_map  # drawing takes a second to import

    gates = fitted.gates
    if not gates:
        raise ValueError("the map shows gates, and this network has none; fit it with bayesian=True.")
    deployed = deploy.deploy(fitted.setup.lifted, fitted.params)
    kept = {name: int((np.asarray(gate) > 0).sum()) for name, gate in deployed.gates.items()}
    ordered = {INPUT: gates[INPUT], **gates} if INPUT in gates else gates
    return gate_map(ordered, data.input_shape(fitted.setup.split), kept)


def summary(model: Any) -> str:
    """Returns what printing a model shows; of a stack, its layers, shapes, cells, parameters and products."""
    return repr(model)


def _exits(setup: Setup, params: dict[str, Any], state: Any, predict: Predict) -> Calibrated:
    """Returns when examples stop, calibrated on the examples that train nothing."""
    if setup.lifted.feature is None:
        return Calibrated(params, math.inf, {})
    return exit_calibration.calibrate(
        setup.lifted,
        params,
        setup.split,
        setup.config.halting,
        setup.root,
        price=exit_calibration.step_price(setup.lifted, params, state),
        predict=predict,
        samples=setup.config.bayes.samples,
        key=rng.stream(setup.root, "noise"),
    )


def _configured(
    config: Config | None,
    options: dict[str, Any],
    bayesian: bool,
    halting: bool | HaltingConfig | None,
    seed: int,
    sizes: tuple[int, int],
) -> Config:
    """Returns the configuration of a fit; ``sizes`` are the examples that train, and all."""
    start = config or Config(
        experiment="fit",
        data=DataConfig(standardise="auto"),
        gates=GatesConfig(open_probability=0.95),
        svi=SviConfig(
            kl_weight=-1.0,
            gates_weight=-1.0,
            lam=-1.0,
            ungated_fraction=0.3,
            lam_warmup_fraction=0.2,
            decide_fraction=0.25,
        ),
        train=TrainConfig(epochs=0, batch_size=0),
    )
    if halting is not None:
        how = dataclasses.replace(start.halting, enabled=halting) if isinstance(halting, bool) else halting
        start = dataclasses.replace(start, halting=how)
    groups: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name not in PATHS:
            raise ValueError(f"fit takes the options {', '.join(PATHS)}, got {name!r}; others go in config.")
        groups.setdefault(PATHS[name], {})[name] = value
    parts = {group: dataclasses.replace(getattr(start, group), **values) for group, values in groups.items()}
    learner = "svi" if bayesian else "map"
    typed = dataclasses.replace(
        start, learner=learner, seed=seed, data=DataConfig(standardise=start.data.standardise), **parts
    )
    size, whole = sizes
    if typed.train.batch_size > size:
        raise ValueError(
            f"batch_size must be at most the {size} examples that train, of {whole}, got {typed.train.batch_size}; "
            "lower it."
        )
    return typed
