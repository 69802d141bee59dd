"""Knowledge distillation: a small student learns from the outputs of a trained teacher."""
