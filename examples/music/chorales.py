"""Bach chorales: an LSTM that predicts the next chord, and improvises from the first bars of a chorale it has not seen.

    CHORALES=$SEQKIT_DATA/music/jsb-chorales-16th.npz
    python examples/music/chorales.py train $CHORALES runs/chorales
    python examples/music/chorales.py improvise runs/chorales $CHORALES -o improvised.mid

The file holds 229, 76 and 77 chorales to train, to choose and to test, the split of Boulanger-Lewandowski et al.: four
voices, a pitch every sixteenth. Every fourth is a quarter note, the step at which figures are published. One LSTM is
read in two ways, and trained on the sum of both:

- notes: each of 88 pitches sounds or not, independent of the others, as in the published recurrent networks;
- voices: the soprano, then each lower voice given those above it. It fits far better and never loses a voice, so that
  it makes the music. It says who sings what, which is never likelier than the chord alone: its figure is an upper bound
  on the chord's negative log-likelihood.

With `--notes-only` the LSTM reads 88 pitches, not voices, and learns the first alone: the published setting.

Expected output of the two commands, after 154 CPU seconds and 3; docs/results/sequence-models.md has the published
figures beside it:

    valid: nats a frame: notes 8.219, without first frames 8.169; voices 4.856, 4.823
    test: nats a frame: notes 8.280, without first frames 8.225; voices 4.788, 4.774

    improvised.mid: 8 quarter notes of Bach, 41 after them
    improvised.png: its piano roll

mido writes MIDI (pip install 'seqkit[music]'). A pitch that stays is held: the data does not say which notes are struck
again.

Reference: Boulanger-Lewandowski et al. 2012, arXiv:1206.6392 (the task); Larochelle and Murray 2011 (a frame as a chain
of conditionals, as here of voices).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.atomic import write_atomically
from seqkit.cli.progress import TrainingReport
from seqkit.cli.threads import set_threads
from seqkit.config import from_table, option, to_table
from seqkit.errors import InputError
from seqkit.nn.dropout import dropout, locked_dropout
from seqkit.nn.recurrent_layer import RecurrentLayer
from seqkit.tasks.run_folder import check_folder, load_weights, make_folder, save_config, saved_tables, saved_weights
from seqkit.text.batch import length_mask
from seqkit.training.loop import Trainer, TrainingConfig

VOICES = ("soprano", "alto", "tenor", "bass")
LOWEST, N_PITCHES = 21, 88  # the keys of a piano, in MIDI numbers
N_SYMBOLS = N_PITCHES + 1  # what a voice does: 0 is silence, 1 the lowest key
EMBEDDING_DIM = 128
Chorale = Int[Tensor, "T 4"]  # a symbol for each voice and step


EPOCHS = 120
TRAINING: dict[str, Any] = {
    "learning_rate": 8e-3, "schedule": "cosine", "warmup": 20, "beta2": 0.999, "epsilon": 1e-8,
    "label_smoothing": 0.0, "checkpoint_every": 10_000, "log_every": 75,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChoraleConfig:
    """The model and its steps."""

    notes_only: bool = option(False, "without voices, neither read nor written")
    every: int = option(4, "sixteenths in a step: 4 is a quarter note")
    hidden_dim: int = option(256, "units of the LSTM")
    dropout: float = option(0.2, "of the LSTM's outputs")

    def __post_init__(self) -> None:
        if self.every not in (1, 2, 4):
            raise InputError(f"chorales: `every` must be 1, 2 or 4, got {self.every}")


def read_chorales(path: str, every: int) -> dict[str, list[Chorale]]:
    """The chorales of `train`, `valid` and `test`. The file holds pickled arrays: read only one that you trust.

    Raises:
        InputError: the file is not such a file.
    """
    try:
        with np.load(path, allow_pickle=True, encoding="latin1") as file:
            parts = {name: list(file[name]) for name in ("train", "valid", "test")}
    except OSError as error:
        raise InputError(f"{path}: chorales must be an .npz file that can be read, got {error}") from None
    except Exception as error:  # a broken pickle raises anything
        raise InputError(f"{path}: chorales must be arrays train, valid and test, got {error!r}") from None
    return {name: [_symbols(piece, every, path) for piece in pieces] for name, pieces in parts.items()}


def _symbols(piece: Any, every: int, path: str) -> Chorale:
    pitches = np.asarray(piece, np.float64)
    inside = np.isnan(pitches) | ((pitches >= LOWEST) & (pitches < LOWEST + N_PITCHES))
    if pitches.ndim != 2 or pitches.shape[1] != len(VOICES) or not len(pitches) or not inside.all():
        raise InputError(f"{path}: a chorale must be steps of four pitches of {LOWEST} to {LOWEST + N_PITCHES - 1}")
    return torch.from_numpy(np.where(np.isnan(pitches), 0, pitches - LOWEST + 1).astype(np.int64)[::every].copy())


@dataclass(frozen=True)
class ChoraleBatch:
    """Chorales side by side, silent beyond their ends."""

    voices: Int[Tensor, "B T 4"]
    lengths: Int[Tensor, " B"]

    @classmethod
    def of(cls, chorales: Sequence[Chorale], *, silence: int = 0) -> ChoraleBatch:
        """With so many steps of silence that count behind each."""
        padded = nn.utils.rnn.pad_sequence(list(chorales), batch_first=True)
        lengths = torch.tensor([len(chorale) + silence for chorale in chorales])
        return cls(F.pad(padded, (0, 0, 0, silence)), lengths)

    def to(self, device: torch.device | str) -> ChoraleBatch:
        return ChoraleBatch(self.voices.to(device), self.lengths.to(device))


class ChoraleBatches:
    """Epochs of shuffled chorales, each moved up or down by at most five semitones; a function of (seed, epoch)."""

    def __init__(self, chorales: list[Chorale], *, batch_size: int, silence: int, seed: int) -> None:
        self.chorales, self.batch_size, self.silence, self.seed = chorales, batch_size, silence, seed
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return math.ceil(len(self.chorales) / self.batch_size)

    def __iter__(self) -> Iterator[ChoraleBatch]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.chorales))
        shifts = random.integers(-5, 6, len(self.chorales))
        while self.position < len(self):
            chosen = order[self.position * self.batch_size :][: self.batch_size]
            self.position += 1
            moved = [transposed(self.chorales[index], int(shifts[index])) for index in chosen]
            yield ChoraleBatch.of(moved, silence=self.silence)
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def transposed(chorale: Chorale, semitones: int) -> Chorale:
    """The chorale in another key, or as it is where that would leave the keyboard."""
    sounding = chorale[chorale > 0]
    if len(sounding) and not 1 <= int(sounding.min()) + semitones <= int(sounding.max()) + semitones <= N_PITCHES:
        return chorale
    return torch.where(chorale > 0, chorale + semitones, 0)


def piano_roll(voices: Int[Tensor, "*steps 4"]) -> Float[Tensor, "*steps 88"]:
    """1 where a pitch sounds in at least one voice."""
    return torch.zeros(*voices.shape[:-1], N_SYMBOLS, device=voices.device).scatter_(-1, voices, 1.0)[..., 1:]


class Notes(nn.Module):
    """p(frame | past) = product over the pitches of sigmoid(w h + b), or of 1 minus it where the pitch is silent."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.output = nn.Linear(hidden_dim, N_PITCHES)

    def forward(self, hidden: Float[Tensor, "B T H"], voices: Int[Tensor, "B T 4"]) -> Float[Tensor, "B T"]:
        """The negative log-likelihood of each frame, in nats."""
        logits = self.output(hidden)
        return F.binary_cross_entropy_with_logits(logits, piano_roll(voices), reduction="none").sum(-1)


