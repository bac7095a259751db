"""Sentences for and against films: three files for `seqkit train`, and the accuracy of counting words.

    python examples/classification/polarity.py sentence_polarity.zip polarity
    POLARITY=$PWD/polarity VECTORS=$PWD/vectors.safetensors seqkit train examples/classification/polarity.toml
    seqkit evaluate runs/polarity polarity/test.tsv

The archive is Pang and Lee's sentence polarity data, 5,331 sentences of film reviews on each side: files that end in
`.pos` and `.neg`, a sentence a line. Of each side every tenth sentence is for testing and the one before it for
choosing. The baseline is logistic regression on words, and on words and pairs of words, by scikit-learn (if it is
installed); its strength is chosen on the validation part. Expected output, after 5 seconds:

    8,530, 1,066 and 1,066 sentences in polarity: train.tsv, valid.tsv, test.tsv
    words             C 1  accuracy = 74.86 % (798 of 1,066; 95 % interval 72.17 to 77.37)
    words and pairs   C 3  accuracy = 76.74 % (818 of 1,066; 95 % interval 74.11 to 79.17)

Reference: Pang and Lee 2005, ACL, arXiv:cs/0506075.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from seqkit.analysis.accuracy import accuracy
from seqkit.atomic import write_atomically

Example = tuple[str, str]  # class and text


def read(path: str) -> list[Example]:
    """The sentences of both sides, in turn."""
    sides: dict[str, list[str]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith((".pos", ".neg")):
                    lines = archive.read(name).decode("utf-8", errors="replace").split("\n")
                    sides[name[-3:]] = [" ".join(line.split()) for line in lines if line.strip()]
    except (OSError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{path}: archive must be a zip file that can be read, got {error}") from None
    if set(sides) != {"pos", "neg"}:
        raise SystemExit(f"{path}: archive must hold a file .pos and a file .neg, got {', '.join(sides) or 'neither'}")
    pairs = zip(sides["neg"], sides["pos"], strict=False)
    return [example for against, for_ in pairs for example in (("neg", against), ("pos", for_))]


def split(examples: list[Example]) -> dict[str, list[Example]]:
    """For training, for choosing and for testing: pairs of both sides by their place in the data."""
    parts: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    for at, example in enumerate(examples):
        parts[{8: "valid", 9: "test"}.get(at // 2 % 10, "train")].append(example)
    return parts


def baseline(parts: dict[str, list[Example]], longest: int) -> str:
    """Logistic regression on which words, and runs of up to `longest` words, a sentence has."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counter = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, longest), binary=True)
    labels = {name: [label for label, _ in examples] for name, examples in parts.items()}
    counted = {
        name: (counter.fit_transform if name == "train" else counter.transform)([text for _, text in examples])
        for name, examples in parts.items()
    }
    fitted = {
        strength: LogisticRegression(C=strength, max_iter=1000).fit(counted["train"], labels["train"])
        for strength in (0.03, 0.1, 0.3, 1, 3)
    }
    best = max(fitted, key=lambda strength: fitted[strength].score(counted["valid"], labels["valid"]))
    return f"C {best}  {accuracy(list(fitted[best].predict(counted['test'])), labels['test'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="sentence_polarity.zip")
    parser.add_argument("folder", type=Path, help="where the three files go")
    arguments = parser.parse_args()
    parts = split(read(arguments.archive))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, examples in parts.items():
        lines = "".join(f"{label}\t{text}\n" for label, text in examples)
        write_atomically(arguments.folder / f"{name}.tsv", lines.encode())
    sizes = [f"{len(examples):,}" for examples in parts.values()]
    files = ", ".join(f"{name}.tsv" for name in parts)
    print(f"{sizes[0]}, {sizes[1]} and {sizes[2]} sentences in {arguments.folder}: {files}")
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print("no baseline: scikit-learn is not installed")
        return
    print(f"words             {baseline(parts, 1)}")
    print(f"words and pairs   {baseline(parts, 2)}")


if __name__ == "__main__":
    main()
