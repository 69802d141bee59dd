"""Channels in another order: their values are copied, and nothing is multiplied; codes stay codes."""

import torch
from torch import Tensor, nn

from compedu.forms import Reordered

NAME = "channels reordered"


class ReorderedChannels(nn.Module):
    """Puts channels in the order of a form, values or codes of any type, in the memory format of the input."""

    order: Tensor

    def __init__(self, form: Reordered):
        super().__init__()
        self.channel_dim = form.channel_dim
        self.register_buffer("order", form.order.clone())

    def forward(self, input: Tensor) -> Tensor:
        """Return the channels of `input` in their new order."""
        moved = input.index_select(self.channel_dim, self.order)  # row by row, whatever the order of the input
        last = input.dim() == 4 and not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
        return moved.contiguous(memory_format=torch.channels_last) if last else moved
