"""The Bayesian network of a configuration and its data: simulator, posteriors and prices put together."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from dsnn import data, energy, learn, parameters, resolve, rng
from dsnn.assembly import automatic
from dsnn.assembly.activations import SEEN, in_few_bits
from dsnn.assembly.loading import task_of
from dsnn.assembly.network import build_converted, build_guide, build_model
from dsnn.assembly.start import compacted_network
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.bit_posterior import BitPosterior
from dsnn.bayes.bits_config import POSTERIOR_WIDTH
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES, family
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.bayes.widths import Widths
from dsnn.cells import kind
from dsnn.config import Config, reads_images
from dsnn.data.scaling import PARTS
from dsnn.data.streamed import Channelled
from dsnn.data.streams import is_streamed
from dsnn.deploy.fixed_point import check_network
from dsnn.learn import sampling
from dsnn.learn.shrinking import Kept
from dsnn.networks.narrow import narrowed
from dsnn.networks.plan import NEURONS
from dsnn.networks.whole import Whole, is_own
from dsnn.networks.wiring import described_by
from dsnn.simulate.sequential_images import Scan
from dsnn.simulate.simulator import Simulator

LOOKED_AT = 1 << 10
"""Examples at a time."""


def with_network(config: Config, split: data.Split) -> tuple[automatic.Automatic, data.Split]:
    """Returns a configuration whose kind of network is chosen, and the data as that network reads them."""
    shaped = automatic.network(config, split)
    return shaped, _with_channels(split) if reads_images(shaped.config.model.architecture) else split


def _with_channels(split: data.Split) -> data.Split:
    """Returns grey images with the channel axis that convolutions read."""
    if len(data.input_shape(split)) != 2:
        return split
    parts = {name: part for name in PARTS if (part := getattr(split, name)) is not None}
    return split._replace(**{name: part._replace(x=_with_channel(part.x)) for name, part in parts.items()})


def _with_channel(x: Any) -> Any:
    return x.then(Channelled()) if isinstance(x, data.Streamed) else x[..., None]


def settings_of(config: Config) -> learn.Settings:
    """Returns what a configuration gives to the program as arguments."""
    values = (config.optimizer.learning_rate, config.svi.lam, config.model.noise_width, config.bayes.prior_scale)
    return learn.Settings(rng.root(config.seed), *(jnp.asarray(value, jnp.float32) for value in values))


def network(
    config: Config,
    split: data.Split,
    settings: learn.Settings,
    *,
    traced: bool = True,
    start: parameters.Params | None = None,
    keep: Kept | None = None,
) -> tuple[Bayesian, sites.Sites]:
    """Returns the Bayesian network and its compute sites.

    Args:
        config: all that is not a setting.
        split: the data, for its shape and size.
        settings: take the place of the configuration's, and may be traced.
        traced: whether they are; otherwise the noise's width is the configuration's, a constant of the network.
        start: parameters to start from in place of the network's own.
        keep: sites that are left of the network, by group, as it goes on learning; None is all. Priors are those of
            the whole. Settings must not be traced.
    """
    shape, temporal, task = data.input_shape(split), split.temporal, task_of(split, config)
    outputs = task.outputs(split.classes)
    length = data.steps(split) or config.train.steps if temporal else config.train.steps
    if config.train.encoding == "scan" and not temporal:
        length, features = config.train.scan.shape(_image(shape, split.name))
        shape = (features,)
    key = rng.stream(settings.root, "init")
    width = settings.noise_width if traced else None
    model: Any
    if config.convert.method:
        model = build_converted(config, shape, split.classes, width)
    elif config.model.compacted:
        model = compacted_network(
            config.model.compacted,
            config.seed,
            lambda first: network(automatic.network(first, split).config, split, settings_of(first), traced=False)[0],
        )
    else:
        model = build_model(config.model, shape, outputs, key, width)
    fans: dict[str, jax.Array] = {}
    changed = _changed(config, split, settings, _simulator(config, parameters.split(model)[0], length, split), keep)
    if keep is not None:
        fans = _fans(parameters.split(model)[1], parameters.split(changed(model))[1])
    model = changed(model)
    template, params = parameters.split(model)
    if template.statistics and config.learner not in ("svi", "map") and not resolve.is_foreign(config.learner):
        raise ValueError(
            "normalisation statistics are kept by learner=svi and learner=map, got a network with norms and "
            f"learner={config.learner}; take one of these."
        )
    params = params if start is None else start
    simulator = _simulator(config, template, length, split)
    if config.gates.enabled and config.gates.time and not temporal:
        raise ValueError(f"gates.time is for temporal data, {split.name} is static; halting decides its steps.")
    variational, differentiated = config.learner == "svi", config.energy.events == "differentiated"
    priced = variational and (config.gates.enabled or config.halting.enabled or differentiated)
    neurons = described_by(model).neurons
    liquid = [group.name.removesuffix(NEURONS) for group in neurons if kind(group.cost) == "LTC"]
    if priced and liquid:
        raise ValueError(
            "an LTC neuron sees currents and membranes of its whole layer, which no gate closes and no price covers, "
            f"got gates, halting or differentiated events with {liquid[0]!r} of LTC; set gates.enabled=false, "
            "halting.enabled=false and energy.events=frozen."
        )
    every_site = sites.sites(
        model,
        gate_input=config.gates.input,
        gate_features=config.gates.enabled and config.gates.features,
        analog_input=reads_values(simulator, split),
        held_input=simulator.held,
        time_steps=simulator.steps if config.gates.enabled and config.gates.time else 0,
    )
    guide = _guide(config, shape, outputs, key, params, changed)
    if guide.noise is not None and isinstance(model, Whole):
        raise ValueError(
            f"bayes.guide={config.bayes.guide} drops the inputs of a stack's layers, got a network of one's own; take "
            "another guide."
        )
    sampled = config.learner == "nuts"
    halts = variational and config.halting.enabled and task.facts.halts
    if config.convert.method:
        prior = priors.centred(template, params, settings.prior_scale, config.bayes.bias_scale)
    else:
        around = params if config.bayes.cells else None
        rows = _rows(config, split, template) if keep is None else fans
        prior = priors.default(
            template, settings.prior_scale, config.bayes.bias_scale, config.bayes.prior, around, rows
        )
    gated, prices = variational and config.gates.enabled, energy.profile(config.energy.profile)
    prior = prior if variational or sampled else priors.point
    flips = variational and config.bayes.flipout
    bits = _bits(config, model, params, reads_values(simulator, split)) if config.bits.enabled else None
    widths = None if bits is None else Widths(bits, prices, prices.at_bits(config.bits.membrane))
    spares = halts or gated or bits is not None
    bayesian = Bayesian(
        simulator,
        WeightPosterior(template, params, prior, guide, flips),
        _gates(config, every_site) if gated else None,
        HaltingPosterior(length, config.halting.feature, config.halting.fit != "held_out") if halts else None,
        EnergyPrior(every_site, prices, config.energy.accounting, widths=widths, differentiated=differentiated)
        if spares or (variational and differentiated)
        else None,
        task.likelihood(),
        bits,
        data_size=data.size(split.train),
    )
    return bayesian, every_site


def _simulator(config: Config, template: parameters.Template, length: int, split: data.Split) -> Simulator:
    """Returns how examples run through a network for so many steps."""
    scanned = config.train.encoding == "scan" and not split.temporal
    return Simulator(
        template,
        length,
        "temporal" if split.temporal else config.train.encoding,
        config.train.schedule,
        int(config.train.memory) if config.train.memory.isdigit() else config.train.memory,
        config.train.scan if scanned else Scan(),
        stochastic=config.learner != "nuts",
    )


def _changed(
    config: Config, split: data.Split, settings: learn.Settings, simulator: Simulator, keep: Kept | None
) -> Callable[[Any], Any]:
    """Returns what makes of a network as it is built the one that learns: the sites that are left, values of few bits.

    Rules keep these two apart.
    """
    if keep is not None:
        return partial(narrowed, keep=keep)
    if not config.bits.enabled:
        return lambda model: model

    def inputs() -> jax.Array:
        return simulator.encode(jnp.asarray(data.sample(split.train, SEEN).x), rng.stream(settings.root, "data"))

    return partial(in_few_bits, inputs=inputs, bits=config.bits.activations, held=simulator.held)


def _gates(config: Config, where: sites.Sites) -> GatePosterior:
    own = FAMILIES.get(config.gates.family) or family(config.gates.family)
    return GatePosterior(where, own, config.gates.open_probability)


def _bits(config: Config, model: Any, params: parameters.Params, values: bool) -> BitPosterior:
    """Returns the posterior over the widths of a network's kernels, whose inputs are values or spikes."""
    check_network(model)
    own, after = config.bits, config.bits.family == POSTERIOR_WIDTH
    kernels = [wire.kernel for wire in described_by(model).wires]
    return BitPosterior(
        {name: params[name] for name in kernels if name is not None},
        widths=(own.fixed,) if own.fixed else tuple(own.widths),
        zero=own.zero and not own.fixed and not after,
        per_channel=own.per == "channel",
        family=FAMILIES["hard_concrete"] if after else FAMILIES.get(own.family) or family(own.family),
        open_probability=own.open_probability,
        by_deviation=after,
        membrane=own.membrane,
        leak=own.leak,
        inputs=own.inputs,
        activations=own.activations,
        reads_values=values,
    )


