"""What training writes down as it goes: one row an iteration."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from spinet.files import atomic_write


class Log:
    """One row an iteration, as CSV or for TensorBoard; rows after `start` are from a run that was killed, and go."""

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
