"""A run that goes on in the smaller network of another starts where that one was deployed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweeping import TINY

from dsnn import evaluate, store
from dsnn.config import as_dict, from_dict
from dsnn.run import job, schema


def test_a_stored_configuration_comes_back() -> None:
    config = schema.compose([*TINY, "svi.budget_sites={input: 20}", "data.ood=[two-moons]"])
    assert from_dict(as_dict(config)) == config
    with pytest.raises(ValueError, match="nonsense is no option of this version"):
        from_dict({"nonsense": 1})


@pytest.mark.slow
def test_learning_goes_on_where_the_other_run_was_deployed(tmp_path: Path) -> None:
    small = "svi.budget_sites={input: 20, hidden0: 5}"
    first = schema.compose([*TINY, "model.hidden=[8]", small, "svi.decide_fraction=0.5", f"run.dir={tmp_path}/first-3",
                            "seed=3", "halting.enabled=false"])  # fmt: skip
    job.run(first)
    options = [
        *TINY,
        "seed=3",
        "gates.enabled=false",
        "halting.enabled=false",
        f"model.compacted={tmp_path}/first-SEED",
    ]
    setup = job.build(schema.compose(options))
    shapes = {name: value.shape for name, value in setup.bayesian.weights.initial.items()}
    assert shapes["hidden0.synapse.kernel"] == (20, 5)
    assert shapes["readout.synapse.kernel"][0] == 5
    x, y = jnp.asarray(setup.split.test.x[:512]), np.asarray(setup.split.test.y[:512])
    right = evaluate.accuracy(
        np.asarray(jax.nn.softmax(setup.bayesian.simulator.logits(setup.bayesian.weights.initial, x)[-1])), y
    )
    np.testing.assert_allclose(right, store.read_metrics(tmp_path / "first-3")["deployed/accuracy"], atol=1e-6)
    _, metrics = job.run(schema.compose([*options, f"run.dir={tmp_path}/second"]))
    assert metrics["compute/parameters"] == sum(int(np.prod(shape)) for shape in shapes.values())
    with pytest.raises(ValueError, match="must name a finished run"):
        job.build(schema.compose([*options, "seed=4"]))
    with pytest.raises(ValueError, match=r"set gates\.enabled=false"):
        schema.compose([*TINY, f"model.compacted={tmp_path}/first-3"])
