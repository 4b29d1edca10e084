"""One backward pass trains both players, exactly. ``python docs/idea.py`` prints the proof."""

import torch
from torch import nn
from torch.nn.functional import softplus


def single_pass(G, D, real, z, critic_loss, generator_loss):
    """Leave the gradients of both players in ``parameter.grad``: of ``critic_loss(real_scores, fake_scores)`` for D, of
    ``generator_loss(fake_scores)`` for G. D must judge each sample on its own (no BatchNorm).
    """
    fake = G(z)  # play
    cut = fake.detach().requires_grad_()  # cut: the critic's backward pass ends here
    scores = D(torch.cat([real, cut]))  # judge

    s_real, s_fake = (s.requires_grad_() for s in scores.detach().split([len(real), len(fake)]))
    c_real, c_fake = torch.autograd.grad(critic_loss(s_real, s_fake), [s_real, s_fake])  # c = ∂L_D/∂s
    (g,) = torch.autograd.grad(generator_loss(s_fake), s_fake)  # g = ∂L_G/∂s
    floor = torch.tensor(2.0**-40, dtype=c_fake.dtype)
    c_fake = torch.where(c_fake.abs() < floor, floor.copysign(c_fake), c_fake)  # so that g/c exists

    scores.backward(torch.cat([c_real, c_fake]))  # one backward: D's gradients, and c_i ∂s_i/∂x_i at the cut
    ratio = (g / c_fake).reshape(-1, *[1] * (fake.ndim - 1))
    fake.backward(ratio * cut.grad)  # times g/c: the generator's own gradient, on into G


def main() -> None:
    """Compare with two separate backward passes, in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    G = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(0))
    real, z = torch.randn(64, 2) + 3, torch.randn(64, 4)

    def critic_loss(real, fake):
        return (softplus(-real) + softplus(fake)).mean()

    def generator_loss(fake):
        return softplus(-fake).mean()

    single_pass(G, D, real, z, critic_loss, generator_loss)
    for name, network, loss in (
        ("critic", D, critic_loss(D(real), D(G(z).detach()))),
        ("generator", G, generator_loss(D(G(z)))),
    ):
        want = torch.autograd.grad(loss, list(network.parameters()))
        error = max((p.grad - w).norm() / w.norm() for p, w in zip(network.parameters(), want, strict=True))
        print(f"{name}: largest relative error {error:.1e}")


if __name__ == "__main__":
    main()
