"""Pictures of structural matrices."""
