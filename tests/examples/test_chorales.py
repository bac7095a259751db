"""The example of chorales: what it reads, that its likelihoods are what they say, and the music that it writes."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/music/chorales.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def write_chorales(path: Path, **parts: list[Any]) -> Path:
    """An .npz file as that of the real chorales: an array of arrays a part, with NaN where a voice is silent."""
    arrays = {}
    for name, pieces in parts.items():
        arrays[name] = np.empty(len(pieces), object)
        arrays[name][:] = [np.array(piece, np.float16) for piece in pieces]
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def chorales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chords in turn, each of them a quarter note: in seven keys to train, in one to choose and to test."""
    chords = np.repeat([[72, 67, 64, 48], [71, 67, 62, 43], [72, 69, 65, 41]], 4, axis=0)
    keys = [[np.tile(chords, (2, 1)) + key] for key in range(-3, 4)]
    path = tmp_path_factory.mktemp("chorales") / "chorales.npz"
    return write_chorales(path, train=[piece for key in keys for piece in key], valid=keys[3], test=keys[3])


def model_of(example: dict[str, Any], **config: Any) -> Any:
    torch.manual_seed(3)
    return example["ChoraleModel"](example["ChoraleConfig"](hidden_dim=12, **config)).eval()


def test_read_chorales_takes_every_step_that_is_asked_for(example: dict[str, Any], tmp_path: Path) -> None:
    piece = [[72, 67, 64, 21], [72, 67, 64, 48], [74, 67, 64, 48], [74, 67, 64, 48], [108, float("nan"), 60, 60]]
    path = write_chorales(tmp_path / "c.npz", train=[piece, piece[:1]], valid=[piece], test=[piece])
    data = example["read_chorales"](str(path), 2)
    assert [len(data[part]) for part in ("train", "valid", "test")] == [2, 1, 1]
    assert data["train"][0].tolist() == [[52, 47, 44, 1], [54, 47, 44, 28], [88, 0, 40, 40]]
    assert data["train"][1].tolist() == [[52, 47, 44, 1]]


def test_read_chorales_refuses_other_files(example: dict[str, Any], tmp_path: Path) -> None:
    from seqkit.errors import InputError

    def refused(path: Path, says: str) -> None:
        with pytest.raises(InputError, match=says):
            example["read_chorales"](str(path), 4)

    refused(tmp_path / "none.npz", "must be an .npz file that can be read")
    (tmp_path / "text.npz").write_text("no arrays")
    refused(tmp_path / "text.npz", "must be arrays train, valid and test")
    good = [[60, 60, 60, 60]]
    refused(write_chorales(tmp_path / "a.npz", train=[good], valid=[good]), "must be arrays train, valid and test")
    for name, bad in (("low", [[60, 60, 60, 20]]), ("three", [[60, 60, 60]]), ("empty", np.zeros((0, 4)))):
        path = write_chorales(tmp_path / f"{name}.npz", train=[good, bad], valid=[good], test=[good])
        refused(path, "must be steps of four pitches of 21 to 108")


def test_frame_nll_counts_as_the_definition_does(example: dict[str, Any]) -> None:
    model = model_of(example)
    with torch.no_grad():
        model.notes.output.weight.zero_()
        model.notes.output.bias.fill_(-2.0)
        for output in model.voices.outputs:
            output.weight.zero_()
            output.bias.zero_()
    pieces = [torch.tensor([[50, 40, 30, 20]] * 3), torch.tensor([[50, 50, 30, 0]])]  # four notes, and two
    found = example["frame_nll"](model, pieces)
    on, off = np.log1p(np.exp(2.0)), np.log1p(np.exp(-2.0))
    four, two = 4 * on + 84 * off, 2 * on + 86 * off
    assert found.notes == pytest.approx((3 * four + two) / 4)
    assert found.notes_after_first == pytest.approx(four)
    assert found.voices == pytest.approx(4 * np.log(89))
    assert found.voices_after_first == pytest.approx(4 * np.log(89))


