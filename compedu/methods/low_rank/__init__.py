"""Low-rank factorization: one layer becomes several in sequence, with few channels between them."""
