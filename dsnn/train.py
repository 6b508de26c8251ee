"""Learners, pairs of pure functions (init, step), and the loop that runs any of them over epochs.

Rules that update within a sequence are in `dsnn.online`, optimisers in `dsnn.optimize`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.optim import optax_to_numpyro

from dsnn import data, programs, rng
from dsnn.bayes.dual import Duals, ascend, falling, largest, most_within
from dsnn.bayes.lift import Context, Lifted
from dsnn.bayes.priors import POINT_CONSTRAINTS
from dsnn.bayes.sites import magnitudes
from dsnn.gradients import FPTTState
from dsnn.parameters import Params, Template
from dsnn.types import Array, Float, Int, Key


class Batch(NamedTuple):
    """A minibatch: inputs ``[batch, ...]`` and labels ``[batch]``."""

    x: Array
    y: Array


def _no_params(state: Any) -> Any:
    raise TypeError("this learner's parameters are read by map_params or svi_params.")


class Learner(NamedTuple):
    """A learning rule: ``init() -> state`` and ``step(state, batch) -> (state, info)``; the state is a pytree.

    ``params(state)`` gives the network's parameters by name; of the house's own rules `map_params` and `svi_params` do.
    """

    init: Callable[[], Any]
    step: Callable[[Any, Batch], tuple[Any, Any]]
    params: Callable[[Any], Any] = _no_params


class MapState(NamedTuple):
    """What maximum a posteriori learning carries from step to step; parameters are unconstrained."""

    params: Params
    opt_state: Any
    step: Int[Array, ""]


class SviState(NamedTuple):
    """What variational inference carries from step to step.

    Attributes:
        svi: NumPyro's own state (unconstrained parameters and optimiser).
        step: updates done.
        duals: prices of energy and of sites.
        events: running average of the events per wire.
        mean_steps: running average of the stopping time.
    """

    svi: Any
    step: Int[Array, ""]
    duals: Duals
    events: dict[str, Array]
    mean_steps: Float[Array, ""]


class Info(NamedTuple):
    """What a person wants to see of a step.

    Attributes:
        loss: in nats per example.
        lam: price of energy, nats per nJ.
        energy_nj: modelled energy of an inference.
        mean_steps: running average of the stopping time.
        kept_fraction: share of the sites that more likely run than not.
        budget_nj: what the energy is held to at this step; 0 without a budget.
    """

    loss: Float[Array, "..."]
    lam: Float[Array, "..."]
    energy_nj: Float[Array, "..."]
    mean_steps: Float[Array, "..."]
    kept_fraction: Float[Array, "..."]
    budget_nj: Float[Array, "..."]


def info_of(values: Any) -> Info:
    """Returns what a step of a learner of one's own says, a dictionary with its ``loss``, as `Info`.

    Raises:
        ValueError: no loss.
    """
    if isinstance(values, Info):
        return values
    if not isinstance(values, dict) or "loss" not in values:
        raise ValueError(f"a learner's step must say its loss, got {values!r}; return (state, dict(loss=loss)).")
    nothing = jnp.zeros(())
    known = {name: jnp.asarray(values.get(name, 0.0), jnp.float32) for name in Info._fields}
    return Info(**{**known, "kept_fraction": nothing + 1})


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and what to do."""


def natural(template: Template, raw: Params) -> Params:
    """Returns parameters where they lie from unconstrained ones, which optimisers move."""
    return {name: _constrain(template, name)(value) for name, value in raw.items()}


def unconstrained(template: Template, params: Params) -> Params:
    """Returns the unconstrained numbers of parameters; the inverse of `natural`."""
    return {name: _constrain(template, name).inv(value) for name, value in params.items()}


def _constrain(template: Template, name: str) -> Any:
    return dist.biject_to(POINT_CONSTRAINTS[template.supports[name]])


