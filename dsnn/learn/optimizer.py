"""Optimisers and their schedules: what papers took, with any group of parameters at a rate of its own."""

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from dsnn import resolve
from dsnn.cells.quantised_relu import STEP
from dsnn.parameters import Params
from dsnn.types import Array

OPTIMIZERS = ("adam", "adamax", "sgd")
SCHEDULES = ("cosine", "constant", "linear", "step")


@dataclasses.dataclass
class OptimizerConfig:
    """Adam with a cosine decay to zero, or what a paper took.

    Attributes:
        learning_rate: peak rate for weights.
        gates_factor: rate of gates, halting, and bits and their steps relative to the weights'.
        noise_factor: rate of the likelihood's own parameters, the noise of numbers, relative to the weights'.
        weight_decay: decoupled decay of weights (AdamW).
        warmup_fraction: share of the steps over which the rate rises from zero.
        clip: largest global norm of a gradient; 0 is no clipping.
        name: "adam", "adamax" or "sgd", or one's own, ``package.module:factory``, called with ``learning_rate=``, a
            schedule, and ``options``.
        options: of an optimiser of one's own.
        accumulate: batches whose gradients are averaged before an update.
        schedule: how it falls: "cosine" to zero, "linear" to zero in steps of an epoch, "step" by ``decay`` every
            ``decay_epochs``, or "constant".
        decay: factor of the step schedule.
        decay_epochs: epochs between its steps.
        factors: rates of parameters relative to the weights', by the last shell pattern that matches their name, such
            as ``{"*.cell.*": 2, "*.cell.tau": 3}``; a new pattern of the command line comes after those of a file, a
            repeated one keeps its place. A bias that a paper has twice, of an input and of a recurrent product, is one
            with a factor of 2.
    """

    learning_rate: float = 3e-3
    gates_factor: float = 10.0
    noise_factor: float = 1.0
    weight_decay: float = 0.0
    warmup_fraction: float = 0.02
    clip: float = 0.0
    name: str = "adam"
    schedule: str = "cosine"
    decay: float = 0.5
    decay_epochs: int = 100
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    accumulate: int = 1
    factors: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        resolve.check_name("optimizer.name", self.name, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optimizer.schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}.")
        if self.accumulate < 1:
            raise ValueError(f"optimizer.accumulate must be at least 1, got {self.accumulate}.")
        if self.options and not resolve.is_foreign(self.name):
            raise ValueError(
                f"optimizer.options are for an optimiser of one's own, got {', '.join(map(str, self.options))} with "
                f"optimizer.name={self.name}; leave them out."
            )
        if not 0 < self.decay <= 1 or self.decay_epochs < 1:
            raise ValueError(
                "optimizer.decay must be in (0, 1] and decay_epochs at least 1, got "
                f"{self.decay} and {self.decay_epochs}."
            )
        for pattern, factor in self.factors.items():
            if not factor >= 0:
                raise ValueError(f"optimizer.factors must not be negative, got {factor} for {pattern!r}.")
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate must be positive, got {self.learning_rate}.")
        if min(self.gates_factor, self.noise_factor, self.weight_decay, self.clip) < 0:
            raise ValueError("optimizer.gates_factor, noise_factor, weight_decay and clip must not be negative.")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"optimizer.warmup_fraction must be in [0, 1), got {self.warmup_fraction}.")


def optimizer(
    config: OptimizerConfig,
    total_steps: int,
    learning_rate: Array | None = None,
    epochs: int = 1,
    decided: int | None = None,
) -> optax.GradientTransformation:
    """Returns the optimiser of a run of ``total_steps`` updates; gates and halting form groups of their own.

    Raises, once it meets the parameters, a ValueError for a pattern of ``factors`` that matches none of them.

    Args:
        config: rates and regularisation.
        total_steps: updates of the whole run.
        learning_rate: takes the place of the configuration's; may be traced.
        epochs: of the run, for the schedules that count them.
        decided: update from which gates stand still; None is never.
    """
    # what counts updates counts those that several batches share
    total_steps = max(total_steps // config.accumulate, 1)
    decided = None if decided is None else decided // config.accumulate
    warmup = round(config.warmup_fraction * total_steps)
    rate: Any = config.learning_rate if learning_rate is None else learning_rate
    per_epoch = max(total_steps // epochs, 1)

    def falling(peak: Any) -> Callable[[Any], Any]:
        match config.schedule:
            case "cosine":
                return optax.cosine_decay_schedule(peak, max(total_steps - warmup, 1))
            case "linear":
                return lambda step: peak * (1 - jnp.minimum(step // per_epoch, epochs) / epochs)
            case "step":
                return lambda step: peak * config.decay ** (step // per_epoch // config.decay_epochs)
            case _:
                return optax.constant_schedule(peak)

    def group(peak: Any, decay: float, until: int | None = None) -> optax.GradientTransformation:
        fall = falling(peak)
        schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), fall], [warmup]) if warmup else fall
        if until is not None:
            schedule = optax.join_schedules([schedule, optax.constant_schedule(0.0)], [until])
        if resolve.is_foreign(config.name):
            offered = {"learning_rate": schedule, "weight_decay": decay}
            return resolve.called("optimizer.name", config.name, offered, config.options)
        match config.name:
            case "adam":
                return optax.adamw(schedule, weight_decay=decay)
            case "adamax":
                return optax.adamaxw(schedule, weight_decay=decay)
            case _:
                return optax.chain(optax.add_decayed_weights(decay), optax.sgd(schedule))

    def label(params: Params) -> dict[str, str]:
        for pattern in config.factors:
            if not fnmatch.filter(params, pattern):
                raise ValueError(
                    f"optimizer.factors must match parameters, {pattern!r} matches none of {', '.join(params)}."
                )

        def of(name: str) -> str:
            if name.startswith("bits.") or name.endswith(
                STEP
            ):  # steps stand still with gates: while a grid jumps by octaves nothing settles
                return "gates"
            if name.startswith(("gates.", "halting.")):
                return name.split(".")[0]
            matching = [pattern for pattern in config.factors if fnmatch.fnmatchcase(name, pattern)]
            if not matching and name.startswith("likelihood."):
                return "likelihood"
            return matching[-1] if matching else "weights"

        return {name: of(name) for name in params}

    fast = rate * config.gates_factor
    rates = {
        "weights": group(rate, config.weight_decay),
        "likelihood": group(rate * config.noise_factor, 0.0 if config.noise_factor != 1 else config.weight_decay),
        "halting": group(fast, 0.0),
        "gates": group(fast, 0.0, decided),
    }
    rates |= {pattern: group(rate * factor, 0.0) for pattern, factor in config.factors.items()}
    groups = optax.multi_transform(rates, label)
    whole = optax.chain(optax.clip_by_global_norm(config.clip), groups) if config.clip else groups
    if config.accumulate == 1:
        return whole
    return optax.MultiSteps(whole, config.accumulate).gradient_transformation()
