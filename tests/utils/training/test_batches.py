"""Batches are a function of (seed, step): whatever the start, the number of processes, the workers, the kind of set."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from adversarial.draws import Draw
from utils.config.sections import Config
from utils.data import datasets
from utils.data.image_files import OwnImages
from utils.data.order import indices_at
from utils.data.points import Points
from utils.data.samples import Resident, Streamed
from utils.errors import UserError
from utils.training import batches
from utils.training.batches import AT_ONCE, rounds

CPU = torch.device("cpu")
ALL = slice(None)
N, SIZE = 10, 8


# --- Rounds


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Ten images of two classes. Their left and right halves differ, and the first pixel is the index."""
    root = tmp_path_factory.mktemp("images")
    draw = torch.Generator().manual_seed(0)
    for i in range(N):
        x = torch.randint(0, 100, (SIZE, SIZE, 3), generator=draw, dtype=torch.uint8)
        x[:, SIZE // 2 :] += 150  # so an image is known from its mirror image
        x[0, 0, 0] = i
        folder = root / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(x.numpy()).save(folder / f"{i}.png")
    return root


def read(root: Path, resident: bool) -> Resident | Streamed:
    config = OwnImages("folder", SIZE, root=str(root), resident_gib=1.0 if resident else 0.0, validation=0.0)
    samples = datasets.load(config, seed=0).train
    assert isinstance(samples, Resident if resident else Streamed)
    return samples


@pytest.fixture(scope="module")
def resident(root) -> Resident:
    return read(root, resident=True)


@pytest.fixture(scope="module")
def streamed(root) -> Streamed:
    return read(root, resident=False)


def settings_of(batch_size: int = 4, critic_steps: int = 1, mirror: bool = True, workers: int = 0) -> Config:
    config = Config(data=OwnImages(mirror=mirror, workers=workers))
    config.train.batch_size, config.update.critic_steps = batch_size, critic_steps
    return config


def first(count: int, config: Config, samples, start: int = 0, rows: slice = ALL) -> list:
    """The rounds of the steps ``start``, ..., ``start + count - 1``."""
    return list(itertools.islice(rounds(config, samples, start, rows, CPU), count))


def assert_same(got: list, want: list) -> None:
    """Equal bit for bit, in memory layout too."""
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert len(ours) == len(theirs)
        for (batch, draw), (other, other_draw) in zip(ours, theirs, strict=True):
            assert torch.equal(batch.x, other.x)
            assert batch.x.stride() == other.x.stride()
            assert (batch.label is None) == (other.label is None)
            assert batch.label is None or torch.equal(batch.label, other.label)
            assert draw == other_draw


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_a_step_has_its_rounds_with_draws_of_their_own(resident, critic_steps):
    config = settings_of(critic_steps=critic_steps)
    for step, drawn in enumerate(first(3, config, resident, start=0)):
        assert [draw for _, draw in drawn] == [Draw((0, step, i), 4, ALL, CPU) for i in range(critic_steps)]
        assert all(batch.x.shape == (4, 3, SIZE, SIZE) for batch, _ in drawn)


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_rounds_read_the_set_in_order_without_gaps(resident, critic_steps):
    config = settings_of(critic_steps=critic_steps, mirror=False)
    drawn = [batch for step in first(5, config, resident) for batch, _ in step]
    order = indices_at(0, N, 0, 4 * 5 * critic_steps)
    want = resident.x[order].float() / 127.5 - 1
    assert torch.equal(torch.cat([batch.x for batch in drawn]), want)
    assert torch.equal(torch.cat([batch.label for batch in drawn]), resident.label[order])


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("critic_steps", [1, 3])
@pytest.mark.parametrize(
    "start", [1, 2, 5, 6]
)  # an epoch is 2.5 steps of one round: in the middle of it and at its end
def test_a_later_start_is_the_same_reading(request, kind, critic_steps, start):
    samples, config = request.getfixturevalue(kind), settings_of(critic_steps=critic_steps)
    assert_same(first(2, config, samples, start), first(start + 2, config, samples)[start:])


@pytest.mark.parametrize(
    ("workers", "start", "critic_steps"),
    [(0, 0, 1), (0, 3, 3), (2, 0, 1), (2, 3, 3)],
    ids=["here", "here-later", "two-workers", "two-workers-later"],
)
def test_streamed_is_resident_bit_for_bit(resident, streamed, workers, start, critic_steps):
    want = first(4, settings_of(critic_steps=critic_steps), resident, start)
    assert_same(first(4, settings_of(critic_steps=critic_steps, workers=workers), streamed, start), want)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_rows_of_all_processes_are_the_global_batch(request, kind, world):
    samples, config, share = request.getfixturevalue(kind), settings_of(batch_size=8, critic_steps=3), 8 // world
    whole = first(3, config, samples, start=1)
    parts = [first(3, config, samples, start=1, rows=slice(i * share, (i + 1) * share)) for i in range(world)]
    for step, i in itertools.product(range(3), range(3)):
        own = [part[step][i] for part in parts]
        assert torch.equal(torch.cat([batch.x for batch, _ in own]), whole[step][i][0].x)
        assert torch.equal(torch.cat([batch.label for batch, _ in own]), whole[step][i][0].label)
        latents = torch.cat([draw.normal("latent", (3,)) for _, draw in own])
        assert torch.equal(latents, whole[step][i][1].normal("latent", (3,)))


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_reading_leaves_the_global_generator_alone(request, kind):
    samples = request.getfixturevalue(kind)
    before = torch.random.get_rng_state()
    first(3, settings_of(), samples)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_reads_in_another_order(resident):
    config = settings_of()
    config.seed = 1
    assert not torch.equal(first(1, config, resident)[0][0][0].x, first(1, settings_of(), resident)[0][0][0].x)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_a_batch_may_be_larger_than_the_set(request, kind):
    samples, config = request.getfixturevalue(kind), settings_of(batch_size=3 * N - 2, mirror=False)
    ((batch, _),) = first(1, config, samples)[0]
    counts = torch.bincount((batch.x[:, 0, 0, 0].add(1).mul(127.5)).round().long(), minlength=N)
    assert len(batch.x) == 3 * N - 2
    assert set(counts.tolist()) == {2, 3}
    assert counts.sum() == 3 * N - 2


@pytest.mark.parametrize("size", [{"batch_size": 10**12}, {"critic_steps": 10**12}, {"batch_size": 2**62}], ids=str)
@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_batches_that_no_memory_holds_are_refused_at_once(request, kind, size):
    with pytest.raises(UserError, match=r"need at least \d+ GiB .* has \d+: lower train.batch_size=\d+ or"):
        first(1, settings_of(**size), request.getfixturevalue(kind))


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_floats_in_the_layout_of_the_networks(resident, channels_last):
    config = settings_of()
    config.train.channels_last = channels_last
    ((batch, _),) = first(1, config, resident)[0]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.x.dtype == torch.float32
    assert batch.x.is_contiguous(memory_format=layout)


def test_black_is_minus_one_and_white_is_one():
    x = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1)
    ((batch, _),) = first(1, settings_of(batch_size=3), Resident(x, None))[0]
    want = torch.tensor([-1.0, 1.0, torch.tensor(51.0) / 127.5 - 1])  # 51/127.5 = 2/5
    assert sorted(batch.x.flatten().tolist()) == sorted(want.tolist())
    assert batch.label is None


