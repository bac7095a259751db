"""Networks of others give their owners' outputs, through a run folder like any other."""

import collections
import lzma
import random
from pathlib import Path

import pytest
from toy_networks import SOURCE, g2p_checkpoint, g2p_rows, keras_translation, tensorflow_js_folder

from seqkit.analysis.bleu import bleu
from seqkit.config import read_toml
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.models.g2p_en import CHECKPOINT, PHONEMES
from seqkit.tasks.importer import detected, import_run
from seqkit.tasks.translator import Translator


def lines(characters: str, count: int, longest: int) -> list[str]:
    generator = random.Random(5)
    return ["".join(generator.choices(characters, k=generator.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("gates", ["hard_sigmoid", "sigmoid"])
def test_a_network_of_tensorflow_js_says_what_its_owner_says(gates: str, tmp_path: Path) -> None:
    weights = tensorflow_js_folder(tmp_path / "model", gates=gates)
    import_run(tmp_path / "model", tmp_path / "run")
    translator = Translator.load(tmp_path / "run")
    # Unknown characters and lines beyond the padding are among them.
    given = [line for line in lines(SOURCE + "?", 60, 9) if line.strip()]
    expected = [keras_translation(weights, line, gates=gates) for line in given]
    found = translator.translate(given)
    assert [one.texts[0] for one in found] == expected
    assert len(set(expected)) > 20
    assert {one.hypotheses[0].ended for one in found} == {True, False}
    assert not translator.attends


def test_a_checkpoint_of_g2p_en_says_what_its_owner_says(tmp_path: Path) -> None:
    weights = g2p_checkpoint(tmp_path / CHECKPOINT)
    import_run(tmp_path / CHECKPOINT, tmp_path / "run")
    translator = Translator.load(tmp_path / "run")
    words = ["a", "z", *lines("abcxyz'", 40, 11)]
    expected = [" ".join(PHONEMES[row - 4] for row in g2p_rows(weights, word)) for word in words]
    found = translator.translate(words)
    assert [one.texts[0] for one in found] == expected
    assert {one.hypotheses[0].ended for one in found} == {True, False}
    assert [one.texts for one in translator.translate([word.upper() for word in words])] == [one.texts for one in found]
    # As a target a spelling is read back, so that it can be scored.
    scores = translator.score([(word, text) for word, text in zip(words, expected, strict=True) if text])
    ended = [one for one in found if one.texts[0]]
    for one, score in zip(ended, scores, strict=True):
        length = len(one.hypotheses[0].token_logprobs)
        assert score[:length] == pytest.approx(one.hypotheses[0].token_logprobs, abs=1e-4)


def test_a_beam_finds_what_is_as_likely_or_more(tmp_path: Path) -> None:
    tensorflow_js_folder(tmp_path / "model")
    import_run(tmp_path / "model", tmp_path / "run")
    translator = Translator.load(tmp_path / "run")
    options = BeamOptions(beam_size=40, length_penalty="none", max_length=3, stopping="exhaustive")
    narrow = BeamOptions(beam_size=1, length_penalty="none", max_length=3)
    given = [line for line in lines(SOURCE, 20, 6) if line.strip()]
    for one, two in zip(translator.translate(given, narrow), translator.translate(given, options), strict=True):
        assert two.hypotheses[0].logprob >= one.hypotheses[0].logprob - 1e-5


def test_the_config_is_that_of_a_translation_run(tmp_path: Path) -> None:
    g2p_checkpoint(tmp_path / CHECKPOINT)
    import_run(tmp_path, tmp_path / "run")  # the folder that the checkpoint is in
    tables = read_toml(tmp_path / "run" / "config.toml")
    assert tables["task"] == "translation"
    assert tables["model"]["kind"] == "plain_seq2seq"
    assert (tables["search"]["beam_size"], tables["search"]["max_length"]) == (1, 20)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["config.toml", "model.safetensors", "source.chars.tsv", "target.words.tsv"]


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    tensorflow_js_folder(tmp_path / "js")
    (tmp_path / "g2p").mkdir()
    g2p_checkpoint(tmp_path / "g2p" / CHECKPOINT)
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "model.bin").write_bytes(b"")
    assert [detected(tmp_path / name) for name in ("js", "g2p", "ct2")] == ["tensorflow-js", "g2p-en", "ctranslate2"]
    (tmp_path / "other.npz").write_bytes((tmp_path / "g2p" / CHECKPOINT).read_bytes())
    assert detected(tmp_path / "other.npz") == "g2p-en"
    (tmp_path / "text").write_text("no network")
    for name, got in (("text", "another"), ("none", "nothing there"), (".", "another")):
        with pytest.raises(InputError, match=f"the model must be a folder of CTranslate2 .* got {got}"):
            detected(tmp_path / name)


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    tensorflow_js_folder(tmp_path / "model")
    shard = tmp_path / "model" / "group1-shard1of1"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="must lie within its shards"):
        import_run(tmp_path / "model", tmp_path / "run")
    with pytest.raises(InputError, match="--tokens must be left out for tensorflow-js"):
        import_run(tmp_path / "model", tmp_path / "run", tokens="word")
    g2p_checkpoint(tmp_path / "g2p.npz")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(InputError, match="folder must be new or empty"):
        import_run(tmp_path / "g2p.npz", tmp_path / "full")
    with pytest.raises(InputError, match=r"model\.json: the file must be one that can be read"):
        import_run(tmp_path / "full", tmp_path / "run", source="tensorflow-js")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "g2p.npz", "model"]


def test_the_english_french_network_has_its_score(shared_data: Path, tmp_path: Path) -> None:
    """The eight lines are those of the owner's loop in numpy; its BLEU on these 400 sentences is 15.03 as well."""
    folder, pairs = shared_data / "models" / "en-fr-char-lstm", shared_data / "translation" / "tatoeba.en-fr.tsv.xz"
    if not (folder.is_dir() and pairs.is_file()):
        pytest.skip("the English-French network or its sentences are not here")
    import_run(folder, tmp_path / "run")
    translator = Translator.load(tmp_path / "run")
    said = {
        "Go.": "Sortez-moi !", "Hi.": "Sa vitezs !", "Who are you?": "Qui es-tu en train de faire ?",
        "I love you.": "Je t'aime de plus.", "He is here today.": "Il est propre.", "Zażółć": "Arrête-toi !",
    }  # fmt: skip
    assert [one.texts[0] for one in translator.translate(list(said))] == list(said.values())
    translations = collections.defaultdict(list)
    with lzma.open(pairs, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            english, french = line.rstrip("\n").split("\t")
            translations[english].append(french)
    sentences = random.Random(0).sample([english for english in translations if len(english) <= 32], 400)
    most = max(len(translations[sentence]) for sentence in sentences)
    # Where a sentence has fewer translations than another, its first stands again: a repeated reference counts once.
    references = [
        [texts[number] if number < len(texts := translations[sentence]) else texts[0] for sentence in sentences]
        for number in range(most)
    ]
    for options, least, most_points in ((translator.search, 14.8, 15.2), (BeamOptions(beam_size=5), 17.9, 18.9)):
        score = bleu([one.texts[0] for one in translator.translate(sentences, options)], references)
        assert least <= score.value <= most_points
