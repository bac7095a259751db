"""The training loop. It gets a model, batches and a loss, and knows nothing of what they mean.

A run folder holds, while it trains and afterwards:

- `model.safetensors`            the weights to use: the best so far, at the end their average if one is asked for
- `metrics.jsonl`                what happened, one record a line
- `checkpoints/latest.safetensors`   everything needed to go on: weights, optimiser, schedule, generators, position
- `checkpoints/step-*.safetensors`   weights at validations: the last few and the best few

Every file is written whole or not at all, always in the order weights, metrics, `latest`: whenever the process dies,
`latest` describes a moment from which the same steps follow again, bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqkit.config import option
from seqkit.errors import InputError
from seqkit.training.allocator import keep_freed_memory
from seqkit.training.checkpoint import average_checkpoints, load_tensors, save_tensors
from seqkit.training.metrics import Metrics
from seqkit.training.schedule import SCHEDULES, Schedule

LESS_IS_BETTER = ("loss", "error_rate")
METRICS = (*LESS_IS_BETTER, "bleu", "accuracy", "f1")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained. Vaswani et al. 2017: Adam 0.9, 0.98, 1e-9; inverse_sqrt; warm-up 4000; smoothing 0.1."""

    max_epochs: int = option(20, "passes over the data; 0 for no limit")
    max_steps: int = option(0, "updates of the weights; 0 for no limit")
    batch_tokens: int = option(4096, "padded tokens in a batch")
    accumulate: int = option(1, "batches whose gradients are added up before an update")
    optimizer: str = option("adam", "update rule", choices=("adam", "adamw"))
    learning_rate: float = option(1e-3, "peak learning rate")
    schedule: str = option("inverse_sqrt", "learning rate over time", choices=SCHEDULES)
    warmup: int = option(1000, "steps from zero to the peak")
    minimum_rate: float = option(0.0, "what cosine and plateau end at")
    plateau_patience: int = option(2, "validations without progress before plateau halves the rate")
    beta1: float = option(0.9, "Adam's decay of the mean")
    beta2: float = option(0.98, "Adam's decay of the square")
    epsilon: float = option(1e-9, "Adam's epsilon")
    weight_decay: float = option(0.0, "decay of the matrices")
    label_smoothing: float = option(0.1, "share of the target probability spread over all tokens")
    clip_norm: float = option(1.0, "largest norm of the gradient; 0 for no clipping")
    precision: str = option("fp32", "autocast of the forward pass", choices=tuple(PRECISIONS))
    ema_decay: float = option(0.0, "decay of an exponential moving average of the weights; 0 for none")
    validate_every: int = option(0, "steps between validations; 0 for once an epoch")
    metric: str = option("loss", "what decides which weights are best", choices=METRICS)
    patience: int = option(0, "validations without progress before training stops; 0 for never")
    keep_best: int = option(1, "best checkpoints kept")
    keep_last: int = option(1, "last checkpoints kept")
    average: int = option(0, "the final weights are the mean of so many best checkpoints; 0 for the best alone")
    checkpoint_every: int = option(500, "steps between checkpoints for --resume, beside those at validations")
    log_every: int = option(50, "steps between records in metrics.jsonl")
    max_bad_steps: int = option(20, "updates in a row that may be skipped for a loss or gradient that is not finite")
    tensorboard: bool = option(False, "write TensorBoard files too")
    device: str = option("auto", "cpu, cuda, or auto for cuda where there is one")
    seed: int = option(1, "of the weights, the order of the data and the dropout")

    def __post_init__(self) -> None:
        for name in (
            "batch_tokens",
            "accumulate",
            "keep_best",
            "keep_last",
            "checkpoint_every",
            "log_every",
            "max_bad_steps",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"training: `{name}` must be at least 1, got {getattr(self, name)}")
        for name in (
            "max_epochs", "max_steps", "warmup", "minimum_rate", "weight_decay", "clip_norm", "validate_every",
            "patience", "average", "seed", "epsilon",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"training: `{name}` must be at least 0, got {getattr(self, name)}")
        if not 0.0 <= self.beta1 < 1.0 or not 0.0 <= self.beta2 < 1.0:
            raise InputError(f"training: `beta1` and `beta2` must be in [0, 1), got {self.beta1} and {self.beta2}")
        if not 0.0 < self.learning_rate < math.inf:
            raise InputError(f"training: `learning_rate` must be above 0, got {self.learning_rate}")
        if self.max_epochs < 1 and self.max_steps < 1:
            raise InputError("training: `max_epochs` or `max_steps` must be at least 1, got neither")
        if not 0.0 <= self.label_smoothing < 1.0 or not 0.0 <= self.ema_decay < 1.0:
            raise InputError(
                "training: `label_smoothing` and `ema_decay` must be in [0, 1), "
                f"got {self.label_smoothing} and {self.ema_decay}"
            )
        if self.average > self.keep_best:
            raise InputError(
                f"training: `average` must be at most `keep_best`, got {self.average} and {self.keep_best}"
            )


