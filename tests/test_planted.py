"""Gates find the sites that matter where that is known; the study of gates quotes what these tests print (-s)."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import evaluate, learn
from dsnn.run import job, population, schema

SEEDS = (0, 1, 2, 3, 4)


def found(experiment: str, truth: str, group: str, lams: tuple[float, ...]) -> np.ndarray:
    """Returns AUROC, and the shares of sites kept rightly and in vain, ``[lam, seed, 3]``, learned in one program."""
    configs = [
        schema.compose([f"experiment={experiment}", f"seed={seed}", f"svi.lam={lam}"]) for lam in lams for seed in SEEDS
    ]
    setups = [job.build(config) for config in configs]
    program = population.together(setups, None)
    last = None
    for epoch in learn.fit_program(
        program.run, program.settings, program.init(), program.arrays, epochs=configs[0].train.epochs
    ):
        last = epoch
    assert last is not None
    assert all(np.isfinite(program.of(last.info, k).loss).all() for k in range(len(setups)))
    rows = []
    for k, setup in enumerate(setups):
        p = np.asarray(setup.bayesian.gate_probabilities(setup.params(program.of(last.state, k)))[group])
        matters = np.asarray(setup.split.truth[truth]).ravel()
        rows.append([evaluate.auroc(p[~matters], p[matters]), (p[matters] > 0.5).mean(), (p[~matters] > 0.5).mean()])
        print(experiment, configs[k].svi.lam, configs[k].seed, np.round(rows[-1], 4), flush=True)
    return np.asarray(rows).reshape(len(lams), len(SEEDS), 3)


@pytest.mark.slow
def test_gates_find_eight_channels_of_64() -> None:
    priced, free = found("planted_channels", "channels", "input", (0.02, 0.0))
    assert priced[:, 0].mean() >= 0.99
    assert free[:, 2].mean() > priced[:, 2].mean() + 0.2, "gates without a price leave sites open in vain"


@pytest.mark.slow
def test_gates_find_the_window_of_time() -> None:
    priced, free = found("planted_window", "steps", "time", (0.002, 0.0))
    assert priced[:, 0].mean() >= 0.95
    assert jnp.isfinite(free).all()
