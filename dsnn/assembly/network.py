"""The network and the posterior family that a configuration names."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax

from dsnn import cells, escape, parameters, resolve, rng
from dsnn.bayes import guides
from dsnn.config import CELLS, NAMED, STEPPED, Config, ModelConfig, named_network
from dsnn.convert import integrate_and_fire, read, to_stack
from dsnn.convert.options import deep_network
from dsnn.networks import initializers, stack
from dsnn.networks.whole import as_network
from dsnn.suggest import did_you_mean
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Key


def build_model(
    config: ModelConfig, in_shape: tuple[int, ...], classes: int, key: Key[Array, ""], noise_width: Any = None
) -> Any:
    """Returns the network of a configuration, a stack or one of the user's own; the key is consumed.

    Args:
        config: the network.
        in_shape: shape of one input.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        noise_width: takes the place of the configuration's; may be traced.
    """
    if config.architecture == "mlp":
        stack.check_widths((math.prod(in_shape), *config.hidden, *config.feedforward, classes), config.blocks)
    keys = (rng.stream(key, "init", layer) for layer in itertools.count())

    def cell(neurons: int) -> Any:
        noise = _noise(config, noise_width)
        names = CELLS.get(config.cell, ("beta", "threshold", "reset"))
        options = {name: getattr(config, name) for name in names}
        options |= {"surrogate": _surrogate(config), "noise": noise}
        return build_cell(config.cell, options, config.options, neurons, next(keys))

    def readout_cell(neurons: int) -> Any:
        beside = {} if config.readout_cell == "LI" else {"surrogate": _surrogate(config)}
        return build_cell(config.readout_cell, beside, config.readout_options, neurons, next(keys))

    common: dict[str, Any] = {
        "key": key,
        "cell": cell,
        "gain": config.gain,
        "readout": config.readout,
        "readout_beta": config.readout_beta,
        "dtype": None if config.products == "float32" else config.products,
    }
    if resolve.is_foreign(config.architecture):
        return _own_network(config, in_shape, classes, key, cell)
    if config.architecture in NAMED:
        made, name = named_network(config.architecture), f"model.architecture={config.architecture}"
        own = resolve.arguments(name, made, common, config.architecture_options, (in_shape, classes))
        return as_network(made(in_shape, classes, **own), name)
    if config.architecture == "conv":
        if len(in_shape) != 3:
            raise ValueError(f"model.architecture=conv needs images [height, width, channel], got {in_shape}.")
        return stack.convnet(in_shape, tuple(config.channels), tuple(config.hidden), classes, **common)
    plain = config.readout_cell == "LI" and not config.readout_options
    depth = len(config.hidden) + len(config.feedforward)
    return stack.mlp(
        in_shape,
        (*config.hidden, *config.feedforward),
        classes,
        recurrent=tuple(config.recurrent and index < len(config.hidden) for index in range(depth)),
        blocks=config.blocks,
        readout_cell=None if plain else readout_cell,
        reads=config.reads,
        start=config.start,
        recurrent_start=config.recurrent_start,
        bias=config.bias,
        **common,
    )


def _own_network(config: ModelConfig, in_shape: tuple[int, ...], classes: int, key: Key[Array, ""], cell: Any) -> Any:
    """Returns the network that a factory of one's own gives."""
    option = "model.architecture"
    own = config.architecture_options
    made = resolve.called(option, config.architecture, {"key": key, "cell": cell}, own, given=(in_shape, classes))
    made = as_network(made, f"{option}={config.architecture}")
    if math.prod(made.out_shape) != classes:
        raise ValueError(
            f"{option} must give a network of {classes} outputs, got out_shape {made.out_shape} from "
            f"{config.architecture}; make its last layer as wide as the classes that it is given."
        )
    return made


