"""Quantization and binarization: weights and activations take few levels."""
