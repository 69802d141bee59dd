"""Pictures of compact filters."""
