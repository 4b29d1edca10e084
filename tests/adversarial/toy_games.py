"""Small games for the tests of the method, and the reference that every update rule is held to."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from adversarial.domains import METHODS, AdaptationGame, InvarianceGame, Prediction
from adversarial.games import Batch, GenerationGame
from adversarial.passes import Turn
from adversarial.penalties import CRITIC, GENERATOR, PENALTIES, Penalty
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

    noise = normal

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


# A strength for each penalty of the registry: one that is added needs one here, and a formula in textbook.py.
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
