"""A folder for the embedding projector, which `tensorboard --logdir FOLDER` shows and projector.tensorflow.org loads.

`tensors.tsv` has a line of numbers a word, `metadata.tsv` a word a line and, as it has one column, no heading;
`projector_config.pbtxt` tells TensorBoard of the two. The web page loads the two files by its button `Load`.
"""

from __future__ import annotations

from pathlib import Path

from seqkit.atomic import atomic_folder
from seqkit.embeddings.vectors import WordVectors

CONFIG = """embeddings {
  tensor_name: "word vectors"
  tensor_shape: %d
  tensor_shape: %d
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
}
"""
BLOCK = 4096  # words at a time


def write_projector(vectors: WordVectors, path: str | Path) -> None:
    """Fills a folder, whole or not at all.

    Raises:
        InputError: the folder holds something already, or cannot be made.
    """
    line = "\t".join(["%.9g"] * vectors.dim) + "\n"  # nine digits give each float32 back
    with atomic_folder(path) as folder:
        with (folder / "tensors.tsv").open("w", encoding="utf-8", newline="\n") as tensors:
            for begin in range(0, len(vectors), BLOCK):
                tensors.writelines(line % tuple(row) for row in vectors.rows[begin : begin + BLOCK].tolist())
        with (folder / "metadata.tsv").open("w", encoding="utf-8", newline="\n") as metadata:
            metadata.writelines(word + "\n" for word in vectors.words)
        (folder / "projector_config.pbtxt").write_text(CONFIG % vectors.rows.shape, encoding="utf-8")
