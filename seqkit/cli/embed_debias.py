"""`seqkit embed debias`: takes the bias along an attribute out of vectors, and measures it before and after.

The attribute is given by word lists: those of gender come with seqkit, others are read from a TOML file, which
seqkit/embeddings/attribute.py describes. Words that mean the attribute keep it: those of the lists, and those that a
classifier finds from the seed list. Targets are never taken for such unless a list says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqkit.errors import InputError

if TYPE_CHECKING:
    from seqkit.embeddings import WordVectors
    from seqkit.embeddings.attribute import Attribute
    from seqkit.embeddings.audit import Audit, Probe

METHODS = ("hard", "soft", "double-hard", "inlp")
JSON_LISTS = ("definitional", "equalize", "seed", "specific", "targets")
WEIGHT = 0.2  # of soft debiasing, as the paper has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vectors", metavar="VECTORS", help="file of vectors")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="where to write; the suffix says how")
    parser.add_argument("--format", help="in place of that of the suffix: see `seqkit embed convert`")
    parser.add_argument("--method", choices=METHODS, default="hard", help="how the bias is taken out")
    parser.add_argument("--weight", type=float, default=argparse.SUPPRESS, metavar="X",
                        help=f"soft: of the bias against all inner products ({WEIGHT})")  # fmt: skip
    lists = parser.add_mutually_exclusive_group()
    lists.add_argument("--attribute", default="gender", metavar="NAME", help="whose word lists come with seqkit")
    lists.add_argument("--lists", metavar="FILE", help="TOML file of other word lists, as lists/gender.toml is")
    for name in JSON_LISTS:
        parser.add_argument(f"--{name}", metavar="FILE", help=f"JSON file in place of the {name} list")
    parser.add_argument("--analogies", metavar="FILE", help="quality: questions of four words a line")
    parser.add_argument(
        "--similarity", nargs="+", default=[], metavar="FILE", help="quality: two words and a score a line"
    )
    parser.add_argument("--report", metavar="FILE", help="write a page with pictures here, as one HTML file")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.atomic import write_atomically
    from seqkit.embeddings import WordVectors
    from seqkit.embeddings.audit import audit, probe

    attribute = _attribute(arguments)
    _check_outputs(arguments)
    vectors = WordVectors.load(arguments.vectors)
    if type(vectors) is not WordVectors:
        _say("warning: subwords are not kept: they would give unknown words the bias back")
        vectors = WordVectors(vectors.words, vectors.matrix)
    attribute, unknown = attribute.in_vocabulary(vectors)
    specific, found = _specific(vectors, attribute)
    by = probe(vectors, attribute, specific=specific)
    files = {"analogy_file": arguments.analogies, "similarity_files": arguments.similarity}
    before = audit(vectors, by, **files)
    corrected, facts = _corrected(arguments, vectors, by)
    after = audit(corrected, by, **files)

    rows = _rows(by, before, after, arguments.similarity)
    page = None
    if arguments.report:
        page = _page(arguments, vectors, by, before, after, rows, unknown, found)
    corrected.save(arguments.output, arguments.format)
    if page is not None:
        write_atomically(arguments.report, page.encode("utf-8"))
    _say(f"{len(specific):,} words mean {attribute.name} and keep it, {len(found)} of them found by the classifier")
    for name, words in unknown.items():
        _say(f"{name}: left out {len(words)} without a vector: {', '.join(words[:8])}{', …' if len(words) > 8 else ''}")
    for remark in _remarks(by, before, after):
        _say(remark)
    if arguments.json:
        record = {
            "vectors": arguments.vectors, "words": len(vectors), "dim": vectors.matrix.shape[1],
            "attribute": attribute.name, "method": arguments.method, **facts, "specific": len(specific),
            "found": found, "unknown": unknown, "targets": by.targets,
            "before": _record(before, by, arguments.similarity), "after": _record(after, by, arguments.similarity),
        }  # fmt: skip
        print(json.dumps(record, ensure_ascii=False))
        return 0
    heading = ("measure", "before", "after")
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(3)]
    for name, old, new in (heading, *rows):
        print(f"{name:<{widths[0]}}  {old:>{widths[1]}}  {new:>{widths[2]}}".replace("\u00a0", " "))
    return 0


def _attribute(arguments: argparse.Namespace) -> Attribute:
    from seqkit.config import nearest
    from seqkit.embeddings.attribute import load_attribute, shipped, with_json_list

    if arguments.lists is None and arguments.attribute not in shipped():
        raise InputError(
            f"--attribute: name must be one of {', '.join(shipped())}, got {arguments.attribute}"
            f"{nearest(arguments.attribute, shipped())}; --lists FILE reads others"
        )
    if hasattr(arguments, "weight") and arguments.method != "soft":
        raise InputError(f"--weight: method must be soft, got {arguments.method}")
    attribute = load_attribute(arguments.lists or arguments.attribute)
    for name in JSON_LISTS:
        if (path := getattr(arguments, name)) is not None:
            attribute = with_json_list(attribute, name, path)
    return attribute


def _check_outputs(arguments: argparse.Namespace) -> None:
    """What would fail at the end is told before the work."""
    from seqkit.embeddings.io import format_of

    for name, path in (("-o", arguments.output), ("--report", arguments.report)):
        if path == "-":
            raise InputError(f"{name}: path must be a file's, as stdout has the table, got -")
        if path is not None and Path(path).is_dir():
            raise InputError(f"{name}: path must be a file's, got the folder {path}")
        if path is not None and not os.access(Path(path).resolve().parent, os.W_OK):
            raise InputError(f"{path}: path must be in a folder that can be written, got {Path(path).resolve().parent}")
    format_of(arguments.output, arguments.format)
    if arguments.report:
        from seqkit.analysis.page import new_figure

        new_figure(1.0)
    for path in (arguments.analogies, *arguments.similarity):
        if path is not None and not os.access(path, os.R_OK):
            raise InputError(f"{path}: questions must be a file that can be read, got none")


def _specific(vectors: WordVectors, attribute: Attribute) -> tuple[set[str], list[str]]:
    """The words that keep the attribute, and those of them that the classifier found."""
    from seqkit.embeddings.debias import specific_words

    given = {word for words in attribute.definitional + attribute.equalize for word in words}
    given |= set(attribute.specific or attribute.seed)
    given = {word for word in given if word in vectors}
    found: list[str] = []
    if not attribute.specific and any(word in vectors for word in attribute.seed):
        not_found = given | set(attribute.targets)
        found = [word for word in specific_words(vectors, attribute.seed) if word not in not_found]
    return given | set(found), found


def _corrected(arguments: argparse.Namespace, vectors: WordVectors, by: Probe) -> tuple[WordVectors, dict[str, Any]]:
    """The debiased vectors, and what the method says of its own work."""
    from seqkit.embeddings.debias import double_hard_debias, hard_debias, inlp, soft_debias

    definitional, specific = by.attribute.definitional, by.specific
    components = by.attribute.components
    if arguments.method == "soft":
        weight = getattr(arguments, "weight", WEIGHT)
        soft = soft_debias(vectors, definitional=definitional, specific=specific, components=components, weight=weight)
        return soft, {"weight": weight}
    if arguments.method == "inlp":
        cleared = inlp(vectors, definitional=definitional, specific=specific)
        return cleared.vectors, {"removed": cleared.removed, "accuracies": cleared.accuracies}
    equalize = by.attribute.equalize
    if arguments.method == "double-hard":
        double = double_hard_debias(
            vectors, definitional=definitional, equalize=equalize, specific=specific, components=components
        )
        return double.vectors, {"component": double.component, "purities": double.purities}
    hard = hard_debias(vectors, definitional=definitional, equalize=equalize, specific=specific, components=components)
    return hard, {}


def _rows(by: Probe, before: Audit, after: Audit, similarity: list[str]) -> list[tuple[str, str, str]]:
    def small(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.4f}" if value >= 5e-5 else f"{value:.1e}"

    rows = []
    if by.targets:
        rows += [
            (f"direct bias of {len(by.targets)} targets", small(before.direct_bias), small(after.direct_bias)),
            ("the same, along the direction found anew", small(before.direct_bias_anew), small(after.direct_bias_anew)),
        ]
        if before.ripa is not None:
            rows.append(("RIPA of the targets, mean size", small(before.ripa), small(after.ripa)))
    if by.biased:
        apart = _told_apart(before, after) or (0.0, 0.0)
        old, new = (f"{100 * share:.1f} %" for share in apart)
        name = f"{sum(map(len, by.biased)):,} most biased words, told apart by clustering"
        rows.append((name, old, new))
    for test, first, second in zip(by.attribute.weat, before.weat, after.weat, strict=True):
        if first is not None and second is not None:
            old, new = (f"{each.effect:+.3f}, p\u00a0{_p(each.p)}" for each in (first, second))
            rows.append((f"WEAT {test.name}", old, new))
    if before.analogies is not None and after.analogies is not None:
        sides = (before.analogies, after.analogies)
        old, new = (f"{100 * each.accuracy:.2f} %" if each.asked else "–" for each in sides)
        rows.append((f"analogies, {sides[0].asked:,} of {sides[0].given:,}", old, new))
    for path, one, other in zip(similarity, before.similarity, after.similarity, strict=True):
        old, new = ("–" if math.isnan(each.rho) else f"rho\u00a0{each.rho:.3f}" for each in (one, other))
        rows.append((f"{Path(path).name}, {one.asked:,} of {one.given:,}", old, new))
    return rows


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<\u00a00.001"  # a narrow cell must not break inside it


def _tests(by: Probe, before: Audit, after: Audit) -> list[tuple[str, float, float]]:
    return [
        (test.name, first.effect, second.effect)
        for test, first, second in zip(by.attribute.weat, before.weat, after.weat, strict=True)
        if first is not None and second is not None
    ]


def _told_apart(before: Audit, after: Audit) -> tuple[float, float] | None:
    if before.told_apart is None or after.told_apart is None:
        return None
    return before.told_apart, after.told_apart


def _remarks(by: Probe, before: Audit, after: Audit) -> list[str]:
    from seqkit.analysis.debias_report import remarks

    return remarks(_tests(by, before, after), _told_apart(before, after))


def _page(
    arguments: argparse.Namespace, vectors: WordVectors, by: Probe, before: Audit, after: Audit,
    rows: list[tuple[str, str, str]], unknown: dict[str, tuple[str, ...]], found: list[str],
) -> str:  # fmt: skip
    from seqkit.analysis.debias_report import DebiasReport, debias_page

    attribute = by.attribute
    known = [words for words in attribute.definitional if all(word in vectors for word in words)]
    groups = [", ".join(group[:3]) for group in zip(*known, strict=False)]
    lists = {
        "definitional": ["–".join(words) for words in attribute.definitional],
        "equalize": ["–".join(words) for words in attribute.equalize],
        "seed": attribute.seed if not attribute.specific else (),
        "specific": attribute.specific,
        "found by the classifier": found,
        "targets": attribute.targets,
    }
    report = DebiasReport(
        attribute=attribute.name,
        method=arguments.method,
        about=f"{len(vectors):,} vectors of {vectors.matrix.shape[1]} numbers from {Path(arguments.vectors).name}, "
        f"{arguments.method} debiasing; {len(by.specific):,} words mean {attribute.name} and keep it.",
        rows=rows,
        targets=by.targets,
        projections=(before.projections, after.projections),
        tests=_tests(by, before, after),
        pair=attribute.analogy if before.biased_analogies or after.biased_analogies else (),
        analogies=(_analogy_lines(before), _analogy_lines(after)),
        told_apart=_told_apart(before, after),
        lists={name: words for name, words in lists.items() if words},
        unknown=unknown,
        source=attribute.source,
        sides=(groups[1] if len(groups) == 2 else "the others", groups[0]),
    )  # fmt: skip
    return debias_page(report)


def _analogy_lines(side: Audit) -> list[str]:
    return [f"{found.x} to {found.y} ({found.score:.2f})" for found in side.biased_analogies]


def _record(side: Audit, by: Probe, similarity: list[str]) -> dict[str, Any]:
    """One side as JSON has it: what was not measured is null."""
    return {
        "direct_bias": side.direct_bias,
        "direct_bias_anew": side.direct_bias_anew,
        "ripa": side.ripa,
        "told_apart": side.told_apart,
        "projections": dict(zip(by.targets, side.projections, strict=True)),
        "weat": [
            {"name": test.name, **(asdict(found) if found is not None else {"effect": None, "p": None})}
            for test, found in zip(by.attribute.weat, side.weat, strict=True)
        ],
        "biased_analogies": [asdict(each) for each in side.biased_analogies],
        "analogies": None
        if side.analogies is None
        else {**asdict(side.analogies), "accuracy": side.analogies.accuracy if side.analogies.asked else None},
        "similarity": [
            {"set": path, **asdict(found), "rho": None if math.isnan(found.rho) else found.rho}
            for path, found in zip(similarity, side.similarity, strict=True)
        ],
    }


def _say(sentence: str) -> None:
    print(f"seqkit embed debias: {sentence}", file=sys.stderr)
