"""Steps and controls: training on inside the compressed layers, and the small dense network trained from scratch."""
