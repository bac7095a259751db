"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
from typing import Any

from seqkit.errors import InputError

SCHEDULES = ("constant", "inverse_sqrt", "cosine", "plateau")


class Schedule:
    """The learning rate at each step (1, 2, …), after a linear warm-up from zero to the peak.

    - constant:      the peak
    - inverse_sqrt:  peak sqrt(warmup / step)  (Vaswani et al. 2017, section 5.3, arXiv:1706.03762)
    - cosine:        from the peak to `minimum` over the steps left (Loshchilov and Hutter 2017, arXiv:1608.03983)
    - plateau:       halved when `patience` validations in a row bring nothing better

    Raises:
        InputError: an unknown name, or a size that makes no sense.
    """

    def __init__(
        self, name: str, *, peak: float, warmup: int, total: int, minimum: float = 0.0, patience: int = 2
    ) -> None:
        if name not in SCHEDULES:
            raise InputError(f"training: `schedule` must be one of {', '.join(SCHEDULES)}, got `{name}`")
        if peak <= 0 or warmup < 0:
            raise InputError(
                f"training: the learning rate must be positive and `warmup` not negative, got {peak} and {warmup}"
            )
        self.name = name
        self.peak = peak
        self.warmup = warmup
        self.total = total
        self.minimum = minimum
        self.patience = patience
        self.factor = 1.0
        self.best: float | None = None
        self.stale = 0

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        if self.name == "inverse_sqrt":
            return self.peak * math.sqrt(max(self.warmup, 1) / step)
        if self.name == "cosine":
            done = (step - self.warmup) / max(self.total - self.warmup, 1)
            return self.minimum + (self.peak - self.minimum) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return max(self.peak * self.factor, self.minimum)

    def observe(self, value: float) -> None:
        """Tells the plateau schedule a validation result; higher is better."""
        if self.name != "plateau":
            return
        if self.best is None or value > self.best:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale >= self.patience:
            self.factor, self.stale = self.factor / 2, 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "factor": self.factor, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.factor = state["total"], state["factor"]
        self.best, self.stale = state["best"], state["stale"]
