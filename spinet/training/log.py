"""The training log: one row per iteration."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from spinet.files import atomic_write


class Log:
    """One row per iteration, as CSV or for TensorBoard. Rows after `start`, from a killed run, are removed."""

    def __init__(self, folder: Path, *, kind: str, start: int):
        self.writer: Any = None
        self.path = folder / "log.csv"
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=start + 1)
            return
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() and start else []
        atomic_write(self.path, "".join(lines[: start + 1]).encode())
        self.file = self.path.open("a", newline="")

    def write(self, iteration: int, values: dict[str, float]) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)
            return
        row = csv.writer(self.file, lineterminator="\n")
        if self.file.tell() == 0:
            row.writerow(["iteration", *values])
        row.writerow([iteration, *(f"{value:.9g}" for value in values.values())])
        self.file.flush()

    def close(self) -> None:
        (self.writer or self.file).close()
