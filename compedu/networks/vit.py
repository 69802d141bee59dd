"""A vision transformer for small images (Dosovitskiy et al. 2021, arXiv:2010.11929) behind a convolutional stem."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from compedu.networks.width import scaled

HEAD = 24  # features of an attention head
STRIDE = 4  # of the stem: each token stands for a square of so many pixels


class Attention(nn.Module):
    """Multi-head self-attention over tokens (N, tokens, features), made of ordinary linear layers.

    `nn.MultiheadAttention` would keep its weights out of layers, where no method finds them.
    """

    def __init__(self, features: int):
        super().__init__()
        self.query = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)
        self.out = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each token gathers from all tokens, of the shape of x."""
        query, key, value = (
            part.unflatten(2, (-1, HEAD)).transpose(1, 2) for part in (self.query(x), self.key(x), self.value(x))
        )
        gathered = scaled_dot_product_attention(query, key, value)
        return self.out(gathered.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A block of the transformer: attention and two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, features: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.attention = Attention(features)
        self.norm2 = nn.LayerNorm(features)
        self.fc1 = nn.Linear(features, 2 * features)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (N, tokens, features) after the block."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Images (N, channels, size, size) to logits (N, classes): a stem, `blocks` encoders, the mean of all tokens.

    Two convolutions in place of one large patch make training short and stable (Xiao et al. 2021, arXiv:2106.14881).
    """

    def __init__(self, size: int, channels: int, classes: int, width: float, blocks: int):
        super().__init__()
        features = HEAD * scaled(4, width)
        self.conv1 = nn.Conv2d(channels, features // 2, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features // 2)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(features // 2, features, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        side = -(-size // STRIDE)
        self.position = nn.Parameter(torch.empty(1, side * side, features))
        self.reset_parameters()
        self.blocks = nn.Sequential(*(Encoder(features) for _ in range(blocks)))
        self.norm = nn.LayerNorm(features)
        self.fc = nn.Linear(features, classes)

    def reset_parameters(self) -> None:
        """Draw the positions anew, small ones; the layers draw their own weights."""
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        x = x.flatten(2).transpose(1, 2) + self.position
        return self.fc(self.norm(self.blocks(x)).mean(1))


def vit(size: int = 32, channels: int = 1, classes: int = 10, width: float = 1.0, blocks: int = 4) -> ViT:
    """Return a transformer of `blocks` encoders for images of `size`; `width` scales the number of attention heads."""
    return ViT(size, channels, classes, width, blocks)
