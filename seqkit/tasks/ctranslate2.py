"""Run folders of models that another program trained, and models for another program from run folders."""

from __future__ import annotations

from pathlib import Path

from seqkit.atomic import atomic_folder
from seqkit.config import write_toml
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.models.ctranslate2 import export_ctranslate2, import_ctranslate2
from seqkit.models.transformer import Transformer
from seqkit.tasks.translation_config import DataConfig, PairTokenizerConfig, TranslationConfig, ValidationConfig
from seqkit.tasks.translator import Translator
from seqkit.text.tokenizer import CharTokenizer, Tokenizer, WordTokenizer
from seqkit.text.vocab import Vocab
from seqkit.training.checkpoint import save_tensors
from seqkit.training.loop import TrainingConfig

N_SPECIALS = 4


def import_run(folder: Path, output: Path, *, tokens: str) -> None:
    """Writes a CTranslate2 Transformer as the run folder `output`.

    Its search is CTranslate2's own: the score of a hypothesis is its mean log-probability, end symbol included.

    Args:
        tokens: how text is split into the model's tokens, `char` or `word`.

    Raises:
        InputError: the model cannot be read, or `output` exists.
    """
    imported = import_ctranslate2(folder)
    tokenizer = CharTokenizer if tokens == "char" else WordTokenizer
    config = TranslationConfig(
        data=DataConfig(train=[], valid=[]),
        tokenizer=PairTokenizerConfig(
            kind=tokens, shared=False, source_bos=imported.source_bos, source_eos=imported.source_eos
        ),
        model=imported.config,
        training=TrainingConfig(),
        validation=ValidationConfig(),
        search=BeamOptions(length_penalty="power:1", stopping="patience", max_length=256),
    )
    with atomic_folder(output) as temporary:
        tokenizer(Vocab(imported.source_tokens)).save(temporary / "source")
        tokenizer(Vocab(imported.target_tokens)).save(temporary / "target")
        save_tensors(temporary / "model.safetensors", imported.state_dict)
        (temporary / "config.toml").write_text(write_toml(config.to_tables()), encoding="utf-8")


def export_run(folder: Path, output: Path) -> None:
    """Writes the Transformer of a run folder as a CTranslate2 model, with its tokenizers beside it.

    Raises:
        InputError: the run is not a Transformer, `output` exists, or ctranslate2 is not installed.
    """
    translator = Translator.load(folder)
    if not isinstance(translator.model, Transformer):
        raise InputError(f"{folder}: the model must be a transformer to be exported, got another")
    export_ctranslate2(
        translator.model, output, source_tokens=_tokens(translator.source), target_tokens=_tokens(translator.target),
        source_bos=translator.source_bos, source_eos=translator.source_eos,
    )  # fmt: skip
    if translator.source is translator.target:
        translator.source.save(output / "tokenizer")
    else:
        translator.source.save(output / "source")
        translator.target.save(output / "target")


def _tokens(tokenizer: Tokenizer) -> list[str]:
    """The ordinary tokens in the order of their ids."""
    return tokenizer.pieces(range(N_SPECIALS, tokenizer.vocab_size))
