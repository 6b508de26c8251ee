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

from dsnn import data, deploy, exit_calibration, parameters, programs, rng, train
from dsnn.answer_calibration import calibrated
from dsnn.assemble import Setup, build
from dsnn.bayes.predict import Prediction, Predictor, predictor
from dsnn.bayes.regress import Regression, regressor
from dsnn.compact import INPUT
from dsnn.config import BayesConfig, Config, DataConfig, GatesConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.data.split import own_fraction, seeded_mask
from dsnn.exit_calibration import Calibrated
from dsnn.fold import fold_scaling
from dsnn.guard import Candidate, Guarded, guarded, judged, milder, twin_of
from dsnn.inference_data import inference_data, prior_predictive
from dsnn.linear import LinearModel, linear_model
from dsnn.models import Stack
from dsnn.numbers import in_units, margins, targets_of, widened
from dsnn.optimize import OptimizerConfig
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
        temperature: what class logits were divided by, or a number's noise multiplied by, after learning.
        linear: a linear model of the same examples, None where there is none.
        fits: how often it was fitted, and which simpler models it is worse than; None where nothing was compared.
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
    diagnostics: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def gates(self) -> dict[str, np.ndarray]:
        """Probability that each site runs, by group; empty without gates."""
        return {name: np.asarray(p) for name, p in self.setup.lifted.running_probabilities(self.params).items()}

    def network(self) -> Stack:
        """Returns the network to put to use: posterior means, closed sites removed, for inputs as they come.

        Of numbers its outputs are standardised; `target_scaling` brings them to their unit.
        """
        small = deploy.deploy(self.setup.lifted, self.params).small
        return small if self.scaling is None else fold_scaling(small, self.scaling)

    @property
    def scaling(self) -> data.Scaling | None:
        """How inputs are scaled before the network sees them; `predict` does it, and `network` has it folded in."""
        return data.scaling_of(self.setup.split)

    @property
    def target_scaling(self) -> data.Scaling | None:
        """How numbers were standardised, which `predict` undoes: ``shift + scale * output``; None for classes."""
        return data.target_scaling(self.setup.split)

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
        return prior_predictive(self.setup, self.params, _inputs(self, x), samples, rng.root(seed))

    def to_arviz(self, *, samples: int = 200, seed: int = 0, part: str = "auto") -> Any:
        """Returns an ArviZ ``InferenceData`` of draws and of what they predict, see `dsnn.inference_data`.

        Args:
            samples: draws of posterior and prior; of an ensemble and of chains, all that there are of the posterior.
            seed: of the draws and of the firing noise.
            part: whose targets are predicted, "train", "val" (that selects), "certify", or "auto": "val" where there is
                one, else "train".

        Raises:
            ImportError: ArviZ is not installed.
            ValueError: a part that is not there, or a network of points.
        """
        return inference_data(self.setup, self.params, samples=samples, seed=seed, part=part)

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
        if self.linear is not None:
            scores = {name[4:]: value for name, value in self.linear.scores.items() if name.startswith("val/")}
            worth = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            lines.append(f"{self.linear.name} on the selecting part: {worth}")
        if self.fits is not None and self.fits.worse_than:
            lines.append(f"worse than {', '.join(self.fits.worse_than)} on the selecting part, beyond chance")
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
    baseline: str = "linear",
    task: str = "auto",
    seed: int = 0,
    config: Config | None = None,
    **options: Any,
) -> Fitted:
    """Returns a spiking network fitted to classes or numbers: a posterior over weights and sites, and when it stops.

    The posterior is tempered by default, so that its KL term suits the size of the data; ``kl_weight=1`` tempers
    nothing.

    A part of the examples trains nothing: half of it fits when examples stop, the other half certifies what stopping
    early may cost, by default at most 1 % more errors or the least that so many examples can certify. With fewer than
    50 to certify, all steps run. Printing what is returned says which.

    Args:
        x: inputs ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``.
        y: class numbers from 0, ``[n]``, or numbers to predict, ``[n]`` or ``[n, output]``, in any unit.
        temporal: whether the second axis of ``x`` is time.
        bayesian: False is the deterministic twin: point weights, no gates, all steps.
        halting: False runs all steps of every example; or how they stop, a `dsnn.config.HaltingConfig`.
        held_out: share of the examples that trains nothing, in [0, 1); by default a fifth, and 5 000 at most; 0 trains
            on all of them and runs all steps.
        baseline: "linear" holds the network to logistic or ridge regression, and "full" to its deterministic twin as
            well: where it is worse on held-out examples, beyond chance, it is fitted again with less to spare
            (`dsnn.guard`); "none" compares nothing.
        task: "classification", "regression", or "auto": integers are classes, and fractions numbers to predict.
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
    if baseline not in ("none", "linear", "full"):
        raise ValueError(f"baseline must be none, linear or full, got {baseline!r}.")
    split = _split(x, y, task, temporal, held_out, seed)
    typed = _configured(config, options, bayesian, halting, seed, (data.size(split.train), len(split.test.x)))
    programs.use_cache(typed.compute.cache, unless_set=True)
    setup = build(typed, split)
    first = _learned(setup)
    linear = None if baseline == "none" else linear_model(setup.split, seed)
    rivals = {} if linear is None or linear.losses is None else {linear.name: linear.losses}
    if baseline == "full" and bayesian and data.size(setup.split.val):
        rivals["deterministic twin"] = _candidate(_learned(build(twin_of(setup.config), setup.split))).losses
    found = None
    if rivals and setup.automatic and bayesian:

        def again(number: int, _: Any) -> Candidate | None:
            less = milder(setup.config, setup.automatic, number)
            return None if less is None else _candidate(_learned(build(less, setup.split)))

        found = guarded(_candidate(first), rivals, again)
        first = found.made
    exits = _exits(first.setup, first.params, first._step_price, first._predict)
    return dataclasses.replace(first, params=exits.params, exits=exits, linear=linear, fits=found)


def _split(x: Any, y: Any, task: str, temporal: bool, held_out: float | None, seed: int) -> data.Split:
    """Returns examples with a held-out part, classes in proportion; all of them stand for the test part as well."""
    inputs, targets = np.asarray(x, np.float32), np.asarray(y)
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f"task must be auto, classification or regression, got {task!r}.")
    whole_numbers = targets.dtype.kind in "iu"
    numbers = task == "regression" or (task == "auto" and targets.dtype.kind == "f" and bool((targets % 1 != 0).any()))
    good = targets.ndim in (1, 2) and targets.dtype.kind in "fiu" if numbers else whole_numbers and targets.ndim == 1
    if not good or len(targets) != len(inputs) or not len(targets):
        raise ValueError(
            f"y must be class numbers from 0 (integers), or numbers to predict (fractions, or task='regression'), one "
            f"for each of {len(inputs)} inputs, got {targets.dtype} of shape {targets.shape}; y.astype(int) is classes."
        )
    if held_out is not None and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}; 0.2 holds out a fifth of the examples.")
    if numbers:
        targets = (targets[:, None] if targets.ndim == 1 else targets).astype(np.float32)
        task, classes = "regression", targets.shape[1]
    else:
        targets = targets.astype(np.int32)
        task, classes = "classification", max(int(targets.max()) + 1, 2)
    whole = data.Arrays(inputs, targets)
    mask = seeded_mask(targets, seed, own_fraction(held_out, len(inputs)))
    part, held = (data.Arrays(inputs[rows], targets[rows]) for rows in (~mask, mask))
    return data.check(data.Split(part, held, whole, classes, "yours", temporal, task))


def _learned(setup: Setup) -> Fitted:
    """Returns a network that has learned and answers at its temperature, with the price of a step for its exits."""
    learned = setup.split.train  # scaled, where the data ask for it
    batch = train.Batch(jnp.asarray(learned.x), jnp.asarray(learned.y))
    alike = setup.likeness
    predictive = regressor if setup.split.task == "regression" else predictor
    predict = programs.shared(alike and ("predictive", alike), lambda: predictive(setup.lifted))
    losses, own = [], setup.config.train
    run, begin = programs.shared(
        alike and ("learning", alike),
        lambda: (train.compiled(train.epoch_program(setup.family, own.batch_size)), train.beginning(setup.family)),
    )
    run.ahead(setup.settings, jax.eval_shape(begin, setup.settings), batch, jnp.asarray(0))
    state = begin(setup.settings)
    if isinstance(predict, Predictor) and jax.default_backend() == "cpu":
        predict.ahead(setup.params(state), setup.split.val.x, setup.root)
        if setup.lifted.feature is not None:
            exit_calibration.ahead(setup.lifted, setup.split, setup.config.halting)
    for epoch in train.fit_program(run, setup.settings, state, batch, epochs=own.epochs):
        train.require_finite(epoch.info.loss, epoch.number)
        state = epoch.state
        losses.append(float(epoch.info.loss.mean()))
    params = setup.lifted.finish(setup.params(state), batch.x, batch.y, rng.stream(setup.root, "weights"))
    price = 0.0
    if setup.lifted.feature is not None:
        price = exit_calibration.step_price(setup.lifted, params, state)
    key = rng.stream(setup.root, "noise")
    params, temperature = calibrated(setup.lifted, params, setup.split, predict, key, setup.config.bayes.temperature)
    none = Calibrated(params, math.inf, {})
    agreed = setup.diagnostics(state)
    return Fitted(setup, params, losses, none, predict, temperature, price, diagnostics=agreed)


def _candidate(fitted: Fitted) -> Candidate:
    return Candidate(fitted, judged(fitted.setup, fitted.params, fitted._predict, "val")[1])


def predict(fitted: Fitted, x: Any, *, samples: int = 32, level: float = 0.9, seed: int = 0) -> Prediction | Regression:
    """Returns the posterior predictive: ``probs`` ``[n, class]``, ``aleatoric`` entropies and mean ``steps`` ``[n]``.

    Of numbers it is their ``mean`` and the interval from ``lower`` to ``upper``, ``[n, output]`` in the targets' unit.
    Where held-out examples suffice the interval is conformal: it holds the share ``level`` of new examples.

    Args:
        fitted: what `fit` returned.
        x: inputs of the shape that was fitted.
        samples: posterior draws.
        level: share of examples that the intervals of numbers hold, in (0, 1).
        seed: of the draws and of the firing noise.

    Raises:
        ValueError: inputs of another shape, or an input that is not finite.
    """
    inputs = _inputs(fitted, x)
    key, split = rng.stream(rng.root(seed), "noise"), fitted.setup.split
    if split.task != "regression":
        return fitted._predict(fitted.params, inputs, key, samples=samples, threshold=fitted.exits.threshold)

    def answered(x: np.ndarray) -> Regression:
        return in_units(fitted._predict(fitted.params, x, key, samples=samples, level=level), split)

    made, certify = answered(inputs), split.certify
    if certify is None or not data.size(certify):
        return made
    margin = margins(answered(np.asarray(certify.x)), targets_of(split, "certify"), level)
    return widened(made, margin) if np.isfinite(margin).all() else made


def _inputs(fitted: Fitted, x: Any) -> np.ndarray:
    """Returns inputs as the network reads them."""
    inputs = np.asarray(x, np.float32)
    wanted = fitted.setup.split.train.x.shape[1:]
    if (*inputs.shape[1:], 1) == wanted:  # grey images, which convolutions read with a channel axis
        inputs = inputs[..., None]
    if inputs.shape[1:] != wanted:
        raise ValueError(f"x must be [n, {', '.join(map(str, wanted))}], got shape {inputs.shape}.")
    return inputs if fitted.scaling is None else fitted.scaling(inputs)


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


def _exits(setup: Setup, params: dict[str, Any], price: float, predict: Any) -> Calibrated:
    """Returns when examples stop, calibrated on the examples that train nothing."""
    if setup.lifted.feature is None:
        return Calibrated(params, math.inf, {})
    return exit_calibration.calibrate(
        setup.lifted,
        params,
        setup.split,
        setup.config.halting,
        setup.root,
        price=price,
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
        bayes=BayesConfig(temperature=-1.0),
        gates=GatesConfig(open_probability=0.95),
        svi=SviConfig(
            kl_weight=-1.0,
            gates_weight=-1.0,
            lam=-1.0,
            ungated_fraction=0.3,
            lam_warmup_fraction=0.2,
            decide_fraction=0.25,
        ),
        optimizer=OptimizerConfig(learning_rate=6e-3, noise_factor=10.0),
        model=ModelConfig(architecture="auto"),
        train=TrainConfig(epochs=0, batch_size=0, steps=0),
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
    learner = "map" if not bayesian else "nuts" if start.learner == "nuts" else "svi"
    typed = dataclasses.replace(
        start, learner=learner, seed=seed, data=DataConfig(standardise=start.data.standardise), **parts
    )
    size, whole = sizes
    if typed.train.batch_size > size and learner != "nuts":
        raise ValueError(
            f"batch_size must be at most the {size} examples that train, of {whole}, got {typed.train.batch_size}; "
            "lower it."
        )
    return typed