@pytest.mark.parametrize("notes_only", [False, True])
def test_a_frame_is_judged_by_those_before_it(example: dict[str, Any], notes_only: bool) -> None:
    model = model_of(example, notes_only=notes_only)
    piece = torch.randint(0, 89, (6, 4))
    changed = piece.clone()
    changed[3:] = torch.randint(0, 89, (3, 4))
    with torch.no_grad():
        both = model(example["ChoraleBatch"].of([piece, changed, piece[:2]]))
        alone = model(example["ChoraleBatch"].of([piece]))
    for together, single in zip(both, alone, strict=True):
        torch.testing.assert_close(together[0, :3], together[1, :3])
        torch.testing.assert_close(together[0], single[0])
        torch.testing.assert_close(together[2, :2], single[0, :2])
        assert together[2, 2:].tolist() == [0.0] * 4
    assert (both[0][0, 3:] != both[0][1, 3:]).all()
    assert bool(both[1].any()) != notes_only


def test_improvise_takes_steps_as_the_whole_piece_does(example: dict[str, Any]) -> None:
    """At a low temperature every bass is the likeliest one under the frames before it and the voices above it."""
    model = model_of(example)
    with torch.no_grad():
        for parameter in model.parameters():  # so that what came before decides
            parameter *= 4
    seed = torch.randint(1, 89, (3, 4))
    piece = model.improvise(seed, least=0, most=5, temperature=1e-3, random=torch.Generator().manual_seed(1))
    assert piece[:3].tolist() == seed.tolist()
    assert len(piece) == 8
    for step in range(3, 8):
        others = piece[None].repeat(89, 1, 1)
        others[:, step, 3] = torch.arange(89)
        with torch.no_grad():
            nll = model(example["ChoraleBatch"].of(list(others)))[1][:, step]
        assert nll.argmin() == piece[step, 3]


def test_improvise_ends_in_silence_once_it_may(example: dict[str, Any]) -> None:
    model = model_of(example)
    with torch.no_grad():
        for output in model.voices.outputs:
            output.bias[0] = 1e4
    seed = torch.randint(1, 89, (3, 4))
    random = torch.Generator().manual_seed(1)
    assert model.improvise(seed, least=0, most=5, temperature=1.0, random=random).tolist() == seed.tolist()
    piece = model.improvise(seed, least=2, most=5, temperature=1.0, random=random)
    assert piece[:3].tolist() == seed.tolist()
    assert len(piece) == 5
    assert piece[3:, 0].all()


def test_batches_are_a_function_of_seed_and_epoch(example: dict[str, Any]) -> None:
    pieces = [torch.full((length, 4), 40) for length in (2, 3, 5, 1, 4)]

    def batches() -> Any:
        return example["ChoraleBatches"](pieces, batch_size=2, silence=1, seed=7)

    one, other = batches(), batches()
    first = [batch.voices.tolist() for batch in one]
    assert len(first) == len(one) == 3
    assert one.state_dict() == {"epoch": 1, "position": 0}
    next(iter(other))
    state = other.state_dict()
    resumed = batches()
    resumed.load_state_dict(state)
    assert [batch.voices.tolist() for batch in resumed] == first[1:]
    assert [batch.voices.tolist() for batch in one] != first
    for batch in batches():
        for row, length in zip(batch.voices, batch.lengths.tolist(), strict=True):
            assert row[: length - 1].unique().numel() == 1
            assert 35 <= row[0, 0] <= 45
            assert not row[length - 1 :].any()


def test_transposed_stays_on_the_keyboard_and_silent(example: dict[str, Any]) -> None:
    piece = torch.tensor([[86, 40, 0, 3]])
    assert example["transposed"](piece, 2).tolist() == [[88, 42, 0, 5]]
    assert example["transposed"](piece, 3).tolist() == piece.tolist()
    assert example["transposed"](piece, -3).tolist() == piece.tolist()
    assert example["transposed"](torch.zeros(2, 4, dtype=torch.int64), 5).tolist() == [[0] * 4] * 2


