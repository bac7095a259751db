import argparse
from dataclasses import dataclass, replace

import pytest

from seqkit.cli.flags import add_flags, with_flags
from seqkit.config import option
from seqkit.decode.options import BeamOptions


@dataclass(frozen=True, kw_only=True)
class Options:
    beam_size: int = option(5, "how many, in % of all")
    rate: float = option(0.5, "how fast")
    mode: str = option("a", "which", choices=("a", "b"))
    whole: bool = option(True, "all of it")
    hidden: int = option(1, "not on the command line")


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_flags(parser, Options, names={"beam_size": "--beam"}, skip=("hidden",))
    return parser


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ([], {}),
        (["--beam", "2"], {"beam_size": 2}),
        (["--rate", "1e-3", "--mode", "b"], {"rate": 1e-3, "mode": "b"}),
        (["--no-whole"], {"whole": False}),
        (["--whole"], {"whole": True}),
        (["--beam", "0", "--rate", "0"], {"beam_size": 0, "rate": 0.0}),
    ],
)
def test_given_flags_replace_fields_and_others_stay(
    parser: argparse.ArgumentParser, flags: list[str], changes: dict[str, object]
) -> None:
    config = Options(beam_size=7, rate=0.25, whole=False)
    assert with_flags(config, parser.parse_args(flags)) == replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [["--beam", "x"], ["--mode", "c"], ["--hidden", "3"], ["--beam-size", "3"]])
def test_wrong_flags_are_refused(
    parser: argparse.ArgumentParser, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(flags)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_help_has_each_fields_line(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    for part in ("--beam X", "how many, in % of all", "--mode {a,b}", "--whole, --no-whole"):
        assert part in text
    assert "hidden" not in text


def test_every_search_option_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, BeamOptions, names={})
    given = ["--beam-size", "4", "--stopping", "exhaustive", "--no-count-eos", "--length-penalty", "gnmt:0.6"]
    assert with_flags(BeamOptions(), parser.parse_args(given)) == BeamOptions(
        beam_size=4, stopping="exhaustive", count_eos=False, length_penalty="gnmt:0.6"
    )
