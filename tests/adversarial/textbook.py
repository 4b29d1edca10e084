"""The reference of every update rule: two plain, separate backward passes, and penalties by their formulas."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from adversarial.domains import AdaptationGame, InvarianceGame
from adversarial.games import Batch, GenerationGame, Play
from adversarial.objectives import Objective
from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR, PENALTIES, Consistency, Penalty
from tests.adversarial.toy_games import ATTRIBUTES, LATENT, Gradients, SeededDraw, gradients_of


def separate_passes(
    plan: str, game, objective: Objective, batch: Batch, draw: SeededDraw, strengths: Strengths = Strengths()
) -> Gradients:
    """The reference: two plain backward passes, the critic's on detached samples, the generator's through the critic.

    They run on copies, so that the power iteration of a spectral norm starts where the rule's does. An alternating
    rule calls the critic once more, for the generator: that call finds the critic as the first one left it.
    """
    first, second = copy.deepcopy(game), copy.deepcopy(game)

    # The critic's pass.
    play = first.play(batch, draw)
    real, fake = ([x.detach().requires_grad_() for x in samples] for samples in columns(play))
    scores = _judge(first, real, fake, play)
    loss = _weighted(objective.critic_loss, objective.pairs, *scores, play)
    for penalty, gamma in strengths.penalties.items():
        if name_of(penalty) != "path":
            textbook = TEXTBOOK[name_of(penalty)]
            loss = loss + gamma * textbook(penalty, first, real, fake, *scores, play, draw)
    loss.backward()
    critic = gradients_of(first.critic)

    # The generator's pass.
    alternating = plan.startswith("alternating")
    if alternating:
        second.critic = copy.deepcopy(first.critic)
    play = second.play(batch, draw.fork("generator") if plan == "alternating-fresh" else draw)
    real, fake = columns(play)
    needs_real = objective.pairs or any(x.requires_grad for x in real)
    if alternating and not needs_real:
        pair = play.pairs[0]
        scores = [], [second.critic(_presented(second, pair.fake.samples, pair.fake), pair.fake.condition)]
    else:
        scores = _judge(second, real, fake, play)
    loss = _weighted(objective.generator_loss, objective.pairs, scores[0] if needs_real else [], scores[1], play)
    loss = loss * strengths.coefficient
    if play.task_loss is not None:
        loss = loss + play.task_loss
    for penalty, gamma in strengths.penalties.items():
        if name_of(penalty) == "path":
            loss = loss + gamma * _textbook_path_length(penalty, second, draw.fork("path"))
    loss.backward()
    return {CRITIC: critic, GENERATOR: gradients_of(second.generator)}


def columns(play: Play) -> tuple[list[Tensor], list[Tensor]]:
    """The real and the fake samples, one entry a critic."""
    real, fake = zip(*play.pairs, strict=True)
    return [side.samples for side in real if side], [side.samples for side in fake if side]


def name_of(penalty: Penalty) -> str:
    """The penalty's key in the registry."""
    (name,) = (name for name, kind in PENALTIES.items() if kind is type(penalty))
    return name


def _weighted(loss: Callable[..., Tensor], pairs: bool, real: list[Tensor], fake: list[Tensor], play: Play) -> Tensor:
    """The loss of each side by itself (of both where they are compared), weighted sample by sample, summed."""
    total = torch.zeros((), dtype=torch.float64)
    for i, pair in enumerate(play.pairs):
        r, f = (scores[i] if scores else None for scores in (real, fake))
        weights = [1.0 if side is None else side.weight for side in pair]
        if pairs or all(isinstance(weight, float) and weight == 1 for weight in weights):
            total = total + ((weights[0] + weights[1]) / 2 * loss(r, f)).mean()
            continue
        if r is not None:
            total = total + (loss(r, None) * pair.real.weight).sum() / len(r)
        if f is not None:
            total = total + (loss(None, f) * pair.fake.weight).sum() / len(f)
    return total


def _judge(game, real: list[Tensor], fake: list[Tensor], play: Play) -> tuple[list[Tensor], list[Tensor]]:
    """Both sides' scores, by other words than the game's own."""
    if isinstance(game, AdaptationGame):
        scores = [game.critic(*samples) if samples else [] for samples in (real, fake)]
        if play.pairs[0].real.condition is None:
            return scores[0], scores[1]
        labels = play.pairs[0].real.condition, play.pairs[0].fake.condition
        return tuple([_log_odds(z, label) for z in logits] for logits, label in zip(scores, labels, strict=True))
    if isinstance(game, InvarianceGame):
        attribute = play.pairs[0].real.condition
        if game.every_class:
            labels = [(attribute + k) % ATTRIBUTES for k in range(ATTRIBUTES)]
            return [torch.stack([_log_odds(z, y) for y in labels], 1) for z in game.critic(*real)], []
        return [_log_odds(logits, attribute) for logits in game.critic(*real)], []
    (pair,) = play.pairs
    labels = [] if pair.real.condition is None else [pair.real.condition]
    real, fake = (_presented(game, *x, side) for x, side in zip((real, fake), pair, strict=True))
    if not game.together:
        return [game.critic(real, *labels)], [game.critic(fake, *labels)]
    scores = game.critic(torch.cat([real, fake]), *(torch.cat([label, label]) for label in labels))
    return [scores[: len(real)]], [scores[len(real) :]]


