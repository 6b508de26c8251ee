"""Which data a run reads."""

from dataclasses import dataclass, field
from typing import Any

from dsnn import data, resolve
from dsnn.config.checks import one_of

PYTHON = "python"
"""The data set that a function of one's own reads."""

OWN = {  # data sets that data.path names
    "audio": "folder",
    "events": "folder or an h5 file",
    "images": "folder",
    "npy": "folder",
    "npz": "file",
    "shards": "folder",
    "table": "file",
}


@dataclass
class DataConfig:
    """Which data, and how much of the training part validates.

    Attributes:
        name: a data set, see ``python -m experiments.run --help``.
        root: folder with the published files; by default the environment's DSNN_DATA, else a user cache.
        path: file of ``npz`` data or of a ``table``; folder or file of ``events``; folder of ``npy``, ``shards``,
            ``audio`` or ``images``.
        source: function of one's own that reads the data of ``python``, ``package.module:function``, called as
            `dsnn.protocols.Source` says with the options.
        temporal: whether the second axis of ``npz``, ``npy`` or ``shards`` data is time.
        view: how sequences are read, "steps" (one after another), "summed" over time, or "whole", one input
            ``[time, 1, feature]``, see `dsnn.data.views`; with the last two they are static data.
        val_fraction: share of the training part that validates; -1 is the set's own choice.
        standardise: "auto" brings inputs to one scale, as the training part asks (`dsnn.data.standardised`; zeros of
            images, spikes and sparse data stay zero); "none" takes them as they are.
        folds: 0 keeps the set's own test part; K deals all examples out into K folds by class, see `dsnn.data.folded`.
        fold: which of them is the test part, from 0.
        limit: use only this many training examples, drawn by the seed, each class in proportion; 0 is all.
        stream: "auto" reads shards, streams of one's own, and npy files that would take more than 2 GiB in memory as
            they are used; "always" does so with any dense data, "never" with none.
        ood: data sets on which the predictive must be unsure, scored by AUROC.
        options: further options of the data set's own loader, such as ``data.options.steps=50`` of ``events``.
    """

    name: str = "digits"
    root: str | None = None
    path: str | None = None
    source: str = ""
    temporal: bool = False
    view: str = "steps"
    val_fraction: float = -1.0
    standardise: str = "none"
    folds: int = 0
    fold: int = 0
    limit: int = 0
    stream: str = "auto"
    ood: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.ood):
            resolve.check_name("data.name", name, (*data.names(), PYTHON))
        if (self.name == PYTHON) != bool(self.source):
            raise ValueError(
                f"data={PYTHON} is what data.source=package.module:function gives, got data={self.name} and "
                f"data.source={self.source!r}; give both or neither."
            )
        if not (self.val_fraction == -1 or 0 <= self.val_fraction < 1):
            raise ValueError(f"data.val_fraction must be in [0, 1), or -1 for the set's own, got {self.val_fraction}.")
        one_of("data.view", self.view, data.VIEWS)
        one_of("data.stream", self.stream, data.STREAMS)
        one_of("data.standardise", self.standardise, ("none", "auto"))
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"data.folds must be at least 2, or 0 for the set's own test part, got {self.folds}.")
        if not 0 <= self.fold < max(self.folds, 1):
            raise ValueError(
                f"data.fold must be below data.folds, from 0, got fold {self.fold} of {self.folds}; give data.folds=K."
            )
        if self.limit < 0:
            raise ValueError(f"data.limit must not be negative, got {self.limit}; 0 uses every example.")
        if self.name in OWN and not self.path:
            raise ValueError(f"data={self.name} needs a {OWN[self.name]}, got none; give data.path=PATH.")
        if self.temporal and self.name in ("table", "images"):
            raise ValueError(
                f"data.temporal is for arrays with an axis of time, got it with data={self.name}; give series as "
                f"data=npz or data=npy, [n, time, ...]."
            )
