"""Spoken digits joined to strings: sound files and manifests for `seqkit train examples/ctc/digits.toml`.

    python examples/ctc/digits.py $SEQKIT_DATA/speech/free-spoken-digits.tar.xz digits

The archive is the Free Spoken Digit Dataset, 3,000 clips of 0.43 s at 8 kHz: ten digits, six speakers, fifty clips of
each digit by each. A string is three to seven clips of one speaker, with pauses of up to 0.4 s of faint noise (70 dB
below full scale) before, between and behind them. Of four speakers the clips 0 to 4 of each digit are for testing, as
in the data set's own split, 5 to 9 for choosing and the others for training; of two speakers, theo and yweweler, no
clip is heard in training or choosing. Expected output:

    2,000 strings of train: 10,061 digits, 118.1 minutes
    200 strings of valid: 1,029 digits, 12.6 minutes
    400 strings of test: 2,047 digits, 24.1 minutes
    200 strings of unseen: 1,016 digits, 10.3 minutes

Needs `pip install 'seqkit[audio]'`. The data: Jackson et al., CC BY-SA 4.0.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqkit.atomic import write_atomically
from seqkit.audio.wave import audio_library
from seqkit.errors import InputError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
UNSEEN = ("theo", "yweweler")
STRINGS = {"train": 500, "valid": 50, "test": 100, "unseen": 100}  # of each speaker
RATE = 8000

Clips = dict[str, dict[str, list[tuple[int, np.ndarray]]]]  # by part and speaker: digits and their samples


def read(path: str) -> Clips:
    """The clips of the archive."""
    soundfile = audio_library("soundfile")
    parts: Clips = {part: {} for part in STRINGS}
    try:
        with tarfile.open(path) as archive:
            for member in archive:  # in the order of the archive: going back would unpack it again
                if not (found := re.search(r"(\d)_([a-z]+)_(\d+)\.wav$", member.name)):
                    continue
                digit, speaker, place = int(found[1]), found[2], int(found[3])
                part = "unseen" if speaker in UNSEEN else "test" if place < 5 else "valid" if place < 10 else "train"
                content = archive.extractfile(member)
                assert content is not None
                samples, rate = soundfile.read(io.BytesIO(content.read()), dtype="float32")
                if rate != RATE or samples.ndim != 1:
                    raise SystemExit(f"{path}: `{member.name}` must be one channel of {RATE} samples a second")
                parts[part].setdefault(speaker, []).append((digit, samples))
    except (OSError, tarfile.TarError, soundfile.SoundFileError) as error:
        raise SystemExit(f"{path}: archive must be a tar file of sound files, got {error}") from None
    if not all(parts.values()):
        raise SystemExit(f"{path}: archive must hold clips DIGIT_SPEAKER_NUMBER.wav of all parts, got too few")
    return parts


def strings(clips: list[tuple[int, np.ndarray]], n: int, seed: str) -> Iterator[tuple[str, np.ndarray]]:
    """What is said, and the samples."""
    draw = random.Random(seed)
    noise = np.random.default_rng(draw.randrange(1 << 30))

    def pause() -> np.ndarray:
        return noise.normal(scale=10 ** (-70 / 20), size=draw.randrange(RATE * 2 // 5)).astype(np.float32)

    for _ in range(n):
        chosen = draw.choices(clips, k=draw.randint(3, 7))
        pieces = [pause()]
        for _, samples in chosen:
            pieces += [samples, pause()]
        yield " ".join(NAMES[digit] for digit, _ in chosen), np.concatenate(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        soundfile = audio_library("soundfile")
    except InputError as error:
        raise SystemExit(str(error)) from None
    for part, speakers in read(arguments.archive).items():
        folder = arguments.output / part
        folder.mkdir(parents=True, exist_ok=True)
        rows, n_samples, n_digits = [], 0, 0
        for speaker, clips in sorted(speakers.items()):
            for place, (text, samples) in enumerate(strings(clips, STRINGS[part], f"{part} {speaker}")):
                name = f"{part}/{speaker}-{place:03d}.wav"
                soundfile.write(arguments.output / name, samples, RATE)  # the manifest, written last, makes them whole
                rows.append(f"{name}\t{text}\n")
                n_samples, n_digits = n_samples + len(samples), n_digits + len(text.split())
        write_atomically(arguments.output / f"{part}.tsv", "".join(rows).encode())
        print(f"{len(rows):,} strings of {part}: {n_digits:,} digits, {n_samples / RATE / 60:.1f} minutes")


if __name__ == "__main__":
    main()