def _presented(game: GenerationGame, x: Tensor, side) -> Tensor:
    """What the critic is given of a side: transformed, and every m-th sample side by side with the next m - 1."""
    if side.transform is not None:
        x = side.transform(x)
    return torch.cat([x[i :: game.pack] for i in range(game.pack)], dim=1)


def _log_odds(logits: Tensor, label: Tensor) -> Tensor:
    p = logits.softmax(1)[range(len(logits)), label]
    return p.log() - (1 - p).log()


# --- the critic's penalties, each by its paper's formula -------------------------------------------------------------


def _textbook_r1(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    return sum(_half_squared_slope(scores, x) for scores, x in zip(real_scores, real, strict=True))


def _textbook_r2(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    return sum(_half_squared_slope(scores, x) for scores, x in zip(fake_scores, fake, strict=True))


def _half_squared_slope(scores: Tensor, x: Tensor) -> Tensor:
    """1/2 · E‖∂s/∂x‖² (Mescheder et al. 2018, eq. 9)."""
    (gradient,) = torch.autograd.grad(_plain(scores).sum(), x, create_graph=True)
    return (gradient**2).sum() / len(scores) / 2


def _textbook_gp(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    """Gulrajani et al. 2017, algorithm 1."""
    u = draw.uniform("gradient penalty")
    points = []
    for r, f in zip(real, fake, strict=True):
        share = u.reshape(-1, *[1] * (r.ndim - 1))
        if len(real_scores[0]) < len(r):  # a pack has the share of its first sample
            share = torch.stack([share[i - i % game.pack] for i in range(len(share))])
        points.append((share * r + (1 - share) * f).detach().requires_grad_())
    return _textbook_unit_slope(game, points, play)


def _textbook_dragan(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    """Kodali et al. 2017, algorithm 1."""
    points = [(r + penalty.noise * draw.noise("dragan", r.shape[1:])).detach().requires_grad_() for r in real]
    return _textbook_unit_slope(game, points, play)


def _textbook_unit_slope(game, points: list[Tensor], play: Play) -> Tensor:
    """E(‖∂s/∂x̂‖ - 1)² at the points x̂."""
    if isinstance(game, AdaptationGame):
        scores = _judge(game, [], points, play)[1]
    else:
        fake = play.pairs[0].fake
        x = _presented(game, points[0], fake)
        scores = [game.critic(x, *([] if fake.condition is None else [fake.condition]))]
    total = torch.zeros((), dtype=torch.float64)
    for score, x in zip(scores, points, strict=True):
        (gradient,) = torch.autograd.grad(_plain(score).sum(), x, create_graph=True)
        square = torch.stack([part.square().sum() for part in gradient.split(len(x) // len(score))])
        total = total + (square.sqrt() - 1).square().mean()
    return total


def _textbook_lecam(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    """Tseng et al. 2021, eq. 4."""
    of_real, of_fake = (penalty.state[f"lecam_{side}"] / penalty.state["lecam_weight"] for side in ("real", "fake"))
    real, fake = _plain(real_scores[0]), _plain(fake_scores[0])
    return ((real - of_fake) ** 2 + (fake - of_real) ** 2).mean()


def _textbook_consistency(penalty, game, real, fake, real_scores, fake_scores, play: Play, draw: SeededDraw) -> Tensor:
    """Zhao et al. 2021, algorithm 2."""
    changes = [Consistency.change(draw, f"consistency {side}", 1.0) for side in ("real", "fake")]
    changed = _judge(game, [changes[0](real[0].detach())], [changes[1](fake[0].detach())], play)
    total = torch.zeros((), dtype=torch.float64)
    for before, (after,) in zip((real_scores[0], fake_scores[0]), changed, strict=True):
        total = total + ((_plain(before) - _plain(after)) ** 2).mean()
    return total


def _textbook_path_length(penalty, game: GenerationGame, draw: SeededDraw) -> Tensor:
    """E(‖J_w^T y‖ - a)² (Karras et al. 2020, StyleGAN2, eq. 4), the Jacobian row by row."""
    w = game.generator.map(draw.normal("latent", (LATENT,)), None)
    images = game.generator.synthesise(w)
    noise = draw.noise("noise", images.shape[1:]) / (images.shape[2] * images.shape[3]) ** 0.5
    lengths = []
    for i in range(len(w)):
        (slope,) = torch.autograd.grad((images[i] * noise[i]).sum(), w, create_graph=True)
        layers = slope[i].reshape(-1, slope.shape[-1])
        lengths.append(((layers**2).sum(1).mean()) ** 0.5)
    return (torch.stack(lengths) - penalty.state["path_mean"]).square().mean()


def _plain(score: Tensor) -> Tensor:
    """The score itself, where it comes with others."""
    return score if score.ndim == 1 else score[:, 0]


# The critic's penalties. The generator's, path, has a pass of its own (``_textbook_path_length``).
TEXTBOOK = {
    "r1": _textbook_r1,
    "r2": _textbook_r2,
    "gp": _textbook_gp,
    "dragan": _textbook_dragan,
    "lecam": _textbook_lecam,
    "consistency": _textbook_consistency,
}
