"""Games: what is played and judged."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adversarial.games import Batch, GenerationGame, Pair, Side, packed
from tests.adversarial.toy_games import (
    CLASSES,
    LATENT,
    SHAPE,
    SeededDraw,
    image_batch,
    image_game,
)


def fakes(game: GenerationGame, batch: Batch, draw: SeededDraw) -> Tensor:
    return game.play(batch, draw).pairs[0].fake.samples


@torch.no_grad()
def judged(game: GenerationGame, pairs: list[Pair]) -> list[Tensor]:
    """Scores of the sides, real before fake."""
    game.judge(pairs)
    return [side.score for pair in pairs for side in pair if side is not None]


# --- the generation game -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
def test_play_is_a_function_of_batch_and_draw(conditional):
    game, batch = image_game(conditional=conditional), image_batch()
    play = game.play(batch, SeededDraw(4))
    real, fake = play.pairs[0]
    assert real.samples is batch.x
    assert torch.equal(fake.samples, fakes(game, batch, SeededDraw(4)))
    assert not torch.equal(fake.samples, fakes(game, batch, SeededDraw(4).fork("other")))
    assert fake.samples.shape == (4, *SHAPE)
    assert play.task_loss is None
    # A fake has the label of the real sample at its place; a game without a condition keeps the data's labels out.
    for side in (real, fake):
        assert side.condition is (batch.label if conditional else None)


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_together_or_apart_gives_the_same_scores(norm, conditional):
    """Where the critic judges each sample on its own, one call on both halves is only a matter of speed."""
    together, apart = (image_game(norm, conditional, together=t) for t in (True, False))
    play = together.play(image_batch(), SeededDraw(4))
    alone = [Pair(None, copy.copy(play.pairs[0].fake))]
    scores = judged(together, play.pairs) + judged(together, alone)
    expected = judged(apart, play.pairs)
    for a, b in zip(scores, [*expected, expected[1]], strict=True):
        assert a.shape == (4,)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_batch_norm_sees_real_and_fake_apart():
    """Radford et al. 2016 give the critic a batch of each: its statistics, and so its scores, are another's."""
    game = image_game("batch", together=False)
    play = game.play(image_batch(), SeededDraw(4))
    real, fake = judged(game, play.pairs)
    samples = [side.samples for side in play.pairs[0]]
    with torch.no_grad():
        assert torch.equal(real, game.critic(samples[0]))
        assert torch.equal(fake, game.critic(samples[1]))
        mixed = game.critic(torch.cat(samples))
    assert not torch.allclose(torch.cat([real, fake]), mixed, rtol=1e-2)


def test_the_condition_reaches_both_players():
    game = image_game(conditional=True)
    batch = image_batch()
    other = batch._replace(label=(batch.label + 1) % CLASSES)
    play = game.play(batch, SeededDraw(4))
    fake = fakes(game, batch, SeededDraw(4))
    assert not torch.allclose(fake, fakes(game, other, SeededDraw(4)))
    relabelled = [Pair(Side(batch.x, other.label), Side(fake, other.label))]
    for a, b in zip(judged(game, play.pairs), judged(game, relabelled), strict=True):
        assert not torch.allclose(a, b)


def test_game_takes_any_generator_and_critic():
    """``GenerationGame`` asks nothing of its networks but their calls."""
    game = GenerationGame(nn.Bilinear(LATENT, 1, 2), nn.Bilinear(2, 1, 1), LATENT, conditional=True)
    batch = Batch(torch.randn(4, 2), torch.ones(4, 1))
    play = game.play(batch, SeededDraw(4, dtype=torch.float32))
    assert [score.shape for score in judged(game, play.pairs)] == [(4, 1), (4, 1)]


# --- packs and augmentations -------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=30)
@given(pack=st.integers(1, 4), packs=st.integers(1, 3), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_a_pack_is_samples_in_a_row_side_by_side(pack, packs, shape):
    x = torch.randn(pack * packs, *shape)
    together = packed(x, pack)
    assert together.shape == (packs, pack * shape[0], *shape[1:])
    for i, sample in enumerate(x):
        begin = i % pack * shape[0]
        assert torch.equal(together[i // pack, begin : begin + shape[0]], sample)


def test_real_and_fake_are_augmented_by_different_draws():
    seen = []

    def augment(draw, stream, p):
        seen.append((stream, p))
        return lambda x: 2 * x if stream == "augment real" else 3 * x

    p = torch.tensor(0.25)
    game = image_game(augment=augment, probability=SimpleNamespace(state={"augment_p": p}))
    play = game.play(image_batch(), SeededDraw(4))
    assert seen == [("augment real", p), ("augment fake", p)]
    real, fake = judged(game, play.pairs)
    torch.testing.assert_close(real, game.critic(2 * play.pairs[0].real.samples))
    torch.testing.assert_close(fake, game.critic(3 * play.pairs[0].fake.samples))
    p.fill_(1)
    assert play.report["augment_p"].item() == 0.25  # as it was when the game was played
