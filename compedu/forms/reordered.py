"""Reordered channels: a layer that moves channels to other places and multiplies nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compedu.forms import declared
from compedu.forms.form import Form, Geometry
from compedu.forms.parts import Codes, Part


class Reordered(Form):
    """A linear layer or 1 x 1 convolution whose weight is a permutation matrix: output i is the input `order[i]`.

    `order` (channels,) holds the number of each channel once. A file holds these numbers alone, in as few bits as they
    need; nothing is multiplied, and nothing is trained. `dtype` is the type of the dense weight.
    Raises `ValueError` for another geometry, and for an order that leaves a channel out.
    """

    order: Tensor
    one: Tensor

    def __init__(self, geometry: Geometry, order: Tensor, dtype: torch.dtype = torch.float32):
        super().__init__(geometry, None)
        channels = reordered_channels(geometry)
        order = order.long()
        every = torch.arange(channels, device=order.device)
        declared.need(torch.equal(order.sort().values, every), f"an order that is not one of {channels} channels")
        self.register_buffer("order", order.clone())
        # Integers do not follow a network into another precision; this number does, and the dense weight with it.
        self.register_buffer("one", torch.ones((), dtype=dtype, device=order.device), persistent=False)

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels, counted from the last one."""
        return -1 if self.geometry.kind == "linear" else -3

    def dense(self) -> Tensor:
        """Return the permutation matrix, 1 at (i, order[i])."""
        channels = len(self.order)
        weight = self.one.new_zeros(channels, channels)
        weight[torch.arange(channels, device=weight.device), self.order] = 1
        return weight.reshape(self.geometry.shape)

    def forward(self, input: Tensor) -> Tensor:
        """Return the channels of `input` in their new order; raise `RuntimeError` for another number of them."""
        x = self.act(input)
        if x.shape[self.channel_dim] != len(self.order):
            raise RuntimeError(f"{len(self.order)} channels are reordered, got an input of shape {tuple(x.shape)}")
        return x.index_select(self.channel_dim, self.order)

    def stored_weight(self) -> dict[str, Part]:
        """Return the order as integers."""
        return {"order": Codes(self.order, order_bits(len(self.order)), signed=False, role="indices")}

    def settings(self) -> dict[str, Any]:
        """Return the type of the dense weight where it is not float32."""
        return declared.type_setting(self.one.dtype)

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the order: as many integers as channels, of as few bits as they need."""
        declared.only(settings, "dtype")
        declared.only(parts, "order")
        channels = reordered_channels(geometry)
        bits = order_bits(channels)
        fits = parts.get("order") == declared.DeclaredCodes(bits, False, (channels,))
        declared.need(fits, f"'order' does not hold {channels} numbers of {bits} bits")
        return declared.declared_type(settings)

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Reordered":
        """Rebuild the layer; raise `ValueError` unless each channel occurs once in the order."""
        return cls(geometry, parts["order"], declared.declared_type(settings))

    def macs(self, positions: int) -> int:
        """Return 0: nothing is multiplied."""
        return 0


def reordered_channels(geometry: Geometry) -> int:
    """Return how many channels a layer of `geometry` reorders; raise `ValueError` unless it can be such a layer."""
    out = geometry.shape[0]
    window = () if geometry.kind == "linear" else (1, 1)
    plain = geometry == Geometry(geometry.kind, (out, out, *window))
    declared.need(plain, f"{geometry} has no permutation matrix as its weight")
    return out


def order_bits(channels: int) -> int:
    """Return how many bits the number of a channel takes, at least one.

    >>> [order_bits(channels) for channels in (1, 2, 3, 20, 64, 65)]
    [1, 1, 2, 5, 6, 7]
    """
    return max(1, (channels - 1).bit_length())
