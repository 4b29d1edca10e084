"""Every draw is a function of (seed, stream, step, index in the global batch), and of nothing else."""

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adversarial.draws import BLOCK, Draw, rng, seed_of

CPU = torch.device("cpu")
KINDS = ["normal", "uniform", "noise"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def a_draw(*names, batch_size: int = 8, rows: slice = slice(None)) -> Draw:
    return Draw(names or (0, 5, 0), batch_size, rows, CPU)


def numbers(draw: Draw, kind: str = "normal", stream: str = "latent", shape: tuple[int, ...] = (3,)) -> torch.Tensor:
    return getattr(draw, kind)(stream, shape)


@every_kind
def test_the_same_call_returns_the_same_numbers(kind):
    draw = a_draw()
    first = numbers(draw, kind)
    numbers(draw, kind, "another")
    torch.randn(7)
    assert torch.equal(numbers(draw, kind), first)
    assert torch.equal(numbers(a_draw(), kind), first)


@every_kind
def test_drawing_leaves_the_global_generator_alone(kind):
    before = torch.random.get_rng_state()
    numbers(a_draw(), kind)
    numbers(a_draw().fork("again"), kind)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_kind
def test_the_global_generator_does_not_reach_a_draw(kind):
    torch.manual_seed(1)
    first = numbers(a_draw(), kind)
    torch.manual_seed(2)
    assert torch.equal(numbers(a_draw(), kind), first)


# Widths of 1 and 16 go through different code in PyTorch, and so do batches on either side of 16 numbers.
@settings(max_examples=60, deadline=None)
@given(
    share=st.integers(1, 9),
    world=st.integers(1, 8),
    shape=st.sampled_from([(), (1,), (3,), (16,), (1, 1, 1)]),
    kind=st.sampled_from(KINDS),
)
@example(share=1, world=8, shape=(), kind="normal")
def test_the_rows_of_all_processes_are_those_of_one(share, world, shape, kind):
    size = share * world
    whole = numbers(a_draw(batch_size=size), kind, shape=shape)
    rows = [slice(i * share, (i + 1) * share) for i in range(world)]
    parts = [numbers(a_draw(batch_size=size, rows=r), kind, shape=shape) for r in rows]
    assert whole.shape == (size, *shape)
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(BLOCK - 1, BLOCK + 1), slice(BLOCK, 2 * BLOCK), slice(3, 40)])
def test_noise_of_some_rows_is_that_of_the_whole_batch_and_no_more_is_drawn(rows):
    """A row's noise does not depend on the size of the batch; blocks that a process has no row of are left out."""
    whole = numbers(a_draw(batch_size=40), "noise")
    own = numbers(a_draw(batch_size=40 if rows.stop == 40 else 64, rows=rows), "noise")
    assert torch.equal(own, whole[rows])
    blocks = -(-rows.stop // BLOCK) - rows.start // BLOCK
    assert own.untyped_storage().nbytes() == blocks * BLOCK * 3 * own.itemsize


def test_rows_of_different_blocks_have_different_noise():
    x = numbers(a_draw(batch_size=3 * BLOCK), "noise")
    assert len(x.unique()) == x.numel()


DIFFERENT = {
    "seed": a_draw(1, 5, 0),
    "step": a_draw(0, 6, 0),
    "round": a_draw(0, 5, 1),
    "fork": a_draw().fork("reused"),
    "fork-of-a-fork": a_draw().fork("reused").fork("reused"),
    "seed-and-step-swapped": a_draw(5, 0, 0),
    "digits-moved-over": a_draw(0, 50),
}


@every_kind
@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_another_name_gives_other_numbers(other, kind):
    assert not bool((numbers(other, kind) == numbers(a_draw(), kind)).any())


@every_kind
def test_another_stream_gives_other_numbers(kind):
    assert not bool((numbers(a_draw(), kind, "latent") == numbers(a_draw(), kind, "mixing")).any())


def test_two_forks_differ_and_one_fork_is_itself():
    draw = a_draw()
    assert torch.equal(numbers(draw.fork("a")), numbers(draw.fork("a")))
    assert not torch.equal(numbers(draw.fork("a")), numbers(draw.fork("b")))


def test_a_fork_keeps_the_rows():
    draw = a_draw(rows=slice(2, 4))
    assert numbers(draw.fork("a")).shape == (2, 3)
    assert torch.equal(numbers(draw.fork("a")), numbers(a_draw().fork("a"))[2:4])


def test_a_draw_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_draw().batch_size = 3


@pytest.mark.parametrize("kind", ["normal", "noise"])
def test_the_moments_of_normal_numbers(kind):
    """Bounds are 5 standard errors: σ/√n of a mean, σ²·√(2/n) of a variance."""
    n = 4096 * 16
    x = numbers(a_draw(batch_size=4096), kind, shape=(16,)).double()
    assert abs(float(x.mean())) < 5 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 5 * math.sqrt(2 / n)


def test_the_moments_of_uniform_numbers():
    """In [0, 1), mean 1/2 and variance 1/12; the variance of (x - 1/2)² is 1/80 - 1/144 = 1/180."""
    n = 4096 * 16
    x = numbers(a_draw(batch_size=4096), "uniform", shape=(16,)).double()
    assert float(x.min()) >= 0
    assert float(x.max()) < 1
    assert abs(float(x.mean()) - 1 / 2) < 5 * math.sqrt(1 / 12 / n)
    assert abs(float(((x - 1 / 2) ** 2).mean()) - 1 / 12) < 5 * math.sqrt(1 / 180 / n)


@every_kind
def test_samples_of_a_batch_are_independent_of_their_neighbours(kind):
    """Correlation of a row with the next: of standard error 1/√n without any."""
    x = numbers(a_draw(batch_size=4096), kind, shape=(16,)).double()
    x = (x - x.mean()) / x.std()
    assert abs(float((x[1:] * x[:-1]).mean())) < 5 / math.sqrt(x[1:].numel())


def test_consecutive_steps_are_uncorrelated():
    x, y = (numbers(a_draw(0, step, 0, batch_size=4096), shape=(16,)).double() for step in (5, 6))
    assert abs(float((x * y).mean())) < 5 / math.sqrt(x.numel())


# --- Seeds


@settings(max_examples=100)
@given(st.lists(st.integers(-(2**80), 2**80) | st.text(max_size=5), min_size=1, max_size=4))
def test_a_seed_is_a_63_bit_function_of_the_names(names):
    assert 0 <= seed_of(*names) < 2**63
    assert seed_of(*names) == seed_of(*names)


def test_seeds_stay_what_they_are():
    """A run that resumes after an update of this file would go on with other numbers, and nobody would know."""
    assert seed_of(0, "order", 0) == 1829853113658518448


def test_the_names_of_a_seed_do_not_run_together():
    assert len({seed_of(1, 23), seed_of(12, 3), seed_of(123), seed_of("1", "2", "3"), seed_of(3, 12)}) == 5


def test_generators_of_the_same_names_agree():
    first, second = (torch.rand(4, generator=rng(0, "a")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=rng(0, "b")))
