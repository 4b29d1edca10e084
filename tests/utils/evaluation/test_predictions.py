"""Running a recogniser over samples, and choosing a subset of them."""

import pytest
import torch
from torch import Tensor, nn

from models import dense
from models.domain import Recogniser, SplitRecogniser
from utils.data.files import Files
from utils.data.fitting import ImageFiles
from utils.data.samples import Resident, Streamed
from utils.errors import UserError
from utils.evaluation.predictions import BATCH, predict, subset


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def recogniser(width: int = 5, depth: int = 2) -> Recogniser:
    return Recogniser(dense.Features(dense.Config(width=width, depth=depth), (2,)), 3)


def points(n: int, label: Tensor | None = None) -> Resident:
    return Resident(torch.randn(n, 2), label)


def test_every_sample_is_predicted_once_and_in_order():
    network, samples = recogniser(), points(2 * BATCH + 3)
    prediction = predict(network, samples)
    network.eval()
    with torch.no_grad():
        (whole,) = network(samples.x)
    for ours, theirs in zip((*prediction.layers, prediction.logits), (*whole.layers, whole.logits), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)  # float32: batches may sum in another order


def test_pixels_are_scaled_as_in_training():
    """uint8 0 and 255 are -1 and 1 to the network."""
    network = Recogniser(dense.Features(dense.Config(width=4), (1, 2, 2)), 3)
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    logits = predict(network, Resident(x, None)).logits
    (expected,) = network(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2))
    assert torch.allclose(logits, expected.logits, atol=1e-6)  # float32


@pytest.mark.parametrize("of_source", [True, False])
def test_the_source_has_its_own_network_where_the_recogniser_is_split(of_source):
    split, samples = SplitRecogniser(recogniser()), points(7)
    with torch.no_grad():
        split.features.layers[0][0].weight.zero_()
    network = split.source if of_source else split.features
    prediction = predict(split, samples, of_source)
    assert torch.equal(prediction.layers[-1], network(samples.x)[-1])
    assert torch.equal(prediction.logits, split.head(network(samples.x)[-1]))
    assert not torch.equal(split.source(samples.x)[-1], split.features(samples.x)[-1])


def test_source_and_target_are_predicted_alike_where_they_share_the_network():
    network, samples = recogniser(), points(7)
    assert torch.equal(predict(network, samples, of_source=True).logits, predict(network, samples).logits)


def test_predicting_is_in_evaluation_mode_and_leaves_the_mode_as_it_was():
    network = recogniser(depth=1)
    network.features.layers.append(nn.Dropout(0.5))
    samples = points(20)
    for training in (True, False):
        network.train(training)
        first, second = (predict(network, samples) for _ in range(2))
        assert torch.equal(first.layers[-1], second.layers[-1])
        assert network.training == training


def test_features_that_are_not_finite_are_refused():
    network, samples = recogniser(), points(3)
    samples.x[1, 0] = torch.nan
    with pytest.raises(UserError, match="features became NaN or infinite"):
        predict(network, samples)


def test_a_file_that_cannot_be_read_is_raised(tmp_path):
    (tmp_path / "0.png").write_bytes(b"junk")
    files = Files(str(tmp_path), ["0.png"])
    with pytest.raises(UserError, match=r"'0.png'"):
        predict(recogniser(), Streamed(files, None, 3, ImageFiles()))


def test_a_subset_is_always_the_same():
    samples = Resident(torch.arange(100.0)[:, None], torch.arange(100), torch.arange(100))
    chosen, again = subset(samples, 30), subset(samples, 30)
    assert torch.equal(chosen.x, again.x)
    assert len(chosen.x.unique()) == 30
    assert chosen.label.tolist() == chosen.attribute.tolist() == chosen.x[:, 0].tolist()
    assert chosen.label.tolist() != list(range(30)), "not the first ones: files are sorted by class"
    assert subset(samples, 100) is samples