class Voices(nn.Module):
    """p(frame | past) = product over the voices of p(voice | voices above, past), each a softmax of 89 symbols."""

    def __init__(self, hidden_dim: int, width: int = 256) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_dim, width)
        self.above = nn.ModuleList(nn.Embedding(N_SYMBOLS, width) for _ in VOICES[1:])
        self.outputs = nn.ModuleList(nn.Linear(width, N_SYMBOLS) for _ in VOICES)
        for embedding in self.above:
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, hidden: Float[Tensor, "B T H"], voices: Int[Tensor, "B T 4"]) -> Float[Tensor, "B T"]:
        """The negative log-likelihood of each frame, in nats."""
        known = self.project(hidden)
        total = torch.zeros(voices.shape[:2], device=voices.device)
        for place, output in enumerate(self.outputs):
            logits = output(dropout(torch.relu(known), 0.2, self.training))
            total = total + F.cross_entropy(logits.transpose(1, 2), voices[:, :, place], reduction="none")
            if place < len(self.above):
                known = known + self.above[place](voices[:, :, place])
        return total

    def draw(
        self, hidden: Float[Tensor, "B H"], temperature: float, random: torch.Generator, *, may_rest: bool
    ) -> Int[Tensor, "B 4"]:
        """A frame, voice after voice; the soprano sings where it may not rest."""
        known = self.project(hidden)
        drawn: list[Tensor] = []
        for place, output in enumerate(self.outputs):
            logits = output(torch.relu(known)) / temperature
            if place == 0 and not may_rest:
                logits[:, 0] = -math.inf
            drawn.append(torch.multinomial(logits.softmax(-1), 1, generator=random)[:, 0])
            if place < len(self.above):
                known = known + self.above[place](drawn[-1])
        return torch.stack(drawn, dim=1)