def test_all_values_lie_between():
    x = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    ((batch, _),) = first(1, settings_of(batch_size=256), Resident(x, None))[0]
    assert float(batch.x.min()) == -1
    assert float(batch.x.max()) == 1
    assert len(batch.x.unique()) == 256


# --- Mirror images


def flipped(config: Config, samples: Resident, steps: int, start: int = 0) -> torch.Tensor:
    """Whether each image of the steps is the mirror image of the one in the set; a third image is an error."""
    original = samples.x.float() / 127.5 - 1
    seen = []
    for step, drawn in enumerate(first(steps, config, samples, start), start):
        for i, (batch, _) in enumerate(drawn):
            size = config.train.batch_size
            order = indices_at(config.seed, len(samples), (step * len(drawn) + i) * size, size)
            for x, want in zip(batch.x, original[order], strict=True):
                seen.append(not torch.equal(x, want))
                assert torch.equal(x, want.flip(2) if seen[-1] else want)
    return torch.tensor(seen)


def test_about_half_of_the_images_are_mirrored(resident):
    """Within 5 standard deviations √(n/4) of a fair coin."""
    seen = flipped(settings_of(batch_size=50), resident, steps=8)
    assert abs(int(seen.sum()) - len(seen) / 2) < 5 * math.sqrt(len(seen) / 4)


