"""The names that somebody may have meant: near ones of one that is misspelt, and today's of a module that has moved."""

import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

MOVED = {
    "activity": "deploy.activity",
    "address": "simulate.row_sampling",
    "allocator": "native.allocator",
    "answer_calibration": "tasks.calibration",
    "anytime": "simulate.early_exit",
    "assemble": "assembly.assemble",
    "automatic": "assembly.automatic",
    "bayes.dual": "learn.duals",
    "bayes.lift": "bayes.bayesian",
    "bayes.predict": "tasks.probabilities",
    "bayes.refit": "deploy.refit",
    "bayes.regress": "tasks.numbers",
    "bayes.sequence": "tasks.steps",
    "bayes.sources": "tasks.sources",
    "build": "assembly.network",
    "cells.parallel": "simulate.associative",
    "compact": "networks.compact",
    "convert.deep": "convert.ann",
    "convolve": "networks.convolve",
    "decide": "deploy.fused_inference",
    "deep": "convert.learning",
    "derivatives": "native.derivatives",
    "describe": "networks.describe",
    "encode": "simulate.encode",
    "energy.claims": "run.claims",
    "events": "native.products",
    "events.library": "native.library",
    "exit_calibration": "deploy.exit_calibration",
    "fold": "deploy.fold",
    "forward": "simulate.simulator",
    "gradients": "learn.gradients",
    "gradients.eprop": "learn.gradients.eprop",
    "gradients.exact": "learn.gradients.exact",
    "gradients.fptt": "learn.gradients.fptt",
    "gradients.score": "learn.gradients.score",
    "gradients.truncated": "learn.gradients.truncated",
    "gradients.windows": "learn.gradients.windows",
    "guard": "assembly.guard",
    "identity": "assembly.identity",
    "inference_data": "api.inference_data",
    "initial": "networks.initializers",
    "kept_programs": "native.kept_programs",
    "layers": "networks.layers",
    "linear": "assembly.linear",
    "loading": "assembly.loading",
    "loops": "simulate.fused",
    "loops.scans": "simulate.fused_scans",
    "lowering": "native.lowering",
    "mesh": "learn.mesh",
    "models": "networks.stack",
    "nearest": "suggest",
    "numbers": "tasks.numbers",
    "offline": "store.offline",
    "online": "learn.online",
    "optimize": "learn.optimizer",
    "places": "store.places",
    "predictive": "tasks",
    "private_folder": "store.private_folder",
    "programs": "native.programs",
    "rules": "config.rules",
    "run.assess_labels": "tasks.labels",
    "run.assess_numbers": "tasks.numbers",
    "run.assess_steps": "tasks.steps",
    "sampling": "learn.sampling",
    "sequences": "simulate.sequential_images",
    "start": "assembly.start",
    "tensorboard": "store.tensorboard",
    "track": "store.track",
    "train": "learn",
    "typed": "config.typed",
    "unroll": "simulate.unroll",
    "untrusted": "store.untrusted",
    "version": "store.version",
    "wording": "plots.wording",
}
"""Modules of `dsnn` before 0.2.0, and where they are; the old names go with 0.3.0."""

GONE = {
    "bidirectional": "put two chains in a dsnn.networks.Concatenate",
    "bayes.recorded_lif": "it is experiments/recorded_lif.py of the repository",
}
"""Modules that are no more, and what there is."""

OF_OLD = "{old} is {new} since dsnn 0.2.0, and the old name goes with 0.3.0; import {new}."


def did_you_mean(name: object, known: Iterable[object], otherwise: str = "leave it out.", *, most: int = 3) -> str:
    """Returns "did you mean 'a' or 'b'?", or what to do ``otherwise`` where nothing is near.

    A dotted name is also found by its last part: ``epochs`` for ``train.epochs``.

    Args:
        name: what was given.
        known: what there is.
        otherwise: end of the sentence without a name to suggest.
        most: names to suggest.
    """
    names = [str(one) for one in known]
    tails = difflib.get_close_matches(_tail(str(name)), {_tail(one) for one in names}, n=most)
    near = difflib.get_close_matches(str(name), names, n=most)
    near += [one for tail in tails for one in names if _tail(one) == tail]
    near = list(dict.fromkeys(near))[:most]
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def _tail(name: str) -> str:
    return name.rsplit(".", 1)[-1]


class _Same(types.ModuleType):
    """Today's module, for a name that was a room's."""

    def __init__(self, module: types.ModuleType, name: str = ""):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(module.__dict__)
        self.__name__ = name or module.__name__  # the names in it are looked up under this one
        self.__path__: list[str] = []


class _Both(_Same):
    """Today's module, for a name that is a function of the package as well."""

    def __init__(self, module: types.ModuleType, function: Callable[..., Any]):
        super().__init__(module)
        self.__dict__["_function"] = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__dict__["_function"](*args, **options)


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module by its name of before 0.2.0, and says what it is called today."""

    def __init__(self) -> None:
        self._specs: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Any = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns how a module that has moved is found; None for every other."""
        old = fullname.removeprefix("dsnn.") if fullname.startswith("dsnn.") else ""
        if old in GONE:
            raise ModuleNotFoundError(f"{fullname} is gone since dsnn 0.2.0; {GONE[old]}.", name=fullname)
        today = MOVED.get(old)
        return None if today is None else importlib.util.spec_from_loader(fullname, self, origin=f"dsnn.{today}")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Returns today's module, which both names then mean."""
        today = str(spec.origin)
        warnings.warn(OF_OLD.format(old=spec.name, new=today), DeprecationWarning, stacklevel=2)
        made = importlib.import_module(today)
        here = vars(sys.modules["dsnn"]).get(spec.name.removeprefix("dsnn."))
        if callable(here) and not isinstance(here, types.ModuleType):
            made = _Both(made, here)
        elif any(f"dsnn.{old}".startswith(f"{spec.name}.") for old in MOVED) and not hasattr(made, "__path__"):
            made = _Same(made, spec.name)
        self._specs[spec.name] = made.__spec__
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        """Gives today's module, which has run, its own spec back."""
        module.__spec__ = self._specs.pop(str(module.__spec__ and module.__spec__.name))


def answer_old_names() -> None:
    """Lets names of before 0.2.0 be imported for now, each with a warning that gives today's."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())  # what has moved into a room would be found there a second time
