"""What the low-rank methods share: ranks and truncated decompositions."""
