"""Layers with plain arguments, over `seqkit.ops`."""