class ChoraleModel(nn.Module):
    """An LSTM over frames, and what it says of the next one."""

    def __init__(self, config: ChoraleConfig) -> None:
        super().__init__()
        self.config = config
        n_inputs = N_PITCHES if config.notes_only else len(VOICES) * N_SYMBOLS
        # Drawn as an embedding is, with entries of size 1: with a layer's small ones the first epochs are lost.
        self.embedding = nn.Parameter(torch.randn(n_inputs, EMBEDDING_DIM))
        self.layer = RecurrentLayer("lstm", EMBEDDING_DIM, config.hidden_dim)
        self.notes = Notes(config.hidden_dim)
        self.voices = None if config.notes_only else Voices(config.hidden_dim)

    def read(self, voices: Int[Tensor, "B T 4"]) -> Float[Tensor, "B T D"]:
        """The sum of the embeddings of all that sounds in a frame."""
        frames = piano_roll(voices) if self.voices is None else F.one_hot(voices, N_SYMBOLS).float().flatten(2)
        return frames @ self.embedding

    def forward(self, batch: ChoraleBatch) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Each frame's negative log-likelihood given those before it, in nats, by notes and by voices.

        It is 0 beyond a chorale's length, and by voices where there are none.
        """
        before = F.pad(self.read(batch.voices), (0, 0, 1, 0))[:, :-1]
        hidden, _ = self.layer(before, lengths=batch.lengths)
        hidden = locked_dropout(hidden, self.config.dropout, self.training)
        counts = length_mask(batch.lengths, batch.voices.shape[1])
        by_notes = self.notes(hidden, batch.voices).where(counts, 0.0)
        if self.voices is None:
            return by_notes, torch.zeros_like(by_notes)
        return by_notes, self.voices(hidden, batch.voices).where(counts, 0.0)

    @torch.no_grad()
    def improvise(
        self, seed: Chorale, *, least: int, most: int, temperature: float, random: torch.Generator
    ) -> Chorale:
        """The seed and at least and at most so many steps after it; silence of all voices ends the piece between."""
        if self.voices is None:
            raise InputError("chorales: a model of notes only must not improvise: train one without `--notes-only`")
        piece = list(seed)
        before = F.pad(self.read(seed[None]), (0, 0, 1, 0))  # B T D, with the silence before the first step
        state = None
        for step in range(most):
            hidden, state = self.layer(before, state)
            frame = self.voices.draw(hidden[:, -1], temperature, random, may_rest=step >= least)
            if not frame.any():
                break
            piece.append(frame[0])
            before = self.read(frame[None])
        return torch.stack(piece)


@dataclass(frozen=True)
class FrameNLL:
    """Negative log-likelihoods in nats a frame: the mean over all frames, and over all but each chorale's first."""

    notes: float
    notes_after_first: float
    voices: float
    voices_after_first: float

    def __str__(self) -> str:
        text = f"notes {self.notes:.3f}, without first frames {self.notes_after_first:.3f}"
        return text + (f"; voices {self.voices:.3f}, {self.voices_after_first:.3f}" if self.voices else "")


