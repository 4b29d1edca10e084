"""What several tasks check of a config and of a critic."""

from argparse import Namespace
from collections.abc import Iterable

from utils.config.sections import Config
from utils.errors import UserError


def check_rule(config: Config, coupled: bool, critic: str) -> None:
    """Raise UserError if the critic couples the samples of a batch and the update rule is not exact for that.

    ``critic`` is the setting to name in the sentence.
    """
    other = "model.critic_norm=none" if hasattr(config.model, "critic_norm") else "a critic without batch statistics"
    if coupled and config.update.rule == "single_pass":
        raise UserError(
            f"update.rule=single_pass needs a critic that judges each sample on its own, and the scores of this one "
            f"({critic}) depend on the whole batch, as with BatchNorm; use update.rule=simultaneous or "
            f"update.rule=alternating, or {other}."
        )


def judges_in_one_call(config: Config) -> bool:
    """Whether it costs less to judge real and fake in one call of the critic than in two.

    One call is faster, but a gradient at one side alone then passes through both. The simultaneous rule takes such a
    gradient for the generator, and R1 without R2 (or R2 without R1) takes one for its slope.
    """
    return config.update.rule != "simultaneous" and (config.penalty.r1 > 0) == (config.penalty.r2 > 0)


def refuse_options(options: Namespace, names: Iterable[str], why: str) -> None:
    """Raise UserError if an option of ``sample.py`` was given that would do nothing."""
    for name in names:
        if vars(options)[name] is not None:
            raise UserError(f"--{name} {why}.")
