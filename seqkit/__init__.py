"""seqkit: train and decode sequence models on one machine, with kernels that other PyTorch projects import."""

__version__ = "0.1.0"
