"""Kernels: the arithmetic that a deployed layer really runs, one file for each engine."""
