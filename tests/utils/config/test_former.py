"""Keys of earlier versions: what was saved with them can still be read and resumed."""

import pytest

from tests.utils.config.configs import refusal
from utils.config.identity import differences, identity
from utils.config.loading import load

ADDA = "data: {name: moons}\nmodel: {name: dense}\ngame: {name: adaptation, method: adda"
TODAY = ["init.run=runs/a", "init.weights=ema", "init.parts=[generator]"]


def test_the_run_that_adda_starts_from(write):
    """In the config of a run, in a checkpoint, and on the command line."""
    old = load(write(f"{ADDA}, pretrained: runs/a}}\n", "old.yaml"), [])
    recipe = write(f"{ADDA}}}\n", "new.yaml")
    new = load(recipe, TODAY)
    assert (old.init, old.game) == (new.init, new.game)
    assert load(recipe, ["game.pretrained=runs/a"]).init == new.init

    saved = {key: value for key, value in identity(new).items() if not key.startswith("init.")}
    assert differences({**saved, "game.pretrained": "runs/a"}, identity(new)) == {}
    other = differences({**saved, "game.pretrained": "runs/b"}, identity(new))
    assert other == {"init.run": "init.run: runs/b -> runs/a"}


@pytest.mark.parametrize("game", ["adaptation", "generation"])
def test_no_such_run(write, game):
    path = write(f"game: {{name: {game}, pretrained: ''}}\n", "config.yaml")
    words = ["data.name=moons", "model.name=dense"] if game == "adaptation" else []
    assert load(path, words).init.run == ""


def test_what_was_never_a_key_is_unknown(empty):
    assert "'game.pretraned'" in refusal(empty, "game.pretraned=runs/a")
