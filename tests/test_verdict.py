"""The verdict on a domain critic, in tiny runs."""

import pytest

from tests.test_adaptation import run

VERDICTS = ("The critic has learned nothing", "The critic is beaten, as it should be", "The critic wins")
GAMES = {
    "played": ("moons", 1, ["optimizer.generator_lr=0.02", "optimizer.critic_lr=0.02", "update.coefficient=6"]),
    "critic stands still": ("digit_patches", 0, ["data.resolution=8", "optimizer.critic_lr=0"]),
}


@pytest.mark.parametrize(("recipe", "want", "words"), GAMES.values(), ids=GAMES)
def test_a_verdict_comes_late_and_is_right(tmp_path, monkeypatch, capsys, recipe, want, words):
    """After three evaluations, two of which lie before a resumption."""
    monkeypatch.setattr("utils.evaluation.domain_critics.PROBE_STEPS", 100)
    words = ["evaluate.every=100", "evaluate.samples=300", "log.every=100", *words]
    assert run(tmp_path, *words, "train.steps=200", recipe=recipe) == 0
    assert not any(verdict in capsys.readouterr().out for verdict in VERDICTS)
    assert run(tmp_path, *words, "train.steps=300", recipe=recipe) == 0
    out = capsys.readouterr().out
    assert [verdict for verdict in VERDICTS if verdict in out] == [VERDICTS[want]]
