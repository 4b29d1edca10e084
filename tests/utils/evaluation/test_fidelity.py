"""In the feature space of the published FID our metrics are those of torch-fidelity, where that package is there."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from utils.data.samples import DataSet, Resident
from utils.evaluation import generation, spaces
from utils.evaluation.generation import Settings, evaluate

COUNT = 20  # twice the parts of the Inception score


class Showing(nn.Module):
    """Draws the images that it is given."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.x, self.weight = x, nn.Parameter(torch.ones(1))

    def forward(self, latent: Tensor, label: None = None) -> Tensor:
        return (self.x / 127.5 - 1) * self.weight


class Plain(torch.utils.data.Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, x: Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


def images(seed: int, contrast: float) -> Tensor:
    """Random colours in patches, uint8 ``[COUNT, 3, 32, 32]``."""
    draw = torch.Generator().manual_seed(seed)
    patches = torch.randn(COUNT, 3, 4, 4, generator=draw).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (127.5 + contrast * patches).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """Random weights of Inception in the file that is loaded: the published ones need a download."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda self, _: None)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: None)
        network = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # or features would fade from layer to layer
        nn.init.normal_(network.fc.weight)  # or all classes would be nearly alike
    path = tmp_path / "inception.pth"
    torch.save(network.state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(spaces, "INCEPTION_FILE", f"weights-{sha256[:8]}.pth")
    return path


def test_fid_kid_inception_score_precision_and_recall_are_those_of_torch_fidelity(tmp_path, weights, monkeypatch):
    import torch_fidelity

    made, real = images(0, 60), images(1, 50)
    monkeypatch.setattr(generation, "PUBLISHED_SAMPLES", COUNT)
    data = DataSet("patches", (3, 32, 32), 0, Resident(real, None), None)
    settings = Settings(4, COUNT, 0, features="inception", features_file=str(weights))
    ours = {r["metric"]: r["value"] for r in evaluate(Showing(made), data, settings, tmp_path)}
    theirs = torch_fidelity.calculate_metrics(
        input1=Plain(made), input2=Plain(real), feature_extractor="inception-v3-compat", cuda=False, verbose=False,
        feature_extractor_weights_path=str(weights), fid=True, isc=True, kid=True, prc=True, kid_subsets=1,
        kid_subset_size=COUNT, samples_shuffle=False, cache=False, save_cpu_ram=True,
    )  # fmt: skip
    assert theirs["inception_score_mean"] > 1.1  # there are classes to tell apart
    # Features and logits are float32, 1e-7 relative, and the kernel's values a hundred times their difference. The
    # 2,000 eigenvalues that should be 0 are 1e-16 of the largest one instead, and their roots 1e-8: 2e-5 in their sum.
    for name, value, tolerance in (
        ("Inception score", theirs["inception_score_mean"], 1e-5),
        ("KID", theirs["kernel_inception_distance_mean"], 1e-4),
        ("FID", theirs["frechet_inception_distance"], 1e-4),
        ("precision", theirs["precision"], 1e-6),
        ("recall", theirs["recall"], 1e-6),
    ):
        assert ours[name] == pytest.approx(value, rel=tolerance), name
    assert 0.1 < ours["recall"] < 0.9  # neither all nor nothing
