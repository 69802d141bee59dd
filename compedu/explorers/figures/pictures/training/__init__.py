"""Pictures of training and of its controls."""
