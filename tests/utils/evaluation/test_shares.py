"""The shares of several processes are together what one process draws and reads."""

import pytest
import torch

from models import dcgan
from utils.data.samples import DataSet, Modes, Resident
from utils.evaluation import sampling
from utils.evaluation.features import Features
from utils.evaluation.generation import Settings, evaluate, share_of

COUNT, LATENT = 40, 4


def split(n: int, channels: int) -> Resident:
    draw = torch.Generator().manual_seed(n)
    return Resident(torch.randint(0, 256, (n, channels, 8, 8), generator=draw, dtype=torch.uint8), torch.arange(n) % 3)


def images() -> DataSet:
    return DataSet("tiny", (1, 8, 8), 3, split(30, 1), split(12, 1))


def stacks() -> DataSet:
    return DataSet("stacks", (3, 8, 8), 1000, split(5, 3), None, channel=images())


@pytest.mark.parametrize(("data", "conditional"), [(images(), False), (images(), True), (stacks(), False)], ids=str)
def test_they_are_the_whole_and_give_its_numbers(tmp_path, monkeypatch, data, conditional):
    """Bit for bit, of any number of processes, also where some have nothing to do: there are six batches."""
    monkeypatch.setattr(sampling, "BATCH", 7)
    config = dcgan.Config(latent_dim=LATENT, generator_width=4)
    generator, settings = dcgan.Generator(config, data.shape, 3 * conditional), Settings(LATENT, COUNT, 5, conditional)
    whole = evaluate(generator, data, settings, tmp_path)
    for size in (1, 2, 4, 9):
        shares = [share_of(generator, data, settings, tmp_path, rank, size) for rank in range(size)]
        working = [share for share in shares if share]
        assert shares[: len(working)] == working
        assert len(working) == {1: 1, 2: 2, 4: 3, 9: 6}[size]
        assert {share.sha256 for share in working} == {working[0].sha256}
        fields = zip(*(share.features for share in working), strict=True)
        made = Features(*(None if values[0] is None else torch.cat(values) for values in fields))
        assert evaluate(generator, data, settings, tmp_path, made) == whole


def test_points_are_not_shared(tmp_path):
    data = DataSet("ring", (2,), 3, Resident(torch.zeros(4, 2), torch.arange(4)), None, Modes(torch.zeros(3, 2), 0.1))
    assert share_of(torch.nn.Linear(LATENT, 2), data, Settings(LATENT, COUNT, 5), tmp_path, 0, 2) is None