@torch.no_grad()
def frame_nll(model: ChoraleModel, chorales: Sequence[Chorale]) -> FrameNLL:
    """How likely the model finds chorales."""
    training = model.training
    model.eval()
    sums = torch.zeros(2, 2, dtype=torch.float64)  # notes and voices; all frames and the first ones
    for start in range(0, len(chorales), 16):
        for kind, nll in enumerate(model(ChoraleBatch.of(chorales[start : start + 16]))):
            sums[kind] += torch.stack([nll.double().sum(), nll[:, 0].double().sum()])
    model.train(training)
    n_frames = sum(map(len, chorales))
    n_later = max(n_frames - len(chorales), 1)
    return FrameNLL(
        *(figure for all_, first in sums.tolist() for figure in (all_ / n_frames, (all_ - first) / n_later))
    )


def train(path: str, folder: Path, config: ChoraleConfig, training: TrainingConfig) -> dict[str, FrameNLL]:
    """Trains in a run folder, and measures the best weights on the validation and the test set."""
    tables = {"task": "chorales", "model": to_table(config), "training": to_table(training)}
    check_folder(tables, folder, resume=False)
    data = read_chorales(path, config.every)
    make_folder(folder)
    save_config(tables, folder)
    torch.manual_seed(training.seed)
    model = ChoraleModel(config)
    silence = 0 if config.notes_only else 1  # a step of it ends a piece
    batches = ChoraleBatches(data["train"], batch_size=8, silence=silence, seed=training.seed)

    def loss(module: nn.Module, batch: ChoraleBatch) -> tuple[Tensor, int]:
        by_notes, by_voices = module(batch)
        return by_notes.sum() + by_voices.sum(), int(batch.lengths.sum())

    def validate(_: nn.Module) -> dict[str, float]:
        nll = frame_nll(model, data["valid"])
        return {"loss": nll.notes + nll.voices, "notes": nll.notes, "voices": nll.voices}

    report = TrainingReport()
    outcome = Trainer(model, batches, loss, training, folder, validate=validate, report=report).run()
    report.close()
    if outcome.signal is not None:
        raise SystemExit(128 + outcome.signal)
    model = load(folder)
    return {part: frame_nll(model, data[part]) for part in ("valid", "test")}


def load(folder: Path) -> ChoraleModel:
    """The best model of a run folder."""
    tables = saved_tables(folder)
    where = str(folder / "config.toml")
    if tables.get("task") != "chorales":
        raise InputError(f"{where}: `task` must be chorales, got {tables.get('task')!r}")
    model = ChoraleModel(from_table(ChoraleConfig, tables.get("model", {}), where=f"{where} [model]"))
    load_weights(model, saved_weights(folder), where=str(folder / "model.safetensors"))
    return model.eval()


def held_notes(line: Int[Tensor, " T"]) -> Iterator[tuple[int, int, int]]:
    """The notes of one voice: MIDI pitch, first step, and the step after the last."""
    symbols = line.tolist()
    start = 0
    for step in range(1, len(symbols) + 1):
        if step == len(symbols) or symbols[step] != symbols[start]:
            if symbols[start]:
                yield symbols[start] - 1 + LOWEST, start, step
            start = step


def write_midi(path: Path, chorale: Chorale, *, every: int, tempo: int = 80) -> None:
    """A MIDI file of four tracks, sung by a choir, at `tempo` quarter notes a minute."""
    try:
        import mido
    except ImportError:
        raise InputError("chorales: mido must be installed to write MIDI (pip install 'seqkit[music]')") from None
    file = mido.MidiFile(ticks_per_beat=480)
    ticks = file.ticks_per_beat * every // 4
    for channel, name in enumerate(VOICES):
        track = file.add_track(name)
        if channel == 0:
            track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
        track.append(mido.Message("program_change", channel=channel, program=52))  # choir aahs
        now = 0
        for pitch, start, end in held_notes(chorale[:, channel]):
            for kind, step in (("note_on", start), ("note_off", end)):
                track.append(mido.Message(kind, channel=channel, note=pitch, velocity=80, time=(step - now) * ticks))
                now = step
    content = io.BytesIO()
    file.save(file=content)
    write_atomically(path, content.getvalue())


