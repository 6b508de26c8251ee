"""The figure of a search with several objectives: every trial, and those that no other beats in all of them."""

from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from dsnn import plots


def draw_front(study: optuna.Study, folder: Path) -> Path:
    """Draws the first objective over the second into ``front.png`` of the folder, and returns its path."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    best = {trial.number for trial in study.best_trials}
    names = study.user_attrs["search"]["objectives"]
    figure = plots.front(
        np.array([trial.values[1] for trial in done]),
        np.array([trial.values[0] for trial in done]),
        np.array([trial.number in best for trial in done]),
        (names[1], names[0]),
    )
    return plots.save_png(figure, folder / "front.png")
