"""What the pruning methods share: scores, budgets, masks, schedules, curvature."""
