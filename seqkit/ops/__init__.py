"""Kernels for any PyTorch project: the public functions, each with a plain-torch reference in its own module.

Imported eagerly, unlike the other packages: a function and its module share a name (`ops.linear`), and only binding the
function after its module has been imported makes the function win for good.
"""

from seqkit.ops.additive_attention import additive_attention, additive_attention_reference
from seqkit.ops.attention import attention, attention_reference
from seqkit.ops.backoff_automaton import BackoffAutomaton, hot_word_automaton
from seqkit.ops.beam_step import BeamState, beam_step, beam_step_reference, mean_log_softmax
from seqkit.ops.crf import crf_decode, crf_decode_reference, crf_log_likelihood, crf_log_likelihood_reference
from seqkit.ops.ctc_beam_search import CtcHypotheses, ctc_beam_search, ctc_beam_search_reference
from seqkit.ops.ctc_loss import ctc_loss, ctc_loss_from_logits, ctc_loss_reference
from seqkit.ops.decode_attention import (
    cross_attention_decode,
    cross_attention_decode_reference,
    decode_attention,
    decode_attention_reference,
    extend_ancestry,
    extend_ancestry_reference,
)
from seqkit.ops.library import backend, use_backend
from seqkit.ops.linear import linear, linear_reference, pack_linear_weight
from seqkit.ops.nms import (
    batched_nms,
    box_iou,
    box_iou_reference,
    nms,
    nms_reference,
    soft_nms,
    soft_nms_reference,
)
from seqkit.ops.recurrent import gru_cell, gru_cell_reference, lstm_cell, lstm_cell_reference
from seqkit.ops.rnn import RecurrentWeights, gru, lstm, rnn
from seqkit.ops.roi_align import roi_align, roi_align_reference
from seqkit.ops.viterbi_align import viterbi_align, viterbi_align_reference
from seqkit.ops.word2vec_step import word2vec_step, word2vec_step_reference
from seqkit.ops.word_model import WordModel

__all__ = [
    "BackoffAutomaton",
    "BeamState",
    "CtcHypotheses",
    "RecurrentWeights",
    "WordModel",
    "additive_attention",
    "additive_attention_reference",
    "attention",
    "attention_reference",
    "backend",
    "batched_nms",
    "beam_step",
    "beam_step_reference",
    "box_iou",
    "box_iou_reference",
    "crf_decode",
    "crf_decode_reference",
    "crf_log_likelihood",
    "crf_log_likelihood_reference",
    "cross_attention_decode",
    "cross_attention_decode_reference",
    "ctc_beam_search",
    "ctc_beam_search_reference",
    "ctc_loss",
    "ctc_loss_from_logits",
    "ctc_loss_reference",
    "decode_attention",
    "decode_attention_reference",
    "extend_ancestry",
    "extend_ancestry_reference",
    "gru",
    "gru_cell",
    "gru_cell_reference",
    "hot_word_automaton",
    "linear",
    "linear_reference",
    "lstm",
    "lstm_cell",
    "lstm_cell_reference",
    "mean_log_softmax",
    "nms",
    "nms_reference",
    "pack_linear_weight",
    "rnn",
    "roi_align",
    "roi_align_reference",
    "soft_nms",
    "soft_nms_reference",
    "use_backend",
    "viterbi_align",
    "viterbi_align_reference",
    "word2vec_step",
    "word2vec_step_reference",
]
