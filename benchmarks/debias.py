"""Claim: hard debiasing costs a fraction of a second, and each correction has its price beside it.

    python benchmarks/debias.py VECTORS DATA [--rounds 5] [--no-quality]

VECTORS is a file of word vectors, such as benchmarks/embeddings.py or `seqkit embed train` gives; DATA the folder of
Bolukbasi et al.'s lists (definitional_pairs.json, equalize_pairs.json, gender_specific_full.json, professions.json), of
questions-words.txt, wordsim353.tsv and simlex999.txt. The association tests are those of seqkit's own gender lists.
Prints for each method the median CPU time, then direct bias (along the direction of before, and found anew), RIPA, the
share of the most biased words that clustering tells apart, WEAT effects, and analogies, WS353 and SimLex.

The peer is the published algorithm as its authors wrote it, a loop over words (Bolukbasi et al., debias.py), in numpy.
WEFE 1.0.1 gives the same vectors (docs/results/embeddings.md).
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqkit.embeddings import WordVectors
from seqkit.embeddings.attribute import Attribute, load_attribute, with_json_list
from seqkit.embeddings.audit import audit, probe
from seqkit.embeddings.bias import bias_direction
from seqkit.embeddings.debias import double_hard_debias, hard_debias, inlp, soft_debias, specific_words


def published(vectors: WordVectors, attribute: Attribute, specific: set[str]) -> WordVectors:
    """Neutralise and equalise, one word after the other."""
    unit = vectors.unit.copy()
    g = bias_direction(vectors, attribute.definitional)
    for row, word in enumerate(vectors.words):
        if word not in specific:
            unit[row] = unit[row] - (unit[row] @ g) * g
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for a, b in attribute.equalize:
        if a in vectors and b in vectors:
            i, j = vectors.index[a], vectors.index[b]
            mean = (unit[i] + unit[j]) / 2
            y = mean - (mean @ g) * g
            z = np.sqrt(max(1 - y @ y, 0)) * (-1 if (unit[i] - unit[j]) @ g < 0 else 1)
            unit[i], unit[j] = y + z * g, y - z * g
    return WordVectors(vectors.words, unit / np.linalg.norm(unit, axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors")
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-quality", action="store_true")
    arguments = parser.parse_args()

    vectors = WordVectors.load(arguments.vectors)
    attribute = load_attribute("gender")
    for key, name in [
        ("definitional", "definitional_pairs"), ("equalize", "equalize_pairs"),
        ("specific", "gender_specific_full"), ("targets", "professions"),
    ]:  # fmt: skip
        attribute = with_json_list(attribute, key, arguments.data / f"{name}.json")
    attribute, _ = attribute.in_vocabulary(vectors)
    # As `seqkit embed debias` has it: the words of every list that means the attribute keep it.
    specific = {word for words in attribute.definitional + attribute.equalize for word in words}
    specific |= set(attribute.specific)
    specific = {word for word in specific if word in vectors}
    given = {"definitional": attribute.definitional, "specific": specific}
    equalize = attribute.equalize

    methods: dict[str, Callable[[WordVectors], WordVectors]] = {
        "before": lambda given_vectors: given_vectors,
        "published loop": lambda v: published(v, attribute, specific),
        "hard": lambda v: hard_debias(v, equalize=equalize, **given),
        "soft, weight 0.02": lambda v: soft_debias(v, weight=0.02, **given),
        "soft, weight 0.2": lambda v: soft_debias(v, **given),
        "double-hard": lambda v: double_hard_debias(v, equalize=equalize, **given).vectors,
        "inlp": lambda v: inlp(v, **given).vectors,
    }
    found: dict[str, WordVectors] = {}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(arguments.rounds):
        for name, correct in methods.items():
            fresh = WordVectors(vectors.words, vectors.matrix)  # its unit vectors are made anew
            begin = time.process_time()
            found[name] = correct(fresh)
            times[name].append(time.process_time() - begin)
    loop = statistics.median(times["published loop"])
    difference = np.abs(found["published loop"].matrix - found["hard"].matrix).max()
    print(f"{len(vectors):,} vectors, {len(specific):,} specific words; hard and the loop differ by {difference:.1e}")
    begin = time.process_time()
    grown = specific_words(vectors, load_attribute("gender").in_vocabulary(vectors)[0].seed)
    print(f"specific_words: {time.process_time() - begin:.2f} CPU s, {len(grown)} words from seqkit's seed list")

    attribute = dataclasses.replace(attribute, analogy=())
    by = probe(vectors, attribute, specific=specific)
    for name, corrected in found.items():
        cost = statistics.median(times[name])
        print(
            f"{name:18} {cost:6.3f} CPU s" + (f", {loop / cost:.1f} times the loop's speed" if name == "hard" else "")
        )
        if arguments.no_quality or name == "published loop":
            continue
        seen = audit(
            corrected, by, analogy_file=arguments.data / "questions-words.txt",
            similarity_files=[str(arguments.data / "wordsim353.tsv"), str(arguments.data / "simlex999.txt")],
        )  # fmt: skip
        assert seen.analogies is not None
        effects = ", ".join(f"{each.effect:+.3f} p {each.p:.4f}" for each in seen.weat if each is not None)
        print(
            f"    direct bias {seen.direct_bias:.3g}, anew {seen.direct_bias_anew:.3g}; RIPA {seen.ripa:.3g}; "
            f"told apart {100 * (seen.told_apart or 0):.1f} %; WEAT {effects}; "
            f"analogies {100 * seen.analogies.accuracy:.2f} %, WS353 {seen.similarity[0].rho:.3f}, "
            f"SimLex {seen.similarity[1].rho:.3f}"
        )


if __name__ == "__main__":
    main()
