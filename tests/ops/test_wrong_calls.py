"""A wrong argument raises and never ends the process: a few calls of benchmarks/wrong_calls.py, which has the rules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqkit.ops import library

ROOT = Path(library.__file__).resolve().parents[2]
SOUND = [
    "additive_attention",
    "attention",
    "attention_backward",
    "batched_nms",
    "beam_step",
    "box_iou",
    "crf_decode",
    "crf_log_likelihood",
    "ctc_beam_search",
    "ctc_loss",
    "ctc_loss_from_logits",
    "decode_attention",
    "cross_attention_decode",
    "extend_ancestry",
    "linear",
    "pack_linear_weight",
    "roi_align",
    "roi_align_backward",
    "lstm_cell",
    "gru_cell",
    "gru",
    "lstm",
    "rnn",
    "mean_log_softmax",
    "nms",
    "soft_nms",
    "viterbi_align",
    "word2vec_step",
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the children are limited as Linux does it")
def test_wrong_calls_raise_or_answer_as_the_reference_does() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/wrong_calls.py", "--calls", "200", *(f"--op={name}" for name in SOUND)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(SOUND)
