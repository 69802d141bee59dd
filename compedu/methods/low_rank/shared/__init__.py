"""What the low-rank methods share: ranks, their budgets, the bases of factorizations, and decompositions."""
