"""How each metric moves when real images are replaced by worse ones, and with the number of images.

    python benchmarks/metrics.py --root data --cifar10 data/cifar10-32x32.zip

writes benchmarks/metrics.md. Candidates are training images, as they are or spoiled; the reference is the held-out
split. MNIST is read from ``--root`` as torchvision keeps it, CIFAR-10 from a zip in EDM's format, of which a tenth is
held out.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
from utils.evaluation.metrics import inception_score, manifold_metrics  # noqa: E402
from utils.evaluation.spaces import Request, Space, space_of  # noqa: E402

FOLDER, TABLE = ROOT / "runs/.features", ROOT / "benchmarks/metrics.md"
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
        begin = time.perf_counter()
        made = measured(space, images)
        seconds = time.perf_counter() - begin
        for N in NUMBERS if what == "real" else (len(images),):
            yield f"| {what} | {N} | {' | '.join(values(made.some(N), reference))} |"
    yield f"\nFeatures of {len(images)} images take {seconds:.1f} seconds."


def measured(space: Space, images: Tensor) -> Features:
    """Their features."""
    return features_of(space, [images], len(images), "images", None)


def cifar10(path: str) -> DataSet:
    """The images of a zip; its last tenth is the held-out split."""
    config = data_section("zip", datasets.DATASETS)(name="zip", root=path, resolution=32)
    data = image_files.zip_file(config, 0)
    index = torch.randperm(len(data.train), generator=rng("benchmark", "split"))
    train, test = (data.train.part(part) for part in index.split([len(index) * 9 // 10, -(-len(index) // 10)]))
    return DataSet("cifar10", data.shape, data.classes, train, test)


def main() -> None:
    """Measure, and write the table."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--root", default="data", help="folder of MNIST")
    words.add_argument("--cifar10", default="data/cifar10-32x32.zip", help="zip of CIFAR-10")
    options = words.parse_args()
    section = data_section("mnist", datasets.DATASETS)
    sets: list[Callable[[], DataSet]] = [
        lambda: datasets.load(data_section("digits", datasets.DATASETS)(name="digits"), 0),
        lambda: datasets.load(section(name="mnist", root=options.root, resolution=32, fit="pad"), 0),
        lambda: cifar10(options.cifar10),
    ]
    lines = [
        "# What each metric sees\n",
        "Training images, as they are or spoiled, against held-out ones: a perfect generator gets what the rows 'real' "
        "get. Written by\n`python benchmarks/metrics.py --root data --cifar10 data/cifar10-32x32.zip`, on "
        f"{torch.get_num_threads()} CPU threads, torch {torch.__version__.partition('+')[0]}.",
    ]
    read = [load() for load in sets]
    for name in ("lite0", "classifier"):
        for data in read:
            lines += tables(data, name)
            TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
