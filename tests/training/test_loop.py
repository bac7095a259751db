"""The training loop on a model of one matrix: everything that it promises, without any sequence in sight."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.errors import InputError
from seqkit.training.checkpoint import load_tensors
from seqkit.training.loop import Trainer, TrainingConfig


class Points:
    """Ten batches an epoch of noisy points on a line, resumable at any of them."""

    def __init__(self, n_batches: int = 10) -> None:
        self.n_batches = n_batches
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Any:
        while self.position < self.n_batches:
            self.position += 1
            yield self.batch(self.epoch, self.position - 1)
        self.epoch, self.position = self.epoch + 1, 0

    def batch(self, epoch: int, position: int) -> Tensor:
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(1000 * epoch + position))

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class Silent:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def note(self, text: str) -> None:
        self.notes.append(text)


def squared_error(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Learn y = 2x + 1; dropout makes each step depend on the generator's state."""
    noisy = F.dropout(x, 0.1, model.training)
    return (model(noisy) - (2 * x + 1)).square().sum(), x.shape[0]


def validation_loss(model: nn.Module) -> dict[str, float]:
    x = torch.linspace(-1, 1, 16).reshape(4, 4)
    return {"loss": (model(x) - (2 * x + 1)).square().mean().item()}


def trainer(folder: Path, loss: Any = squared_error, validate: Any = validation_loss, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    settings = {"max_epochs": 3, "warmup": 5, "log_every": 3, "checkpoint_every": 4, "learning_rate": 0.05}
    config = TrainingConfig(**(settings | changes))
    return Trainer(nn.Linear(4, 4), Points(), loss, config, folder, validate=validate, report=Silent())


def test_training_learns_and_leaves_the_files_it_promises(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=30)
    before = validation_loss(run.model)["loss"]
    outcome = run.run()
    assert outcome.reason == "finished"
    assert outcome.step == 300
    assert validation_loss(run.model)["loss"] < 0.05 * before
    weights, _ = load_tensors(tmp_path / "model.safetensors")
    assert set(weights) == {"weight", "bias"}
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(3, 301, 3))
    assert [record["step"] for record in records if record["kind"] == "valid"] == list(range(10, 301, 10))


