"""Another model.name, game.name or data.name than a recipe's: which keys go, which stay, which are refused."""

import pytest

from tests.utils.config.configs import refusal
from utils.config.loading import load, load_run
from utils.config.sections import GAMES


@pytest.fixture
def r3gan(write):
    """A recipe whose base has networks with keys that other families lack."""
    write("model: {name: r3gan, latent_dim: 7, widths: [8, 8], blocks: 3}\n", "base.yaml")
    return write("base: base.yaml\nseed: 3\n")


def test_another_family_on_a_recipe_leaves_out_the_keys_of_the_former(r3gan, capsys):
    config = load(r3gan, ["model.name=dcgan"])
    assert (config.model.name, config.model.latent_dim, config.model.critic_width, config.seed) == ("dcgan", 7, 64, 3)
    base = r3gan.with_name("base.yaml")
    told = f"warning: model.name=dcgan: left out of {base}: model.widths, model.blocks.\n"
    assert capsys.readouterr() == ("", told)


def test_a_recipe_may_choose_another_family_than_its_base(r3gan, write, capsys):
    config = load(write("base: recipe.yaml\nmodel: {name: mlp, width: 5}\n", "derived.yaml"), [])
    assert (config.model.name, config.model.latent_dim, config.model.width) == ("mlp", 7, 5)
    assert "model.name=mlp: left out of" in capsys.readouterr().err


def test_the_same_family_leaves_out_nothing(r3gan, capsys):
    assert load(r3gan, ["model.name=r3gan"]).model.widths == [8, 8]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("overrides", [["model.widths=[4]"], ["model.blocks=2"]], ids=str)
def test_keys_of_the_former_family_on_the_command_line_are_refused(r3gan, overrides):
    assert "is a key of model.name=r3gan, and model.name is dcgan" in refusal(r3gan, "model.name=dcgan", *overrides)


def test_keys_of_the_wrong_family_in_the_file_that_names_the_family_are_refused(write):
    text = refusal(write("model: {name: dcgan, widths: [8]}\n"))
    assert "'model.widths'" in text
    assert "recipe.yaml" in text


def test_a_key_of_no_family_is_refused_although_the_family_changes(write):
    path = write("model: {name: r3gan, wdths: [8]}\n")
    assert "Unknown key 'model.wdths'" in refusal(path, "model.name=dcgan")


def test_another_game_on_a_recipe_leaves_out_the_keys_of_the_former(write, capsys):
    path = write("game: {conditional: true, objective: hinge}\n")
    config = load(path, ["game.name=adaptation", "data.name=moons", "model.name=dense"])
    assert (config.game.name, config.game.objective, config.game.method) == ("adaptation", "hinge", "dann")
    assert f"game.name=adaptation: left out of {path}: game.conditional." in capsys.readouterr().err


def test_a_base_may_be_of_a_game_that_its_data_do_not_fit(write):
    """Only the names that hold in the end must exist together."""
    write("data: {name: moons}\n", "data.yaml")
    path = write("base: data.yaml\ngame: {name: adaptation}\nmodel: {name: dense}\n")
    assert load(path, []).data.name == "moons"


def test_a_run_of_an_older_version_has_the_defaults_of_other_games(write, tmp_path, capsys):
    """It can be read; other values of those keys were another game's."""
    path = write("game:\n  name: generation\n  method: dann\n  margin: 4.0\n  pretrained: ''\n", "config.yaml")
    assert load_run(tmp_path, []).game == GAMES["generation"]()
    assert f"left out of {path}: game.method, game.margin." in capsys.readouterr().err
    write("game:\n  name: generation\n  margin: 3.0\n", "config.yaml")
    assert "'game.margin'" in refusal(path)


@pytest.mark.parametrize(
    ("keys", "rule", "left_out"),
    [
        ("rule: alternating, reuse_fakes: true", "single_pass", ["update.reuse_fakes"]),
        ("rule: alternating, reuse_fakes: true", "simultaneous", ["update.reuse_fakes"]),
        ("lookahead: 1, generator_lookahead: 2", "alternating", ["update.lookahead", "update.generator_lookahead"]),
        (
            "lookahead: 1, lookahead_schedule: linear_decay",
            "alternating",
            ["update.lookahead", "update.lookahead_schedule"],
        ),
    ],
)
def test_another_rule_leaves_out_what_it_refuses_of_the_former(write, capsys, keys, rule, left_out):
    path = write(f"update: {{{keys}, coefficient: 2}}\n")
    update = load(path, [f"update.rule={rule}"]).update
    assert (update.rule, update.reuse_fakes, update.lookahead, update.generator_lookahead) == (rule, False, 0, 0)
    assert update.coefficient == 2
    told = f"left out of {path}, which has it for another rule: {', '.join(left_out)}."
    assert capsys.readouterr().err == f"warning: update.rule={rule}: {told}\n"


def test_a_rule_that_serves_them_leaves_out_nothing(write, capsys):
    path = write("update: {lookahead: 1}\n")
    assert load(path, ["update.rule=simultaneous"]).update.lookahead == 1
    path = write("update: {reuse_fakes: true, rule: alternating}\n")
    assert load(path, ["update.rule=alternating"]).update.reuse_fakes
    assert load(path, ["update.rule=single_pass", "update.reuse_fakes=false"]).update.rule == "single_pass"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("overrides", [["update.rule=alternating", "update.lookahead=1"], ["update.reuse_fakes=true"]])
def test_what_is_given_together_with_the_rule_or_after_it_is_refused(write, overrides):
    path = write("update: {rule: single_pass}\n")
    assert overrides[-1].partition("=")[0] in refusal(path, *overrides)


def test_what_a_recipe_has_switched_off_of_its_base_is_not_told(write, capsys):
    write("update: {lookahead: 1}\n", "base.yaml")
    path = write("base: base.yaml\nupdate: {lookahead: 0, lookahead_schedule: constant}\n")
    assert load(path, ["update.rule=alternating"]).update.lookahead == 0
    assert capsys.readouterr() == ("", "")
