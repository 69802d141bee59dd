"""A small transformer with layer norms, whose attention is made of ordinary linear layers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

FEATURES = 16


class Block(nn.Module):
    """Attention and two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(FEATURES)
        self.query = nn.Linear(FEATURES, FEATURES)
        self.key = nn.Linear(FEATURES, FEATURES)
        self.value = nn.Linear(FEATURES, FEATURES)
        self.out = nn.Linear(FEATURES, FEATURES)
        self.norm2 = nn.LayerNorm(FEATURES)
        self.fc1 = nn.Linear(FEATURES, 2 * FEATURES)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(2 * FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (N, tokens, FEATURES) after the block."""
        y = self.norm1(x)
        x = x + self.out(scaled_dot_product_attention(self.query(y), self.key(y), self.value(y)))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): tokens of 7 x 7 pixels, two blocks, a norm, the mean of all tokens."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, FEATURES, 7, 7)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.LayerNorm(FEATURES)
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def transformer() -> Transformer:
    """The same transformer at each call, with norms as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = Transformer().eval()
        for norm in [module for module in made.modules() if isinstance(module, nn.LayerNorm)]:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return made


def plant_outliers(model: nn.Module, factor: float, channels: tuple[int, ...] = (3, 11)) -> None:
    """Multiply `channels` of both norms of each block by `factor`, and divide the weights that read them: no change."""
    with torch.no_grad():
        for block in model.blocks:
            for norm, readers in ((block.norm1, (block.query, block.key, block.value)), (block.norm2, (block.fc1,))):
                for channel in channels:
                    norm.weight[channel] *= factor
                    norm.bias[channel] *= factor
                    for reader in readers:
                        reader.weight[:, channel] /= factor
