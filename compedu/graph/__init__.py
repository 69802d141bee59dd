"""The only place that knows which layer feeds which: tracing, batch-norm folding, channels to remove or to scale."""

from compedu.graph.bypassed import bypassed_layers
from compedu.graph.channels import Channels, Removal, find_channels
from compedu.graph.coupling import INPUT, OUTPUT
from compedu.graph.folding import batch_norm_pairs, fold_batch_norm
from compedu.graph.grouping import ChannelGroup, Member, part_of
from compedu.graph.nodes import only_consumer
from compedu.graph.paths import path_obstacle
from compedu.graph.trace import followed_by_relu, is_plain, layer_calls, only_readers, trace

__all__ = [
    "INPUT",
    "OUTPUT",
    "ChannelGroup",
    "Channels",
    "Member",
    "Removal",
    "batch_norm_pairs",
    "bypassed_layers",
    "find_channels",
    "fold_batch_norm",
    "followed_by_relu",
    "is_plain",
    "layer_calls",
    "only_consumer",
    "only_readers",
    "part_of",
    "path_obstacle",
    "trace",
]
