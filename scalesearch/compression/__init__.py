"""Pruning, BatchNorm folding and quantization."""