class KilledError(Exception):
    """Stands for `kill -9`: nothing in the loop may catch it."""


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "plateau"])
def test_resume_after_a_kill_at_any_step_gives_the_same_bytes(tmp_path: Path, schedule: str, accumulate: int) -> None:
    settings: dict[str, Any] = {
        "schedule": schedule, "accumulate": accumulate, "ema_decay": 0.9, "keep_best": 2, "average": 2,
    }  # fmt: skip
    trainer(tmp_path / "whole", **settings).run()
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    steps = 3 * math.ceil(10 / accumulate)
    for killed_at in range(1, steps + 1):
        folder = tmp_path / f"killed-{killed_at}"
        calls = 0

        def dying(model: nn.Module, x: Tensor, killed_at: int = killed_at) -> tuple[Tensor, int]:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise KilledError
            return squared_error(model, x)

        with pytest.raises(KilledError):
            trainer(folder, dying, **settings).run()
        torch.manual_seed(99)
        trainer(folder, **settings).run(resume=True)
        assert (folder / "model.safetensors").read_bytes() == expected, f"killed at call {killed_at}"
        kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert kept == sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
        without_times = [
            {key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        assert [record["step"] for record in without_times] == sorted(record["step"] for record in without_times)


def test_a_carried_state_is_resumed(tmp_path: Path) -> None:
    def made(folder: Path, dies_at: int = 0) -> Trainer:
        state = torch.zeros(4)
        calls = 0

        def loss(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise KilledError
            total = (model(x + state) - 2 * x).square().sum()
            state.copy_(0.9 * state + 0.1 * x[0])
            return total, x.shape[0]

        torch.manual_seed(0)
        config = TrainingConfig(max_epochs=1, checkpoint_every=4)
        return Trainer(
            nn.Linear(4, 4), Points(), loss, config, folder, validate=validation_loss, report=Silent(),
            carried={"state": state},
        )  # fmt: skip

    made(tmp_path / "whole").run()
    with pytest.raises(KilledError):
        made(tmp_path / "cut", dies_at=8).run()
    made(tmp_path / "cut").run(resume=True)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    def plain(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
        return (model(x) - (2 * x + 1)).square().sum(), x.shape[0]

    def run(folder: Path, batches: list[Tensor], accumulate: int) -> Tensor:
        torch.manual_seed(0)
        points = Points(len(batches))
        points.batch = lambda epoch, position: batches[position]  # type: ignore[method-assign]
        config = TrainingConfig(max_epochs=1, accumulate=accumulate, learning_rate=0.1, warmup=0, schedule="constant")
        made = Trainer(nn.Linear(4, 4), points, plain, config, folder, validate=validation_loss, report=Silent())
        made.run()
        return made.model.weight.detach()  # type: ignore[return-value]

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    together = run(tmp_path / "one", [x], 1)
    parts = run(tmp_path / "parts", [x[:7], x[7:9], x[9:]], 3)
    torch.testing.assert_close(together, parts, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_nan_once_is_skipped_and_counted(tmp_path: Path) -> None:
    calls = 0

    def sometimes(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = squared_error(model, x)
        return loss * (math.nan if calls == 7 else 1.0), count

    run = trainer(tmp_path, sometimes)
    run.run()
    assert run.progress.skipped == 1
    assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())
    last = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][-2]
    assert last["skipped"] == 1


def test_a_loss_that_stays_nan_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    def never(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
        loss, count = squared_error(model, x)
        return loss * math.nan, count

    with pytest.raises(InputError, match=r"must stay finite, got 4 updates in a row"):
        trainer(tmp_path, never, max_bad_steps=4).run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_ends_alike(tmp_path: Path, number: signal.Signals) -> None:
    trainer(tmp_path / "whole").run()
    calls = 0

    def interrupting(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
        nonlocal calls
        calls += 1
        if calls == 13:
            os.kill(os.getpid(), number)
        return squared_error(model, x)

    before = signal.getsignal(number)
    outcome = trainer(tmp_path / "cut", interrupting, checkpoint_every=1000).run()
    assert (outcome.reason, outcome.step) == (number.name, 13)
    assert signal.getsignal(number) is before
    trainer(tmp_path / "cut").run(resume=True)
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert same[0] == same[1]


@pytest.mark.parametrize("stop", range(1, 13))
def test_a_signal_at_any_step_of_accumulated_batches_changes_nothing(tmp_path: Path, stop: int) -> None:
    """Ten batches in groups of three: the last group of an epoch is short."""
    settings: dict[str, Any] = {"accumulate": 3, "checkpoint_every": 1000}
    trainer(tmp_path / "whole", **settings).run()
    run = trainer(tmp_path / "cut", **settings)
    update = run._update

    def stopping(group: list[Any]) -> tuple[float, float]:
        result = update(group)
        if run.progress.step == stop:
            run.signal = signal.SIGTERM
        return result

    run._update = stopping  # type: ignore[method-assign]
    run.run()
    resumed = trainer(tmp_path / "cut", **settings)
    assert resumed.run(resume=True).step == 12
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert same[0] == same[1]


def test_a_validation_that_is_nan_is_never_the_best(tmp_path: Path) -> None:
    losses = iter([math.nan, 2.0, math.nan, 1.0])
    run = trainer(tmp_path, validate=lambda _: {"loss": next(losses)}, max_epochs=4, keep_best=2, average=2)
    losses_of_average = iter([0.5])
    run.validate = lambda _: {"loss": next(losses, None) or next(losses_of_average)}
    assert run.run().best_step == 40
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    valid = [record for record in records if record["kind"] == "valid"]
    assert [record["loss"] for record in valid] == [None, 2.0, None, 1.0]
    (average,) = [record for record in records if record["kind"] == "average"]
    assert average["averaged_steps"] == [20, 40]
    assert average["loss"] == 0.5


def test_half_precision_does_not_call_an_overflow_a_bad_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, precision="fp16", batch_tokens=1, max_bad_steps=1)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    assert run.run().reason == "finished"
    assert run.progress.skipped > 1


def test_other_threads_are_told(tmp_path: Path) -> None:
    trainer(tmp_path, max_epochs=1).run()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run = trainer(tmp_path, max_epochs=1)
        run.run(resume=True)
    finally:
        torch.set_num_threads(threads)
    assert isinstance(run.report, Silent)
    assert any("threads" in note for note in run.report.notes)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.5])
    run = trainer(tmp_path, validate=lambda _: {"loss": next(losses)}, max_epochs=9, patience=2)
    outcome = run.run()
    assert (outcome.reason, outcome.step, outcome.best_step) == ("early", 40, 20)
    best, _ = load_tensors(tmp_path / "checkpoints" / "step-00000020.safetensors")
    used, _ = load_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(best[name], used[name]) for name in best)


def test_the_moving_average_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1, ema_decay=0.5)
    run.run()
    saved, _ = load_tensors(tmp_path / "model.safetensors")
    assert torch.equal(saved["weight"], run.average["weight"])
    assert not torch.equal(saved["weight"], run.model.weight)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    other = trainer(tmp_path)
    other.model = nn.Linear(3, 3)
    with pytest.raises(InputError, match="must have the weights of this model"):
        other.run(resume=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"accumulate": 0}, "`accumulate` must be at least 1"),
        ({"max_epochs": 0}, "`max_epochs` or `max_steps` must be at least 1"),
        ({"average": 3}, "`average` must be at most `keep_best`"),
        ({"ema_decay": 1.0}, "must be in"),
        ({"patience": -1}, "`patience` must be at least 0"),
        ({"clip_norm": -1.0}, "`clip_norm` must be at least 0"),
        ({"beta1": 2.0}, "`beta1` and `beta2` must be in"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TrainingConfig(**changes)
