"""Pictures of pruning."""
