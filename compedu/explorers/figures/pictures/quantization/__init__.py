"""Pictures of quantization."""
