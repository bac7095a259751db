"""The record of a training: one JSON object a line in `metrics.jsonl`, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from seqkit.atomic import write_atomically
from seqkit.errors import InputError


class Metrics:
    """Appends records, each with its `kind` and `step`; forgets those that a resumed training will write again.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, resume_step: int, validated_step: int | None = None, tensorboard: bool = False
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self._forget_after(resume_step, resume_step if validated_step is None else validated_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError(
                    "training: `tensorboard` must be installed to be written, got no such package "
                    "(pip install 'seqkit[tensorboard]')"
                ) from None
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record and brings it to the file."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }  # JSON has no NaN
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _forget_after(self, step: int, validated_step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # a line that a crash cut short
                continue
            if record["step"] <= (step if record["kind"] == "train" else validated_step):
                kept.append(line + "\n")
        write_atomically(self.path, "".join(kept).encode())