def map_learner(
    loss: Callable[[Params, Batch, Key[Array, ""]], Float[Array, ""]],
    template: Template,
    params: Params,
    tx: optax.GradientTransformation,
    root: Key[Array, ""],
) -> Learner:
    """Returns the learner that follows the gradient of ``loss(params, batch, key)``.

    Args:
        loss: in nats per example; the key is consumed.
        template: the network, whose supports keep constrained parameters inside.
        params: where learning starts.
        tx: Optax optimiser.
        root: root key of the run.
    """

    def init() -> MapState:
        raw = unconstrained(template, params)
        return MapState(raw, tx.init(raw), jnp.zeros((), jnp.int32))

    def objective(raw: Params, batch: Batch, key: Key[Array, ""]) -> Float[Array, ""]:
        return loss(natural(template, raw), batch, key)

    def step(state: MapState, batch: Batch) -> tuple[MapState, Info]:
        value, grads = jax.value_and_grad(objective)(state.params, batch, rng.stream(root, "noise", state.step))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        nothing = jnp.zeros(())
        new = MapState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
        return new, Info(value, nothing, nothing, nothing, nothing + 1, nothing)

    return Learner(init, step)


def map_params(template: Template, state: MapState | FPTTState) -> Params:
    """Returns the natural (constrained) parameters of a MAP or FPTT state."""
    return natural(template, state.params)


