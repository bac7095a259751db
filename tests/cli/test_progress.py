import io
import json
import sys

import pytest

from seqkit.cli.progress import TrainingReport

TRAIN = {
    "kind": "train", "step": 50, "epoch": 0, "loss": 2.5, "learning_rate": 1e-3, "gradient_norm": 1.25,
    "items_per_second": 12345, "skipped": 0,
}  # fmt: skip
VALID = {"kind": "valid", "step": 50, "epoch": 1, "loss": 1.5, "perplexity": 4.48, "best_step": 50, "seconds": 12.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {name: VALID[name] for name in ("step", "epoch", "loss", "perplexity", "seconds")}
    report = TrainingReport()
    report.progress(1, 100)
    report.record(TRAIN)
    report.record({**TRAIN, "skipped": 3})
    report.record({**VALID, "bleu": 31.25})
    report.record({**VALID, "best_step": 10})
    report.record({"kind": "average", **figures, "averaged_steps": [30, 40]})
    report.note("hello")
    report.close()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "step     50  epoch   1  loss 2.500  rate 1.00e-03  norm 1.25  12,345 tokens/s"
    assert lines[1] == lines[0] + "  3 updates skipped"
    assert lines[2] == "validation at step 50: loss 1.5000  perplexity 4.48  bleu 31.25  after 12 s  (best)"
    assert lines[3] == "validation at step 50: loss 1.5000  perplexity 4.48  after 12 s"
    assert lines[4] == "mean of 2 checkpoints at step 50: loss 1.5000  perplexity 4.48  after 12 s"
    assert lines[5] == "hello"
    assert "\r" not in err


def test_json_records_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    report = TrainingReport(as_json=True)
    report.record(TRAIN)
    report.record(VALID)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [TRAIN, VALID]


def test_a_terminal_gets_a_bar_that_begins_where_the_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    report = TrainingReport()
    report.progress(41, 100)
    assert report.bar is not None
    assert (report.bar.n, report.bar.total) == (41, 100)
    report.record(TRAIN)
    report.progress(42, 100)
    report.progress(101, 100)  # an estimate that was too low does not break the bar
    assert (report.bar.n, report.bar.total) == (101, 101)
    report.record(VALID)
    report.close()
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "loss 2.500" in text
    assert "validation at step 50" in text
