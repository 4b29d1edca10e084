"""Gradient reversal: the identity forwards, multiplication by -λ backwards.

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, eq. 11-12.
"""

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, coefficient: Tensor) -> Tensor:
        # A copy, not a view: an in-place activation may follow, and autograd refuses to change a custom view in place.
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (coefficient,) = ctx.saved_tensors
        return -coefficient * gradient, None


def gradient_reversal(x: Tensor, coefficient: float | Tensor = 1.0) -> Tensor:
    """Return ``x``; in the backward pass multiply its gradient by ``-coefficient``.

    ``x`` is ``[N, ...]``. ``coefficient`` (λ) is a float, a scalar tensor, one value per sample ``[N]``, or any
    tensor that broadcasts against ``x``. A float is baked into a compiled graph; a tensor may change without
    recompiling. No gradient flows to the coefficient.

    A gradient taken *through* the reversal twice is scaled by λ²: take gradient penalties with respect to its output.
    """
    if not isinstance(coefficient, Tensor):
        coefficient = torch.tensor(coefficient, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if coefficient.ndim == 1 and x.ndim > 1:
        coefficient = coefficient.reshape(-1, *[1] * (x.ndim - 1))
    return _Reverse.apply(x, coefficient)


class GradientReversal(nn.Module):
    """``gradient_reversal`` as a layer. Set λ with ``layer.coefficient.fill_(value)``: it is a function of the step,
    so it is no part of the state that is saved.
    """

    coefficient: Tensor

    def __init__(self, coefficient: float = 1.0):
        super().__init__()
        self.register_buffer("coefficient", torch.tensor(float(coefficient)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return gradient_reversal(x, self.coefficient)
