"""The report of a debiasing: nothing of the figures is hidden, and it holds up when there is little to say."""

import dataclasses

import pytest

from seqkit.analysis.debias_report import DebiasReport, debias_page, remarks

REPORT = DebiasReport(
    attribute="gender",
    method="hard",
    about="3 vectors",
    rows=[("direct bias", "0.1", "1e-8")],
    targets=["nurse", "surgeon", "baker"],
    projections=([0.3, -0.2, 0.0], [0.0, 0.0, 0.0]),
    tests=[("mathematics", 1.5, -1.1), ("career", 1.8, 1.7), ("science", 1.0, 0.1)],
    pair=("she", "he"),
    analogies=(["nurse to surgeon (0.50)", "sewing to carpentry (0.40)"], ["a to b (0.01)"]),
    told_apart=(0.98, 0.93),
    lists={"definitional": ["she–he"], "targets": ["nurse", "surgeon", "baker"]},
    unknown={"targets": ["paralegal"]},
    source="by hand",
    sides=("he", "she"),
)


def test_remarks_say_what_turned_round_and_what_stayed() -> None:
    turned, stayed, clusters = remarks(REPORT.tests, REPORT.told_apart)
    assert turned.startswith("The association test “mathematics” turned round: +1.50 before, -1.10 after.")
    assert stayed == "The association test “career” stayed: +1.80 before, +1.70 after."
    assert "93 % of the most biased words with their group (98 % before)" in clusters


def test_remarks_leave_out_what_is_no_matter() -> None:
    assert remarks([("a", 1.0, 0.1), ("b", 1.0, -0.1), ("c", 0.1, 0.1), ("d", 0.0, 0.0)], (0.9, 0.6)) == []
    assert remarks([], None) == []


def test_the_page_shows_it_all() -> None:
    pytest.importorskip("matplotlib")
    made = debias_page(REPORT)
    for text in (
        "Bias along gender, before and after", "direct bias", "1e-8", "turned round", "nurse</text>", "As she is to he",
        "sewing to carpentry (0.40)", "a to b (0.01)", "targets: 3", "targets, without a vector and left out: 1",
        "paralegal", "by hand", "arXiv:1903.03862", "← he · cosine · she →", "method hard",
    ):  # fmt: skip
        assert text in made, text
    # The names of the tests run down the picture in the order of the table: SVG is drawn from the bottom up.
    assert made.index(">science</text>") < made.index(">career</text>") < made.index(">mathematics</text>")
    assert debias_page(REPORT) == made


def test_the_page_holds_up_without_targets_tests_and_analogies() -> None:
    pytest.importorskip("matplotlib")
    little = dataclasses.replace(
        REPORT, targets=[], projections=([], []), tests=[], pair=(), analogies=([], []), told_apart=None, unknown={}
    )
    made = debias_page(little)
    assert "<svg" not in made
    assert "As she is to he" not in made
    none_left = debias_page(dataclasses.replace(REPORT, analogies=(["a to b (0.5)"], [])))
    assert "After debiasing no analogy is left" in none_left


def test_the_picture_has_the_targets_that_leant_most() -> None:
    pytest.importorskip("matplotlib")
    names = [f"w{n}" for n in range(50)]
    leant = [(n - 25) / 100 for n in range(50)]
    made = debias_page(dataclasses.replace(REPORT, targets=names, projections=(leant, [0.0] * 50)))
    assert ">w0</text>" in made
    assert ">w49</text>" in made
    assert ">w25</text>" not in made
    assert "the 36 of 50 targets that leant most" in made
