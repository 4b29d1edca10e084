"""Which images a network that doubles its maps, from a coarsest one up, can make: squares and some rectangles."""

from collections.abc import Collection


def doublings(family: str, shape: tuple[int, ...], resolutions: Collection[int], coarsest: int = 4) -> int:
    """How often a map is doubled until its shorter side, of ``coarsest`` pixels at first, is that of the image.

    ``shape`` is (C, H, W); the coarsest map then has H and W divided by 2 to this power. Raises ValueError unless the
    shorter side is among ``resolutions``, and the longer one a multiple of that power.
    """
    if len(shape) != 3:
        raise ValueError(f"{family} makes images, not samples of shape {tuple(shape)}")
    short, long = min(shape[1:]), max(shape[1:])
    step = short // coarsest
    if short not in resolutions or long % step:
        sides = ", ".join(map(str, resolutions))
        raise ValueError(
            f"{family} makes images whose shorter side has {sides} pixels, and the longer one a multiple of that "
            f"divided by {coarsest}, not {shape[1]}x{shape[2]}: choose such a data.resolution, with data.fit=crop"
        )
    return step.bit_length() - 1
