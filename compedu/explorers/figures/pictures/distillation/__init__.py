"""Pictures of distillation."""
