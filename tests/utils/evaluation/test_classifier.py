"""The feature network of the metrics: trained once, always the same, kept in a file."""

import hashlib
import os
import stat
import struct

import pytest
import torch
from safetensors.torch import save_file

from utils.data.samples import DataSet, Resident, to_images
from utils.evaluation import classifier as module
from utils.evaluation.classifier import Classifier, ClassShares, class_shares, classifier, sha256

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 3)


@pytest.fixture
def training(monkeypatch) -> list:
    """One entry for every time that the network is trained."""
    original, times = module._trained, []

    def noted(*arguments):
        times.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(module, "_trained", noted)
    return times


def data_of(classes: int = 3, size: int = 8, channels: int = 1, n: int = 30) -> DataSet:
    """Each class is bright in a different column."""
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(n) % classes
    x = torch.randint(0, 60, (n, channels, size, size), generator=draw, dtype=torch.uint8)
    for i in range(n):
        x[i, :, :, 2 * label[i]] += 190
    return DataSet("columns", (channels, size, size), classes, Resident(x, label), Resident(x[:9], label[:9]))


def same(a: Classifier, b: Classifier) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_is_trained_once_and_then_read(tmp_path, training):
    folder = tmp_path / "new"
    first = classifier(data_of(), folder, CPU)
    assert len(training) == 1
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]
    second = classifier(data_of(), folder, CPU)
    assert len(training) == 1
    assert same(first, second)
    assert sha256(first) == sha256(second)


def test_it_is_frozen_and_in_evaluation_mode(tmp_path):
    for _ in ("trained", "read"):
        network = classifier(data_of(), tmp_path / "c", CPU)
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("state", [1, 2])
def test_it_is_the_same_whatever_was_drawn_before(tmp_path, state):
    want = sha256(classifier(data_of(), tmp_path / "a", CPU))
    torch.manual_seed(state)
    assert sha256(classifier(data_of(), tmp_path / "b", CPU)) == want


def test_training_leaves_the_global_generator_alone(tmp_path):
    network = Classifier((1, 8, 8), 3)
    before = torch.random.get_rng_state()
    module._trained(network, data_of().train, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage" * 100),
    "cut-in-its-header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "cut-in-its-weights": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "no-such-tensors": lambda path: save_file({"other": torch.ones(1)}, path),
    "of-fewer-classes": lambda path: save_file(Classifier((1, 8, 8), 2).state_dict(), path),
    "of-larger-images": lambda path: save_file(Classifier((1, 16, 16), 3).state_dict(), path),
    "of-colour": lambda path: save_file(Classifier((3, 8, 8), 3).state_dict(), path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_cannot_be_used_is_made_again(tmp_path, training, damage):
    want = classifier(data_of(), tmp_path, CPU)
    damage(next(tmp_path.iterdir()))
    again = classifier(data_of(), tmp_path, CPU)
    assert len(training) == 2
    assert same(again, want)
    assert same(classifier(data_of(), tmp_path, CPU), want)
    assert len(training) == 2


def test_another_training_set_has_a_network_of_its_own(tmp_path, training):
    data = data_of()
    darker = DataSet(data.name, data.shape, data.classes, Resident(data.train.x // 2, data.train.label), data.test)
    first = classifier(data, tmp_path, CPU)
    assert not same(first, classifier(darker, tmp_path, CPU))
    assert same(first, classifier(data, tmp_path, CPU))
    assert len(training) == 2


def test_it_does_not_depend_on_the_number_of_threads(tmp_path):
    threads = torch.get_num_threads()
    try:
        found = set()
        for n in (1, 2):
            torch.set_num_threads(n)
            found.add(sha256(classifier(data_of(), tmp_path / str(n), CPU)))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_it_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 40)
    data = data_of()
    network = classifier(data, tmp_path / "c", CPU)
    answer = network(to_images(data.train.x, CPU)).argmax(1)
    assert torch.equal(answer, data.train.label)


def test_it_never_sees_the_held_out_split(tmp_path):
    data = data_of()
    want = sha256(classifier(data, tmp_path / "a", CPU))
    other = DataSet(data.name, data.shape, data.classes, data.train, Resident(data.test.x * 0, data.test.label * 0))
    assert sha256(classifier(other, tmp_path / "b", CPU)) == want


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 28, 28), (3, 32, 32), (3, 33, 33)], ids=str)
def test_it_takes_images_of_any_size(shape):
    network = Classifier(shape, 7).eval()
    x = torch.zeros(2, *shape)
    assert network(x).shape == (2, 7)
    assert network.features(x).shape == (2, network.num_features)


# --- The fingerprint


def test_a_fingerprint_is_a_function_of_the_weights():
    a, b = (torch.nn.Linear(2, 2) for _ in range(2))
    b.load_state_dict(a.state_dict())
    assert sha256(a) == sha256(b)
    assert len(sha256(a)) == 64
    with torch.no_grad():
        b.weight[0, 0] += 1e-3
    assert sha256(a) != sha256(b)


def test_a_fingerprint_stays_what_it_is():
    """It stands in records: one that meant something else after an update would be worse than none."""
    network = torch.nn.Linear(2, 1)
    network.load_state_dict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})
    written = b"bias" + struct.pack("<1f", 3) + b"weight" + struct.pack("<2f", 1, 2)
    assert sha256(network) == hashlib.sha256(written).hexdigest()


def test_a_fingerprint_does_not_depend_on_the_memory_layout():
    network = torch.nn.Conv2d(3, 4, 3)
    want = sha256(network)
    assert sha256(network.to(memory_format=torch.channels_last)) == want


def test_bytes_become_images():
    got = to_images(torch.tensor([0, 255], dtype=torch.uint8), CPU)
    assert got.tolist() == [-1.0, 1.0]
    assert got.dtype == torch.float32


# --- What it reads


def test_class_shares_by_hand():
    probability = torch.tensor([[0.95, 0.05, 0.0], [0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.2, 0.75, 0.05]])
    read = class_shares(probability, threshold=0.7)
    assert read == ClassShares(confident=0.75, rarest=0.0, shares=[0.5, 0.5, 0.0])


def test_class_shares_at_the_threshold_is_not_above_it():
    assert class_shares(torch.tensor([[0.5, 0.5]]), threshold=0.5).confident == 0.0


def test_class_shares_of_a_balanced_set():
    read = class_shares(torch.eye(4).repeat(2, 1))
    assert read == ClassShares(confident=1.0, rarest=0.25, shares=[0.25] * 4)


def test_class_shares_of_one_class_only():
    read = class_shares(torch.eye(4)[:1].expand(5, 4))
    assert read == ClassShares(confident=1.0, rarest=0.0, shares=[1.0, 0.0, 0.0, 0.0])


def test_its_file_can_be_read_by_whom_the_umask_lets(tmp_path, training):
    before = os.umask(0o022)
    try:
        classifier(data_of(), tmp_path, CPU)
    finally:
        os.umask(before)
    (path,) = tmp_path.glob("classifier-*.safetensors")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, training, capsys):
    (tmp_path / "file").write_text("in the way")
    network = classifier(data_of(), tmp_path / "file", CPU)
    assert not network.training
    assert "could not be kept" in capsys.readouterr().err
