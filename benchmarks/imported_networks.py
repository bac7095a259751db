"""Claim: networks of others say here what they say at home, and a beam finds better outputs.

    python benchmarks/imported_networks.py DATA [--g2p FOLDER --cmudict FILE] [--words 1000] [--seed 0]

DATA holds `models/en-fr-char-lstm` and `translation/tatoeba.en-fr.tsv.xz`; FOLDER is g2p-en's package folder and FILE
the `cmudict.dict` of the package cmudict. Each owner's own decoding (the loop of Keras's example in numpy; g2p-en's
`predict`, with nltk left out, which it does not use) takes one input at a time, ours all. Printed are how many outputs
are equal, the CPU seconds of both, and the quality of greedy and beam search.

English to French: BLEU (sacrebleu's default, with case) on sentences of at most 32 characters that the seed picks from
the distinct ones, against all translations that the table has of each. Spelling: wrong phonemes (edits over phonemes of
the reference) of words that the seed picks from the dictionary.
"""

import argparse
import json
import lzma
import random
import re
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqkit.analysis.bleu import bleu
from seqkit.tasks.importer import import_run
from seqkit.tasks.translator import Translator

Array = NDArray[np.float32]


class KerasLoop:
    """Keras's `lstm_seq2seq` example, its layers written out."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        (group,) = json.loads((folder / "model.json").read_text(encoding="utf-8"))["weightsManifest"]
        data = np.concatenate([np.fromfile(folder / path, "<f4") for path in group["paths"]])
        sizes = [int(np.prod(entry["shape"])) for entry in group["weights"]]
        cut = np.split(data, np.cumsum(sizes)[:-1])
        self.weights = {
            entry["name"]: part.reshape(entry["shape"]) for entry, part in zip(group["weights"], cut, strict=True)
        }
        self.source, self.target = facts["input_token_index"], facts["target_token_index"]
        self.longest = facts["max_encoder_seq_length"], facts["max_decoder_seq_length"]

    def step(self, layer: str, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z = x @ self.weights[f"{layer}/kernel"] + h @ self.weights[f"{layer}/recurrent_kernel"]
        i, f, g, o = np.split(z + self.weights[f"{layer}/bias"], 4)
        i, f, o = (np.clip(np.float32(0.2) * gate + np.float32(0.5), 0, 1) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        return o * np.tanh(c), c

    def __call__(self, text: str) -> str:
        encoded = np.zeros((max(self.longest[0], len(text)), len(self.source)), np.float32)
        for place, char in enumerate(text):
            if char in self.source:
                encoded[place, self.source[char]] = 1.0
        h = c = np.zeros(len(self.weights["lstm_1/recurrent_kernel"]), np.float32)
        for x in encoded:
            h, c = self.step("lstm_1", x, h, c)
        char_of = {row: char for char, row in self.target.items()}
        char, output = "\t", ""
        while len(output) <= self.longest[1]:
            x = np.zeros(len(self.target), np.float32)
            x[self.target[char]] = 1.0
            h, c = self.step("lstm_2", x, h, c)
            char = char_of[int((h @ self.weights["dense_1/kernel"] + self.weights["dense_1/bias"]).argmax())]
            if char == "\n":
                break
            output += char
        return output


def g2p_predict(folder: Path) -> Callable[[str], list[str]]:
    """`G2p().predict` of the package in a folder, which imports nltk and its data for what is not asked here."""
    stubs = {name: ModuleType(name) for name in ("nltk", "nltk.corpus", "nltk.tokenize", "g2p_en", "g2p_en.expand")}
    names: dict[str, dict[str, Any]] = {
        "nltk": {"pos_tag": None, "corpus": stubs["nltk.corpus"], "data": SimpleNamespace(find=lambda _: None)},
        "nltk.corpus": {"cmudict": SimpleNamespace(dict=dict)},
        "nltk.tokenize": {"TweetTokenizer": lambda: SimpleNamespace(tokenize=str.split)},
        "g2p_en": {"__path__": [str(folder)]},
        "g2p_en.expand": {"normalize_numbers": str},
    }
    for name, module in stubs.items():
        vars(module).update(names[name])
    sys.modules |= stubs
    module: dict[str, Any] = {"__name__": "g2p_en.g2p", "__package__": "g2p_en", "__file__": str(folder / "g2p.py")}
    with warnings.catch_warnings(action="ignore"):  # of an escape in its regular expression
        exec(compile((folder / "g2p.py").read_text(encoding="utf-8"), "g2p.py", "exec"), module)
    return module["G2p"]().predict  # type: ignore[no-any-return]


def edits(found: list[str], wanted: list[str]) -> int:
    """The fewest insertions, deletions and replacements between two spellings."""
    row = list(range(len(wanted) + 1))
    for i, one in enumerate(found, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def phonemes_wrong(found: list[str], wanted: list[list[list[str]]], *, stress: bool, every: bool) -> float:
    """Percent of the phonemes, against the first pronunciation of each word or the nearest of all."""
    wrong = total = 0
    for text, spellings in zip(found, wanted, strict=True):
        choices = spellings if every else spellings[:1]
        if not stress:
            text, choices = re.sub(r"\d", "", text), [[re.sub(r"\d", "", p) for p in spelling] for spelling in choices]
        nearest, size = min((edits(text.split(), spelling), len(spelling)) for spelling in choices)
        wrong, total = wrong + nearest, total + size
    return 100.0 * wrong / total


def compare(
    name: str, path: Path, inputs: list[str], owner: Callable[[str], str], quality: Callable[[list[str]], str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        import_run(path, Path(folder) / "run")
        translator = Translator.load(Path(folder) / "run")
    begin = time.process_time()
    theirs = [owner(text) for text in inputs]
    middle = time.process_time()
    ours = [one.texts[0] for one in translator.translate(inputs)]
    end = time.process_time()
    equal = sum(a == b for a, b in zip(theirs, ours, strict=True))
    print(f"{name}: {equal} of {len(inputs)} outputs are the owner's; {middle - begin:.2f} CPU s in its loop, "
          f"{end - middle:.2f} here, ratio {(end - middle) / (middle - begin):.2f}")  # fmt: skip
    print(f"  greedy, owner  {quality(theirs)}")
    print(f"  greedy         {quality(ours)}")
    for penalty in ("none", "power:0.7", "power:1"):
        options = replace(translator.search, beam_size=5, length_penalty=penalty)
        print(f"  beam 5, {penalty:9} {quality([one.texts[0] for one in translator.translate(inputs, options)])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--g2p", type=Path)
    parser.add_argument("--cmudict", type=Path)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    translations: dict[str, list[str]] = defaultdict(list)
    with lzma.open(arguments.data / "translation/tatoeba.en-fr.tsv.xz", "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            english, french = line.rstrip("\n").split("\t")
            translations[english].append(french)
    short = [english for english in translations if len(english) <= 32]
    sentences = random.Random(arguments.seed).sample(short, arguments.sentences)
    most = max(len(translations[sentence]) for sentence in sentences)
    references = [  # the first stands again where a sentence has fewer than another
        [texts[n] if n < len(texts := translations[sentence]) else texts[0] for sentence in sentences]
        for n in range(most)
    ]
    model = arguments.data / "models/en-fr-char-lstm"
    compare(
        "English to French", model, sentences, KerasLoop(model),
        lambda found: f"{bleu(found, references)}, first translation alone {bleu(found, references[:1]).value:.2f}",
    )  # fmt: skip

    if arguments.g2p and arguments.cmudict:
        dictionary: dict[str, list[list[str]]] = defaultdict(list)
        for line in arguments.cmudict.read_text(encoding="utf-8").splitlines():
            word, *spelling = line.split("#")[0].split()
            dictionary[re.sub(r"\(\d+\)$", "", word)].append(spelling)
        words = random.Random(arguments.seed).sample(list(dictionary), arguments.words)
        wanted = [dictionary[word] for word in words]
        predict = g2p_predict(arguments.g2p)

        def quality(found: list[str]) -> str:
            rates = {
                name: phonemes_wrong(found, wanted, stress=stress, every=every)
                for name, stress, every in (
                    ("first pronunciation", True, False), ("nearest", True, True),
                    ("first, without stress", False, False), ("nearest, without stress", False, True),
                )
            }  # fmt: skip
            return ", ".join(f"{name} {rate:.2f} %" for name, rate in rates.items())

        compare("Spelling", arguments.g2p, words, lambda word: " ".join(predict(word)), quality)


if __name__ == "__main__":
    main()
