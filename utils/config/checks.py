"""Rules for the values of a config: each on its own, and several together.

What needs the data, the networks or the device is checked where these are built.
"""

import dataclasses
from collections.abc import Collection

from adversarial import augmentation
from adversarial.domains import METHODS
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import PENALTIES
from models import FAMILIES
from utils.config import fields
from utils.config.sections import (
    AdaptationConfig,
    Config,
    GenerationConfig,
    InvarianceConfig,
    metric_named,
    penalised_slope,
    schedules,
)
from utils.errors import UserError

# Keys of model.* that describe only what reads labels.
OF_LABELS = ("label_layers", "shared_embedding")
# What a penalty may need of a game (``adversarial.penalties.Penalty.needs``), in words.
NEEDS = {
    "fakes": "fakes",
    "samples": "samples that a generator makes (game.name=generation)",
    "images": "square images that a generator makes (game.name=generation)",
    "mapping": "a generator with a mapping network",
}


def check(config: Config) -> None:
    """Raise UserError for the first value that is out of bounds, or does not fit the others."""
    if config.train.precision == "fp16":
        raise UserError(
            "train.precision=fp16 is not offered: its range holds neither small critic gradients nor the floor of "
            "the single pass; use bf16."
        )
    fields.check(config)
    if "/" in config.run.name or config.run.name in (".", ".."):
        raise UserError(f"run.name is '{config.run.name}' and must be a plain folder name; the parent is run.dir.")
    _check_schedules(config)
    _check_burn_in(config)
    _check_reused_fakes(config)
    _check_lookahead(config)
    _check_augment(config)
    _check_model(config)
    check_penalties(config, config.game.offers, f"game.name={config.game.name}")
    if isinstance(config.game, GenerationConfig):
        _check_generation(config)
    if isinstance(config.game, AdaptationConfig | InvarianceConfig):
        _check_domains(config)
    _check_compile(config)
    _check_best(config)
    _check_features(config)


def _check_schedules(config: Config) -> None:
    for key, schedule in schedules(config).items():
        if config.train.steps is None and schedule != "constant":
            raise UserError(
                f"{key}={schedule} runs over train.steps, which is null: set train.steps=20000 or {key}=constant."
            )


def _check_burn_in(config: Config) -> None:
    burn_in = config.burn_in
    for key in dataclasses.fields(burn_in):
        if not burn_in.images and getattr(burn_in, key.name) != key.default:
            raise UserError(
                f"burn_in.{key.name} needs the length of the burn-in: set burn_in.images=20000000, for example."
            )
    if burn_in.augment_p is not None and config.augment.name != augmentation.SCHEDULED:
        raise UserError(
            f"burn_in.augment_p is for augment.name=scheduled, and augment.name is {config.augment.name}; "
            "leave it null."
        )
    if burn_in.beta2 is not None and config.optimizer.name != "adam":
        raise UserError(f"burn_in.beta2 is Adam's, and optimizer.name is {config.optimizer.name}; leave it null.")


def _check_reused_fakes(config: Config) -> None:
    if config.update.reuse_fakes and config.update.rule != "alternating":
        raise UserError(f"update.reuse_fakes is for update.rule=alternating; {config.update.rule} shares its fakes.")
    if config.update.reuse_fakes and not isinstance(config.game, GenerationConfig):
        raise UserError(
            f"update.reuse_fakes with game.name={config.game.name} has both players move from the same point, at a "
            "higher price than update.rule=simultaneous or update.rule=single_pass; use one of these."
        )
    if config.update.reuse_fakes and config.train.accumulate > 1:
        raise UserError(
            "update.reuse_fakes keeps the graphs of all micro-batches, so train.accumulate would save no memory; "
            "choose one of the two."
        )


def _check_lookahead(config: Config) -> None:
    for key in ("lookahead", "generator_lookahead"):
        given = getattr(config.update, key)
        if given and config.update.rule == "alternating":
            raise UserError(
                f"update.{key}={given} is for rules whose players move from the same point, and under "
                "update.rule=alternating each player answers the other's last step anyway; use "
                f"update.rule=single_pass, update.rule=simultaneous or update.{key}=0."
            )


def _check_augment(config: Config) -> None:
    augment = config.augment
    try:
        augmentation.augmentation(augment.name, augment.policy)
    except ValueError as error:
        raise UserError(f"augment.policy does not fit augment.name={augment.name}: {error}.") from None
    if augment.name == augmentation.ADAPTIVE and OBJECTIVES[config.game.objective].boundary is None:
        raise UserError(
            "augment.name=ada moves p by how many real scores are on the real side of a boundary, and "
            f"game.objective={config.game.objective} has none; use augment.name=scheduled."
        )


