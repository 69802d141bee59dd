"""Low-rank factorization: one kernel becomes two smaller ones in sequence."""
