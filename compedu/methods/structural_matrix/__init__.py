"""Structural matrix: kernels whose many entries follow by a fixed rule from a few numbers."""
