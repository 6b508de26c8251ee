"""TensorBoard's event files as a run's tracker: scalars, figures, and tables as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class EventFiles:
    """The event files of one run; a resumed run adds a file, which TensorBoard joins to the earlier ones.

    Raises:
        ImportError: tensorboardX is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError("tensorboardX is missing; pip install tensorboardX") from None
        self._writer = SummaryWriter(str(folder))
        self._step = 0

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Writes numbers as scalars at a training step."""
        self._step = self._step if step is None else step
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, self._step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Writes final numbers below ``final/``."""
        self.log({f"final/{name}": value for name, value in values.items()})

    def figure(self, name: str, path: str | Path) -> None:
        """Writes a picture file."""
        from PIL import Image  # comes with matplotlib, which drew the figure

        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), self._step, dataformats="HWC")

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Writes a table as Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
        self._writer.add_text(name, text, self._step)

    def artifact(self, name: str, path: str | Path, kind: str) -> None:
        """Writes where the file is: TensorBoard keeps no artifacts."""
        self._writer.add_text(name, f"{kind}: {path}", self._step)

    def finish(self, exit_code: int) -> None:
        """Writes how the run ended, and closes the files."""
        self._writer.add_scalar("exit_code", exit_code, self._step)
        self._writer.close()
