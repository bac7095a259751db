"""Recordings in which each word is a tone of its own, for tests that train a CTC model in seconds."""

from pathlib import Path

import numpy as np

HERTZ = {"low": 300.0, "mid": 900.0, "high": 2400.0}
RATE = 8000
CONFIG = """
task = "ctc"
[data]
train = ["train.tsv"]
valid = ["train.tsv"]
[features]
rate = 8000
n_mels = 12
[tokenizer]
kind = "word"
[model]
subsampling_dim = 16
hidden_dim = 16
n_layers = 1
dropout = 0.0
[training]
max_epochs = 24
batch_tokens = 400
learning_rate = 2e-2
schedule = "cosine"
warmup = 3
metric = "error_rate"
"""


def spoken(text: str, seed: int = 0) -> np.ndarray:
    """A tenth of a second of tone for each word, and pauses."""
    random = np.random.default_rng(seed)
    pieces = [np.zeros(400)]
    for word in text.split():
        n = int(random.integers(700, 900))
        pieces += [
            0.3 * np.sin(2 * np.pi * HERTZ[word] * np.arange(n) / RATE),
            np.zeros(int(random.integers(400, 700))),
        ]
    whole = np.concatenate(pieces)
    return (whole + random.normal(scale=1e-3, size=len(whole))).astype(np.float32)


def write_recordings(folder: Path, *, n: int = 40, manifest: str = "train.tsv") -> list[str]:
    """Sound files, a manifest that names them, and what is said in each."""
    import soundfile

    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(list(HERTZ), random.integers(1, 4))) for _ in range(n)]
    (folder / "sounds").mkdir(exist_ok=True)
    for place, text in enumerate(texts):
        soundfile.write(folder / f"sounds/{place}.wav", spoken(text, place), RATE)
    (folder / manifest).write_text("".join(f"sounds/{place}.wav\t{text}\n" for place, text in enumerate(texts)))
    return texts
