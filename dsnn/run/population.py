"""Many networks in one compiled program: the members of a population, and a run on its own as the case of one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn import learn
from dsnn.config import Config, PopulationConfig
from dsnn.learn.mesh import Spread, local
from dsnn.native import programs

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

MEMBER = "member"
VARIED = {"learning_rate": "optimizer", "lam": "svi", "noise_width": "model", "prior_scale": "bayes"}


def members(config: Config) -> list[Config]:
    """Returns the configuration of each member, which is that of the ordinary run of the same settings.

    Raises:
        ValueError: a value out of range, a population in one named directory, or members that are the same run.
    """
    population = config.population
    if population.size == 1 and not any(getattr(population, name) for name in ("seeds", *VARIED)):
        return [config]
    if config.run.dir and population.size > 1:
        raise ValueError(
            f"a population has a directory for each of its {population.size} members, got run.dir={config.run.dir}; "
            "name their common folder with run.root=DIR."
        )
    same_seed = any(getattr(population, name) for name in VARIED)
    seeds = population.seeds or [config.seed + (0 if same_seed else k) for k in range(population.size)]
    made = []
    for k, seed in enumerate(seeds):
        parts = {
            part: dataclasses.replace(getattr(config, part), **{name: getattr(population, name)[k]})
            for name, part in VARIED.items()
            if getattr(population, name)
        }
        made.append(dataclasses.replace(config, seed=seed, population=PopulationConfig(), **parts))
    for k, one in enumerate(made):
        if one in made[:k]:
            raise ValueError(f"members must differ, got the same settings for {made.index(one)} and {k}; change one.")
    return made


class Together(NamedTuple):
    """One program for one member or many.

    Attributes:
        run: ``(settings, state, arrays, epoch) -> (state, infos)``, compiled.
        init: gives the first state.
        settings: of all members.
        arrays: training examples of all members.
        of: ``(tree, k)`` is member k's part of a state or of infos, whole and on one device; where parameters are dealt
            out, every process has to ask.
        kept: ``(state, k)`` is member k's part of a state as checkpoints keep it: what is dealt out stays so.
        joined: puts the members' states together.
    """

    run: learn.Program
    init: Callable[[], Any]
    settings: Any
    arrays: Any
    of: Callable[[Any, int], Any]
    kept: Callable[[Any, int], Any]
    joined: Callable[[Sequence[Any]], Any]


def together(setups: Sequence["Setup"], spread: Spread | None) -> Together:
    """Returns the program that trains these setups; they differ in their settings and their data only."""
    first = setups[0]
    if len(setups) > 1 and _mapped(first.config.population.mapped) == "scan":
        return _dealt(setups)
    if spread is not None:
        return _spread(first, spread)

    def begin(settings: learn.Settings) -> Any:
        return first.family(settings).init()

    def alone(tree: Any, k: int) -> Any:
        return local(tree)

    def picked(tree: Any, k: int) -> Any:
        return jax.device_put(_picked(tree, k), jax.local_devices()[0])

    if len(setups) == 1:
        settings, arrays = jax.device_put(first.settings), first.examples(jax.device_put)
        alike = first.likeness
        program, starting = programs.shared(
            alike and ("learning", alike), lambda: (first.epoch(), learn.beginning(first.family))
        )
        # beside what starts it
        program.ahead(settings, jax.eval_shape(starting, first.settings), arrays, jnp.asarray(0))
        return Together(
            program,
            lambda: jax.device_put(starting(first.settings)),
            settings,
            arrays,
            alone,
            alone,
            lambda states: jax.device_put(states[0]),
        )
    own = first.config.train
    run = learn.epoch_program(first.family, own.batch_size, transform=first.transform, updates=own.updates_per_epoch)
    row = _row(len(setups))
    settings = _stacked([setup.settings for setup in setups], row)
    shared = all(setup.split is first.split for setup in setups)
    arrays = jax.device_put(_arrays(first)) if shared else _stacked([_arrays(setup) for setup in setups], row)
    return Together(
        learn.compiled(_over_devices(run, row, shared)),
        lambda: learn.starting(_over_devices(lambda s, *_: (begin(s), ()), row, True))(settings, (), (), ())[0],
        settings,
        arrays,
        picked,
        picked,
        lambda states: _stacked(states, row),
    )


def _spread(setup: "Setup", spread: Spread) -> Together:
    """Returns the program of one run on many devices; its state begins, and is kept, where its parts belong."""

    def family(settings: learn.Settings) -> learn.Learner:
        return spread.learner(setup.family(settings))

    run = setup.epoch(family, spread.batch, lambda batches: spread.from_local(batches, axis=1))
    settings = spread.replicated(setup.settings)
    starting = learn.beginning(family)
    return Together(
        run,
        lambda: starting(settings),
        settings,
        setup.examples(spread.replicated, spread.part()),
        lambda tree, k: spread.gathered(tree),
        lambda state, k: state,
        lambda states: states[0],
    )


def _dealt(setups: Sequence["Setup"]) -> Together:
    """Returns the program of a single run, called for one member after another on each of the devices.

    So members are their single runs bit for bit: a program that is compiled for many devices at once sums in another
    order, and hard thresholds make other spikes of that. A device compiles its own copy, or finds it in the cache.
    """
    first, devices = setups[0], jax.local_devices()
    run = first.epoch()
    begin = learn.beginning(first.family)
    homes = [devices[k % len(devices)] for k in range(len(setups))]
    settings = [jax.device_put(setup.settings, home) for setup, home in zip(setups, homes, strict=True)]
    copies = {(id(setup.split), home): (setup, home) for setup, home in zip(setups, homes, strict=True)}
    arrays = {key: jax.device_put(_arrays(setup), home) for key, (setup, home) in copies.items()}

    def each(settings: Any, states: Any, arrays: Any, epoch: Any) -> tuple[Any, Any]:
        done = [run(s, state, a, epoch) for s, state, a in zip(settings, states, arrays, strict=True)]
        return [state for state, _ in done], [info for _, info in done]

    def of(tree: Any, k: int) -> Any:
        return jax.device_put(tree[k], devices[0])

    return Together(
        each,
        lambda: [begin(one) for one in settings],
        settings,
        [arrays[id(setup.split), home] for setup, home in zip(setups, homes, strict=True)],
        of,
        of,
        lambda states: [jax.device_put(state, home) for state, home in zip(states, homes, strict=True)],
    )


@jax.jit
def _picked(tree: Any, k: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[k], tree)


def _arrays(setup: "Setup") -> learn.Batch:
    x, y = jax.tree.map(jnp.asarray, tuple(setup.split.train))  # sparse rows stay so
    return learn.Batch(x, y)


def _mapped(how: str) -> str:
    """Returns "scan" or "vmap": on a CPU one member fills a core, an accelerator wants them all."""
    return how if how != "auto" else "scan" if jax.default_backend() == "cpu" else "vmap"


def _row(size: int) -> Mesh:
    """Returns as many devices as deal out the members evenly."""
    count = max(n for n in range(1, min(size, jax.local_device_count()) + 1) if size % n == 0)
    return Mesh(np.array(jax.local_devices()[:count]), (MEMBER,))


def _stacked(trees: Sequence[Any], row: Mesh) -> Any:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return jax.device_put(stacked, NamedSharding(row, PartitionSpec(MEMBER)))


def _over_devices(run: Callable[..., Any], row: Mesh, shared: bool) -> Callable[..., Any]:
    """Vectorises a program over members, which are dealt out to devices."""
    arrays_axis = None if shared else 0

    def here(settings: Any, state: Any, arrays: Any, epoch: Any) -> Any:
        return jax.vmap(run, in_axes=(0, 0, arrays_axis, None))(settings, state, arrays, epoch)

    each, whole = PartitionSpec(MEMBER), PartitionSpec()
    specs = (each, each, whole if shared else each, whole)
    return jax.shard_map(here, mesh=row, in_specs=specs, out_specs=each, check_vma=False)
