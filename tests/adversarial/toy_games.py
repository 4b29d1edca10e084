"""Small games for the tests of the method, and the reference that every update rule is held to."""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from adversarial.domains import METHODS, AdaptationGame, InvarianceGame, Prediction
from adversarial.games import Batch, GenerationGame, Play
from adversarial.objectives import Objective
from adversarial.passes import Strengths, Turn
from adversarial.penalties import CRITIC, GENERATOR, PENALTIES, Consistency, Penalty
from adversarial.rules import RULES
from models import dcgan, stylegan2

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

    def _recognise(self, x: Tensor) -> Prediction:
        first = self.first(x).tanh()
        last = self.last(first)
        return Prediction((first, last), self.head(last))


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


class MappedGenerator(nn.Module):
    """Images from an intermediate latent w, that each layer has its own copy of, as StyleGAN2's."""

    def __init__(self, layers: int | None):
        super().__init__()
        self.copies = layers
        self.mapping = nn.Sequential(nn.Linear(LATENT, 5), nn.Tanh())
        self.first, self.last = nn.Linear(5, 6), nn.Linear(5, 6)
        self.image = nn.Linear(6, torch.Size(SHAPE).numel())

    def map(self, latent: Tensor, label: Tensor | None) -> Tensor:
        w = self.mapping(latent)
        return w if self.copies is None else w[:, None].expand(-1, self.copies, -1)

    def synthesise(self, w: Tensor) -> Tensor:
        first, last = (w, w) if self.copies is None else w.unbind(1)
        return self.image(self.first(first).tanh() * self.last(last).tanh()).tanh().unflatten(1, SHAPE)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.synthesise(self.map(latent, label))


def mapped_game(layers: int | None) -> GenerationGame:
    """A game whose generator has path lengths."""
    game = image_game()
    game.generator = MappedGenerator(layers).double()
    return game


def stylegan_game() -> GenerationGame:
    """StyleGAN2 without what draws from the global random state (noise, mixing) and what couples samples."""
    torch.manual_seed(0)
    sizes = {"latent_dim": LATENT, "mapping_layers": 2, "label_layers": 1, "channel_max": 3, "minibatch_std": 1}
    config = stylegan2.Config(**sizes)
    generator, critic = stylegan2.Generator(config, SHAPE, 0).eval(), stylegan2.Critic(config, SHAPE, 0)
    return GenerationGame(generator.double(), critic.double(), LATENT)


# The methods that differ in what their critics are given, and the sizes of that.
INPUT_METHODS = [name for name, method in METHODS.items() if not (method.split or method.baseline)]
SIZES = {
    "dann": [4], "layers": [5, 4], "cdan": [4 * CLASSES], "cdan_e": [4 * CLASSES], "mada": [4] * CLASSES, "mdd": [4],
}  # fmt: skip


def domain_game(method: str = "dann", size: int = 3, dtype: torch.dtype = torch.float64) -> AdaptationGame:
    """Domain adaptation of vectors: here the *real* samples are made by the generator side too, and it moves both."""
    generator, critic = ToyRecogniser(size), ToyCritics(SIZES[method], CLASSES if method == "mdd" else 1)
    inputs, weight = METHODS[method].critic_inputs, 3.0 if method == "mdd" else 1.0
    return AdaptationGame(generator.to(dtype), critic.to(dtype), inputs, source_weight=weight)


def invariance_game(method: str = "dann", size: int = 3, every_class: bool = False) -> InvarianceGame:
    """Features that hide which of ``ATTRIBUTES`` a vector has."""
    critics = ToyCritics(SIZES[method], ATTRIBUTES)
    inputs = METHODS[method].critic_inputs
    return InvarianceGame(ToyRecogniser(size).double(), critics.double(), inputs, every_class)


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
    points = [(r + penalty.noise * draw.normal("dragan", r.shape[1:])).detach().requires_grad_() for r in real]
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
    noise = draw.normal("noise", images.shape[1:]) / (images.shape[2] * images.shape[3]) ** 0.5
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


# A strength for each penalty of the registry: a penalty that is added needs one here, and a textbook formula above.
GAMMAS = {"r1": 0.7, "r2": 1.3, "gp": 0.9, "dragan": 0.9, "lecam": 0.4, "consistency": 0.8, "path": 2.0}


def penalties(*names: str, **gammas: float) -> dict[Penalty, float]:
    """Penalties by name with the strengths above, or with other ones by keyword.

    What they keep from former steps: averages of 0.5 and -0.5 with half the weight behind them, and lengths of 0.3.
    """
    kept = {"lecam_real": 0.25, "lecam_fake": -0.25, "lecam_weight": 0.5, "path_mean": 0.3}
    found = {}
    for name, gamma in {**{name: GAMMAS[name] for name in names}, **gammas}.items():
        penalty = PENALTIES[name]()
        for key, value in penalty.state.items():
            value.fill_(kept[key])
        found[penalty] = gamma
    return found


class Probability:
    """The probability of augmentation in the tests' games."""

    def __init__(self, p: float = 0.6):
        self.state = {"augment_p": torch.tensor(p)}
