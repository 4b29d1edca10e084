"""Points in the plane: mixtures of Gaussians for GANs, moons for games of domains."""

import math
from dataclasses import dataclass

import torch

from adversarial.draws import rng, seed_of
from utils.data.pairs import Domain, Pair
from utils.data.samples import DataSet, Modes, Resident

COUNTS = 100_000, 10_000  # points for training, held out


@dataclass
class Points:
    """Fields of ``data.*`` for points, which need no files."""

    name: str = "ring"  # ring or grid; moons for games of domains


def ring(config: Points, seed: int) -> DataSet:
    """8 Gaussians on the unit circle (PacGAN: Lin et al. 2018)."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return _gaussians(config.name, Modes(torch.stack([angle.cos(), angle.sin()], dim=1), 0.01), seed)


def grid(config: Points, seed: int) -> DataSet:
    """25 Gaussians on a square grid (PacGAN: Lin et al. 2018)."""
    ticks = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
    return _gaussians(config.name, Modes(torch.cartesian_prod(ticks, ticks), 0.05), seed)


def _gaussians(name: str, modes: Modes, seed: int) -> DataSet:
    draw = rng(seed, "points")
    K, D = modes.centres.shape
    label = torch.randint(K, (sum(COUNTS),), generator=draw)
    x = modes.centres[label] + modes.sigma * torch.randn(sum(COUNTS), D, generator=draw)
    train, test = (Resident(*split) for split in zip(x.split(COUNTS), label.split(COUNTS), strict=True))
    return DataSet(name, (D,), K, train, test, modes)


def moons(config: Points, seed: int) -> Pair:
    """Two inter-twinning moons of 150 points and the same turned by 35° (Ganin et al. 2016, section 5.1.1).

    Centred and scaled by 2. The target is measured on 2,000 fresh points.
    """
    source = Domain("moons", _moons(300, seed, "source", 0), _moons(300, seed, "validation", 0))
    target = Domain("turned moons", _moons(300, seed, "target", 35), _moons(2000, seed, "test", 35))
    return Pair(source, target, ("upper", "lower"))


def _moons(n: int, seed: int, stream: str, degrees: float) -> Resident:
    from sklearn.datasets import make_moons  # here for a fast start-up

    # Scikit-learn takes 32 bits of a seed.
    x, label = make_moons(n, noise=0.05, random_state=seed_of(seed, "moons", stream) % 2**32)
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    x = 2 * (torch.from_numpy(x).float() - torch.tensor([0.5, 0.25]))  # the moons' common centre
    return Resident(x @ turn, torch.from_numpy(label).long())
