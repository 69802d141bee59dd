"""Experiments of papers done again here, their figures beside ours."""
