"""Analogies by hand: `man is to king as woman is to what?`, with ten lines of numpy and with seqkit.

    python examples/embeddings/analogies.py                                    a small text that is made here
    python examples/embeddings/analogies.py --vectors vectors.safetensors      vectors of any format
    python examples/embeddings/analogies.py --corpus corpus.txt                skip-gram vectors of a text

Words are points, and a relation is a step from one to the other: king - man is about queen - woman. The answer is the
word whose direction is nearest to b - a + c; a, b and c are left out, because they are nearly always nearest.

The small text has sentences such as `the queen rank1a and sings her rank1b`. Expected output, after half a second:

    cosine of mother and father 0.75, of france and paris 0.61, of mother and paris 0.01
    man : king = woman : queen          seqkit: queen 1.00, mother 0.50, sings 0.49
    man : boy = woman : girl            seqkit: girl 1.00, daughter 0.52, princess 0.50
    king : prince = queen : princess    seqkit: princess 1.00, dress 0.52, daughter 0.52
    france : paris = italy : rome       seqkit: rome 0.98, tokyo 0.67, berlin 0.66
    ...

Vectors of 17 million words of Wikipedia (two epochs of skip-gram) know four of the six, after 2 seconds; Italy's
capital is `brussels` to them, and the woman who is king `throne`:

    cosine of mother and father 0.84, of france and paris 0.73, of mother and paris 0.23
    man : king = woman : throne         seqkit: throne 0.64, monarchs 0.62, monarch 0.62
    man : boy = woman : girl            seqkit: girl 0.77, girls 0.64, baby 0.62
    king : prince = queen : princess    seqkit: princess 0.71, duchess 0.64, victoria 0.64
    france : paris = italy : brussels   seqkit: brussels 0.77, istanbul 0.77, turin 0.75
    ...

Reference: Mikolov et al. 2013, NAACL, "Linguistic regularities in continuous space word representations".
"""

import argparse
import random
from collections.abc import Sequence

import numpy as np

from seqkit.embeddings import Word2Vec, WordVectors
from seqkit.errors import InputError

ANALOGIES = [
    ("man", "king", "woman"), ("man", "boy", "woman"), ("king", "prince", "queen"),
    ("france", "paris", "italy"), ("germany", "berlin", "spain"), ("father", "son", "mother"),
]  # fmt: skip
PLACES = {
    "france": "paris",
    "italy": "rome",
    "germany": "berlin",
    "spain": "madrid",
    "russia": "moscow",
    "japan": "tokyo",
}
PEOPLE = {
    "man": "woman", "king": "queen", "boy": "girl", "prince": "princess", "father": "mother", "son": "daughter",
}  # fmt: skip


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    """u . v / (|u| |v|): 1 for the same direction, 0 for none in common."""
    return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))


def complete_analogy(a: str, b: str, c: str, vectors: WordVectors) -> str:
    """The word d for which d - c is most nearly b - a, by a loop over all words.

    The vectors are taken at length one first, so that a frequent word's long vector does not outweigh the others.
    """
    u, v, w = (vectors[word] / np.linalg.norm(vectors[word]) for word in (a, b, c))
    target = v - u + w
    best, best_cosine = "", -2.0
    for word in vectors.words:
        if word in (a, b, c):
            continue
        found = cosine(target, vectors[word])
        if found > best_cosine:
            best, best_cosine = word, found
    return best


def small_text(n_sentences: int = 20_000, seed: int = 1) -> list[list[str]]:
    """Sentences in which man and woman, land and capital differ by the words that stand beside them."""
    draw = random.Random(seed).choice
    of_gender = [["he", "his", "beard", "shaves"], ["she", "her", "dress", "sings"]]
    sentences = []
    for _ in range(n_sentences):
        if draw((True, True, False)):
            rank = draw(range(len(PEOPLE)))
            gender = draw((0, 1))
            word = list(PEOPLE.items())[rank][gender]
            own = [f"rank{rank}{letter}" for letter in "abc"]  # what people of one rank do, be they men or women
            sentences.append(
                ["the", word, draw(own), "and", draw(of_gender[gender]), draw(of_gender[gender]), draw(own)]
            )
        else:
            at = draw(range(len(PLACES)))
            land, capital = list(PLACES.items())[at]
            own = [f"place{at}{letter}" for letter in "abc"]
            country = ["people", "in", "the", "country", land, "love", draw(own), "and", "farms"]
            city = ["streets", "of", "the", "city", capital, "love", draw(own), "and", "trams"]
            sentences.append(draw((country, city)))
    return sentences


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", metavar="FILE", help="vectors of any format that seqkit reads")
    parser.add_argument("--corpus", metavar="FILE", help="text to train vectors on")
    given = parser.parse_args(arguments)
    if given.vectors:
        vectors = WordVectors.load(given.vectors)
    elif given.corpus:
        vectors = Word2Vec(dim=100, epochs=2).train(given.corpus)
    else:
        vectors = Word2Vec(dim=20, window=4, epochs=5, sample=0.0, min_count=1).train(small_text())
    pairs = [("mother", "father"), ("france", "paris"), ("mother", "paris")]
    pairs = [(a, b) for a, b in pairs if a in vectors and b in vectors]
    print("cosine of " + ", of ".join(f"{a} and {b} {cosine(vectors[a], vectors[b]):.2f}" for a, b in pairs))
    for a, b, c in ANALOGIES:
        try:
            ours = vectors.analogy(a, b, c, 3)
        except InputError as error:
            print(f"{a} : {b} = {c} : ?   {error}")
            continue
        d = complete_analogy(a, b, c, vectors)
        print(f"{f'{a} : {b} = {c} : {d}':<36}seqkit: {', '.join(f'{word} {score:.2f}' for word, score in ours)}")


if __name__ == "__main__":
    main()