def build_cell(kind: str, usual: dict[str, Any], own: dict[str, Any], neurons: int, key: Key[Array, ""]) -> Any:
    """Returns a cell; the key draws those of its constants that differ from neuron to neuron, and is consumed.

    Args:
        kind: name of the cell.
        usual: options that hold where ``own`` says nothing.
        own: options of `ModelConfig`.
        neurons: how many.
        key: consumed.

    Raises:
        ValueError: an option that the cell has not.
    """
    if resolve.is_foreign(kind):
        return _own_cell(kind, usual, own, neurons, key)
    make = getattr(cells, kind)
    known = list(inspect.signature((cells.LIF if kind in ("IF", "PLIF") else make).__init__).parameters)
    known.remove("self")
    options = {name: value for name, value in usual.items() if name in known}
    for place, (name, given) in enumerate(own.items()):
        drawn = initializers.constant(f"option {name} of {kind}", given, rng.stream(key, "init", place), neurons)
        options[name] = tuple(drawn) if isinstance(drawn, list) else drawn
    if "tau" in own:
        options.pop("beta", None)
    if options.get("learnable"):
        options.setdefault("shape", (neurons,))
    if kind == "LTC":
        options |= {"neurons": neurons, "key": rng.stream(key, "init", len(own))}
        known = [name for name in known if name not in ("neurons", "key")]
    if kind in STEPPED:
        options["key"] = rng.stream(key, "init", len(own))
        if "steps" not in own:
            raise ValueError(
                f"a {kind} needs the number of time steps that it has weights for, got none; set model.options.steps "
                "to those that the data have."
            )
    known = [name for name in known if name != "key"]
    for name in own:
        if name not in known:
            hint = did_you_mean(name, known, most=1)
            raise ValueError(f"{kind} takes the options {', '.join(known)}, got {name!r}; {hint}")
    return make(**options)


def _own_cell(kind: str, usual: dict[str, Any], own: dict[str, Any], neurons: int, key: Key[Array, ""]) -> Any:
    """Returns a cell of one's own, which gets what its signature names of the usual options, and all of ``own``."""
    drawn = {}
    for place, (name, given) in enumerate(own.items()):
        constant = initializers.constant(f"option {name} of {kind}", given, rng.stream(key, "init", place), neurons)
        drawn[name] = tuple(constant) if isinstance(constant, list) else constant
    offered = {**usual, "neurons": neurons, "key": rng.stream(key, "init", len(own))}
    made = resolve.called("model.cell", kind, offered, drawn)
    for method in ("init", "step"):
        if not callable(getattr(made, method, None)):
            raise ValueError(
                f"model.cell must give a cell with init(shape) and step(state, current, key), got a "
                f"{type(made).__name__} without {method} from {kind}; see dsnn.protocols.Cell."
            )
    return made


def _surrogate(config: ModelConfig) -> Any:
    """Returns the surrogate of a configuration: a name, None for the density of the noise, or one's own."""
    if not resolve.is_foreign(config.surrogate):
        return config.surrogate or None
    found = resolve.piece("model.surrogate", config.surrogate)
    return found if isinstance(found, Surrogate) else Surrogate(found)


def _noise(config: ModelConfig, width: Any) -> Any:
    width = config.noise_width if width is None else width
    if resolve.is_foreign(config.noise):
        return resolve.called("model.noise", config.noise, {"width": width}, {})
    match config.noise:
        case "logistic":
            return escape.Logistic(width)
        case "gaussian":
            return escape.Gaussian(width)
    return None


def build_converted(config: Config, in_shape: tuple[int, ...], classes: int, noise_width: Any = None) -> stack.Stack:
    """Returns the network that ``convert`` gives, with some weights; arguments as of `build_model`."""
    c, m = config.convert, config.model
    start = 0.5 if c.method in ("qcfs", "calibrated") else 0.0
    cell = integrate_and_fire(start, m.surrogate or None, _noise(m, noise_width))
    with jax.ensure_compile_time_eval():  # conversion looks at numbers, also where a program is being traced
        key = jax.random.key(0)
        units = read(deep_network(c, m.architecture, in_shape, m.hidden, m.channels, classes, key))
        return to_stack(units, [1.0] * (len(units) - 1), in_shape, cell)


def build_guide(
    config: Config,
    in_shape: tuple[int, ...],
    classes: int,
    key: Key[Array, ""],
    changed: Callable[[Any], Any] = lambda model: model,
) -> guides.Guide:
    """Returns the posterior family of a configuration; the key initialises an ensemble's members and is consumed.

    ``changed`` gives, of a member's network, the one that learns.
    """
    c = config.bayes
    if c.guide != guides.ENSEMBLE:
        usual = {"scale": c.guide_scale, "rank": c.rank, "prior_scale": c.rank1_scale, "rate": c.dropout}
        return guides.made(c.guide, usual, c.options)
    keys = [rng.stream(key, "init", member) for member in range(c.members)]
    members = [parameters.split(changed(build_model(config.model, in_shape, classes, k)))[1] for k in keys]
    return guides.ensemble(guides.stacked(members))
