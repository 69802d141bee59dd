"""Pictures of low-rank factorization."""
