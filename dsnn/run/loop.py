"""The loop over epochs, of one run or of many at once: it validates, records, checkpoints, and stops when told."""

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit

from dsnn import data, learn, rng, store, tasks
from dsnn.assembly import smaller
from dsnn.learn import mesh
from dsnn.native import programs
from dsnn.run import assess, hooks, machine, peers, population, signals
from dsnn.run.console import Live, at_once, console
from dsnn.run.signals import Interrupted
from dsnn.store import checkpoint, rescue
from dsnn.store.track import Track

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

VALIDATION_SAMPLES = 8
SELECTED = "selected.npz"
SHRUNK = "shrunk.npz"
"""File of a run directory with the sites that are left of the network while it learns, and since when."""
BESIDE = (store.HISTORY, SELECTED, SHRUNK, hooks.ENDED)
"""Files that say how far a run got, as a checkpoint keeps them."""
EPOCH, SCORE = "selected/epoch", "selected/score"


Watch = Callable[[int, dict[str, float]], bool]
Told = learn.Info | learn.SviInfo
"""What a learner says of a step; only variational inference has more to say than a loss."""


class Pruned(RuntimeError):
    """A run that its watch found not worth more time."""


@dataclasses.dataclass
class Member:
    """A run that learns, alone or beside others.

    Attributes:
        setup: what it learns.
        directory: its run directory.
        track: who is told; None tells nobody.
        failure: why it stopped; empty while it has not.
        begun: what the network that it started from was worth.
        selected_in: folder of the epoch that validation selected; None is the directory.
        like: another member, whose compiled prediction serves this one if its network is the same.
    """

    setup: "Setup"
    directory: Path
    track: Track | None = None
    failure: str = ""
    selected_in: Path | None = None
    like: "Member | None" = None
    begun: dict[str, Any] = dataclasses.field(default_factory=dict)
    predict: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        spread = self.setup.spread
        shared = spread is not None and spread.over(mesh.SAMPLES)
        if self.like is not None and self.like.setup.config.model == self.setup.config.model:
            self.predict = self.like.predict
        else:
            alike = self.setup.likeness
            self.predict = programs.shared(
                alike and ("predictive", alike),
                lambda: self.setup.task.predictor(self.setup.bayesian, jax.local_device_count() if shared else 1),
            )

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.directory / "checkpoints"

    def fail(self, error: BaseException) -> None:
        """Records why it stopped, with the traceback."""
        self.failure = str(error) or type(error).__name__
        text = "".join(traceback.format_exception(error))
        with contextlib.suppress(store.RunDirError):  # a full disk must not hide the reason
            store.write_text(self.directory, store.FAILED, f"{self.failure}\n\n{text}")

    def close(self, kind: object, error: BaseException | None, where: object) -> None:
        """Ends the track in the state that the run ended in."""
        ours = isinstance(error, Exception) and not isinstance(error, Interrupted | Pruned)
        if ours and not self.failure and not (self.directory / store.DONE).exists():
            assert error is not None
            self.fail(error)
        ended_well = error is None or isinstance(error, Pruned)
        code = error.exit_code if isinstance(error, Interrupted) else int(not ended_well or bool(self.failure))
        if self.track is not None:
            self.track.finish(code)

    def record(self, state: Any, info: Told, epoch: int) -> dict[str, float]:
        """Validates, and writes a line of history."""
        params = self.setup.params(state)
        last = _validate(self.setup, params, info, self.predict, epoch)
        self.select(params, last, epoch)
        store.append_history(self.directory, {"step": epoch, **last})
        if self.track is not None:
            self.track.log(last, epoch)
        return last

    def keep(self, state: Any, epoch: int, save: Callable[..., Path] = checkpoint.save) -> None:
        """Writes a checkpoint, with the files that say how far the run got; every process its own part of the state."""
        if mesh.leads() or checkpoint.apart(state):
            files = [self.directory / name for name in BESIDE if (self.directory / name).exists()]
            save(self.checkpoints, epoch, state, files)

    def left(self) -> smaller.Left | None:
        """Returns what has left the network that learns; None while nothing has."""
        return smaller.Left.of(store.read_arrays(self.directory, SHRUNK))

    def leave(self, left: smaller.Left) -> None:
        """Keeps what has left the network that learns, with what every phase before it cost, and says so."""
        before = store.read_arrays(self.directory, SHRUNK)
        phases = np.atleast_2d([[left.epoch, left.macs]])
        phases = np.concatenate([before["phases"], phases]) if before else phases
        store.write_arrays(self.directory, SHRUNK, left.arrays() | {"phases": phases})
        sizes = ", ".join(
            f"{group} {len(sites)} of {self.setup.sites.groups[group]}" for group, sites in left.keep.items()
        )
        console.print(f"after epoch {left.epoch} learning goes on in a smaller network: {sizes}", markup=False)

    def go_back(self, epoch: int) -> None:
        """Puts those files back to what they were at a checkpoint, or at the beginning."""
        if not mesh.leads():
            return
        if epoch:
            checkpoint.put_back(self.checkpoints, epoch, self.directory, BESIDE)
            return
        for name in BESIDE:
            (self.directory / name).unlink(missing_ok=True)

    def tell(self, info: Told, epoch: int) -> None:
        """Tells the track of an epoch without a validation."""
        if self.track is not None:
            self.track.log({"epoch": float(epoch), "train/loss": float(np.mean(info.loss))}, epoch)

    def select(self, params: dict[str, Any], scores: dict[str, float], epoch: int) -> None:
        """Keeps the parameters of the epoch that is best on validation, in a file, so that a resumed run knows it."""
        by = self.setup.config.train.select
        if by == "last":
            return
        score = scores[f"val/{by}"] if self.setup.task.facts.best[by] else -scores[f"val/{by}"]
        best = store.read_arrays(self.directory, SELECTED)
        if not best or score > best[SCORE]:
            kept: dict[str, Any] = {**params, EPOCH: np.asarray(epoch), SCORE: np.asarray(score, np.float64)}
            store.write_arrays(self.directory, SELECTED, kept)

    def selected(self) -> tuple[int, dict[str, Any]] | None:
        """Returns the selected epoch and its parameters, None where the last epoch is assessed."""
        if self.setup.config.train.select == "last":
            return None
        best = store.read_arrays(self.selected_in or self.directory, SELECTED)
        return int(best.pop(EPOCH)), {name: jnp.asarray(value) for name, value in best.items() if name != SCORE}


