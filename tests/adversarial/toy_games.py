"""Small games for the tests of the method, and the reference that every update rule is held to."""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from adversarial.games import (
    VIEWS,
    AdaptationGame,
    Batch,
    GenerationGame,
    InvarianceGame,
    Play,
    Recognition,
)
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
LATENT, CLASSES, ATTRIBUTES, SHAPE = 3, 3, 4, (1, 8, 8)
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

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.special.ndtr(self.normal(stream, shape))

    def fork(self, name: str) -> "SeededDraw":
        self.forks.append(name)
        return SeededDraw(self.n, f"{self.path}/{name}", self.dtype)


class ToyRecogniser(nn.Module):
    """Vectors to two layers of features and logits."""

    def __init__(self, size: int):
        super().__init__()
        self.first, self.last, self.head = nn.Linear(size, 5), nn.Linear(5, 4), nn.Linear(4, CLASSES)

    def forward(self, *domains: Tensor):
        return tuple(self._recognise(x) for x in domains)

    def _recognise(self, x: Tensor) -> Recognition:
        first = self.first(x).tanh()
        last = self.last(first)
        return Recognition((first, last), self.head(last))


class ToyCritics(nn.Module):
    """A small network per entry of a view, to scores ``[N]`` or logits ``[N, outputs]``."""

    def __init__(self, sizes: list[int], outputs: int = 1):
        super().__init__()
        self.critics = nn.ModuleList(
            nn.Sequential(nn.Linear(size, 6), nn.LeakyReLU(0.2), nn.Linear(6, outputs)) for size in sizes
        )

    def forward(self, *samples: Tensor) -> tuple[Tensor, ...]:
        scores = (critic(x) for critic, x in zip(self.critics, samples, strict=True))
        return tuple(score.squeeze(1) for score in scores)


SIZES = {
    "features": [4], "layers": [5, 4], "multilinear": [4 * CLASSES], "multilinear_entropy": [4 * CLASSES],
    "classes": [4] * CLASSES, "margin": [4],
}  # fmt: skip


def domain_game(view: str = "features", size: int = 3, dtype: torch.dtype = torch.float64) -> AdaptationGame:
    """Domain adaptation of vectors: here the *real* samples are made by the generator side too, and it moves both."""
    generator, critic = ToyRecogniser(size), ToyCritics(SIZES[view], CLASSES if view == "margin" else 1)
    weight = 3.0 if view == "margin" else 1.0
    return AdaptationGame(generator.to(dtype), critic.to(dtype), VIEWS[view], True, source_weight=weight)


def invariance_game(view: str = "features", size: int = 3, every_class: bool = False) -> InvarianceGame:
    """Features that hide which of ``ATTRIBUTES`` a vector has."""
    return InvarianceGame(
        ToyRecogniser(size).double(), ToyCritics(SIZES[view], ATTRIBUTES).double(), VIEWS[view], every_class
    )


def image_game(
    norm: str = "none",
    conditional: bool = False,
    together: bool = True,
    dtype: torch.dtype = torch.float64,
    pack: int = 1,
    **options,
) -> GenerationGame:
    """A DCGAN pair for 8x8 images. The generator has BatchNorm: rules must not care what couples *its* samples."""
    torch.manual_seed(0)
    config = dcgan.Config(latent_dim=LATENT, generator_width=2, critic_width=4, critic_norm=norm)
    classes = CLASSES if conditional else 0
    generator = dcgan.Generator(config, SHAPE, classes)
    critic = dcgan.Critic(config, (pack * SHAPE[0], *SHAPE[1:]), classes)
    for network in (generator, critic):
        spread(network)
    return GenerationGame(generator.to(dtype), critic.to(dtype), LATENT, conditional, together, pack, **options)


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
    draw = SeededDraw(n, path, dtype)
    target = 1 + draw.normal("target", (size,))
    return Batch(draw.normal("x", (size,)), torch.arange(n) % CLASSES, target, torch.arange(n) % ATTRIBUTES)


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
    real, fake = ([x.detach().requires_grad_() for x in side] for side in (play.real, play.fake))
    real_scores, fake_scores = _judge(first, real, fake, play)
    loss = _weighted(objective.critic_loss, objective.pairs, real_scores, fake_scores, play)
    for scores, x in zip(real_scores, real, strict=True):
        loss = loss + _textbook_penalty(scores, x, weights.gamma.r1)
    for scores, x in zip(fake_scores, fake, strict=True):
        loss = loss + _textbook_penalty(scores, x, weights.gamma.r2)
    if weights.gamma.gp:
        loss = loss + _textbook_gradient_penalty(first, real, fake, play, draw, weights.gamma.gp)
    loss.backward()
    critic = gradients_of(first.critic)

    # The generator's pass.
    alternating = plan.startswith("alternating")
    if alternating:
        second.critic = copy.deepcopy(first.critic)
    play = second.play(batch, draw.fork("generator") if plan == "alternating-fresh" else draw)
    needs_real = objective.pairs or any(x.requires_grad for x in play.real)
    if alternating and not needs_real:
        real_scores, fake_scores = [], [second.critic(_presented(second, *play.fake, play, 1), play.condition)]
    else:
        real_scores, fake_scores = _judge(second, play.real, play.fake, play)
    loss = _weighted(objective.generator_loss, objective.pairs, real_scores if needs_real else [], fake_scores, play)
    loss = loss * weights.coefficient
    if play.task_loss is not None:
        loss = loss + play.task_loss
    loss.backward()
    return {CRITIC: critic, GENERATOR: gradients_of(second.generator)}


