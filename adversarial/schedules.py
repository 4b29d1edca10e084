"""Schedules as pure functions of the global step, so that a resumed run continues them without any state.

A schedule maps progress p = step / total steps, in [0, 1], to a factor on a base value (a learning rate, λ, γ).
"""

import math


def constant(p: float) -> float:
    """1 throughout."""
    return 1.0


def linear_decay(p: float) -> float:
    """From 1 to 0."""
    return 1.0 - p


def cosine_decay(p: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    return (1.0 + math.cos(math.pi * p)) / 2


def linear_growth(p: float) -> float:
    """From 0 to 1."""
    return p


def dann_lambda(p: float) -> float:
    """2 / (1 + e^(-10p)) - 1: λ grows from 0 to 1 (Ganin et al. 2016, section 5.2.2)."""
    return 2.0 / (1.0 + math.exp(-10.0 * p)) - 1.0


def dann_lr(p: float) -> float:
    """(1 + 10p)^-0.75: the learning rate's decay (Ganin et al. 2016, section 5.2.2)."""
    return (1.0 + 10.0 * p) ** -0.75


SCHEDULES = {
    "constant": constant,
    "linear_decay": linear_decay,
    "cosine_decay": cosine_decay,
    "linear_growth": linear_growth,
    "dann_lambda": dann_lambda,
    "dann_lr": dann_lr,
}


def scheduled(base: float, schedule: str, step: int, total: int | None, warmup: int = 0) -> float:
    """``base`` at ``step`` of ``total``; in the first ``warmup`` steps it also rises linearly to its schedule.

    Beyond ``total`` the schedule keeps its last value; a run without an end (None) stays at the beginning, so only a
    constant schedule suits it. Raises KeyError for an unknown schedule.
    """
    factor = SCHEDULES[schedule](0.0 if total is None else min(step / total, 1.0))
    if step < warmup:
        factor *= (step + 1) / warmup
    return base * factor


def burn_in(start: float, end: float, step: int, batch_size: int, images: float) -> float:
    """From ``start`` to ``end`` along half a cosine over the first ``images``, then ``end`` (R3GAN: Huang et al. 2024,
    appendix D: learning rate, γ, Adam's β2, EMA half-life and augmentation probability). 0 images: always ``end``.
    """
    p = min(step * batch_size / images, 1.0) if images > 0 else 1.0
    return end + (start - end) * cosine_decay(p)


def ema_decay(step: int, batch_size: int, half_life: float, ramp_up: float = 0.05) -> float:
    """Decay β of an exponential moving average whose half-life is counted in images.

    Early in training the half-life is at most ``ramp_up`` times the images seen, so that the average forgets the
    initialisation (Karras et al. 2020, StyleGAN2-ADA; 0 switches the ramp off).
    """
    if ramp_up > 0:
        half_life = min(half_life, ramp_up * (step + 1) * batch_size)
    return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
