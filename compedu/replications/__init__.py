"""Replications of experiments from papers, with their figures next to ours."""
