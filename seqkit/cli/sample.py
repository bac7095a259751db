"""Draw texts from a language model.

Each prompt gives --n-samples texts that begin with it. A model of lines gives one line a text; a model of running text
goes on for --max-length tokens, over line ends, and its texts stand between lines of `---`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from seqkit.cli.flags import add_flags, with_flags
from seqkit.decode.options import SampleOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="what a text begins with; repeatable; - reads lines of stdin"
    )
    parser.add_argument("--json", action="store_true", help="one object a prompt")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    drawing = parser.add_argument_group("sampling", "defaults are the [sampling] table of the model's config.toml")
    add_flags(drawing, SampleOptions, names={}, skip=("max_length_ratio", "max_length_extra"))


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.language_model import LanguageModel
    from seqkit.text.corpus import LineCorpus

    set_threads(arguments.threads)
    model = LanguageModel.load(arguments.model, device=arguments.device)
    options = with_flags(model.config.sampling, arguments)
    warn_if_not_built()
    prompts = list(LineCorpus("-")) if arguments.prompt == ["-"] else arguments.prompt or [""]
    texts = model.sample(prompts, options)
    if arguments.json:
        for prompt, several in zip(prompts, texts, strict=True):
            print(json.dumps({"prompt": prompt, "texts": several}, ensure_ascii=False))
    else:
        separator = "\n" if model.config.data.lines else "\n---\n"
        print(separator.join(text for several in texts for text in several))
    sys.stdout.flush()
    return 0