@runtime_checkable
class Batches(Protocol):
    """Endless epochs of batches; an iteration gives the rest of the current epoch and then moves to the next."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


@runtime_checkable
class Reporter(Protocol):
    """Who is told how the training goes."""

    def progress(self, step: int, total: int) -> None: ...
    def record(self, record: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class Progress:
    """Where a training stands; all of it is in `latest.safetensors`."""

    step: int = 0
    epoch: int = 0
    validated_step: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best
    bad_steps: int = 0  # updates skipped in a row
    skipped: int = 0  # updates skipped in all
    window_loss: float = 0.0
    window_items: int = 0
    window_seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    kept: list[tuple[int, float]] = field(default_factory=list)  # step and value of each checkpoint on disk


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `finished`, `early` (no progress), or the name of a signal."""

    reason: str
    step: int
    best_step: int
    best_value: float | None

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that ended the training, if one did."""
        return signal.Signals.__members__.get(self.reason)


class Trainer:
    """Trains `model` on `batches` in `folder`. On the CPU the process then keeps freed memory (see `allocator`).

    Args:
        loss: gives the summed loss of a batch and the number of items summed over.
        validate: gives named figures of the model, that of `config.metric` among them; of some, less is better.
        carried: tensors beside the weights that `loss` changes in place, such as a state that the next batch starts
            from; they are kept in the checkpoint.
        report: told of steps and records; it prints, this module does not.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loss: Callable[[nn.Module, Any], tuple[Tensor, int]],
        config: TrainingConfig,
        folder: Path,
        *,
        validate: Callable[[nn.Module], dict[str, float]],
        report: Reporter,
        carried: dict[str, Tensor] | None = None,
    ) -> None:
        self.device = torch.device(_device(config.device))
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self.device)
        self.batches = batches
        self.loss = loss
        self.config = config
        self.folder = folder
        self.validate = validate
        self.report = report
        self.carried = {} if carried is None else carried
        self.progress = Progress()
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        matrices = [parameter for parameter in self.parameters.values() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.parameters.values() if parameter.ndim < 2]
        rule = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = rule(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True,
        )  # fmt: skip
        self.schedule = Schedule(
            config.schedule, peak=config.learning_rate, warmup=config.warmup, total=self._total_steps(),
            minimum=config.minimum_rate, patience=config.plateau_patience,
        )  # fmt: skip
        # The loss is a sum over a batch, so the scale starts lower than for a mean.
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=2.0 ** (16 - math.ceil(math.log2(config.batch_tokens))),
            enabled=config.precision == "fp16",
        )  # fmt: skip
        self.average: dict[str, Tensor] = {}
        if config.ema_decay:
            self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.signal: signal.Signals | None = None

    @property
    def latest(self) -> Path:
        """The checkpoint that a training resumes from."""
        return self.folder / "checkpoints" / "latest.safetensors"

    def run(self, *, resume: bool = False) -> Outcome:
        """Trains to the end, to a signal, or to an error.

        Raises:
            InputError: the loss stays not finite, or the checkpoint to resume from is damaged.
        """
        if resume and self.latest.exists():
            self._load()
            self.report.note(f"resuming from step {self.progress.step}")
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in (*self.folder.glob(".*.tmp"), *self.folder.glob("checkpoints/.*.tmp")):
            left_over.unlink()  # half-written when an earlier process was killed
        metrics = Metrics(
            self.folder, resume_step=self.progress.step, validated_step=self.progress.validated_step,
            tensorboard=self.config.tensorboard,
        )  # fmt: skip
        try:
            with self._signals():
                return self._train(metrics)
        finally:
            metrics.close()

    def _train(self, metrics: Metrics) -> Outcome:
        progress = self.progress
        started = (time.time() - progress.wall_seconds, time.process_time() - progress.cpu_seconds)
        self.model.train()
        while not (self._done() or self._stale() or self.signal):
            self._epoch(metrics, started)
        if self.signal is not None:
            self._save()
            return Outcome(self.signal.name, progress.step, progress.best_step, progress.best_value)
        if progress.validated_step != progress.step:
            self._validate(metrics)
        self._finish(metrics)
        reason = "early" if self._stale() and not self._done() else "finished"
        return Outcome(reason, progress.step, progress.best_step, progress.best_value)

    def _epoch(self, metrics: Metrics, started: tuple[float, float]) -> None:
        """The rest of the present epoch, or as much of it as the training has left."""
        config, progress = self.config, self.progress
        batches = iter(self.batches)
        # Never asks for a batch beyond the last: that moves the batches to the next epoch before this one is counted.
        while left := len(self.batches) - self.batches.state_dict()["position"]:
            rate, norm = self._update(list(itertools.islice(batches, min(config.accumulate, left))))
            progress.wall_seconds, progress.cpu_seconds = time.time() - started[0], time.process_time() - started[1]
            self.report.progress(progress.step, self.schedule.total)
            if progress.step % config.log_every == 0:
                metrics.write(record := self._training_record(rate, norm))
                self.report.record(record)
            if config.validate_every and progress.step % config.validate_every == 0:
                self._validate(metrics)
            if self.signal is not None or self._done() or self._stale():
                return
            if progress.step % config.checkpoint_every == 0:
                self._save()
        next(batches, None)
        progress.epoch += 1
        if not config.validate_every:
            self._validate(metrics)

    def _update(self, group: list[Any]) -> tuple[float, float]:
        """One update of the weights from the batches of a group; gives the learning rate and the gradient's norm."""
        config, progress = self.config, self.progress
        begin = time.monotonic()
        total, items = 0.0, 0
        dtype = PRECISIONS[config.precision]
        for batch in group:
            with torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext():
                loss, count = self.loss(self.model, batch.to(self.device))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            items += count
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item() / items
        progress.step += 1
        rate = self.schedule.rate(progress.step)
        if math.isfinite(total) and math.isfinite(norm):
            divisor = float(items)  # the mean over the items, and the clipping of its norm
            if config.clip_norm and norm > config.clip_norm:
                divisor *= (norm + 1e-6) / config.clip_norm
            for param_group in self.optimizer.param_groups:
                param_group["lr"] = rate
            self._step(gradients, divisor)
            for name, mean in self.average.items():
                mean.lerp_(self.parameters[name].detach(), 1.0 - config.ema_decay)
            progress.bad_steps = 0
            progress.window_loss += total
            progress.window_items += items
        else:
            progress.skipped += 1
            overflow = math.isfinite(total) and self.scaler.is_enabled() and self.scaler.get_scale() > 1.0
            progress.bad_steps += not overflow  # the scaler halves its scale and the next update is a new try
            if progress.bad_steps >= config.max_bad_steps:
                raise InputError(
                    f"training: the loss must stay finite, got {progress.bad_steps} updates in a row that are not, "
                    f"up to step {progress.step}; start anew with a lower `learning_rate` or a longer `warmup`"
                )
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        progress.window_seconds += time.monotonic() - begin
        return rate, norm

    def _step(self, gradients: list[Tensor], divisor: float) -> None:
        """Updates the weights with the gradients over `divisor`, which the fused rule divides as it reads them."""
        if self.scaler.is_enabled():
            torch._foreach_div_(gradients, divisor)
            self.scaler.step(self.optimizer)
            return
        self.optimizer.grad_scale = torch.tensor(divisor, device=self.device)  # type: ignore[attr-defined]
        self.optimizer.step()

    def _validate(self, metrics: Metrics) -> None:
        """Measures the weights, keeps them on disk, and decides whether they are the best."""
        config, progress = self.config, self.progress
        with self._weights(self.average):
            figures = self._figures()
            weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        value = figures[config.metric] * (-1.0 if config.metric in LESS_IS_BETTER else 1.0)
        if not math.isfinite(value):
            value = -math.inf
        progress.validated_step = progress.step
        self.schedule.observe(value)
        save_tensors(self._checkpoint(progress.step), weights, {"step": progress.step, **figures})
        progress.kept.append((progress.step, value))
        if progress.best_value is None or value > progress.best_value:
            progress.best_value, progress.best_step, progress.stale = value, progress.step, 0
            save_tensors(self.folder / "model.safetensors", weights)
        else:
            progress.stale += 1
        record = {
            "kind": "valid", "step": progress.step, "epoch": progress.epoch, **figures,
            "best_step": progress.best_step, "seconds": round(progress.wall_seconds, 1),
            "cpu_seconds": round(progress.cpu_seconds, 1),
        }  # fmt: skip
        metrics.write(record)
        self.report.record(record)
        last = progress.kept[-config.keep_last :]
        best = sorted(progress.kept, key=lambda item: -item[1])[: config.keep_best]
        progress.kept = [item for item in progress.kept if item in last or item in best]
        self._save()
        self._prune()

    def _training_record(self, rate: float, norm: float) -> dict[str, Any]:
        progress = self.progress
        record = {
            "kind": "train", "step": progress.step, "epoch": progress.epoch,
            "loss": progress.window_loss / progress.window_items if progress.window_items else math.nan,
            "learning_rate": rate, "gradient_norm": norm,
            "items_per_second": round(progress.window_items / progress.window_seconds), "skipped": progress.skipped,
            "seconds": round(progress.wall_seconds, 1), "cpu_seconds": round(progress.cpu_seconds, 1),
        }  # fmt: skip
        progress.window_loss, progress.window_items, progress.window_seconds = 0.0, 0, 0.0
        return record

    def _figures(self) -> dict[str, float]:
        """What `validate` says of the model as it is now."""
        self.model.eval()
        with torch.no_grad():
            figures = self.validate(self.model)
        self.model.train()
        return figures

    def _finish(self, metrics: Metrics) -> None:
        """Leaves the weights that were asked for as `model.safetensors`."""
        self._save()
        if not self.config.average:
            return
        best = sorted(self.progress.kept, key=lambda item: -item[1])[: self.config.average]
        if len(best) < self.config.average:
            self.report.note(f"there are {len(best)} checkpoints to average, not {self.config.average}")
        mean = average_checkpoints([self._checkpoint(step) for step, _ in sorted(best)])
        save_tensors(self.folder / "model.safetensors", mean)
        with self._weights({name: mean[name].to(self.device) for name in self.parameters}):
            figures = self._figures()
        record = {
            "kind": "average", "step": self.progress.step, "epoch": self.progress.epoch, **figures,
            "averaged_steps": sorted(step for step, _ in best), "seconds": round(self.progress.wall_seconds, 1),
        }  # fmt: skip
        metrics.write(record)
        self.report.record(record)

    def _done(self) -> bool:
        config = self.config
        return bool(
            (config.max_steps and self.progress.step >= config.max_steps)
            or (config.max_epochs and self.progress.epoch >= config.max_epochs)
        )

    def _stale(self) -> bool:
        return bool(self.config.patience) and self.progress.stale >= self.config.patience

    def _total_steps(self) -> int:
        epoch_steps = math.ceil(len(self.batches) / self.config.accumulate)
        limits = [self.config.max_steps, self.config.max_epochs * epoch_steps]
        return min(limit for limit in limits if limit)

    def _checkpoint(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}.safetensors"

    def _prune(self) -> None:
        kept = {self._checkpoint(step) for step, _ in self.progress.kept}
        for path in (self.folder / "checkpoints").glob("step-*.safetensors"):
            if path not in kept:
                path.unlink()

    @contextlib.contextmanager
    def _weights(self, others: dict[str, Tensor]) -> Iterator[None]:
        """Other weights in place of the trained ones, for as long as the block lasts; none is no change."""
        trained = {name: self.parameters[name].detach().clone() for name in others}
        self._copy_weights(others)
        try:
            yield
        finally:
            self._copy_weights(trained)

    @torch.no_grad()
    def _copy_weights(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self.parameters[name].copy_(tensor)

    def _save(self) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.parameters.items():
            for key, tensor in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        tensors |= {f"carried.{name}": tensor for name, tensor in self.carried.items()}
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "progress": vars(self.progress),
            "batches": self.batches.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "threads": torch.get_num_threads(),
        }
        save_tensors(self.latest, tensors, state)

    def _load(self) -> None:
        tensors, state = load_tensors(self.latest)
        weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        try:
            self.model.load_state_dict(weights)
        except RuntimeError:
            raise InputError(f"{self.latest}: the checkpoint must have the weights of this model, got others") from None
        self.average = {
            name[8:]: tensor.to(self.device) for name, tensor in tensors.items() if name.startswith("average.")
        }
        for name, parameter in self.parameters.items():
            prefix = f"optimizer.{name}."
            values = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if values:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" and self.device.type == "cpu" else value.to(self.device)
                    for key, value in values.items()
                }
        for name, tensor in self.carried.items():
            tensor.copy_(tensors[f"carried.{name}"])
        torch.set_rng_state(tensors["generator.cpu"])
        if self.device.type == "cuda" and "generator.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)
        kept = [(step, value) for step, value in state["progress"].pop("kept")]
        self.progress = Progress(**state["progress"], kept=kept)
        self.batches.load_state_dict(state["batches"])
        self.schedule.load_state_dict(state["schedule"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            self.report.note(
                f"the run had {state['threads']} threads and has {torch.get_num_threads()} now: it goes on, but "
                "not bit for bit, since sums are rounded in another order"
            )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the training after the current step; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _frame: object) -> None:
            self.signal = signal.Signals(number)  # printing here could interrupt a print
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f"training: `device` must be auto, cpu, or cuda where torch has one, got `{name}`")
    return name