class Learned(NamedTuple):
    """States of the members, the seconds of compiling (the first epoch) and of all learning, and the epochs of it."""

    states: list[Any]
    compile_s: float
    train_s: float
    epochs: int = 0


class Reached:
    """The last epoch that all processes of a run have done, kept in case one of them is lost in the next.

    A copy of the state is kept by the first process, which writes it; of one that is dealt out over processes there is
    none, since a part of it goes with the lost one.

    Args:
        members: that learn.
        start: epoch of the checkpoint that they began from; 0 is none.
    """

    def __init__(self, members: Sequence[Member], start: int):
        self._members, self._saved, self._epoch = members, start, start
        self._states: list[Any] = []

    def now(self, epoch: int, states: Sequence[Any], saved: int) -> None:
        """Takes note of an epoch, with the states of the members and the epoch of the last checkpoint."""
        self._epoch, self._saved = epoch, saved
        if jax.process_count() > 1 and mesh.leads() and not checkpoint.apart(list(states)):
            self._states = [jax.tree.map(jnp.copy, mesh.local(state)) for state in states]  # the others are donated

    def kept(self) -> str:
        """Writes the last epoch as a checkpoint, if it can and is none yet, and says which is the newest."""
        if self._states and self._epoch > self._saved:
            for member, state in zip(self._members, self._states, strict=True):
                member.keep(state, self._epoch, rescue.save)
            self._saved = self._epoch
        return f"the last checkpoint is after epoch {self._saved}" if self._saved else "there is no checkpoint yet"


