"""What several tasks check of a config and of a critic."""

from collections.abc import Collection

from adversarial.penalties import PENALTIES
from models import FAMILIES
from utils.config.loading import Config
from utils.errors import UserError

# What a penalty may need of a game (``adversarial.penalties.Penalty.needs``), in words.
NEEDS = {
    "fakes": "fakes",
    "samples": "samples that a generator makes (game.name=generation)",
    "images": "square images that a generator makes (game.name=generation)",
    "mapping": "a generator with a mapping network",
}


def check_game_keys(config: Config) -> None:
    """Raise UserError for keys of ``game.*`` that are for another game.

    Not needed any more once every game has a config section of its own.
    """
    game = config.game
    if game.name == "generation":
        if game.method != "dann" or game.pretrained:
            raise UserError("game.method and game.pretrained are for games of domains: choose game.name=adaptation.")
        return
    if game.conditional:
        raise UserError("game.conditional is for game.name=generation; game.method=cdan conditions on predictions.")
    for name, off in (("auxiliary", 0), ("pack", 1)):
        if (value := getattr(game, name)) != off:
            raise UserError(f"game.{name}={value} is for game.name=generation; use game.{name}={off}.")


def check_family(config: Config, part: str) -> None:
    """Raise UserError unless the model family has the network ``part``: "generator" or "features"."""
    if getattr(FAMILIES[config.model.name], part) is None:
        able = [name for name, family in FAMILIES.items() if getattr(family, part) is not None]
        raise UserError(
            f"model.name={config.model.name} does not play game.name={config.game.name}; choose {', '.join(able)}."
        )


def check_penalties(config: Config, offered: Collection[str], where: str) -> None:
    """Raise UserError for a penalty in use that needs something which is not ``offered`` (keys of ``NEEDS``).

    ``where`` says in the sentence what it is that does not offer it.
    """
    for name, penalty in PENALTIES.items():
        strength = getattr(config.penalty, name)
        if strength and penalty.needs and penalty.needs not in offered:
            raise UserError(
                f"penalty.{name}={strength} needs {NEEDS[penalty.needs]}, and {where} has none; use penalty.{name}=0."
            )


def check_rule(config: Config, coupled: bool, critic: str) -> None:
    """Raise UserError if the critic couples the samples of a batch and the update rule is not exact for that.

    ``critic`` is the setting to name in the sentence.
    """
    if coupled and config.update.rule == "single_pass":
        raise UserError(
            f"update.rule=single_pass needs a critic that judges each sample on its own, and the scores of this one "
            f"({critic}) depend on the whole batch, as with BatchNorm; use update.rule=simultaneous or "
            "update.rule=alternating, or a critic without batch statistics."
        )


def judges_in_one_call(config: Config) -> bool:
    """Whether it costs less to judge real and fake in one call of the critic than in two.

    One call is faster, but a gradient at one side alone then passes through both. The simultaneous rule takes such a
    gradient for the generator, and R1 without R2 (or R2 without R1) takes one for its slope.
    """
    return config.update.rule != "simultaneous" and (config.penalty.r1 > 0) == (config.penalty.r2 > 0)