def _weighted(loss: Callable[..., Tensor], pairs: bool, real: list[Tensor], fake: list[Tensor], play: Play) -> Tensor:
    """The loss of each side by itself (of both where they are compared), weighted sample by sample, summed."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(max(len(real), len(fake))):
        r, f = (side[i] if side else None for side in (real, fake))
        if pairs or not play.weights:
            a, b = play.weights[i] if play.weights else (1, 1)
            total = total + ((a + b) / 2 * loss(r, f)).mean()
            continue
        for side, score in enumerate((r, f)):
            if score is not None:
                alone = loss(score, None) if side == 0 else loss(None, score)
                total = total + (alone * play.weights[i][side]).sum() / len(score)
    return total


def _judge(game, real: list[Tensor], fake: list[Tensor], play: Play) -> tuple[list[Tensor], list[Tensor]]:
    """Both sides' scores, by other words than the game's own."""
    if isinstance(game, AdaptationGame):
        scores = [game.critic(*side) for side in (real, fake)]
        if play.condition[0] is None:
            return scores[0], scores[1]
        return tuple(
            [_log_odds(logits, label) for logits in side] for side, label in zip(scores, play.condition, strict=True)
        )
    if isinstance(game, InvarianceGame):
        if game.every_class:
            labels = [(play.condition + k) % ATTRIBUTES for k in range(ATTRIBUTES)]
            return [torch.stack([_log_odds(z, y) for y in labels], 1) for z in game.critic(*real)], []
        return [_log_odds(logits, play.condition) for logits in game.critic(*real)], []
    labels = [] if play.condition is None else [play.condition]
    real, fake = (_presented(game, *x, play, side) for side, x in enumerate((real, fake)))
    if not game.together:
        return [game.critic(real, *labels)], [game.critic(fake, *labels)]
    scores = game.critic(torch.cat([real, fake]), *(torch.cat([label, label]) for label in labels))
    return [scores[: len(real)]], [scores[len(real) :]]


def _presented(game: GenerationGame, x: Tensor, play: Play, side: int) -> Tensor:
    """What the critic is given of a side: looked at, and every m-th sample side by side with the m - 1 behind it."""
    if play.looks is not None:
        x = play.looks[side](x)
    return torch.cat([x[i :: game.pack] for i in range(game.pack)], dim=1)


def _log_odds(logits: Tensor, label: Tensor) -> Tensor:
    p = logits.softmax(1)[range(len(logits)), label]
    return p.log() - (1 - p).log()


def _textbook_gradient_penalty(game, real, fake, play: Play, draw: SeededDraw, gamma: float) -> Tensor:
    """γ · E(‖∂s/∂x̂‖ - 1)² at x̂ = u·real + (1 - u)·fake (Gulrajani et al. 2017, algorithm 1)."""
    u = draw.uniform("gradient penalty")
    points = []
    for r, f in zip(real, fake, strict=True):
        share = u.reshape(-1, *[1] * (r.ndim - 1))
        points.append((share * r + (1 - share) * f).detach().requires_grad_())
    if isinstance(game, AdaptationGame):
        scores = _judge(game, points, points, play)[1]
    else:
        x = _presented(game, points[0], play, 1)
        scores = [game.critic(x, *([] if play.condition is None else [play.condition]))]
    total = torch.zeros((), dtype=torch.float64)
    for score, x in zip(scores, points, strict=True):
        (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        total = total + gamma * ((gradient**2).flatten(1).sum(1).sqrt() - 1).square().mean()
    return total


def _textbook_penalty(scores: Tensor, x: Tensor, gamma: float) -> Tensor | float:
    """γ/2 · E‖∂s/∂x‖² (Mescheder et al. 2018, eq. 9)."""
    if gamma == 0:
        return 0.0
    own = scores if scores.ndim == 1 else scores[:, 0]
    (gradient,) = torch.autograd.grad(own.sum(), x, create_graph=True)
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


NO_GAMMA, R1, R2, BOTH, GP = Gamma(), Gamma(r1=0.7), Gamma(r2=1.3), Gamma(0.7, 1.3), Gamma(gp=0.9)