def train(members: Sequence[Member], watch: Watch | None = None, *, assessed: bool = True) -> Learned:
    """Trains members of one program from the newest checkpoint that all of them have, if there is one.

    A member whose loss is not finite ends with its ``failure``; the others go on.

    Args:
        members: that learn.
        watch: is told of each validation, and ends learning by returning true.
        assessed: whether what an assessment needs is compiled meanwhile, since one follows.

    Raises:
        Interrupted: told to stop.
        TrainingError: the loss of a member that learns alone is not finite.
    """
    began = time.monotonic()
    console.print(f"compiling, then learning {members[0].setup.config.train.epochs} epochs")
    first = members[0].setup
    config, spread = first.config, first.spread
    together = population.together([member.setup for member in members], spread)
    start, state = _resumed(members, together)
    before = [hooks.ended(member.directory) for member in members]
    last_epoch = min(config.train.epochs if end is None else end for end in before)

    if assessed and len(members) == 1 and spread is None and jax.default_backend() == "cpu":
        assess.ahead(first, first.params(state), members[0].predict)
    programs.beside("orbax.checkpoint", *["sklearn.linear_model"] * (config.baseline != "none"), "dsnn.report")
    epochs = smaller.fit(
        first,
        together.run,
        together.settings,
        state,
        together.arrays,
        epochs=max(last_epoch, start),
        start=start,
        left=members[0].left(),
        told=members[0].leave,
    )
    compiled, saved, last, written = 0.0, start, {}, time.monotonic()
    reached = Reached(members, start)
    with (
        signals.after_this_epoch(at_once) as asked,
        Live(config.train.epochs, start) as live,
        peers.watched(reached.kept),
    ):
        for epoch in epochs:
            done, final = epoch.number + 1, epoch.number + 1 == last_epoch
            compiled = compiled or time.monotonic() - began
            state = epoch.state
            infos = jax.device_get([together.of(epoch.info, k) for k in range(len(members))])
            _check(members, infos, epoch.number, saved)
            going = [k for k, member in enumerate(members) if not member.failure]
            stop = mesh.agreed(asked[0] if asked else 0)
            due = done % config.train.eval_every == 0 or final
            whole = [together.of(state, k) for k in going] if due else []
            if mesh.leads():
                if due:
                    last = _recorded(
                        [members[k] for k in going], list(zip(whole, [infos[k] for k in going], strict=True)), done
                    )
                    if watch is not None and watch(done, last):
                        raise Pruned(f"stopped after epoch {done} of {config.train.epochs} by its watch.")
                    live.validation(done, last)
                    over = [
                        hooks.ends(members[k], members[k].setup.params(one), last, done)
                        for k, one in zip(going, whole, strict=True)
                    ]
                    if all(over) and not final:
                        final, last_epoch = True, done
                        for member in members:
                            hooks.end(member.directory, done)
                        console.print(f"learning ends after epoch {done}, as a callback or train.patience says")
                else:
                    for k in going:
                        members[k].tell(infos[k], done)
                live.epoch(done, float(np.mean([infos[k].loss.mean() for k in going])), last)
            del whole
            reached.now(done, [together.kept(state, k) for k in going], saved)
            final = bool(mesh.agreed(int(final)))
            late = time.monotonic() - written > config.train.checkpoint_s * len(members)
            if mesh.agreed(int(final or stop or late)):
                for k in going:
                    members[k].keep(together.kept(state, k), done)
                written, saved = time.monotonic(), done
            if final:
                break
            if stop:
                raise Interrupted(
                    f"stopped after epoch {done} of {config.train.epochs}, checkpoint written; the same command "
                    f"(or run.dir={members[0].directory}) goes on.",
                    stop,
                )
    states = [together.of(state, k) for k in range(len(members))]
    return Learned(states, compiled, time.monotonic() - began, max(last_epoch, start))


def _recorded(members: Sequence[Member], given: Sequence[tuple[Any, Told]], epoch: int) -> dict[str, float]:
    """Records an epoch of every member, side by side where they share a program; returns what the last one recorded.

    The first goes alone, since it may have to trace the program, which NumPyro can do in one thread at a time only.
    """
    first = members[0].record(*given[0], epoch)
    shared = all(member.predict is members[0].predict for member in members)
    with ThreadPoolExecutor(machine.cores() if shared else 1) as pool:
        others = pool.map(lambda member, pair: member.record(*pair, epoch), members[1:], given[1:])
        return [first, *others][-1]