def test_mirroring_is_a_function_of_the_step(resident):
    config = settings_of(batch_size=20)
    whole = flipped(config, resident, steps=3)
    assert torch.equal(flipped(config, resident, steps=1, start=2), whole[40:])
    assert not torch.equal(whole[:20], whole[20:40])


def test_each_round_mirrors_images_of_its_own(resident):
    seen = flipped(settings_of(batch_size=20, critic_steps=2), resident, steps=1)
    assert not torch.equal(seen[:20], seen[20:])


def test_nothing_is_mirrored_unless_asked_for(resident):
    assert not flipped(settings_of(mirror=False), resident, steps=4).any()


# --- Points


@pytest.mark.parametrize("at_once", [AT_ONCE, 150, 1], ids=["32 rounds", "4 rounds", "each by itself"])
@pytest.mark.parametrize("rows", [ALL, slice(2, 4)], ids=["all rows", "half of them"])
def test_samples_are_looked_up_for_several_rounds_at_once(monkeypatch, at_once, rows):
    """Which are the same samples, at the same place in memory: how fast and in which order of sums an operation reads
    them may depend on it. Of 2 float64 a sample, 4 rounds of 2 rows fit into 150 bytes, and 2 of 4 rows.
    """
    monkeypatch.setattr(batches, "AT_ONCE", at_once)
    x = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples, target = Resident(x, torch.arange(N)), Resident(x.flip(0), None)
    config = settings_of(critic_steps=3)
    config.data = Points()
    torch.set_default_dtype(torch.float64)
    drawn = list(itertools.islice(rounds(config, samples, 0, rows, CPU, target), 25))
    for step, i in itertools.product(range(25), range(3)):
        index, other = (indices_at(0, N, 4 * (3 * step + i), 4, order)[rows] for order in ("order", "target"))
        batch = drawn[step][i][0]
        assert torch.equal(batch.x, x[index])
        assert torch.equal(batch.label, index)
        assert torch.equal(batch.target, target.x[other])
    for start in (1, 10, 11, 22):  # rounds 30 and 33 lie around the end of the first 32
        (later,) = itertools.islice(rounds(config, samples, start, rows, CPU, target), 1)
        for (batch, _), (want, _) in zip(later, drawn[start], strict=True):
            for ours, theirs in zip(batch, want, strict=True):
                assert (ours is None) == (theirs is None)
                assert ours is None or torch.equal(ours, theirs)
                assert ours is None or ours.storage_offset() == theirs.storage_offset()


@pytest.mark.parametrize("labelled", [True, False])
def test_points_pass_as_they_are(labelled):
    draw = torch.Generator().manual_seed(0)
    x = 7 * torch.randn(N, 2, generator=draw)
    samples = Resident(x, torch.arange(N) if labelled else None)
    config = settings_of(batch_size=N)
    config.data = Points()
    ((batch, _),) = first(1, config, samples)[0]
    order = indices_at(0, N, 0, N)
    assert torch.equal(batch.x, x[order])
    assert torch.equal(batch.label, order) if labelled else batch.label is None


# --- Files that cannot be used


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_its_own_error(root, tmp_path, workers):
    """Not a loader's stack trace around it."""
    for path in sorted(root.rglob("*.png")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bad = tmp_path / "z-broken.png"  # the last: the first one is opened to see what the set holds
    bad.write_bytes((tmp_path / "0.png").read_bytes()[:100])
    samples = read(tmp_path, resident=False)
    want = samples[N]
    assert isinstance(want, UserError)

    feed = rounds(settings_of(workers=workers), samples, 0, ALL, CPU)
    with pytest.raises(UserError) as caught:
        for _ in range(N):
            next(feed)
    assert type(caught.value) is UserError
    assert str(caught.value) == str(want)
    assert bad.name in str(caught.value)
    assert "\n" not in str(caught.value)
