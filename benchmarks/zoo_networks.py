"""The networks of the zoo: torchvision's families, timm's, and the shapes of language models; weights are random."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from removal_law import enliven
from torch import Tensor, nn

from compedu.torchvision_import import import_torchvision

CLASSES = 10
SIZE = 64
TORCHVISION = {  # the smallest of families that have a small one, with their options
    "densenet121": {}, "googlenet": {"init_weights": False}, "squeezenet1_1": {}, "mobilenet_v2": {}, "resnet18": {},
    "mobilenet_v3_small": {}, "mnasnet0_5": {}, "shufflenet_v2_x0_5": {}, "efficientnet_b0": {}, "regnet_x_400mf": {},
    "regnet_y_400mf": {},
}  # fmt: skip
TIMM = """
    vit_tiny_patch16_224:img eva02_tiny_patch14_224:img pit_ti_224:img xcit_nano_12_p16_224:img
    levit_128s:img coat_tiny:img convit_tiny:img gmlp_ti16_224:img botnet26t_256:img halonet26t
    efficientvit_m0:img efficientvit_b0 swiftformer_xs:img tiny_vit_5m_224 pvt_v2_b0 mobilevit_xxs mobilevitv2_050
    edgenext_xx_small fastvit_t8 repvit_m0_9 poolformerv2_s12 convnext_atto convnextv2_atto inception_next_atto
    starnet_s1 fasternet_t0 rexnet_100 hgnetv2_b0 ghostnet_050 repghostnet_050 lcnet_050 mobilenetv4_conv_small
    tinynet_e fbnetc_100 mixnet_s semnasnet_050 mobileone_s0 repvgg_a0 resnet10t resnetv2_18 resnest14d
    eca_resnext26ts dla46_c ese_vovnet19b_dw nf_regnet_b0 test_efficientnet
""".split()  # fmt: skip


def torchvision_smaller() -> dict[str, Callable[[], nn.Module]]:
    """Return families of which torchvision has no small network, built from its classes with fewer blocks or maps."""
    models = import_torchvision().models
    bottleneck = models.resnet.Bottleneck
    stage = models.convnext.CNBlockConfig
    swin = {"patch_size": [4, 4], "embed_dim": 48, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return {
        "alexnet": lambda: shallow(models.alexnet(weights=None).features, 256),
        "vgg11_bn": lambda: shallow(models.vgg11_bn(weights=None).features, 512),
        "resnext": lambda: models.ResNet(bottleneck, [1, 1, 1, 1], CLASSES, groups=8, width_per_group=16),
        "convnext": lambda: models.ConvNeXt([stage(48, 96, 2), stage(96, None, 2)], num_classes=CLASSES),
        "swin": lambda: models.SwinTransformer(**swin, num_classes=CLASSES),
        "swin_v2": lambda: models.SwinTransformer(
            **swin, num_classes=CLASSES, block=models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=models.swin_transformer.PatchMergingV2,
        ),
        "vit": lambda: models.VisionTransformer(SIZE, 16, 4, 4, 192, 384, num_classes=CLASSES),
        "maxvit": lambda: models.MaxVit((SIZE, SIZE), 32, 2, [32, 64], [1, 1], 32, 0.0, num_classes=CLASSES),
        "inception": lambda: models.inception.Inception3(CLASSES, aux_logits=False, init_weights=False),
    }  # fmt: skip


def shallow(features: nn.Module, maps: int) -> nn.Module:
    """Return a network of `features` and one linear layer, in place of a classifier that holds most of the weights."""
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(maps, CLASSES))


def from_torchvision(name: str) -> nn.Module:
    """Return a network of torchvision."""
    return import_torchvision().models.get_model(name, weights=None, num_classes=CLASSES, **TORCHVISION[name])


def from_timm(name: str) -> nn.Module:
    """Return a network of timm."""
    import_torchvision()
    import timm

    name, _, option = name.partition(":")
    return timm.create_model(name, num_classes=CLASSES, **({"img_size": SIZE} if option else {}))


class Tokens(nn.Module):
    """Image patches as tokens of `width` numbers, through `body` (N, tokens, width), to logits of their mean."""

    def __init__(self, body: nn.Module, width: int = 64, patch: int = 16):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.body = body
        self.place = nn.Parameter(torch.randn(1, (SIZE // patch) ** 2, width) / 8)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images x."""
        return self.head(self.body(self.embed(x).flatten(2).mT + self.place).mean(1))


class Transposed(nn.Module):
    """A linear layer whose weight is transposed, as the Conv1D of GPT-2."""

    def __init__(self, inside: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inside, out) / inside**0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return x times the weight."""
        return x @ self.weight + self.bias


class Causal(nn.Module):
    """A block of GPT-2: masked attention with the mask in a buffer, then a perceptron."""

    def __init__(self, width: int = 64, heads: int = 4, most: int = 16):
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.between = nn.LayerNorm(width)
        self.ask = Transposed(width, 3 * width)
        self.give = Transposed(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.full((most, most), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, tokens, width)."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.ask(self.before(x)).chunk(3, -1)
        )
        found = ((q @ k.mT) / q.shape[-1] ** 0.5 + self.mask).softmax(-1) @ v
        x = x + self.give(found.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))


class Gated(nn.Module):
    """A block of T5: unscaled attention with a table of relative positions, then a gated perceptron; RMS norms."""

    def __init__(self, width: int = 64, heads: int = 4, most: int = 16):
        super().__init__()
        self.heads = heads
        self.before = nn.RMSNorm(width)
        self.between = nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.places = nn.Embedding(2 * most, heads)
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, tokens, width)."""
        h = self.before(x)
        steps = torch.arange(x.shape[1])
        q, k, v = (layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        places = self.places(steps[:, None] - steps[None] + x.shape[1]).permute(2, 0, 1)
        x = x + self.o(((q @ k.mT + places).softmax(-1) @ v).transpose(1, 2).flatten(2))
        h = self.between(x)
        return x + self.down(F.gelu(self.gate(h)) * self.up(h))


class Recurrent(nn.Module):
    """Rows of tokens through an LSTM; all its outputs."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, tokens, width)."""
        return self.mix(self.lstm(x)[0]).relu()


class Tied(nn.Module):
    """A perceptron that goes up and comes back through the same weight, as tied embeddings do."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(2 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, tokens, width)."""
        return F.linear(self.mix(self.up(x).relu()).relu(), self.up.weight.T)


def encoder() -> nn.Module:
    """Return torch's own transformer encoder, of which only the weights are read when it takes its fast path."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


SHAPES: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: Tokens(encoder()), "gpt2": lambda: Tokens(nn.Sequential(Causal(), Causal())),
    "t5": lambda: Tokens(nn.Sequential(Gated(), Gated())), "lstm": lambda: Tokens(Recurrent()),
    "tied": lambda: Tokens(Tied()),
}  # fmt: skip
SIZES = {"torchvision/inception": 96, "timm/halonet26t": 256}  # of the images, in pixels, where they are not of SIZE
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{f"torchvision/{name}": lambda name=name: from_torchvision(name) for name in TORCHVISION},
    **{f"torchvision/{name}": make for name, make in torchvision_smaller().items()},
    **{f"timm/{name.partition(':')[0]}": lambda name=name: from_timm(name) for name in TIMM},
    **{f"shape/{name}": make for name, make in SHAPES.items()},
}


def build(name: str) -> tuple[nn.Module, int]:
    """Return the network `name` with weights from seed 0 that hide nothing, in evaluation mode, and its pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]()
        with torch.no_grad():
            enliven(model)
    return model.eval(), SIZES.get(name, SIZE)
