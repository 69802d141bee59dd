"""Knowledge distillation: a small student learns from what a trained teacher says."""
