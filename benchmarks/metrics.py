"""How each metric moves when real images are replaced by worse ones, and with the number of images.

    python benchmarks/metrics.py --root data --cifar10 data/cifar10-32x32.zip

prints benchmarks/metrics.md. Candidates are training images, as they are or spoiled; the reference is the held-out
split. MNIST is read from ``--root`` as torchvision keeps it, CIFAR-10 from a zip in EDM's format, of which a tenth is
held out.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import pad  # noqa: E402
from torchvision.transforms.v2.functional import gaussian_blur  # noqa: E402

from adversarial.draws import rng  # noqa: E402
from utils.data import datasets, image_files  # noqa: E402
from utils.data.samples import DataSet, Resident  # noqa: E402
from utils.data.sections import data_section  # noqa: E402
from utils.evaluation.distances import frechet_distance, kernel_distance  # noqa: E402
from utils.evaluation.features import Features, features_of  # noqa: E402
from utils.evaluation.metrics import IMAGE_METRICS, Measured, inception_score, manifold_metrics  # noqa: E402
from utils.evaluation.spaces import SPACES, Request, Space, space_of  # noqa: E402

T = TypeVar("T")
FOLDER = ROOT / "runs/.features"  # keeps classifiers
COUNTS, SPLITS = (1_000, 10_000), (10_000, 10_000)  # of generated and of real images whose evaluation is timed
IMAGES, NUMBERS, NOISE, SIGMA, REPEATS, MISSING = 500, (100, 250, 500), 24, 1.0, 10, 3
COLUMNS = ("Fréchet distance", "kernel distance", "class score", "precision", "recall", "density", "coverage")


def blurred(x: Tensor) -> Tensor:
    """With a Gaussian of σ = 1 pixel."""
    return (
        gaussian_blur(pad(x.float(), (4, 4, 4, 4), mode="replicate"), [9, 9], [SIGMA, SIGMA])[..., 4:-4, 4:-4]
        .round()
        .to(torch.uint8)
    )


def noisy(x: Tensor) -> Tensor:
    """With normal noise of 24 of 255 shades."""
    noise = NOISE * torch.randn(x.shape, generator=rng("benchmark", "noise"))
    return (x + noise).round().clamp(0, 255).to(torch.uint8)


def candidates(samples: Resident) -> Iterator[tuple[str, Tensor]]:
    """Sets of images to be measured, by name."""
    order = torch.randperm(len(samples), generator=rng("benchmark", "candidates"))
    chosen, others = samples.x[order], samples.x[order[samples.label[order] != MISSING]]
    real = chosen[:IMAGES]
    yield "real", real
    yield f"blurred, σ = {SIGMA:g} pixel", blurred(real)
    yield f"noise, {NOISE} of 255", noisy(real)
    yield f"each tenth image {REPEATS} times", real[: len(real) // REPEATS].repeat(REPEATS, 1, 1, 1)
    yield f"without class {MISSING}", others[:IMAGES]


def values(made: Features, reference: Features) -> list[str]:
    """The metrics of ``COLUMNS``."""
    count = min(len(made.x), len(reference.x))
    distance, error = kernel_distance(made.x[:count], reference.x[:count])
    found = manifold_metrics(made.x, reference.x)
    shown = [f"{frechet_distance(made.x, reference.x):.2f}", f"{distance:.3g} ± {error:.1g}"]
    return [*shown, f"{inception_score(made.probability):.2f}", *(f"{found[name]:.2f}" for name in COLUMNS[3:])]


def tables(data: DataSet, name: str) -> Iterator[str]:
    """Lines of Markdown on one data set in one feature space."""
    space = space_of(name, Request(data, FOLDER, torch.device("cpu")))
    order = torch.randperm(len(data.test), generator=rng("benchmark", "reference"))
    reference = measured(space, data.test.x[order[:IMAGES]])
    yield f"\n## {data.name} in {space.name}\n"
    yield f"Reference: {len(reference.x)} held-out images.\n"
    yield f"| images | N | {' | '.join(COLUMNS)} |"
    yield "|---|---:|" + "---:|" * len(COLUMNS)
    for what, images in candidates(data.train):
        made = measured(space, images)
        for N in NUMBERS if what == "real" else (len(images),):
            yield f"| {what} | {N} | {' | '.join(values(made.some(N), reference))} |"


def costs(data: DataSet, spaces: list[str]) -> Iterator[str]:
    """Lines of Markdown: CPU seconds of an evaluation, in each feature space and for each of ``COUNTS``."""
    yield f"\n## CPU seconds of an evaluation, images of {data.shape[1]} pixels\n"
    yield f"| features | d | of 1,000 images | {' | '.join(f'metrics of {N:,}' for N in COUNTS)} |"
    yield "|---|---:|---:|" + "---:|" * len(COUNTS)
    for name in spaces:
        space = space_of(name, Request(data, FOLDER, torch.device("cpu")))
        seconds, made = timed(lambda space=space: measured(space, data.train.x[:1000]))
        d = made.x.shape[1]
        cells = [f"{timed(all_metrics, space, d, N)[0]:.0f}" for N in COUNTS]
        yield f"| {space.name} | {d} | {seconds:.1f} | {' | '.join(cells)} |"


def timed(function: Callable[..., T], *given: Any) -> tuple[float, T]:
    """The CPU seconds of a call, and what it returns."""
    begin = time.process_time()
    found = function(*given)
    return time.process_time() - begin, found


def all_metrics(space: Space, d: int, N: int) -> None:
    """Everything that an evaluation of a conditional run on ten classes computes from features, of noise: their values
    change nothing in the time. As by default there are 10,000 training images, and as many held-out ones.
    """
    made, real, train, held_out = (noise(count, d, name) for name, count in zip("abcd", (N, N, *SPLITS), strict=True))
    given = Measured(space, made, held_out, real, train, held_out, "held-out")
    for metric in IMAGE_METRICS.values():
        metric.measure(given)


def noise(count: int, d: int, name: str) -> Features:
    """Normal features, random class probabilities, and the ten labels in turn."""
    draw = rng("benchmark", name)
    x, logits = torch.randn(count, d, generator=draw), torch.randn(count, 10, generator=draw)
    return Features(x, logits.softmax(1), torch.arange(count) % 10)


def measured(space: Space, images: Tensor) -> Features:
    """Their features."""
    return features_of(space, [images], len(images), "images", None)


def cifar10(options: argparse.Namespace) -> DataSet:
    """The images of a zip, of which a tenth, drawn at random, is the held-out split."""
    config = data_section("zip", datasets.DATASETS)(name="zip", root=options.cifar10, resolution=32)
    data = image_files.zip_file(config, 0)
    index = torch.randperm(len(data.train), generator=rng("benchmark", "split"))
    train, test = (data.train.part(part) for part in index.split([len(index) * 9 // 10, -(-len(index) // 10)]))
    return DataSet("cifar10", data.shape, data.classes, train, test)


def digits(options: argparse.Namespace) -> DataSet:
    """Scikit-learn's digits."""
    return datasets.load(data_section("digits", datasets.DATASETS)(name="digits"), 0)


