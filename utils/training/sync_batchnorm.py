"""BatchNorm over the batch of all processes (``train.sync_batchnorm``).

PyTorch's own SyncBatchNorm needs a GPU and cannot be differentiated twice, as R1 requires of a critic. This one is made
of plain operations around a differentiable sum over processes: it runs on CPUs and has second derivatives.
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """y = Σ x over processes. Each x moves every process's y, so the gradient is summed over processes, too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        # Applied as a Function again, so that it can be differentiated twice.
        return _SumOverProcesses.apply(gradient)


class SyncBatchNorm(_BatchNorm):
    """``[N, C, ...]`` normalised by mean and variance of the samples of all processes (Ioffe and Szegedy 2015, alg. 1).

    Every process must hold the same number of samples. In evaluation mode plain BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after the channels."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        others = [d for d in range(x.ndim) if d != 1]
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        values = x if x.dtype == torch.float64 else x.float()  # sums in bfloat16 would lose digits
        mean = _SumOverProcesses.apply(values.sum(others)) / count
        centred = values - _per_channel(mean, x)
        # From centred values: E[x²] - E[x]² would cancel where the mean is large.
        variance = _SumOverProcesses.apply(centred.square().sum(others)) / count
        self._track(mean.detach(), variance.detach(), count)
        y = centred * _per_channel(torch.rsqrt(variance + self.eps), x)
        if self.affine:
            y = y * _per_channel(self.weight, x) + _per_channel(self.bias, x)
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.track_running_stats:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            # Running variances are unbiased, as in PyTorch's BatchNorm.
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def synchronise(network: nn.Module) -> None:
    """Replace every BatchNorm in ``network`` by ``SyncBatchNorm``; parameters, buffers and their names stay."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, _synchronised(child))
        else:
            synchronise(child)


def _synchronised(norm: _BatchNorm) -> SyncBatchNorm:
    twin = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin._parameters, twin._buffers = norm._parameters, norm._buffers
    return twin.train(norm.training)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(1, -1, *[1] * (x.ndim - 2))
