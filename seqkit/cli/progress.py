"""How a training is shown: a bar on a terminal, plain lines in a pipe, JSON where it is asked for; all on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from tqdm import tqdm

DIGITS = {"loss": 4, "perplexity": 2, "bleu": 2, "f1": 4, "accuracy": 4, "error_rate": 4}


class TrainingReport:
    """The `Reporter` of the command line.

    Args:
        as_json: records go to stdout as JSON lines too.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.bar: tqdm[Any] | None = None

    def progress(self, step: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            self.bar = tqdm(total=total, initial=step - 1, unit="step", dynamic_ncols=True, leave=False)
        self.bar.total = max(total, step)
        self.bar.update(step - self.bar.n)

    def record(self, record: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(record), flush=True)
        if record["kind"] == "train":
            line = (
                f"step {record['step']:>6}  epoch {record['epoch'] + 1:>3}  loss {record['loss']:.3f}  "
                f"rate {record['learning_rate']:.2e}  norm {record['gradient_norm']:.2f}  "
                f"{record['items_per_second']:>6,} tokens/s"
            )
            if record["skipped"]:
                line += f"  {record['skipped']} updates skipped"
            if self.bar is not None:
                self.bar.set_postfix_str(f"loss {record['loss']:.3f}")
                return
        else:
            figures = "  ".join(
                f"{name} {record[name]:.{digits}f}" for name, digits in DIGITS.items()
                if name in record
            )  # fmt: skip
            what = "validation" if record["kind"] == "valid" else f"mean of {len(record['averaged_steps'])} checkpoints"
            best = "  (best)" if record.get("best_step") == record["step"] else ""
            line = f"{what} at step {record['step']}: {figures}  after {record['seconds']:.0f} s{best}"
        self._say(line)

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _say(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