def mnist(options: argparse.Namespace) -> DataSet:
    """MNIST at 32 pixels."""
    section = data_section("mnist", datasets.DATASETS)
    return datasets.load(section(name="mnist", root=options.root, resolution=32, fit="pad"), 0)


SETS = {"digits": digits, "mnist": mnist, "cifar10": cifar10}
HEADER = """# What each metric sees

Training images, as they are or spoiled, against held-out ones: a perfect generator gets what the rows 'real' get.
Printed by `python benchmarks/metrics.py --root data --cifar10 data/cifar10-32x32.zip`."""


def main() -> None:
    """Measure, and print the tables."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--root", default="data", help="folder of MNIST")
    words.add_argument("--cifar10", default="data/cifar10-32x32.zip", help="zip of CIFAR-10")
    words.add_argument("--data", nargs="+", choices=SETS, default=list(SETS), help="sets (default: all)")
    words.add_argument("--spaces", nargs="+", choices=SPACES, default=["lite0", "classifier"], help="feature spaces")
    options = words.parse_args()
    print(HEADER)
    for name in options.data:
        data = SETS[name](options)
        for space in options.spaces:
            for line in tables(data, space):
                print(line, flush=True)
    for line in costs(data, options.spaces):
        print(line, flush=True)


if __name__ == "__main__":
    main()
