"""Pruning: weights, filters and channels that the result hardly depends on are removed.

- one-shot, weights: `magnitude`, `random_weights`, `brain_damage`, `brain_surgeon` (base: `weight_pruning`; of the last
  two `second_order`), `patterns`
- one-shot, channels: `filters`, `random_filters` (base: `channel_pruning`), `merging` (base of all: `channel_removal`)
- while training: `gradual`, `iterative`, `lottery_ticket`, `movement` (base: `scheduled`), `hard_concrete`
- under a penalty: `regularized_pruning`, `biased_weight_decay` (base: `penalized`), `structured_sparsity`
- formulas and parts: `masks`, `budgets`, `lamp`, `sensitivity`, `schedules`, `curvature`, `layer_hessians`, `surgery`,
  `filter_criteria`, `weight_groups`, `group_lasso`
"""
