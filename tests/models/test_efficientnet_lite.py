"""EfficientNet-Lite0: it names the objects in photographs, so its weights and its preprocessing are the right ones."""

import pytest
import torch
from torch.nn.functional import interpolate

from models.efficientnet_lite import EfficientNetLite0
from utils.evaluation.spaces import _lite0_file

PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    network = EfficientNetLite0()
    network.load(_lite0_file(""))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(("photograph", "resolution", "classes"), [
    ("china.jpg", 224, [PALACE]), ("flower.jpg", 224, [DAISY]), ("flower.jpg", 225, [DAISY]),
])  # fmt: skip
def test_it_names_what_is_in_a_photograph(network, photograph, resolution, classes):
    from sklearn.datasets import load_sample_image

    x = torch.from_numpy(load_sample_image(photograph).copy()).permute(2, 0, 1)[None] / 255
    side = min(x.shape[2:])
    left = (x.shape[3] - side) // 2
    x = interpolate(x[..., left : left + side], (resolution, resolution), mode="bilinear", antialias=True)
    assert network(x).argmax(1).tolist() == classes


def test_features_are_what_the_classes_are_read_from(network):
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = network.features(x)
    assert features.shape == (2, 1280)
    assert torch.equal(network.logits(features), network(x))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of EfficientNet-Lite0"):
        EfficientNetLite0().load(tmp_path / "other.pth")
