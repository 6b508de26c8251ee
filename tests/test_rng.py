import itertools

import jax
import pytest

from dsnn import rng


def test_streams_and_steps_are_all_different() -> None:
    root = rng.root(0)
    keys = [rng.stream(root, name, step) for name, step in itertools.product(rng.STREAMS, range(3))]
    seen = {tuple(jax.random.key_data(key).tolist()) for key in keys}
    assert len(seen) == len(keys)


def test_a_stream_is_a_function_of_its_name_and_step() -> None:
    one = rng.stream(rng.root(3), "noise", 7)
    two = jax.jit(lambda step: rng.stream(rng.root(3), "noise", step))(7)
    assert jax.random.key_data(one).tolist() == jax.random.key_data(two).tolist()


def test_unknown_stream_and_negative_seed() -> None:
    with pytest.raises(ValueError, match="must be one of data, init"):
        rng.stream(rng.root(0), "noisy")
    with pytest.raises(ValueError, match="got -1"):
        rng.root(-1)
