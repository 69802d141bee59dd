"""Quantization and binarization: weights and activations on a few levels."""