def test_midi_read_back_is_the_same_chorale(example: dict[str, Any], tmp_path: Path) -> None:
    mido = pytest.importorskip("mido")
    piece = torch.tensor([[0, 40, 30, 20], [50, 40, 30, 0], [50, 41, 30, 0], [50, 0, 30, 20], [0, 0, 88, 1]])
    example["write_midi"](tmp_path / "c.mid", piece, every=2, tempo=90)
    file = mido.MidiFile(tmp_path / "c.mid")
    assert file.length == pytest.approx(5 * 60 / 90 / 2)
    assert [track.name for track in file.tracks] == ["soprano", "alto", "tenor", "bass"]
    found = torch.zeros_like(piece)
    for voice, track in enumerate(file.tracks):
        now, sounding = 0, {}
        for message in track:
            now += message.time
            if message.type == "note_on":
                sounding[message.note] = now
            elif message.type == "note_off":
                start, rest = divmod(sounding.pop(message.note), file.ticks_per_beat // 2)
                assert rest == 0
                found[start : now // (file.ticks_per_beat // 2), voice] = message.note - 20
        assert not sounding
    assert found.tolist() == piece.tolist()


def test_the_example_trains_and_improvises(
    example: dict[str, Any], chorales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mido")
    main, run = example["main"], tmp_path / "run"
    main(["train", str(chorales), str(run), "--epochs", "60"])
    valid, test = capsys.readouterr().out.splitlines()
    assert valid.startswith("valid: nats a frame: notes ")
    assert float(test.rpartition(" ")[2]) < 3.0  # by voices; where all 89 symbols are as likely it is 18
    midi = tmp_path / "a.mid"
    main(["improvise", str(run), str(chorales), "-o", str(midi), "--seed-quarters", "3", "--most", "3"])
    assert f"{midi}: 3 quarter notes of Bach" in capsys.readouterr().out
    assert midi.read_bytes()[:4] == b"MThd"
    assert midi.with_suffix(".png").read_bytes()[1:4] == b"PNG"
    main(["improvise", str(run), str(chorales), "-o", str(tmp_path / "b.mid"), "--seed-quarters", "3", "--most", "3"])
    assert (tmp_path / "b.mid").read_bytes() == midi.read_bytes()


def test_the_example_refuses_what_it_cannot_do(
    example: dict[str, Any], chorales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(says: str, *arguments: str | Path) -> None:
        with pytest.raises(SystemExit) as caught:
            example["main"]([str(argument) for argument in arguments])
        assert caught.value.code == 2
        assert says in capsys.readouterr().err

    run = tmp_path / "run"
    refused("`every` must be 1, 2 or 4, got 3", "train", chorales, run, "--every", "3")
    refused("must be an .npz file that can be read", "train", tmp_path / "none.npz", run)
    refused("got none", "improvise", run, chorales, "-o", tmp_path / "a.mid")
    assert not run.exists()
    example["main"](["train", str(chorales), str(run), "--epochs", "1", "--notes-only"])
    assert "voices" not in capsys.readouterr().out
    refused("the run folder must be new", "train", chorales, run)
    refused("without `--notes-only`", "improvise", run, chorales, "-o", tmp_path / "a.mid")
    refused("must be of 0 to 0, got 4", "improvise", run, chorales, "-o", tmp_path / "a.mid", "--chorale", "4")
    refused("must be above 0", "improvise", run, chorales, "-o", tmp_path / "a.mid", "--temperature", "0")
    refused("must end in .mid, got .wav", "improvise", run, chorales, "-o", tmp_path / "a.wav")
    assert not list(tmp_path.glob("a.*"))
