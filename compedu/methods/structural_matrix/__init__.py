"""Structural matrix: weights whose many entries follow from a few parameters by a fixed rule."""
