"""Gradients to look at: guided backpropagation, and what a network's Jacobian does, without the whole of it in memory.

``f`` maps one tensor to another, and J is its Jacobian ∂f/∂x. To look at one sample of a network, give it as a batch:
``lambda z: generator(z[None])[0]``.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Function = Callable[[Tensor], Tensor]

# --- guided backpropagation ------------------------------------------------------------------------------------------


class _PositiveGradient(torch.autograd.Function):
    """The identity, whose backward pass drops negative gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, in_place: bool) -> Tensor:
        return x if in_place else x.clone()  # no view: autograd refuses to change a custom view in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        if inputs[1]:
            ctx.mark_dirty(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        return gradient.clamp(min=0), None


def guided_relu(x: Tensor) -> Tensor:
    """ReLU whose backward pass lets through only positive gradients, and these only where ``x`` is positive: guided
    backpropagation (Springenberg et al. 2015, section 3.4).
    """
    return _PositiveGradient.apply(functional.relu(x), False)


# What modules call, too: nn.ReLU6 calls hardtanh.
RECTIFIERS = {
    torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.leaky_relu, functional.leaky_relu_,
    functional.relu6, functional.hardtanh, functional.hardtanh_,
}  # fmt: skip


class GuidedBackpropagation(TorchFunctionMode):
    """A context in which every ReLU, leaky ReLU, ReLU6 and hard tanh drops negative gradients in its backward pass, as
    ``guided_relu`` does, however it is called: as a module, a function or a method, in place or not.

    It acts on forward passes inside it; the backward pass may follow outside. The paper knows ReLU alone: the others
    drop negative gradients, too, and then multiply by their own derivative.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in RECTIFIERS:
            return function(*args, **kwargs)
        x, *rest = args or (kwargs.pop("input"),)
        in_place = function.__name__.endswith("_") or kwargs.get("inplace") or any(value is True for value in rest)
        # Before the rectifier, whose derivative is never negative, instead of behind it: one that works in place has
        # saved its result, which must not be touched again.
        return function(_PositiveGradient.apply(x, bool(in_place)), *rest, **kwargs)


# --- Jacobians -------------------------------------------------------------------------------------------------------


def jvp(f: Function, x: Tensor, v: Tensor) -> Tensor:
    """J v for ``v`` like ``x``: how far ``f(x)`` moves when ``x`` moves along ``v``. One forward pass."""
    return torch.func.jvp(f, (x,), (v,))[1]


def vjp(f: Function, x: Tensor, weights: Tensor) -> Tensor:
    """Jᵀ w for ``weights`` like ``f(x)``: the gradient of the outputs' weighted sum. One forward and one backward."""
    return torch.func.vjp(f, x)[1](weights)[0]


def jacobian(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """J, ``[*f(x).shape, *x.shape]``: row by row where outputs are fewer than inputs, else column by column.

    ``chunk`` of them are computed at once (None: all). Raises MemoryError for one that is larger than the device's
    memory.
    """
    with torch.no_grad():
        outputs = f(x).numel()
    check_memory(outputs * x.numel() * x.element_size(), x.device, f"A Jacobian of {outputs} by {x.numel()} numbers")
    if outputs < x.numel():
        return torch.func.jacrev(f, chunk_size=chunk)(x)
    columns = torch.vmap(lambda v: jvp(f, x, v), out_dims=-1, chunk_size=chunk)(basis(x))  # jacfwd, in chunks
    return columns.unflatten(-1, x.shape)


class Spectrum(NamedTuple):
    """Singular values ``[n]`` of a Jacobian, the largest first, and unit vectors ``[n, *x.shape]`` along which ``x``
    must move for ``f(x)`` to move by so much. n is the smaller of the numbers of inputs and of outputs.
    """

    values: Tensor
    directions: Tensor

    @property
    def condition_number(self) -> Tensor:
        """The largest singular value over the smallest. Odena et al. 2018 take that of JᵀJ, its square."""
        return self.values[0] / self.values[-1]


def spectrum(f: Function, x: Tensor, chunk: int = 16) -> Spectrum:
    """Singular values and right singular vectors of J, by products with it alone.

    They come from the n by n matrix JᵀJ (or JJᵀ, where outputs are fewer), ``chunk`` columns at once. Squares halve the
    digits: of ``x`` in float32, singular values below 1/3000 of the largest are noise, in float64 below 1e-8. Raises
    MemoryError if that matrix or the chunk is larger than the device's memory.
    """
    y, pull = torch.func.vjp(f, x)
    by_inputs = x.numel() <= y.numel()
    side, other = (x, y) if by_inputs else (y, x)
    n = side.numel()
    needed = (n * n + min(chunk, n) * other.numel()) * x.element_size()
    check_memory(needed, x.device, f"Products with {min(chunk, n)} columns of a Jacobian, and {n} by {n} numbers,")

    def push(v: Tensor) -> Tensor:
        return jvp(f, x, v)

    def squared(v: Tensor) -> Tensor:
        return pull(push(v))[0] if by_inputs else push(pull(v)[0])

    squares, vectors = torch.linalg.eigh(torch.vmap(squared, chunk_size=chunk)(basis(side)).flatten(1))
    values = squares.clamp(min=0).sqrt().flip(0)
    vectors = vectors.T.flip(0).unflatten(1, side.shape)
    if not by_inputs:
        vectors = torch.vmap(lambda u: pull(u)[0], chunk_size=chunk)(vectors)
        vectors = functional.normalize(vectors.flatten(1)).unflatten(1, x.shape)
    return Spectrum(values, vectors)


def basis(x: Tensor) -> Tensor:
    """Unit vectors in the shape of ``x``, one for each of its numbers: ``[n, *x.shape]``."""
    return torch.eye(x.numel(), dtype=x.dtype, device=x.device).unflatten(1, x.shape)


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise MemoryError if ``needed`` bytes are more than the device has at all."""
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    else:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise MemoryError(
            f"{what} takes {needed / 2**30:.1f} GiB, and there are {there / 2**30:.1f}: take products with it (jvp, "
            "vjp), its spectrum by a smaller chunk, or fewer inputs."
        )
