"""How arrays are fitted: a configuration from a call, learning, the guard, and when the network stops."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dsnn import data, learn, resolve, rng, tasks
from dsnn.api import given, listeners
from dsnn.api.configured import check_call, configured
from dsnn.api.fitted import Fitted
from dsnn.api.progress import shown
from dsnn.assembly import smaller
from dsnn.assembly.assemble import Setup, build
from dsnn.assembly.control import as_many_as
from dsnn.assembly.guard import SAMPLES, Candidate, guarded, judged, milder, twin_of
from dsnn.assembly.linear import linear_model
from dsnn.config import Config, HaltingConfig, typed
from dsnn.deploy import exit_calibration
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.native import programs
from dsnn.networks.stack import Stack
from dsnn.networks.whole import is_network
from dsnn.protocols import Finished, Progress

"""Group of the configuration that each option of `fit` stands in, and its name there where it is another."""


def fit(
    x: Any,
    y: Any,
    *,
    temporal: bool = False,
    bayesian: bool = True,
    network: Any = None,
    cell: Any = None,
    guide: Any = None,
    gates: Any = None,
    halting: bool | HaltingConfig | None = None,
    held_out: float | None = None,
    baseline: str = "linear",
    task: Any = "auto",
    start: Fitted | None = None,
    metrics: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    progress: bool | None = None,
    seed: int | float = 0,
    config: Config | None = None,
    **options: Any,
) -> Fitted:
    """Returns a spiking network fitted to labels or numbers: a posterior over weights and sites, and when it stops.

    The posterior is tempered by default, so that its KL term suits the size of the data; ``kl_weight=1`` tempers
    nothing.

    A part of the examples trains nothing: half of it fits when examples stop, the other half certifies what stopping
    early may cost, by default at most 1 % more errors or the least that so many examples can certify. With fewer than
    50 to certify, all steps run. Printing what is returned says which.

    Args:
        x: inputs ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``; sparse rows; gaps are NaN.
        y: labels of any name, ``[n]``, or at every step ``[n, time]``; numbers to predict, ``[n]`` or ``[n, output]``,
            in any unit; 0 and 1 of several labels ``[n, label]``.
        temporal: whether the second axis of ``x`` is time.
        bayesian: False is the deterministic twin: point weights, no gates, all steps.
        network: "mlp", "conv", a name of `dsnn.networks.zoo`, ``package.module:factory``, a factory ``(in_shape,
            classes, key=, cell=)``, or a network, see `dsnn.protocols.Network`.
        cell: a name, such as "ALIF", or a class or factory of one's own, see `dsnn.protocols.Cell`.
        guide: a name, such as "low_rank", or NumPyro's or one's own.
        gates: a gate family by its name, or one's own.
        halting: False runs all steps of every example; or how they stop, a `dsnn.config.HaltingConfig`.
        held_out: share of the examples that trains nothing, in [0, 1); by default a fifth, and 5 000 at most; 0 trains
            on all of them and runs all steps.
        baseline: "linear" holds the network to logistic or ridge regression, and "full" to its deterministic twin as
            well: where it is worse on held-out examples, beyond chance, it is fitted again with less to spare
            (`dsnn.assembly.guard`); "none" compares nothing.
        task: "classification", "regression", "multilabel", or "auto": integers and text are classes, and fractions
            numbers to predict; or one's own, an object, a class or ``package.module:attribute``, which gets targets as
            they come, see `dsnn.protocols.Task`.
        start: a fit of the same network, whose posterior learning starts from.
        metrics: functions of a `dsnn.protocols.Finished`; what they say is ``fitted.metrics``.
        callbacks: functions of a `dsnn.protocols.Progress`, called every ``eval_every`` epochs; one that returns True
            ends learning.
        progress: whether epochs are shown; None shows them on a terminal and in a notebook.
        seed: root of every random stream.
        config: options of a run to start from; what it leaves at their defaults is as without it.
        **options: of it by their last names: hidden, beta, architecture, channels, recurrent, noise, noise_width, gain,
            readout, steps, epochs, batch_size, encoding, patience, eval_every, learning_rate, accumulate, lam,
            kl_weight, budget_fraction, budget_nj, budget_sites, decide_fraction, shrink_epochs; ``transform`` and
            ``optimizer``, names or functions; ``optimizer_options``, ``cell_options`` and ``network_options`` of pieces
            of one's own, the last of the zoo's too. Epochs, batch, KL weight and λ are chosen from the data where they
            are not given (`dsnn.assembly.automatic`); ``fitted.setup.automatic`` says how.

    Raises:
        ValueError: data or an option that does not fit, in one sentence.
        TrainingError: the loss stopped being finite.
    """
    if baseline not in ("none", "linear", "full"):
        raise ValueError(f"baseline must be none, linear or full, got {baseline!r}.")
    check_call(temporal, halting, start, config, held_out, {"metrics": metrics, "callbacks": callbacks})
    seed = int(typed.checked("seed", int, seed))
    known = isinstance(task, str) and not resolve.is_foreign(task)
    own = tasks.AUTO if known else resolve.name_of(task)
    split = given.split_of(x, y, task if known else tasks.OWN, temporal, held_out, seed)
    pieces = _named(network, cell, guide, gates, metrics, callbacks) | ({} if known else {"task": own})
    if needed := tasks.of(split, tasks.Choice(own, options.get("task_options", {}))).facts.readout:
        pieces.setdefault("readout", needed)
    options |= {name: resolve.name_of(options[name]) for name in ("transform", "optimizer") if name in options}
    sizes = data.size(split.train), data.size(split.test)
    chosen = as_many_as(configured(config, pieces | options, bayesian, halting, seed, sizes))
    programs.use_cache(chosen.compute.cache, unless_set=True)
    setup = _from(start, build(chosen, split))
    return _held_to(setup, baseline, progress)


def load(directory: str | Path, trust: bool = False) -> Fitted:
    """Returns the network that ``fitted.save`` wrote into a folder, see `dsnn.api.stored.load`."""
    from dsnn.api import stored

    return stored.load(directory, trust)


def more(fitted: Fitted, epochs: int, progress: bool | None = None) -> Fitted:
    """Returns a network after further epochs on the same examples, from the posterior that it has.

    Raises:
        ValueError: fewer than one epoch, or a network that was loaded and so has no examples.
    """
    setup = fitted.setup
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}.")
    if setup.split.name == given.SAVED:
        raise ValueError("a network that was loaded has no examples to go on with; dsnn.fit(x, y, start=fitted) has.")
    svi = dataclasses.replace(setup.config.svi, ungated_fraction=0.0, lam_warmup_fraction=0.0, kl_warmup_fraction=0.0)
    again = dataclasses.replace(setup.config, svi=svi, train=dataclasses.replace(setup.config.train, epochs=epochs))
    gone_on = _held_to(_from(fitted, build(again, setup.split)), "none", progress)
    return dataclasses.replace(gone_on, losses=[*fitted.losses, *gone_on.losses], linear=fitted.linear)


def _held_to(setup: Setup, baseline: str, progress: bool | None) -> Fitted:
    """Returns the fit of a setup that no simpler model beats beyond chance, and when it stops."""
    split, config, bayesian = setup.split, setup.config, setup.config.learner == "svi"
    first = _learned(setup, progress)
    linear = None if baseline == "none" else linear_model(split, config.seed, setup.task)
    rivals = {} if linear is None or linear.losses is None else {linear.name: linear.losses}
    if baseline == "full" and bayesian and data.size(split.val) and setup.task.facts.twin:
        rivals["deterministic twin"] = _candidate(_learned(build(twin_of(config), split), progress)).losses
    found = None
    if rivals and bayesian and milder(config, setup.automatic, 0) is not None:

        def again(number: int, _: Any) -> Candidate | None:
            less = milder(config, setup.automatic, number)
            return None if less is None else _candidate(_learned(build(less, split), progress))

        found = guarded(_candidate(first), rivals, again)
        first = found.made
    exits = _exits(first.setup, first.params, first._step_price, first._predict)
    made = dataclasses.replace(first, params=exits.params, exits=exits, linear=linear, fits=found)
    finished = Finished(None, first.setup.config, split, {}, made)
    return dataclasses.replace(made, metrics=listeners.measured(config.metrics, finished))


def _named(
    network: Any, cell: Any, guide: Any, gates: Any, metrics: Sequence[Any], callbacks: Sequence[Any]
) -> dict[str, Any]:
    """Returns the options that pieces of a call stand for."""
    if isinstance(network, Stack) or is_network(network):
        network = _Same(network)
    pieces = {"architecture": network, "cell": cell, "guide": guide, "family": gates}
    named: dict[str, Any] = {option: resolve.name_of(piece) for option, piece in pieces.items() if piece is not None}
    for option, several in (("metrics", metrics), ("callbacks", callbacks)):
        if several:
            named[option] = [resolve.name_of(one) for one in several]
    return named


class _Same:
    """A factory that gives one network, whatever it is asked for."""

    def __init__(self, network: Any):
        self.network = network

    def __call__(self, in_shape: tuple[int, ...], classes: int) -> Any:
        """Returns the network."""
        return self.network


def _from(start: Fitted | None, setup: Setup) -> Setup:
    """Returns a setup whose learning starts from a fit.

    Raises:
        ValueError: the fit is of another network.
    """
    if start is None:
        return setup
    first = jax.eval_shape(lambda settings: setup.params(setup.family(settings).init()), setup.settings)
    ours = {name: value.shape for name, value in first.items()}
    theirs = {name: value.shape for name, value in start.params.items()}
    if unlike := sorted(name for name in ours if theirs.get(name) != ours[name]):
        raise ValueError(
            f"start must be a fit of the same network, got one whose {unlike[0]} is {theirs.get(unlike[0], 'missing')} "
            f"where {ours[unlike[0]]} is wanted; fit the same layers, guide and gates."
        )
    return dataclasses.replace(setup, begin={name: jnp.asarray(start.params[name]) for name in ours})


def _programs(setup: Setup) -> tuple[Any, Any]:
    """Returns the compiled epoch, and what makes a first state."""
    return setup.epoch(), learn.beginning(setup.family)


def _learned(setup: Setup, progress: bool | None = None) -> Fitted:
    """Returns a network that has learned and answers at its temperature, with the price of a step for its exits."""
    batch = setup.examples()  # scaled, where the data ask for it
    alike = setup.likeness
    predict = programs.shared(alike and ("predictive", alike), lambda: setup.task.predictor(setup.bayesian))
    losses, own = [], setup.config.train
    run, begin = programs.shared(alike and ("learning", alike), lambda: _programs(setup))
    run.ahead(setup.settings, jax.eval_shape(begin, setup.settings), batch, jnp.asarray(0))
    state = begin(setup.settings)
    if isinstance(predict, tasks.Predictor) and jax.default_backend() == "cpu":
        predict.ahead(setup.params(state), setup.split.val.x, setup.root)
        if setup.bayesian.halting is not None:
            exit_calibration.ahead(setup.bayesian, setup.split, setup.config.halting)
    seen: list[float] = []
    for epoch in shown(smaller.fit(setup, run, setup.settings, state, batch, epochs=own.epochs), own.epochs, progress):
        learn.require_finite(epoch.info.loss, epoch.number)
        state = epoch.state
        losses.append(float(epoch.info.loss.mean()))
        looked = own.patience or setup.config.callbacks
        if looked and (epoch.number + 1) % own.eval_every == 0 and _ends(setup, state, predict, losses, seen):
            break
    params = setup.bayesian.finish(setup.params(state), batch.x, batch.y, rng.stream(setup.root, "weights"))
    price = 0.0
    if setup.bayesian.halting is not None:
        price = exit_calibration.step_price(setup.bayesian, params, state)
    key = rng.stream(setup.root, "noise")
    wanted = setup.config.bayes.temperature
    params, temperature = tasks.calibrated(setup.task, setup.bayesian, params, setup.split, predict, key, wanted)
    none, agreed = Calibrated(params, math.inf, {}), setup.diagnostics(state)
    return Fitted(setup, params, losses, none, predict, temperature, price, diagnostics=agreed)


def _ends(setup: Setup, state: Any, predict: Any, losses: list[float], seen: list[float]) -> bool:
    """Returns whether patience or a callback ends learning; every callback is asked."""
    params, config = setup.params(state), setup.config
    record = {"train/loss": losses[-1]}
    if data.size(setup.split.val):
        record |= tasks.scored("val", _validated(setup, params, predict))
        score, more = tasks.patient_by(setup.task.facts)
        if (found := record.get(f"val/{score}")) is not None:
            seen.append(-found if more else found)
    fitted = Fitted(setup, params, list(losses), Calibrated(params, math.inf, {}), predict)
    moment = Progress(len(losses), config.train.epochs, record, fitted)
    return listeners.asked(config.callbacks, moment) or listeners.lost_patience(seen, config.train.patience)


def _validated(setup: Setup, params: dict[str, Any], predict: Any) -> dict[str, float]:
    """Returns what the part that selects says: means of losses where the task has them, else its scores."""
    task = setup.task
    if task.facts.twin:
        return task.summary(judged(setup, params, predict, "val")[1])
    made = predict(params, setup.split.val.x, rng.stream(setup.root, "weights", 0), samples=SAMPLES)
    return task.scores(made, task.targets(setup.split, "val"))


def _candidate(fitted: Fitted) -> Candidate:
    return Candidate(fitted, judged(fitted.setup, fitted.params, fitted._predict, "val")[1])


def _exits(setup: Setup, params: dict[str, Any], price: float, predict: Any) -> Calibrated:
    """Returns when examples stop, calibrated on the examples that train nothing."""
    if setup.bayesian.halting is None:
        return Calibrated(params, math.inf, {})
    return exit_calibration.calibrate(
        setup.bayesian,
        params,
        setup.split,
        setup.config.halting,
        setup.root,
        price=price,
        predict=predict,
        samples=setup.config.bayes.samples,
        key=rng.stream(setup.root, "noise"),
    )
