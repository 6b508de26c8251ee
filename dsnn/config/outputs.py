"""Where a run writes, who tracks it, and what it hands to others."""

from dataclasses import dataclass, field

from dsnn.config.checks import one_of, positive
from dsnn.store import track


@dataclass
class TrackConfig:
    """How the run is watched from outside.

    Attributes:
        tool: "wandb", "tensorboard" (files in the run's ``tensorboard`` folder) or "none".
        wandb: "offline" (files for ``wandb sync``), "online", "disabled", or "auto": the environment's WANDB_MODE,
            online for an agent of a W&B sweep, and else offline.
        checkpoint: whether the last checkpoint becomes a W&B artifact.
        project: W&B project; empty is the environment's WANDB_PROJECT, else dsnn.
        group: W&B group; by default the environment's WANDB_RUN_GROUP, else the sweep's or the experiment's.
        tags: W&B tags.
    """

    tool: str = "wandb"
    wandb: str = "auto"
    checkpoint: bool = False
    project: str = ""
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        one_of("track.tool", self.tool, track.TOOLS)
        one_of("track.wandb", self.wandb, track.MODES)


@dataclass
class RunConfig:
    """Where the run lives.

    Attributes:
        root: folder of runs that are named by their configuration.
        dir: folder of this run; None names it by its configuration.
        report: whether report.html and figures are written.
    """

    root: str = "outputs"
    dir: str | None = None
    report: bool = True


@dataclass
class ExportConfig:
    """What a finished run hands to other frameworks; not part of what names a run, so it may be asked for later.

    Attributes:
        nir: NIR file of the deployed network (posterior means, closed sites removed); empty writes none.
        dt: seconds that a time step stands for there; snnTorch's importer takes 1e-4, Norse's 1e-3 by default.
        method: "euler" (as snnTorch and Norse read it) or "exp".
    """

    nir: str = ""
    dt: float = 1e-4
    method: str = "euler"

    def __post_init__(self) -> None:
        positive("export.dt", self.dt)
        one_of("export.method", self.method, ("euler", "exp"))