def draw_piano_roll(path: Path, chorale: Chorale, *, every: int, n_seed: int, title: str) -> None:
    """A PNG picture: quarter notes to the right, pitches upwards, a colour for each voice, the seed before the line."""
    from matplotlib.figure import Figure

    quarters = every / 4
    figure = Figure(figsize=(max(6.0, 2.0 + 0.16 * len(chorale) * quarters), 4.6), dpi=160, layout="constrained")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(zip(VOICES, ("#c2571a", "#2f7d4f", "#1f5fa8", "#6b3fa0"), strict=True)):
        notes = list(held_notes(chorale[:, place]))
        axes.barh(
            [pitch for pitch, _, _ in notes], [(end - start) * quarters - 0.06 for _, start, end in notes],
            left=[start * quarters for _, start, _ in notes], height=0.8, color=colour, label=name,
        )  # fmt: skip
    axes.axvline(n_seed * quarters - 0.03, color="#444444", linewidth=1, linestyle="--")
    sounding = chorale[chorale > 0] - 1 + LOWEST
    lowest, highest = int(sounding.min()), int(sounding.max())
    octaves = range(12 * (lowest // 12), highest + 12, 12)
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_ylim(lowest - 2, highest + 2)
    axes.set_xlim(0, len(chorale) * quarters)
    axes.set_xticks(range(0, math.ceil(len(chorale) * quarters) + 1, 4))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("quarter notes")
    axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train a model and measure it on the test set")
    training.add_argument("chorales", help="jsb-chorales-16th.npz")
    training.add_argument("folder", type=Path, help="a new run folder")
    training.add_argument("--notes-only", action="store_true", help="the published setting; it cannot improvise")
    training.add_argument("--every", type=int, default=4, help="sixteenths in a step (default: 4, quarter notes)")
    training.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the data (default: %(default)s)")
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--threads", type=int, help="CPU threads")
    improvising = verbs.add_parser("improvise", help="go on after the first bars of a chorale of the test set")
    improvising.add_argument("folder", type=Path, help="a run folder")
    improvising.add_argument("chorales", help="jsb-chorales-16th.npz")
    improvising.add_argument("-o", "--output", type=Path, required=True, help="the MIDI file; a .png goes beside it")
    improvising.add_argument("--chorale", type=int, default=0, help="its number in the test set, from 0")
    improvising.add_argument("--seed-quarters", type=int, default=8, help="quarter notes of it (default: 8)")
    improvising.add_argument("--least", type=int, default=24, help="quarter notes to come at least (default: 24)")
    improvising.add_argument("--most", type=int, default=56, help="quarter notes to come at most (default: 56)")
    improvising.add_argument("--temperature", type=float, default=0.8, help="below 1 is more cautious (default: 0.8)")
    improvising.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        if given.verb == "train":
            set_threads(given.threads)
            config = ChoraleConfig(notes_only=given.notes_only, every=given.every)
            settings = TrainingConfig(max_epochs=given.epochs, seed=given.seed, **TRAINING)
            for part, nll in train(given.chorales, given.folder, config, settings).items():
                print(f"{part}: nats a frame: {nll}")
            return
        improvise(given)
    except InputError as error:
        print(f"chorales.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def improvise(given: argparse.Namespace) -> None:
    """Writes the MIDI file and, with matplotlib, the picture."""
    if given.output.suffix != ".mid":
        raise InputError(f"chorales: --output must end in .mid, got {given.output.suffix or 'no suffix'}")
    if given.temperature <= 0 or given.seed_quarters < 1 or given.most < 1:
        raise InputError("chorales: --temperature, --seed-quarters and --most must be above 0")
    model = load(given.folder)
    every = model.config.every
    pieces = read_chorales(given.chorales, every)["test"]
    if not 0 <= given.chorale < len(pieces):
        raise InputError(f"chorales: --chorale must be of 0 to {len(pieces) - 1}, got {given.chorale}")
    seed = pieces[given.chorale][: given.seed_quarters * 4 // every]
    random = torch.Generator().manual_seed(given.seed)
    least, most = given.least * 4 // every, given.most * 4 // every
    piece = model.improvise(seed, least=least, most=most, temperature=given.temperature, random=random)
    n_seed, n_after = len(seed) * every // 4, (len(piece) - len(seed)) * every // 4
    write_midi(given.output, piece, every=every)
    print(f"{given.output}: {n_seed} quarter notes of Bach, {n_after} after them")
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    picture = given.output.with_suffix(".png")
    title = f"After {n_seed} quarter notes of test chorale {given.chorale}, temperature {given.temperature}"
    draw_piano_roll(picture, piece, every=every, n_seed=len(seed), title=title)
    print(f"{picture}: its piano roll")


if __name__ == "__main__":
    main()
