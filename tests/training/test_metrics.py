import json
from pathlib import Path

from seqkit.training.metrics import Metrics


def records(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_forgets_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, resume_step=0)
    for step in (1, 2, 3, 4):
        metrics.write({"kind": "train", "step": step, "loss": 1.0})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    metrics = Metrics(tmp_path, resume_step=2)
    metrics.write({"kind": "train", "step": 3, "loss": 2.0})
    metrics.close()
    assert records(tmp_path) == [1, 2, 3]


def test_tensorboard_gets_the_same_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path, resume_step=0, tensorboard=True)
    metrics.write({"kind": "valid", "step": 5, "epoch": 1, "loss": 0.25})
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("valid/loss")] == [(5, 0.25)]