def _check_model(config: Config) -> None:
    """Raise UserError if the family of networks does not play the game."""
    families = [name for name, family in FAMILIES.items() if getattr(family, config.game.networks) is not None]
    if config.model.name not in families:
        raise UserError(
            f"model.name={config.model.name} does not play game.name={config.game.name}; choose {', '.join(families)}."
        )
    defaults = vars(FAMILIES[config.model.name].config())
    for key in OF_LABELS:
        given = getattr(config.model, key, None)
        if given != defaults.get(key) and not config.game.conditional:
            raise UserError(
                f"model.{key}={given} is of class-conditional networks; set game.conditional=true or "
                f"model.{key}={defaults[key]}."
            )


def _check_generation(config: Config) -> None:
    game = config.game
    if game.auxiliary and not game.conditional:
        raise UserError(f"game.auxiliary={game.auxiliary} needs classes: set game.conditional=true.")
    if game.auxiliary and config.update.rule == "single_pass":
        raise UserError(
            "game.auxiliary has both players want the same class but opposite scores, which one backward pass cannot "
            "tell apart; use update.rule=simultaneous or update.rule=alternating."
        )
    if config.train.batch_size % game.pack:
        raise UserError(
            f"train.batch_size is {config.train.batch_size} and must be a multiple of game.pack={game.pack}, samples "
            "that the critic judges at once."
        )
    if game.pack > 1 and game.conditional:
        raise UserError(
            f"game.pack={game.pack} gives several samples one score, and game.conditional=true gives each sample its "
            "class; use game.pack=1 or game.conditional=false."
        )


def _check_domains(config: Config) -> None:
    """Raise UserError for settings that games of domains have no use for, or that do not fit their method."""
    if config.augment.name != "none":
        raise UserError(f"augment.name={config.augment.name} is for game.name=generation; use augment.name=none.")
    starts = config.init.run and "generator" in config.init.parts
    if METHODS[config.game.method].split and not starts:
        raise UserError(
            f"game.method={config.game.method} starts from a recogniser of the source, and init.run="
            f"'{config.init.run}', init.parts={config.init.parts} give it none: train one with "
            "game.method=source_only, and set init.run to the folder of that run."
        )
    if isinstance(config.game, InvarianceConfig) and OBJECTIVES[config.game.objective].pairs:
        raise UserError(
            f"game.objective={config.game.objective} compares reals with fakes, and game.name=invariance has no "
            "fakes; choose minimax or non_saturating."
        )


def check_penalties(config: Config, offered: Collection[str], where: str) -> None:
    """Raise UserError for a penalty in use that needs something which is not ``offered`` (keys of ``NEEDS``).

    ``where`` says in the sentence what it is that does not offer it.
    """
    given = vars(config.penalty)
    for name, penalty in PENALTIES.items():
        if given[name] and penalty.needs and penalty.needs not in offered:
            raise UserError(
                f"penalty.{name}={given[name]} needs {NEEDS[penalty.needs]}, and {where} has none; "
                f"use penalty.{name}=0."
            )


def _check_compile(config: Config) -> None:
    penalised = penalised_slope(config)
    one_score = isinstance(config.game, GenerationConfig) and not config.game.auxiliary
    if config.train.compile and penalised and not one_score:
        raise UserError(
            f"train.compile cannot serve penalty.{penalised} in this game: the compiler has no double backward, and "
            "the way around it is only for one critic with one score; use train.compile=false."
        )


def _check_best(config: Config) -> None:
    metrics = config.game.metrics
    if metric_named(config.checkpoint.best, ("auto", "none", *metrics)) is None:
        raise UserError(
            f"checkpoint.best={config.checkpoint.best} cannot choose a model of game.name={config.game.name}; valid "
            f"are: auto, none, {', '.join(metrics)}."
        )


def _check_features(config: Config) -> None:
    given = config.evaluate
    if given.features != "auto" and config.game.networks != "generator":
        raise UserError(
            f"evaluate.features={given.features} is for game.name=generation: a game of domains is measured in its own "
            "features; leave it auto."
        )
    if given.features_file and given.features in ("auto", "classifier"):
        raise UserError(
            f"evaluate.features_file is given and evaluate.features={given.features} reads no file; choose "
            "evaluate.features=file, or the space that the weights are of."
        )
    if min(given.features_std) <= 0:
        raise UserError(f"evaluate.features_std is {given.features_std} and must be above 0.")
