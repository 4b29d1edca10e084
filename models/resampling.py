"""Images and feature maps to twice or half their size without aliasing, by the bilinear filter [1, 3, 3, 1] in both
directions: Karras et al. 2020 (StyleGAN2), and Huang et al. 2024, appendix E, who write it as [1, 2, 1] behind a
doubling of every pixel. As in the code of both, what lies outside of a map counts as zero.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class Filter(nn.Module):
    """``[N, C, H, W]`` of any floating type, which the result has, too: autocast would round images to bfloat16."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", gain * torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.apply_to(x, self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4))

    def apply_to(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Run the depthwise ``kernel`` ``[C, 1, 4, 4]`` over ``x``."""
        raise NotImplementedError


class Upsample(Filter):
    """To ``[N, C, 2 H, 2 W]``."""

    def __init__(self):
        super().__init__(gain=4.0)  # three of four pixels that the filter meets are the zeros put in between

    def apply_to(self, x: Tensor, kernel: Tensor) -> Tensor:
        return conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Downsample(Filter):
    """To ``[N, C, H / 2, W / 2]``, of even H and W."""

    def apply_to(self, x: Tensor, kernel: Tensor) -> Tensor:
        return conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Blur(Filter):
    """At the same resolution, to ``[N, C, H + 2 padding - 3, W + 2 padding - 3]``, for a strided convolution."""

    def __init__(self, padding: int, gain: float = 1.0):
        super().__init__(gain)
        self.padding = padding

    def apply_to(self, x: Tensor, kernel: Tensor) -> Tensor:
        return conv2d(x, kernel, padding=self.padding, groups=x.shape[1])
