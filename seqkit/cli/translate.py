"""Translate lines with a trained model: N lines in, N lines out, in their order.

Lines end with a newline byte and nothing else. What cannot be translated (not UTF-8, too long) gives an empty line and
a warning with its number. On the native kernels a line's translation never depends on the lines around it.

Output: the best translation of each line. With --nbest, lines of `LINE ||| TRANSLATION ||| SCORE`, LINE counted from 0.
With --alignments, ` ||| ` and source-target pairs of token positions follow (Pharaoh's format). With --json, one object
a line; a model without attention has no alignments.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqkit.cli.flags import add_flags, with_flags
from seqkit.decode.options import BeamOptions

if TYPE_CHECKING:
    from seqkit.cli.line_stream import Answer

FLAG_NAMES = {"beam_size": "--beam", "n_best": "--nbest", "return_attention": "--alignments"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="text to translate; - is stdin")
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument(
        "--ensemble",
        action="append",
        default=[],
        type=Path,
        metavar="MODEL",
        help="a further model that votes; repeatable",
    )
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=4096,
        metavar="N",
        help="padded source tokens at a time; changes speed alone",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="sentences at a time, in place of --batch-tokens")
    parser.add_argument(
        "--max-source-tokens", type=int, default=1024, metavar="N", help="a longer line is not translated"
    )
    parser.add_argument("--json", action="store_true", help="one object a line: hypotheses, scores, pieces, alignments")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    search = parser.add_argument_group("search", "defaults are the [search] table of the model's config.toml")
    add_flags(search, BeamOptions, names=FLAG_NAMES)


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.line_stream import open_output, translated_lines
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.translator import Translator

    set_threads(arguments.threads)
    translator = Translator.load(arguments.model, device=arguments.device)
    for path in arguments.ensemble:
        translator.add_to_ensemble(Translator.load(path, device=arguments.device))
    options = with_flags(translator.search, arguments)
    if arguments.json and translator.attends:
        options = replace(options, return_attention=True)
    warn_if_not_built()
    with open_output(arguments.output) as output:
        for answers in translated_lines(
            translator, arguments.file, options,
            batch_tokens=arguments.batch_tokens, batch_size=arguments.batch_size,
            max_source_tokens=arguments.max_source_tokens, warn=_warn,
        ):  # fmt: skip
            for answer in answers:
                output.write(_json_line(answer) if arguments.json else _text_lines(answer, options))
            output.flush()
    return 0


def _text_lines(answer: Answer, options: BeamOptions) -> str:
    """The output of one input line: one line, or one for each of the n best; always the same fields."""
    translation = answer.translation
    rows: list[tuple[str, str, str]] = [("", "", "")]  # text, score, alignment
    if translation is not None:
        rows = [
            (_one_line(text), f"{hypothesis.score:.6f}", _pharaoh(hypothesis.attention, translation.source_pieces))
            for hypothesis, text in zip(translation.hypotheses, translation.texts, strict=True)
        ]
    lines = []
    for text, score, alignment in rows:
        fields = [f"{answer.number - 1}", text, score] if options.n_best > 1 else [text]
        if options.return_attention:
            fields.append(alignment)
        lines.append(" ||| ".join(fields) + "\n")
    return "".join(lines)


def _json_line(answer: Answer) -> str:
    record: dict[str, Any] = {"line": answer.number, "source": answer.text, "hypotheses": []}
    if answer.translation is not None:
        record["source_pieces"] = answer.translation.source_pieces
        for hypothesis, text, pieces in zip(
            answer.translation.hypotheses, answer.translation.texts, answer.translation.pieces, strict=True
        ):
            entry: dict[str, Any] = {
                "text": text, "score": hypothesis.score, "logprob": hypothesis.logprob, "ended": hypothesis.ended,
                "pieces": pieces, "token_logprobs": hypothesis.token_logprobs,
            }  # fmt: skip
            if hypothesis.attention is not None:
                entry["alignment"] = _alignment(hypothesis.attention)
            record["hypotheses"].append(entry)
    return json.dumps(record, ensure_ascii=False) + "\n"


def _alignment(attention: Any) -> list[tuple[int, int]]:
    """For each target token the source token that it attended to most, as (source, target) positions."""
    return (
        [] if attention is None else [(int(source), target) for target, source in enumerate(attention.argmax(dim=-1))]
    )


def _pharaoh(attention: Any, source_pieces: list[str]) -> str:
    """The alignment as `source-target` pairs, those with the begin or end symbol left out."""
    pairs = _alignment(attention)
    return " ".join(f"{source}-{target}" for source, target in pairs if source_pieces[source] not in ("<s>", "</s>"))


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _warn(text: str) -> None:
    print(f"seqkit translate: warning: {text}", file=sys.stderr)
