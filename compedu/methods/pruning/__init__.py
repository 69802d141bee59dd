"""Pruning: weights, filters and channels to which the result is insensitive are dropped."""
