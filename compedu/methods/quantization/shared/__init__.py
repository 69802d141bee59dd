"""What the quantization methods share: ranges of activations, calibrated on images."""
