"""Claim: a training step of a word-level LSTM language model is faster than a plain torch loop, in no more memory.

    python benchmarks/language_model.py [--threads 1] [--rounds 7] [--steps 4] [--precision fp32|bf16]

Zaremba et al. 2014's medium model: embeddings of 650, two LSTM layers of 650, 10,000 words, 20 streams of 35 words.
Both do a whole step: embedding, layers with dropout 0.5, output layer, cross-entropy, backward, clipping at norm 1 and
Adam. The peer is what a tutorial writes: `nn.LSTM`, `nn.Linear`, `F.cross_entropy`, `clip_grad_norm_` and
`torch.optim.Adam`, and a second time with `fused=True`; with `bf16` both under autocast. Rounds take turns in one
process; medians of CPU time, ratios, both losses after the same steps from the same weights without dropout, and the
peak memory of each in a process of its own.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.models import RNNLM, RNNLMConfig
from seqkit.text.stream import Window
from seqkit.training.allocator import keep_freed_memory
from seqkit.training.loop import Trainer, TrainingConfig

V, D, B, T = 10_000, 650, 20, 35
RATE = 1e-3


class Plain(nn.Module):
    """The model as a tutorial writes it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.lstm = nn.LSTM(D, D, 2, dropout=dropout, batch_first=True)
        self.output = nn.Linear(D, V)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(hidden)), state


def windows() -> "itertools.cycle[Window]":
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(8):
        tokens = torch.randint(4, V, (B, T + 1), generator=generator)
        made.append(Window(tokens=tokens[:, :-1].contiguous(), targets=tokens[:, 1:].contiguous(), first=False))
    return itertools.cycle(made)


def plain_step(dropout: float, precision: str, *, fused: bool) -> Callable[[], float]:
    torch.manual_seed(0)
    model, stream = Plain(dropout), windows()
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=fused)
    state = torch.zeros(2, B, D), torch.zeros(2, B, D)

    def step() -> float:
        nonlocal state
        window = next(stream)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, last = model(window.tokens, state)
            loss = F.cross_entropy(logits.flatten(0, 1), window.targets.flatten())
        state = last[0].detach().float(), last[1].detach().float()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    step.model = model  # type: ignore[attr-defined]
    return step


class Streams:
    """The windows as a trainer wants them."""

    def __len__(self) -> int:
        return 1 << 30

    def __iter__(self) -> "itertools.cycle[Window]":
        return windows()

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Silent:
    def progress(self, step: int, total: int) -> None: ...
    def record(self, record: dict[str, object]) -> None: ...
    def note(self, text: str) -> None: ...


def our_step(dropout: float, precision: str) -> Callable[[], float]:
    torch.manual_seed(0)
    config = RNNLMConfig(embedding_dim=D, hidden_dim=D, n_layers=2, dropout=dropout)
    model, stream = RNNLM(config, vocab_size=V), windows()
    state = model.initial_state(B)

    def loss(module: nn.Module, window: Window) -> tuple[Tensor, int]:
        hidden, last = module(window.tokens, state.clone())
        state.copy_(last.detach())
        return model.loss(hidden, window.targets, pad_id=0), window.targets.numel()

    training = TrainingConfig(
        max_steps=1 << 30, max_epochs=0, learning_rate=RATE, schedule="constant", warmup=0, beta2=0.999, epsilon=1e-8,
        precision=precision,
    )  # fmt: skip
    trainer = Trainer(
        model, Streams(), loss, training, Path(tempfile.gettempdir()), validate=lambda _: {}, report=Silent()
    )  # fmt: skip

    def step() -> float:
        before = trainer.progress.window_loss
        trainer._update([next(stream)])
        return (trainer.progress.window_loss - before) / (B * T)

    step.model = model  # type: ignore[attr-defined]
    return step


def copy_weights(ours: RNNLM, theirs: Plain) -> None:
    with torch.no_grad():
        theirs.embedding.weight.copy_(ours.embedding)
        theirs.output.weight.copy_(ours.output_weight)
        theirs.output.bias.copy_(ours.output_bias)
        for index, layer in enumerate(ours.layers):
            getattr(theirs.lstm, f"weight_ih_l{index}").copy_(layer.weight_input)
            getattr(theirs.lstm, f"weight_hh_l{index}").copy_(layer.weight_hidden)
            getattr(theirs.lstm, f"bias_ih_l{index}").copy_(layer.bias_input)
            getattr(theirs.lstm, f"bias_hh_l{index}").zero_().requires_grad_(False)  # ours has one bias


def high_water() -> float:
    """The most memory that this process has held, in megabytes; `getrusage` starts from that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak(side: str, arguments: argparse.Namespace) -> float:
    """Megabytes of a process that does five steps, without what torch itself takes."""
    given = f"--threads {arguments.threads} --precision {arguments.precision}".split()
    command = [sys.executable, __file__, *given, "--one", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


SIDES: dict[str, Callable[[str], Callable[[], float]]] = {
    "seqkit": lambda precision: our_step(0.5, precision),
    "torch": lambda precision: plain_step(0.5, precision, fused=False),
    "torch, fused Adam": lambda precision: plain_step(0.5, precision, fused=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        before = high_water()
        step = SIDES[arguments.one](arguments.precision)
        for _ in range(5):
            step()
        print(high_water() - before)
        return
    keep_freed_memory()

    ours, theirs = our_step(0.0, arguments.precision), plain_step(0.0, arguments.precision, fused=False)
    copy_weights(ours.model, theirs.model)  # type: ignore[attr-defined]
    losses = [(ours(), theirs()) for _ in range(6)]
    print(f"loss after 6 steps without dropout: seqkit {losses[-1][0]:.5f}, torch {losses[-1][1]:.5f}")
    memory = {name: peak(name, arguments) for name in SIDES}

    steps = {name: make(arguments.precision) for name, make in SIDES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for round in range(arguments.rounds):
        for name in list(steps) if round % 2 else list(steps)[::-1]:
            begin = time.process_time()
            for _ in range(arguments.steps):
                steps[name]()
            seconds[name].append((time.process_time() - begin) / arguments.steps)
    best = statistics.median(seconds["seqkit"])
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(f"{name:<18} {1000 * middle:6.1f} ms of CPU a step  {middle / best:.2f} of ours  {memory[name]:5.0f} MB")


if __name__ == "__main__":
    main()