@dataclasses.dataclass
class SviConfig:
    """How variational inference runs.

    Attributes:
        particles: Monte Carlo samples of the objective per update.
        kl_weight: final factor on KL(w); with any but 1 the posterior is tempered; -1 is automatic, so that the
            divergence weighs a fifth of what the labels carry where learning begins (`dsnn.automatic`).
        gates_weight: factor on the divergence of the gates; -1 is the kl_weight.
        kl_warmup_fraction: share of the updates over which the factor rises from zero.
        lam: price of energy in nats per nJ; the start when a budget is given. Nothing has a price without gates and
            halting. -1 is automatic: a share of what the labels carry, see lam_nats.
        lam_nats: what the energy of the whole ungated network is worth, nats per example; takes the place of lam, which
            is this over that energy as it is measured when the ungated phase ends. 0 is not used.
        ungated_fraction: share of the updates, at the start, in which every site runs and energy is free.
        lam_warmup_fraction: share of the updates over which the price rises from zero (without a budget).
        budget_nj: modelled energy per inference to reach by dual ascent; 0 is none.
        budget_fraction: the same as a fraction of the ungated, full-length network; 0 is none.
        budget_sites: most sites to keep by group, for example ``{input: 266, hidden0: 88}``; each group has a price of
            its own, by dual ascent as well.
        budget_rate: step size of the dual ascent on log prices per measurement.
        budget_fall_fraction: share of the updates over which a budget falls from everything to its value.
        decide_fraction: share of the updates, at the end, in which gates are decided and only the rest learns. Under a
            budget the sites that likeliest run are kept, as many as it pays for; halting then keeps to the budget.
            Without gates there is nothing to decide.
        measure_every: updates between measurements of activity.
        memory: how much of the running average a measurement keeps.
    """

    particles: int = 1
    kl_weight: float = 1.0
    gates_weight: float = 1.0
    kl_warmup_fraction: float = 0.0
    lam: float = 0.0
    lam_nats: float = 0.0
    ungated_fraction: float = 0.0
    lam_warmup_fraction: float = 0.0
    budget_nj: float = 0.0
    budget_fraction: float = 0.0
    budget_sites: dict[str, int] = dataclasses.field(default_factory=dict)
    budget_rate: float = 0.1
    budget_fall_fraction: float = 0.5
    decide_fraction: float = 0.0
    measure_every: int = 10
    memory: float = 0.8

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ValueError(f"svi.particles must be at least 1, got {self.particles}.")
        for name in ("kl_weight", "gates_weight", "lam"):
            if getattr(self, name) < 0 and getattr(self, name) != -1:
                raise ValueError(f"svi.{name} must not be negative, or -1 for automatic, got {getattr(self, name)}.")
        for name in ("lam_nats", "budget_nj", "budget_rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"svi.{name} must not be negative, got {getattr(self, name)}.")
        if self.lam > 0 and self.lam_nats:
            raise ValueError("give svi.lam or svi.lam_nats, got both; set one of them to 0.")
        if not 0 <= self.budget_fraction < 1:
            raise ValueError(f"svi.budget_fraction must be in [0, 1), got {self.budget_fraction}; 0 is no budget.")
        if self.budget_nj and self.budget_fraction:
            raise ValueError("give svi.budget_nj or svi.budget_fraction, got both; set one of them to 0.")
        for group, most in self.budget_sites.items():
            if most < 1:
                raise ValueError(f"svi.budget_sites must keep at least one site of a group, got {group}: {most}.")
        for name in ("budget_fall_fraction", "decide_fraction", "ungated_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"svi.{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.measure_every < 1:
            raise ValueError(f"svi.measure_every must be at least 1, got {self.measure_every}.")
        if not 0 <= self.memory < 1:
            raise ValueError(f"svi.memory must be in [0, 1), got {self.memory}.")


def svi_learner(
    lifted: Lifted,
    config: SviConfig,
    tx: optax.GradientTransformation,
    total_steps: int,
    root: Key[Array, ""],
    lam: Array | None = None,
    vectorize: Callable[[Callable[..., Any], Any], Any] | bool = True,
    begin: Params | None = None,
) -> Learner:
    """Returns the learner that maximises the objective of a lifted network with `numpyro.infer.SVI`.

    Args:
        lifted: model and guide.
        config: temperatures, prices and budgets.
        tx: Optax optimiser over the guide's parameters.
        total_steps: updates of the whole run, for the warm-ups.
        root: root key of the run.
        lam: takes the place of the configuration's λ; may be traced.
        vectorize: how the particles are computed, see `numpyro.infer.ELBO`.
        begin: natural parameters of the guide that learning starts from; None is the guide's own start.
    """
    start_lam: Any = config.lam if lam is None else lam
    budgeted = bool(config.budget_nj or config.budget_fraction)
    shared = config.lam_nats > 0 and not budgeted
    free = lam is None and not (config.lam or budgeted or shared)
    gated_from = round(config.ungated_fraction * total_steps)
    loss = TraceMeanField_ELBO(num_particles=config.particles, vectorize_particles=vectorize)
    svi = SVI(lifted.model, lifted.guide, tx, loss)
    priced = lifted.sites is not None and lifted.prices is not None
    _check_groups(config.budget_sites, lifted)
    if budgeted and not priced:
        raise ValueError(
            "a budget of energy needs something to spare and its price, got neither gates nor halting, or no profile; "
            "set gates.enabled=true or halting.enabled=true."
        )
    if budgeted and lifted.gated_sites is None and not lifted.joint:
        raise ValueError(
            "a budget of energy needs gates to close, or steps that learning may leave out, got neither; set "
            "gates.enabled=true, or halting.fit=training."
        )
    decided = decided_from(config, total_steps) if lifted.gated_sites is not None else None
    empty = lifted.no_context()

    def init() -> SviState:
        x, y = lifted.forward.example(lifted.initial), jnp.zeros(1, jnp.int32)
        prices = {group: jnp.ones(()) for group in config.budget_sites}
        key, context = rng.stream(root, "init"), empty._replace(site_prices=prices)
        state = svi.init(key, x, y, context, init_params=None if begin is None else dict(begin))
        events = {name: jnp.ones_like(e) for name, e in empty.events.items()}
        duals = Duals(jnp.log(first_price()), jax.tree.map(jnp.zeros_like, prices))
        return SviState(state, jnp.zeros((), jnp.int32), duals, events, jnp.asarray(float(lifted.forward.steps)))

    def first_price() -> Array:
        given = jnp.maximum(start_lam, 1e-12)
        if not budgeted or lifted.sites is None:
            return given
        # one nat per site where nothing else is said, every wire sending at every step
        events = {name: jnp.ones_like(e) for name, e in empty.events.items()}
        everything = lifted.energy({}, events).total(float(lifted.forward.steps))
        return jnp.where(start_lam > 0, given, lifted.sites.total / (lifted.data_size * everything))

    def warm(step: Array, fraction: float) -> Array:
        return jnp.clip(step / (fraction * total_steps), 0.0, 1.0) if fraction else jnp.ones(())

    def price(state: SviState) -> Array:
        if free or not priced:
            return jnp.zeros(())
        if budgeted:
            return jnp.exp(state.duals.log_lam)
        if shared:
            ramp = warm(state.step - gated_from, config.lam_warmup_fraction)
            return jnp.where(state.step >= gated_from, jnp.exp(state.duals.log_lam) * ramp, 0.0)
        lam = jnp.where(start_lam > 0, jnp.exp(state.duals.log_lam), 0.0)
        return lam * warm(state.step - gated_from, config.lam_warmup_fraction)

    def budget(state: SviState, *, final: bool = False) -> Array:
        if not budgeted:
            return jnp.zeros(())
        full = lifted.energy({}, state.events).total(float(lifted.forward.steps))
        last = config.budget_nj or config.budget_fraction * full
        return jnp.asarray(last) if final else falling(full, last, warm(state.step, config.budget_fall_fraction))

    def remeasure(state: SviState, batch: Batch) -> SviState:
        params = svi_params(lifted, state)
        events, steps = lifted.measure(params, batch.x, rng.stream(root, "noise", state.step))
        keep = jnp.where(state.step == 0, 0.0, config.memory)
        events = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.events, events)
        steps = keep * state.mean_steps + (1 - keep) * steps
        state = state._replace(events=events, mean_steps=steps)
        opened, duals = lifted.gate_probabilities(params), state.duals
        if budgeted:
            spent = lifted.energy(opened, events).total(steps)
            duals = duals._replace(log_lam=ascend(duals.log_lam, spent, budget(state), config.budget_rate))
        fallen = warm(state.step, config.budget_fall_fraction)
        log_sites = {  # by name: a loop sorts the groups
            group: ascend(
                duals.log_sites[group],
                opened[group].sum(),
                falling(len(opened[group]), most, fallen),
                config.budget_rate,
            )
            for group, most in config.budget_sites.items()
        }
        return state._replace(duals=duals._replace(log_sites=log_sites))

    def set_price(state: SviState) -> SviState:
        whole = lifted.energy({}, state.events).total(float(lifted.forward.steps))
        log_lam = jnp.log(config.lam_nats) - jnp.log(jnp.maximum(whole, 1e-30))
        return state._replace(duals=state.duals._replace(log_lam=log_lam))

    def decide(state: SviState) -> SviState:
        own = svi_params(lifted, state)
        scores = opened = lifted.gate_probabilities(own)
        if lifted.gate_family.by_magnitude:
            assert lifted.sites is not None
            scores = magnitudes(lifted.sites, lifted.centre(own).weights, state.events)
        if budgeted:
            chosen = _filled(lifted, config, state, opened, budget(state, final=True))
            # from here halting alone answers to the price, which has to be within its reach
            within = jnp.maximum(state.duals.log_lam, jnp.log(first_price()))
            state = state._replace(duals=state.duals._replace(log_lam=within))
        else:
            chosen = _most(lifted, config, scores, opened)
        count, (params, opt_state) = state.svi.optim_state
        params = lifted.decide(params, jnp.concatenate(list(chosen.values())))
        return state._replace(svi=state.svi._replace(optim_state=(count, (params, opt_state))))

    def step(state: SviState, batch: Batch) -> tuple[SviState, Info]:
        if svi.constrain_fn is None:
            jax.eval_shape(init)  # NumPyro keeps the parameters' transforms from its last init
        if decided is not None:
            state = jax.lax.cond(state.step == decided, decide, lambda s: s, state)
        if priced:
            due = state.step % config.measure_every == 0
            state = jax.lax.cond(due, remeasure, lambda s, _: s, state, batch)
        if shared and priced:
            state = jax.lax.cond(state.step == gated_from, set_price, lambda s: s, state)
        lam = price(state)
        kl_weight = config.kl_weight * warm(state.step, config.kl_warmup_fraction)
        context = Context(state.events, lam, kl_weight, jax.tree.map(jnp.exp, state.duals.log_sites))
        if config.gates_weight != 1:
            context = context._replace(gates_weight=jnp.asarray(config.gates_weight))
        if gated_from:
            context = context._replace(ungated=state.step < gated_from)
        keyed = state.svi._replace(rng_key=rng.stream(root, "weights", state.step))
        new, value = svi.update(keyed, batch.x, batch.y, context)
        state = state._replace(svi=new, step=state.step + 1)
        kept, energy = jnp.ones(()), jnp.zeros(())
        if priced:
            probabilities = lifted.gate_probabilities(svi_params(lifted, state))
            if lifted.gated_sites is not None:
                runs = lifted.gated_sites.running(probabilities)
                kept = (jnp.concatenate(list(runs.values())) > 0.5).mean()
            energy = lifted.energy(probabilities, state.events).total(state.mean_steps)
        info = Info(value / lifted.data_size, lam, energy, state.mean_steps, kept, budget(state))
        return state, info

    return Learner(init, step)


def decided_from(config: SviConfig, total_steps: int) -> int | None:
    """Returns the update from which gates are decided, or None when they never are."""
    return round((1 - config.decide_fraction) * total_steps) if config.decide_fraction else None


def _most(lifted: Lifted, config: SviConfig, scores: dict[str, Array], opened: dict[str, Array]) -> dict[str, Array]:
    """Returns the sites to keep: the best by score where their number is given, else those that likelier run than not.

    Groups come in the order of the network, and what can no longer be reached is nothing to choose.
    """
    chosen: dict[str, Array] = {}
    sites = lifted.gated_sites
    assert sites is not None
    for group, p in opened.items():
        score = sites.reachable({**chosen, group: scores[group]})[group]
        most = config.budget_sites.get(group)
        chosen[group] = p > 0.5 if most is None else largest(score, most)
    return sites.reachable(chosen)


def _filled(
    lifted: Lifted, config: SviConfig, state: SviState, opened: dict[str, Array], budget: Array
) -> dict[str, Array]:
    """Returns the sites to keep: the likeliest to run, as many as the budget of energy pays for at the mean steps.

    One site stays whatever it costs.
    """
    sites = lifted.gated_sites
    assert sites is not None
    chosen = _most(lifted, config, opened, {group: jnp.ones_like(p) for group, p in opened.items()})
    allowed = jnp.concatenate(list(chosen.values()))
    likely = jnp.where(allowed, jnp.concatenate(list(opened.values())), -1.0)
    place = jnp.argsort(jnp.argsort(-likely))

    def kept(count: Array) -> dict[str, Array]:
        return sites.reachable(sites.unflatten((place < count) & allowed))

    def spent(count: Array) -> Array:
        opened = {group: k.astype(jnp.float32) for group, k in kept(count).items()}
        return lifted.energy(opened, state.events).total(state.mean_steps)

    return kept(most_within(spent, budget, len(likely)))


def _check_groups(budget: dict[str, int], lifted: Lifted) -> None:
    groups = {} if lifted.gated_sites is None else lifted.gated_sites.groups
    for group, most in budget.items():
        if most > groups.get(group, 0):
            has = ", ".join(f"{name}: {size}" for name, size in groups.items()) or "none"
            raise ValueError(f"svi.budget_sites must name groups and at most their sites ({has}), got {group}: {most}.")


def svi_params(lifted: Lifted, state: SviState) -> dict[str, Array]:
    """Returns the guide's parameters in their natural spaces."""
    return lifted.constrain(optax_to_numpyro(optax.identity()).get_params(state.svi.optim_state))


class Settings(NamedTuple):
    """What may differ between runs that share one compiled program: its arguments, not its constants.

    So the jobs of a sweep over them find the program in the compilation cache, and a population maps over them.

    Attributes:
        root: root key of the run.
        learning_rate: peak rate for weights.
        lam: price of energy, nats per nJ.
        noise_width: scale of the escape noise, in units of the membrane.
        prior_scale: prior standard deviation of a kernel times sqrt(fan in).
    """

    root: Key[Array, "*member"]
    learning_rate: Float[Array, "*member"]
    lam: Float[Array, "*member"]
    noise_width: Float[Array, "*member"]
    prior_scale: Float[Array, "*member"]


Family = Callable[[Settings], Learner]
Program = Callable[[Any, Any, Any, Array], tuple[Any, Any]]
"""``(settings, state, arrays, epoch) -> (state, infos)``: all steps of one epoch."""


class Epoch(NamedTuple):
    """One epoch done: its number, the state after it, and the infos of its steps."""

    number: int
    state: Any
    info: Any


def fit(
    learner: Learner,
    state: Any,
    arrays: Batch,
    *,
    epochs: int,
    batch_size: int,
    root: Key[Array, ""],
    start: int = 0,
) -> Iterator[Epoch]:
    """Yields after every epoch; one compiled call runs all of an epoch's steps on device-resident data.

    The order of examples in epoch e depends on the root key and e alone, so a run resumed at ``start`` goes on exactly
    as if it had never stopped. Buffers are donated from step to step; the state passed in is copied first.

    Args:
        learner: from `map_learner`, `svi_learner` or your own.
        state: from ``learner.init()`` or a checkpoint.
        arrays: all training examples.
        epochs: number of epochs of the whole run.
        batch_size: examples per step; an incomplete last batch is left out, other examples every epoch.
        root: root key of the run.
        start: first epoch to run.

    Raises:
        TrainingError: a loss that is not finite.
    """
    unused = jnp.zeros(())
    settings = Settings(root, unused, unused, unused, unused)
    run = compiled(epoch_program(lambda _: learner, batch_size))
    for epoch in fit_program(run, settings, state, arrays, epochs=epochs, start=start):
        require_finite(epoch.info.loss, epoch.number)
        yield epoch


def epoch_program(
    family: Family,
    batch_size: int,
    place: Callable[[Batch], Batch] = lambda batch: batch,
    transform: Callable[[Any, Any], Any] | None = None,
) -> Program:
    """Returns ``run(settings, state, arrays, epoch) -> (state, infos)``, all steps of one epoch, for `compiled`.

    Args:
        family: the learner for given settings, built while the program is traced.
        batch_size: examples per step.
        place: says where a batch is computed, see `dsnn.mesh.Spread`.
        transform: ``(x, key) -> x`` changes the inputs of a batch; the key is of a stream of its own.
    """

    def run(settings: Settings, state: Any, arrays: Batch, epoch: Array) -> tuple[Any, Any]:
        learner = family(settings)
        order = data.epoch_permutation(rng.stream(settings.root, "data", epoch), len(arrays.x), batch_size)

        def changed(i: Array, step: Array) -> Batch:
            assert transform is not None
            return Batch(transform(arrays.x[i], rng.stream(key, "augment", step)), arrays.y[i])

        if transform is None:
            return jax.lax.scan(lambda s, i: learner.step(s, place(Batch(arrays.x[i], arrays.y[i]))), state, order)
        key = rng.stream(settings.root, "augment", epoch)
        numbered = order, jnp.arange(len(order))
        return jax.lax.scan(lambda s, at: learner.step(s, place(changed(*at))), state, numbered)

    return run


def compiled(run: Program) -> programs.Program:
    """Returns an epoch's program compiled; the buffers of its state are donated."""
    return programs.Program(run, donate_argnums=1)


def beginning(family: Family) -> Callable[[Settings], Any]:
    """Returns ``settings -> state``, compiled, see `starting`."""
    return starting(lambda settings: family(settings).init())


def starting(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what makes first states, compiled at the level that is done soonest and gives the usual bits."""
    return jax.jit(begin, compiler_options=programs.quickly(level=1))


def fit_program(
    run: Program, settings: Any, state: Any, arrays: Any, *, epochs: int, start: int = 0
) -> Iterator[Epoch]:
    """Yields after every epoch of a `compiled` program, or of one for many members; see `fit`."""
    alone = all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array))
    # the first is a copy that compiles nothing
    state = jax.device_put(state, may_alias=False) if alone else jax.tree.map(jnp.copy, state)
    for epoch in range(start, epochs):
        state, info = run(settings, state, arrays, jnp.asarray(epoch))
        yield Epoch(epoch, state, info)


def require_finite(losses: Any, epoch: int) -> None:
    """Checks the losses of one epoch, an array ``[step]``.

    Raises:
        TrainingError: a loss that is not finite, with its step.
    """
    bad = ~np.isfinite(np.asarray(losses))
    if bool(bad.any()):
        first = int(bad.argmax())
        raise TrainingError(
            f"the loss must stay finite, got {float(losses[first])} at step {epoch * len(losses) + first} "
            f"(epoch {epoch}); lower optimizer.learning_rate or set optimizer.clip=1."
        )
