"""Does a critic judge each sample on its own? A single pass is exact only for one that does."""

import copy

import torch
from torch import Tensor, nn


def couples_samples(critic: nn.Module, *inputs: Tensor | None, classes: int = 0) -> bool:
    """Whether a sample's score moves with *other* samples of the batch (BatchNorm, minibatch statistics).

    ``inputs`` are what the critic is called with, the same number of samples in each; floating ones are judged.

    A numerical probe, not a list of layer names: where the critic judges each sample on its own, the gradient of one
    score with respect to all other samples, and of all other scores with respect to that sample, is exactly zero. It
    is taken on a copy with jittered parameters, because a zero-initialised layer would hide a coupling that training
    then brings out; the critic and the random state are left as they were. The batch needs at least two samples.
    Raises ValueError if there is not one score per sample, or one per class where ``classes`` says so.
    """
    n = len(inputs[0])
    if n < 2:
        raise ValueError("The probe for batch coupling needs a batch of at least 2 samples.")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        probe = _jittered(critic)
        judged = [x is not None and x.is_floating_point() for x in inputs]
        given = [x.detach().clone().requires_grad_() if j else x for x, j in zip(inputs, judged, strict=True)]
        samples = [x for x, j in zip(given, judged, strict=True) if j]
        scores = probe(*given)
        scores = [scores] if isinstance(scores, Tensor) else scores
        shape = (n, classes) if classes else (n,)
        for score in scores:
            if score.shape != shape:
                raise ValueError(
                    f"The critic returned scores of shape {tuple(score.shape)} for {n} samples, not {shape}."
                )
        one = torch.arange(n, device=samples[0].device) == n // 2
        of_one = torch.autograd.grad(sum(score[one].sum() for score in scores), samples, retain_graph=True)
        of_others = torch.autograd.grad(sum(score[~one].sum() for score in scores), samples)
    return any(bool(a[~one].any() or b[one].any()) for a, b in zip(of_one, of_others, strict=True))


def _jittered(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module).requires_grad_()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return twin.train()