def _resumed(members: Sequence[Member], together: population.Together) -> tuple[int, Any]:
    """Returns the epoch that all members can go on from, and the state there."""
    state = together.init()
    common = set.intersection(*({0, *checkpoint.steps(member.checkpoints)} for member in members))
    newest, oldest = mesh.agreed(max(common)), -mesh.agreed(-max(common))
    if newest != oldest:
        raise ValueError(
            f"all processes of a run must see one folder, got {members[0].checkpoints} with a checkpoint after epoch "
            f"{newest} in one of them and {oldest} in another; set run.root to a folder that all machines share."
        )
    for start in sorted(common - {0}, reverse=True):
        saved, why = [], ""
        try:
            for k, member in enumerate(members):
                saved.append(checkpoint.restore(member.checkpoints, start, together.kept(state, k)))
        except checkpoint.CheckpointError as error:
            if "belongs to another" in str(error):
                raise
            why = str(error)
        if mesh.agreed(int(bool(why))):  # what one process cannot read, none goes on from
            console.print(
                f"{why or 'Another process could not read its checkpoint.'} Going back to the checkpoint before it."
            )
            continue
        console.print(f"going on after epoch {start} of {members[0].setup.config.train.epochs}")
        for member in members:
            member.go_back(start)
        return start, together.joined(saved)
    for member in members:
        member.go_back(0)
    return 0, state


def _check(members: Sequence[Member], infos: Sequence[Told], epoch: int, saved: int) -> None:
    for member, info in zip(members, infos, strict=True):
        try:
            if not member.failure:
                learn.require_finite(info.loss, epoch)
        except learn.TrainingError as error:
            kept = f"the last good checkpoint is after epoch {saved}" if saved else "no checkpoint was written yet"
            failure = learn.TrainingError(f"{error} ({kept}, in {member.checkpoints})")
            if len(members) == 1:
                raise failure from None
            member.fail(failure)
            console.print(f"{member.directory}: {failure}")
    if all(member.failure for member in members):
        raise learn.TrainingError(f"every member of the population failed; the first: {members[0].failure}")


def _validate(
    setup: "Setup", params: dict[str, Any], info: Told, predict: Callable[..., Any], epoch: int
) -> dict[str, float]:
    """Returns a history record: training averages and scores on the validation part."""
    split, config, task = setup.split, setup.config, setup.task
    record = {
        "epoch": float(epoch),
        "train/loss": float(info.loss.mean()),
        "compute/steps_mean": float(setup.bayesian.simulator.steps),
    }
    if isinstance(info, learn.SviInfo):
        record["compute/steps_mean"] = float(info.mean_steps[-1])
        if setup.bayesian.energy is not None:
            record |= {
                "svi/lam": float(info.lam[-1]),
                "svi/energy_nj": float(info.energy_nj[-1]),
                "svi/budget_nj": float(info.budget_nj[-1]),
            }
        if setup.bayesian.gates is not None:
            record["gates/kept_fraction"] = float(info.kept_fraction[-1])
    key, samples = rng.stream(setup.root, "weights", epoch), min(VALIDATION_SAMPLES, config.bayes.samples)
    parts = [part for part in ("val", "test") if data.size(getattr(split, part))]
    parts = parts if config.train.watch_test else [part for part in parts if part == "val"]
    early = {"threshold": float(logit(config.halting.quantile))} if setup.bayesian.joint else {}
    for part in parts:
        arrays = getattr(split, part)
        made = predict(params, arrays.x, key, samples=samples, **early, **task.beside(arrays.y))
        scores = task.scores(task.placed(made, split), task.targets(split, part))
        record |= tasks.scored(part, {name: scores[name] for name in task.facts.watched or scores})
        if part == "val" and task.facts.halts:
            record["compute/steps_mean"] = float(made.steps.mean())
    return record
