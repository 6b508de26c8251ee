"""Training, prediction and the deployed network are lowered for CUDA, ROCm and TPUs by a process that has none."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lowered import calls, deployed, lowered, params_of, predictive, training

from dsnn import data
from dsnn.assembly.assemble import Setup
from dsnn.deploy.decided import deploy
from dsnn.deploy.integer import integer_network
from dsnn.native import library
from dsnn.run import job, schema
from dsnn.store import places

EXPERIMENTS = sorted(path.stem for path in (places.CONF / "experiment").glob("*.yaml"))


def made(shape: tuple[int, ...], temporal: bool = False) -> data.Split:
    """Binary inputs of this shape in three classes, in place of data that may not be there."""
    rng = np.random.default_rng(0)

    def part(n: int) -> data.Arrays:
        x = (rng.random((n, *shape)) < 0.3).astype(np.float32)
        return data.Arrays(x, np.arange(n, dtype=np.int32) % 3)

    return data.Split(part(96), part(24), part(24), 3, "made", temporal=temporal)


POINT = ("learner=map", "gates.enabled=false", "halting.enabled=false", "model.noise=none")
SEQUENCE = (*POINT, "model.cell=ALIF", "model.recurrent=true", "model.hidden=[9]")
TOKENS = (
    "model.architecture_options={depth: 2, width: 8, heads: 2, mlp_ratio: 2, stem: [2, 3], token_share: [1.0, 0.5]}"
)
SETUPS: dict[str, tuple[tuple[str, ...], data.Split | None]] = {
    "digits": (("experiment=digits",), None),
    "bits": (("experiment=digits", "bits.enabled=true", "energy.profile=45nm-int32"), None),
    "numbers": (("experiment=diabetes",), None),
    "images": (("model.architecture=conv", "model.channels=[4,5]", "model.hidden=[6]"), made((16, 16, 1))),
    "sequence": (SEQUENCE, made((12, 5), temporal=True)),
    "fptt": ((*SEQUENCE, "model.readout=last", "learner=fptt", "fptt.window=4"), made((12, 5), temporal=True)),
    "attention": (
        (*POINT, "model.architecture=spikformer_4_256", "train.steps=2", "train.transform=crop_flip", TOKENS),
        made((16, 16, 1)),
    ),
}
PROGRAMS = [
    ("digits", "training"),
    ("digits", "predictive"),
    ("digits", "deployed"),
    ("bits", "training"),
    ("bits", "deployed"),
    ("bits", "integer"),
    ("numbers", "training"),
    ("numbers", "predictive"),
    ("images", "training"),
    ("images", "deployed"),
    ("sequence", "training"),
    ("fptt", "training"),
    ("attention", "training"),
]
"""Distinct programs: posteriors over weights, gates, bits and steps, images, recurrence, online learning, tokens that
leave; and what a network answers, with its posterior, decided, and on integers."""


@functools.cache
def setup_of(name: str) -> Setup:
    overrides, split = SETUPS[name]
    return job.build(schema.compose([*overrides]), split)


@functools.cache
def learned(name: str) -> dict[str, Any]:
    return params_of(setup_of(name))


def program(setup: Setup, params: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function and its operands."""
    match what:
        case "training":
            return training(setup)
        case "predictive":
            return predictive(setup, params, monkeypatch)
        case "integer":
            simulator = setup.bayesian.simulator
            integers = integer_network(deploy(setup.bayesian, params).small)
            return lambda x: integers.run(x, simulator.steps), (jnp.asarray(setup.split.test.x[:6]),)
    return deployed(setup, params)


@pytest.mark.parametrize(("name", "what"), PROGRAMS, ids=map(" ".join, PROGRAMS))
def test_a_program_is_lowered_for_accelerators_and_calls_nothing_of_this_machine(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {} if what == "training" else learned(name)
    function, operands = program(setup_of(name), params, what, monkeypatch)
    assert calls(lowered(function, *operands)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_programs_of_every_experiment_are_lowered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        setup = job.build(schema.compose([f"experiment={name}"]))
    except data.DataError as error:
        pytest.skip(str(error))
    params = params_of(setup)
    for what in ("training", "predictive", "deployed"):
        function, operands = program(setup, params, what, monkeypatch)
        assert calls(lowered(function, *operands)) == set(), what


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_one_platform_alone_is_lowered_too(platform: str) -> None:
    function, operands = deployed(setup_of("digits"), learned("digits"))
    assert calls(lowered(function, *operands, platforms=(platform,))) == set()


def test_a_process_without_a_compiler_lowers_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_problem", lambda: "there is none")
    jax.clear_caches()
    function, operands = deployed(setup_of("images"), learned("images"))
    assert calls(lowered(function, *operands)) == set()


def test_what_stands_on_this_machine_is_seen() -> None:
    def on_host(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    text = jax.jit(on_host).lower(jnp.ones(3)).as_text()
    assert any("callback" in name for name in calls(text))
    if library.problem() is None:
        here = jax.jit(library.foreign("dsnn_events_count", jax.ShapeDtypeStruct((2,), jnp.int32)))
        assert calls(here.lower(jnp.ones((2, 3))).as_text()) == {"dsnn_events_count"}
    assert calls("stablehlo.outfeed ") == {"outfeed"}
    assert calls("stablehlo.custom_call @cu_threefry2x32_ffi(%0)") == set()
