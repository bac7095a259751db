"""Shape types are checked while testing: every annotation in seqkit is enforced by beartype.

`torch.compile(fullgraph=True)` cannot trace the hook, so tests marked `compile` run in a second call with
SEQKIT_SHAPE_CHECKS=0.
"""

import io
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

if os.environ.get("SEQKIT_SHAPE_CHECKS", "1") != "0":
    from jaxtyping import install_import_hook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        install_import_hook("seqkit", "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (SEQKIT_DATA, or ../shared/data beside the checkout); the test is skipped without it."""
    folder = Path(os.environ.get("SEQKIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here (set SEQKIT_DATA)")
    return folder


class Ran(NamedTuple):
    """What one command left: its exit code, the bytes on stdout, the text on stderr."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout; each must end with a newline byte."""
        *lines, rest = self.out.decode().split("\n")
        assert rest == ""
        return lines


def run_seqkit(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    from seqkit.cli.main import main

    err = io.StringIO()
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as taken,
        io.TextIOWrapper(given, encoding="ascii") as text_in,
        io.TextIOWrapper(taken, encoding="ascii") as text_out,
        pytest.MonkeyPatch.context() as patch,
    ):
        given.write(stdin)
        given.seek(0)
        patch.setattr(sys, "stdin", text_in)
        patch.setattr(sys, "stdout", text_out)
        patch.setattr(sys, "stderr", err)
        code = main([str(argument) for argument in arguments])
        text_out.flush()
        taken.seek(0)
        return Ran(code, taken.read(), err.getvalue())


@pytest.fixture(scope="session")
def seqkit() -> Callable[..., Ran]:
    """Runs `seqkit ARGUMENTS` in this process, with `stdin` as bytes."""
    return run_seqkit


TINY = """
[data]
train = ["train.tsv"]
valid = ["valid.tsv"]

[tokenizer]
kind = "char"
shared = false

[model]
kind = "transformer"
model_dim = 16
ffn_dim = 32
n_heads = 2
encoder_layers = 1
decoder_layers = 1
dropout = 0.1
tied_embeddings = "decoder"

[training]
max_epochs = 20
batch_tokens = 60
learning_rate = 1e-2
warmup = 10
checkpoint_every = 5
log_every = 10
keep_last = 2

[validation]
bleu = false

[search]
beam_size = 3
max_length = 12
"""


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config beside its data: words of letters, to be written backwards."""
    folder = tmp_path_factory.mktemp("tiny")
    generator = random.Random(4)
    words = ["".join(generator.choices("abcdé ", k=generator.randint(2, 5))).strip() or "a" for _ in range(72)]
    for name, part in (("train", words[:60]), ("valid", words[60:])):
        (folder / f"{name}.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in part), encoding="utf-8")
    (folder / "config.toml").write_text(TINY)
    return folder / "config.toml"


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path) -> Path:
    """The run folder of a tiny Transformer that was trained on `tiny_config`. Tests read it and leave it as it is."""
    ran = run_seqkit("train", tiny_config, "-o", tiny_config.parent / "run", "--threads", "1")
    assert ran.code == 0, ran.err
    return tiny_config.parent / "run"
