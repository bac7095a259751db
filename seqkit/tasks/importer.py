"""Run folders of networks that another program trained: the format is told by what lies at the path."""

from __future__ import annotations

import zipfile
from pathlib import Path

from seqkit.atomic import atomic_folder
from seqkit.config import write_toml
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.models.g2p_en import CHECKPOINT, import_g2p_en
from seqkit.models.plain_seq2seq import ImportedSeq2Seq
from seqkit.models.tensorflow_js import import_tensorflow_js
from seqkit.tasks import ctranslate2
from seqkit.tasks.run_folder import load_weights
from seqkit.tasks.translation_config import (
    DataConfig,
    PairTokenizerConfig,
    TranslationConfig,
    ValidationConfig,
    build_model,
)
from seqkit.text.tokenizer import CharTokenizer, WordTokenizer
from seqkit.text.vocab import Vocab
from seqkit.training.checkpoint import save_tensors
from seqkit.training.loop import TrainingConfig

SPACED = {"g2p-en"}  # formats whose outputs are words; those of the others are characters


def import_run(path: Path, output: Path, *, source: str | None = None, tokens: str | None = None) -> None:
    """Writes another program's network as the run folder `output`.

    Its search is what its owner does: greedy for the networks without attention, a beam for CTranslate2's.

    Args:
        source: the format, one of `ctranslate2`, `tensorflow-js` and `g2p-en`; told by content where it is not given.
        tokens: how CTranslate2's text is split, `char` (the default) or `word`.

    Raises:
        InputError: the network cannot be read, or `output` exists.
    """
    source = source or detected(path)
    if source == "ctranslate2":
        ctranslate2.import_run(path, output, tokens=tokens or "char")
        return
    if tokens is not None:
        raise InputError(f"{path}: --tokens must be left out for {source}, whose tokens are known, got {tokens}")
    imported = import_g2p_en(path) if source == "g2p-en" else import_tensorflow_js(path)
    _write(imported, output, target=WordTokenizer if source in SPACED else CharTokenizer, where=str(path))


def detected(path: Path) -> str:
    """The format of what lies at a path.

    Raises:
        InputError: it is none that can be read.
    """
    if (path / "model.bin").exists():
        return "ctranslate2"
    if (path / "model.json").exists():
        return "tensorflow-js"
    if (path / CHECKPOINT).exists() or (path.is_file() and zipfile.is_zipfile(path)):
        return "g2p-en"
    got = "another" if path.exists() else "nothing there"
    raise InputError(
        f"{path}: the model must be a folder of CTranslate2 (with model.bin) or TensorFlow.js (with model.json), or "
        f"g2p-en's folder or checkpoint ({CHECKPOINT}), got {got}"
    )


def _write(imported: ImportedSeq2Seq, output: Path, *, target: type[CharTokenizer | WordTokenizer], where: str) -> None:
    config = TranslationConfig(
        data=DataConfig(train=[], valid=[]),
        tokenizer=PairTokenizerConfig(kind="char", shared=False, source_eos=imported.source_eos),
        model=imported.config,
        training=TrainingConfig(),
        validation=ValidationConfig(),
        search=BeamOptions(beam_size=1, length_penalty="none", max_length=imported.max_length),
    )
    sides = CharTokenizer(Vocab(imported.source_tokens)), target(Vocab(imported.target_tokens))
    load_weights(build_model(config.model, *sides), imported.state_dict, where=where)  # a last look at every shape
    with atomic_folder(output) as temporary:
        for name, tokenizer in zip(("source", "target"), sides, strict=True):
            tokenizer.save(temporary / name)
        save_tensors(temporary / "model.safetensors", imported.state_dict)
        (temporary / "config.toml").write_text(write_toml(config.to_tables()), encoding="utf-8")
