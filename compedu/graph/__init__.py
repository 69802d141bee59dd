"""The one place that knows which layer feeds which: tracing, batch-norm folding, coupled channels and their removal."""

from compedu.graph.channels import Channels, Removal, find_channels
from compedu.graph.folding import batch_norm_pairs, fold_batch_norm
from compedu.graph.grouping import ChannelGroup, Member
from compedu.graph.trace import followed_by_relu, is_plain, layer_calls, only_consumer, trace

__all__ = [
    "ChannelGroup", "Channels", "Member", "Removal", "batch_norm_pairs", "find_channels", "fold_batch_norm",
    "followed_by_relu", "is_plain", "layer_calls", "only_consumer", "trace",
]
