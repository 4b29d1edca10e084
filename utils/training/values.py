"""Values at a step: what a config's schedules, warm-ups and burn-in give. Pure functions of config and step."""

from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR, Penalty
from adversarial.schedules import burn_in, ema_decay, scheduled
from utils.config.sections import Config


def learning_rates_at(cfg: Config, step: int) -> dict[str, float]:
    """The learning rate of each player."""
    optimizer = cfg.optimizer
    factor = scheduled(1.0, optimizer.schedule, step, cfg.train.steps, optimizer.warmup)
    factor *= _burned_in(cfg, cfg.burn_in.lr, 1.0, step)
    return {GENERATOR: factor * optimizer.generator_lr, CRITIC: factor * optimizer.critic_lr}


def betas_at(cfg: Config, step: int) -> tuple[float, float]:
    """Adam's β1 and β2, of both players."""
    beta1, beta2 = cfg.optimizer.betas
    return beta1, _burned_in(cfg, cfg.burn_in.beta2, beta2, step)


def strengths_at(cfg: Config, penalties: dict[str, Penalty], step: int) -> Strengths:
    """γ of those of the ``penalties`` that are due, and λ."""
    penalty = cfg.penalty
    gammas = {}
    for name, due in penalties.items():
        # Applied in every k-th step, k times as strong (Karras et al. 2020, StyleGAN2, appendix B). Learning rate and
        # betas stay as they are: the paper corrects them because its penalties have optimiser steps of their own.
        every = penalty.every.get(name, 1)
        if step % every == 0:
            strength = every * _burned_in(cfg, cfg.burn_in.gamma, 1.0, step)
            schedule = penalty.schedule.get(name, "constant")
            gammas[due] = strength * scheduled(vars(penalty)[name], schedule, step, cfg.train.steps)
    return Strengths(gammas, coefficient_at(cfg, step))


def coefficient_at(cfg: Config, step: int) -> float:
    """λ."""
    update = cfg.update
    return scheduled(update.coefficient, update.schedule, step, cfg.train.steps, update.warmup)


def lookaheads_at(cfg: Config, step: int) -> dict[str, float]:
    """α of each player: how many of its last steps it looks ahead."""
    update = cfg.update
    critic = scheduled(update.lookahead, update.lookahead_schedule, step, cfg.train.steps)
    return {GENERATOR: update.generator_lookahead, CRITIC: critic}


def augment_p_at(cfg: Config, step: int) -> float:
    """The probability of each transform, where augment.name=scheduled."""
    augment = cfg.augment
    p = scheduled(augment.p, augment.schedule, step, cfg.train.steps, augment.warmup)
    return _burned_in(cfg, cfg.burn_in.augment_p, p, step)


def ema_decay_at(cfg: Config, step: int) -> float:
    """β of the generator's average."""
    half_life = _burned_in(cfg, cfg.burn_in.ema_half_life, cfg.ema.half_life, step)
    return ema_decay(step, cfg.train.batch_size, half_life, cfg.ema.ramp_up)


def _burned_in(cfg: Config, start: float | None, end: float, step: int) -> float:
    """A value on its way from ``start`` to ``end``, where it is when the burn-in is over; no ``start``: ``end``."""
    if start is None or cfg.burn_in.images == 0:
        return end
    return burn_in(start, end, step, cfg.train.batch_size, cfg.burn_in.images)
