"""Small games for the tests of the method, and the reference that every update rule is held to."""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adversarial.games import Batch, GenerationGame, Play
from adversarial.objectives import Objective
from adversarial.penalties import Gamma
from adversarial.updates import CRITIC, GENERATOR, RULES, Turn, Weights
from models import dcgan

# Every rule, the alternating one both ways.
PLANS: dict[str, Callable[..., Iterator[Turn]]] = {
    "alternating-fresh": RULES["alternating"],
    "alternating-reused": partial(RULES["alternating"], reuse_fakes=True),
    **{name: rule for name, rule in RULES.items() if name != "alternating"},
}
LATENT, CLASSES, SHAPE = 3, 3, (1, 8, 8)
Gradients = dict[str, list[Tensor]]


class SeededDraw:
    """Normal numbers as a function of (path, stream); remembers the forks that were taken of it."""

    def __init__(self, n: int, path: str = "0", dtype: torch.dtype = torch.float64):
        self.n, self.path, self.dtype = n, path, dtype
        self.forks: list[str] = []

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.path}/{stream}".encode()))
        # Drawn in float64 whatever the dtype, so that two dtypes see the same numbers up to rounding.
        return torch.randn(self.n, *shape, generator=generator, dtype=torch.float64).to(self.dtype)

    def fork(self, name: str) -> "SeededDraw":
        self.forks.append(name)
        return SeededDraw(self.n, f"{self.path}/{name}", self.dtype)


class DomainGame:
    """Domain-adversarial features: the critic tells F(source) from F(target), the label head is the generator side's
    own task. Here the *real* samples are made by the generator side too, and it moves both.
    """

    def __init__(self, size: int = 3, dtype: torch.dtype = torch.float64):
        features = nn.Sequential(nn.Linear(size, 5), nn.Tanh(), nn.Linear(5, 4))
        self.generator = nn.ModuleDict({"features": features, "head": nn.Linear(4, CLASSES)}).to(dtype)
        self.critic = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1), nn.Flatten(0)).to(dtype)
        self.size = size

    def play(self, batch: Batch, draw: SeededDraw) -> Play:
        source = self.generator["features"](batch.x)
        target = self.generator["features"](1 + draw.normal("target", (self.size,)))
        return Play(source, target, task_loss=cross_entropy(self.generator["head"](source), batch.label))

    def judge(self, play: Play) -> tuple[Tensor, Tensor]:
        return self.critic(play.real), self.critic(play.fake)

    def judge_fake(self, play: Play) -> Tensor:
        return self.critic(play.fake)


def image_game(
    norm: str = "none", conditional: bool = False, together: bool = True, dtype: torch.dtype = torch.float64
) -> GenerationGame:
    """A DCGAN pair for 8x8 images. The generator has BatchNorm: rules must not care what couples *its* samples."""
    torch.manual_seed(0)
    config = dcgan.Config(latent_dim=LATENT, generator_width=2, critic_width=4, critic_norm=norm)
    classes = CLASSES if conditional else 0
    generator, critic = dcgan.Generator(config, SHAPE, classes), dcgan.Critic(config, SHAPE, classes)
    for network in (generator, critic):
        spread(network)
    return GenerationGame(generator.to(dtype), critic.to(dtype), LATENT, conditional, together)


def spread(network: nn.Module, scale: float = 0.3) -> None:
    """Weights large enough for scores of order 1: a fresh DCGAN's are near 0, where all objectives look alike.

    The vectors of a spectral norm's power iteration then fit the weights no longer, so that each call moves them.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def image_batch(n: int = 4, path: str = "data", dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(SeededDraw(n, path, dtype).normal("x", SHAPE).tanh(), torch.arange(n) % CLASSES)


def vector_batch(n: int, size: int, path: str = "data", dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(SeededDraw(n, path, dtype).normal("x", (size,)), torch.arange(n) % CLASSES)


def play_turns(turns: Iterable[Turn], game) -> Gradients:
    """Both players' gradients, collected and cleared as a training loop does; none may be left over."""
    players = {CRITIC: game.critic, GENERATOR: game.generator}
    gradients = {}
    for turn in turns:
        for player in turn.players:
            gradients[player] = gradients_of(players[player])
            players[player].zero_grad()
    for network in players.values():
        assert all(parameter.grad is None for parameter in network.parameters())
    return gradients


def gradients_of(network: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def separate_passes(
    plan: str, game, objective: Objective, batch: Batch, draw: SeededDraw, weights: Weights = Weights()
) -> Gradients:
    """The reference: two plain backward passes, the critic's on detached samples, the generator's through the critic.

    They run on copies, so that the power iteration of a spectral norm starts where the rule's does. An alternating
    rule calls the critic once more, for the generator: that call finds the critic as the first one left it.
    """
    first, second = copy.deepcopy(game), copy.deepcopy(game)

    # The critic's pass.
    play = first.play(batch, draw)
    real, fake = play.real.detach().requires_grad_(), play.fake.detach().requires_grad_()
    real_scores, fake_scores = _judge(first, real, fake, play.condition)
    loss = objective.critic_loss(real_scores, fake_scores).mean()
    loss = loss + _textbook_penalty(real_scores, real, weights.gamma.r1)
    loss = loss + _textbook_penalty(fake_scores, fake, weights.gamma.r2)
    loss.backward()
    critic = gradients_of(first.critic)

    # The generator's pass.
    alternating = plan.startswith("alternating")
    if alternating:
        second.critic = copy.deepcopy(first.critic)
    play = second.play(batch, draw.fork("generator") if plan == "alternating-fresh" else draw)
    needs_real = objective.pairs or play.real.requires_grad
    if alternating and not needs_real:
        real_scores, fake_scores = None, second.critic(play.fake, play.condition)
    else:
        real_scores, fake_scores = _judge(second, play.real, play.fake, play.condition)
    loss = objective.generator_loss(real_scores if needs_real else None, fake_scores).mean() * weights.coefficient
    if play.task_loss is not None:
        loss = loss + play.task_loss
    loss.backward()
    return {CRITIC: critic, GENERATOR: gradients_of(second.generator)}


def _judge(game, real: Tensor, fake: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    labels = [] if condition is None else [condition]
    if not getattr(game, "together", False):
        return game.critic(real, *labels), game.critic(fake, *labels)
    scores = game.critic(torch.cat([real, fake]), *(torch.cat([label, label]) for label in labels))
    return scores[: len(real)], scores[len(real) :]


def _textbook_penalty(scores: Tensor, x: Tensor, gamma: float) -> Tensor | float:
    """γ/2 · E‖∂s/∂x‖² (Mescheder et al. 2018, eq. 9)."""
    if gamma == 0:
        return 0.0
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gamma / 2 * (gradient**2).sum() / len(x)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def relative_error(got: Iterable[Tensor], want: Iterable[Tensor]) -> float:
    """‖got − want‖ / ‖want‖ over all parameters of a network: a single bias may have no gradient at all (the
    Wasserstein critic's last, for one), and an error relative to it would say nothing.
    """
    got, want = flat(got), flat(want)
    return ((got - want).norm() / want.norm()).item()


def assert_same(got: Gradients, want: Gradients, tolerance: float) -> None:
    assert got.keys() == want.keys()
    for player in want:
        assert flat(want[player]).norm() > 0, f"the reference has no gradient for the {player}: it shows nothing"
        error = relative_error(got[player], want[player])
        assert error <= tolerance, f"{player}: relative error {error:.2e} > {tolerance:.0e}"


NO_GAMMA, R1, R2, BOTH = Gamma(), Gamma(r1=0.7), Gamma(r2=1.3), Gamma(0.7, 1.3)
