"""What a configuration builds: data, network, NumPyro model and learner, put together in one place."""

import dataclasses
from typing import Any

import numpy as np

from dsnn import data, energy, parameters, rng, train
from dsnn.bayes import priors, sites
from dsnn.bayes.lift import Lifted
from dsnn.config import Config, build_model, check_trainable, load_data
from dsnn.forward import Forward, log_likelihood


@dataclasses.dataclass
class Setup:
    """What a configuration builds."""

    config: Config
    split: data.Split
    lifted: Lifted
    learner: train.Learner
    sites: sites.Sites
    root: Any

    def params(self, state: Any) -> dict[str, Any]:
        """Returns the natural parameters of a learner's state."""
        if self.config.learner == "map":
            return train.map_params(self.lifted.forward.template, state)
        return train.svi_params(self.lifted, state)


def build(config: Config, split: data.Split | None = None) -> Setup:
    """Returns data, network, model and learner of a configuration.

    Args:
        config: of the run.
        split: data in place of those that the configuration names.
    """
    split = load_data(config) if split is None else check_trainable(split)
    root = rng.root(config.seed)
    shape = data.input_shape(split)
    model = build_model(config.model, shape, split.classes, rng.stream(root, "init"))
    template, params = parameters.split(model)
    temporal = split.temporal
    forward = Forward(
        template,
        data.steps(split) or config.train.steps if temporal else config.train.steps,
        "temporal" if temporal else config.train.encoding,
        config.train.schedule,
        int(config.train.memory) if config.train.memory.isdigit() else config.train.memory,
    )
    size = len(split.train.x)
    total = config.train.epochs * (size // config.train.batch_size)
    tx = train.optimizer(config.optimizer, total)
    every_site = sites.sites(
        model, gate_input=config.gates.input, analog_input=_analog(forward, split), held_input=forward.held
    )
    bayesian = config.learner == "svi"
    lifted = Lifted(
        forward,
        params,
        priors.default(template, config.bayes.prior_scale, config.bayes.bias_scale) if bayesian else priors.point,
        size,
        sites=every_site if bayesian and config.gates.enabled else None,
        prices=energy.profile(config.energy.profile),
        accounting=config.energy.accounting,
        feature=config.halting.feature if bayesian and config.halting.enabled else None,
        guide_scale=config.bayes.guide_scale,
        open_probability=config.gates.open_probability,
    )
    if bayesian:
        learner = train.svi_learner(lifted, config.svi, tx, total, root)
    else:

        def loss(values: Any, batch: train.Batch, key: Any) -> Any:
            return -log_likelihood(forward.logits(values, batch.x, key)[-1], batch.y).mean()

        learner = train.map_learner(loss, template, params, tx, root)
    return Setup(config, split, lifted, learner, every_site, root)


def _analog(forward: Forward, split: data.Split) -> bool:
    if forward.encoding != "temporal":
        return forward.analog
    values = np.asarray(split.train.x[:256])
    return not bool(np.isin(values, (0.0, 1.0)).all())
