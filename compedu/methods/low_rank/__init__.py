"""Low-rank factorization: one layer becomes two smaller ones in sequence."""
