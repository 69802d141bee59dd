"""Steps and controls: fine-tuning the compressed layers, and the small dense network trained from scratch."""