def _guide(
    config: Config,
    shape: tuple[int, ...],
    outputs: int,
    key: Any,
    initial: parameters.Params,
    changed: Callable[[Any], Any],
) -> guides.Guide:
    """Returns the posterior family of a learner's weights, see `build_guide`; the key is consumed."""
    if config.learner == "svi":
        return build_guide(config, shape, outputs, key, changed)
    return sampling.family(initial, config.nuts) if config.learner == "nuts" else guides.point()


def _rows(config: Config, split: data.Split, template: parameters.Template) -> dict[str, Any]:
    """Returns factors of the first kernel's prior per input, if inputs that are rarely on have a wider one."""
    if config.bayes.rare_inputs == 1 or reads_images(config.model.architecture):
        return {}
    x = np.asarray(data.looked_at(split.train).x)
    x = x.reshape(len(x) * (x.shape[1] if split.temporal else 1), -1)
    if is_own(template.names):
        raise ValueError("bayes.rare_inputs is for stacks, got a network of one's own; set bayes.rare_inputs=1.")
    first = next(name for name in template.names if name.endswith(".synapse.kernel"))
    return {first: priors.rare_inputs(x, config.bayes.rare_inputs)}


def _fans(whole: parameters.Params, small: parameters.Params) -> dict[str, jax.Array]:
    """Returns factors of the priors of a smaller network's kernels per input, under which they are those of the whole.

    A prior goes by the number of inputs, of which there are fewer.
    """
    found = {}
    for name, value in small.items():
        if name.endswith((".kernel", ".recurrent")):
            fans = [math.prod(kernel.shape[:-1]) for kernel in (value, whole[name])]
            found[name] = jnp.full(value.shape[-2], math.sqrt(fans[0] / fans[1]), jnp.float32)
    return found


def _image(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    if len(shape) < 2:
        raise ValueError(
            f"train.encoding=scan shows images [height, width, ...], {name} has examples of shape {shape}."
        )
    return shape


def reads_values(simulator: Simulator, split: data.Split) -> bool:
    """Returns whether inputs carry values, and not spikes or zeros and ones, of which weights are added.

    Data that are shown as they are, held or step by step, are looked at as far as the first value that is neither.
    """
    if simulator.encoding not in ("temporal", "direct"):
        return simulator.analog
    x: Any = data.looked_at(split.train).x if is_streamed(split) else split.train.x
    if sparse.issparse(x):
        return _valued(x.data)
    return any(_valued(np.asarray(x[start : start + LOOKED_AT])) for start in range(0, len(x), LOOKED_AT))


def _valued(x: np.ndarray) -> bool:
    return bool(((x != 0) & (x != 1)).any())
