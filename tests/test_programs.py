"""Compiled programs: kept between processes, compiled ahead, and shared by what differs in its numbers only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import dsnn
from dsnn import data, rng, store
from dsnn.assembly.assemble import build
from dsnn.data.batches import ROWS
from dsnn.native import programs
from dsnn.run import job, schema
from dsnn.tasks.probabilities import RULES

COMPILED = "/jax/compilation_cache/compile_requests_use_cache"
FOUND = "/jax/compilation_cache/cache_hits"


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts programs that were asked of the compiler, and those of them that the folder held."""
    seen = {"asked": 0, "found": 0}

    def count(event: str, **_: object) -> None:
        seen["asked"] += event == COMPILED
        seen["found"] += event == FOUND

    jax.monitoring.register_event_listener(count)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_listener(count)


def forgotten() -> None:
    """Leaves no program in memory, as in another process."""
    programs.forget()
    jax.clear_caches()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for programs; what the process had stands again afterwards."""
    names = ("dir", "min_compile_time_secs", "min_entry_size_bytes")
    names = tuple("jax_compilation_cache_dir" if n == "dir" else f"jax_persistent_cache_{n}" for n in names)
    before = {name: getattr(jax.config, name) for name in names}
    forgotten()  # what is in memory already would not be written
    yield tmp_path / "programs"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_small_programs_are_kept_and_found_again_after_a_first_program_without_a_folder(folder: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    jax.jit(lambda x: x * 3)(jnp.ones(2)).block_until_ready()  # from here JAX believes that there is no folder
    programs.use_cache(str(folder))
    jax.clear_caches()  # what makes the ones is in memory

    def triple(x: jax.Array) -> jax.Array:
        return x * 3 + 1

    jax.jit(triple)(jnp.ones(3)).block_until_ready()
    jax.clear_caches()
    with counted() as seen:
        jax.jit(triple)(jnp.ones(3)).block_until_ready()
    assert seen["found"] == seen["asked"] > 0


def test_a_folder_that_was_chosen_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(programs.CACHE, str(folder / "own"))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    programs.use_cache(unless_set=True)
    assert jax.config.jax_compilation_cache_dir == str(folder)
    programs.use_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder / "own")


def test_what_was_compiled_ahead_is_what_is_called() -> None:
    program = programs.Program(lambda a, b: {"sum": a["x"] + b, "key": jax.random.uniform(a["key"])})
    given = {"x": np.arange(3.0, dtype=np.float32), "key": jax.random.key(0)}
    program.ahead(given, np.float32(1))
    first = program({"x": given["x"] + 1, "key": jax.random.key(1)}, np.float32(2))
    assert program.jitted._cache_size() == 0  # jit itself compiled nothing
    np.testing.assert_array_equal(first["sum"], [3.0, 4.0, 5.0])
    other = program({"x": np.zeros(5, np.float32), "key": jax.random.key(1)}, np.float32(2))
    np.testing.assert_array_equal(other["sum"], np.full(5, 2.0))


def examples(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(count) % 3
    x = np.random.default_rng(0).normal(size=(count, 6)) * 0.3 + np.eye(6)[y]
    return x.astype(np.float32), y


@pytest.mark.slow
def test_another_seed_of_a_fit_compiles_nothing_anew(folder: Path) -> None:
    """With the programs of one seed in the folder, all of another seed's are found, but those of its own sizes."""
    programs.use_cache(str(folder))
    options = {"hidden": [8], "steps": 4, "epochs": 2, "batch_size": 60, "baseline": "none"}
    x, y = examples()
    one = dsnn.fit(x, y, seed=0, **options)
    forgotten()
    with counted() as seen:
        again = dsnn.fit(x, y, seed=0, **options)
    assert seen["found"] == seen["asked"] > 0
    assert one.losses == again.losses
    forgotten()
    sizes = {path.name: path.stat().st_size for path in folder.glob("*-cache")}
    dsnn.fit(x, y, seed=1, **options)
    new = [path for path in folder.glob("*-cache") if path.name not in sizes]
    assert not [path.name for path in new if path.stat().st_size > 30_000]  # learning and predicting take more


@pytest.mark.slow
def test_a_job_like_the_one_before_traces_nothing_anew_and_gives_its_own_numbers(tmp_path: Path) -> None:
    """Seed, price and rate of the second are not those of the first, whose programs it runs."""
    common = ["model.hidden=[8]", "train.epochs=2", "train.steps=4", "run.report=false", "track.tool=none"]
    other = [*common, "seed=3", "svi.lam=0.002", "optimizer.learning_rate=0.01", f"run.root={tmp_path}"]
    programs.forget()
    alone, metrics = job.run(schema.compose([*other, f"run.dir={tmp_path / 'alone'}"]))
    programs.forget()
    job.run(schema.compose([*common, f"run.root={tmp_path}"]))
    kept = dict(programs._KEPT)
    after, again = job.run(schema.compose([*other, f"run.dir={tmp_path / 'after'}"]))
    assert kept == dict(programs._KEPT)
    theirs = store.read_arrays(after, "parameters.npz")
    for name, value in store.read_arrays(alone, "parameters.npz").items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    timed = ("time/", "carbon/", "compute/speedup", "compute/full_ms", "compute/deployed_ms")
    assert {k: v for k, v in metrics.items() if not k.startswith(timed)} == {
        k: v for k, v in again.items() if not k.startswith(timed)
    }


@pytest.mark.parametrize(
    "option", ["model.noise_width=0.3", "model.hidden=[9]", "svi.kl_weight=0.5", "train.steps=5", "bayes.rank=3"]
)
def test_what_programs_depend_on_is_no_likeness(option: str) -> None:
    first = build(schema.compose(["model.hidden=[8]"]))
    assert build(schema.compose(["model.hidden=[8]", "seed=1", "svi.lam=0.1"])).likeness == first.likeness
    assert build(schema.compose(["model.hidden=[8]", option])).likeness != first.likeness


def test_what_holds_its_data_or_its_seed_is_like_nothing() -> None:
    for option in ("train.class_weight=balanced", "bayes.rare_inputs=2", "bayes.guide=ensemble"):
        assert build(schema.compose([option, "model.hidden=[8]"])).likeness is None
    drawn = "model.options={tau: {normal: [20, 5]}}"
    assert build(schema.compose([drawn, "model.hidden=[8]"])).likeness is None


def test_predictions_of_parts_and_of_thresholds_share_a_program() -> None:
    x, y = examples(120)
    fitted = dsnn.fit(x, y, hidden=[8], steps=4, epochs=1, batch_size=48, baseline="none")
    predict, key = fitted._predict, rng.root(0)

    def predicted(rows: int, **how: object) -> object:
        return predict(fitted.params, x[:rows], key, samples=2, **how)

    predicted(2 * ROWS)
    with counted() as seen:
        whole = predicted(2 * ROWS)
        part = predicted(2 * ROWS - 1)
        early = predicted(2 * ROWS - 2, threshold=np.array([0.0, np.inf, 3.0]))
        many = predicted(2 * ROWS, threshold=np.zeros(RULES))
    assert seen["asked"] == 0
    assert part.probs.shape == (2 * ROWS - 1, 3)
    assert early.probs.shape == (3, 2 * ROWS - 2, 3)
    assert many.steps.shape == (RULES, 2 * ROWS)
    np.testing.assert_array_equal(part.probs, whole.probs[:-1])
    np.testing.assert_allclose(early.probs[1], whole.full[:-2], atol=1e-6)
    np.testing.assert_array_equal(early.probs[0], many.probs[7][:-2])


@pytest.mark.parametrize(("n", "batch"), [(5, 5), (16, 16), (17, 32), (68, 80), (300, 256)])
def test_batches_of_nearly_one_size_have_one_shape(n: int, batch: int) -> None:
    made = data.eval_batches(n, 256)
    assert made.indices.shape[1] == batch
    np.testing.assert_array_equal(made.indices[made.mask], np.arange(n))


def test_what_is_compiled_quickly_is_asked_for_by_options_that_this_compiler_knows() -> None:
    options = programs.quickly()
    if jax.default_backend() != "cpu":
        assert options is None
        return
    assert options is not None
    assert options.items() <= programs.QUICKLY.items()
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.ones(()))[()] == 2
    unknown = {**programs.QUICKLY, "xla_no_such_option": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "QUICKLY", unknown)
        assert programs._known_of_quickly.__wrapped__() == options
