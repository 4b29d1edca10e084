"""What a key may hold: short names for types with bounds, and the function that checks a dataclass against them."""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt

from utils.data.fitting import Either
from utils.errors import UserError, check_name

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


SCALARS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True, eq=False)
class OneOf:
    """Constraint of an ``Annotated[str, ...]``: one of these names, often the keys of a registry."""

    names: Collection[str]


def check(section: Any, prefix: str = "") -> None:
    """Check every field of a dataclass, and of the dataclasses in it, against its annotation.

    Raises UserError for the first value that is out of bounds, not among its choices, or not finite. Types are not
    checked: OmegaConf converts them while it loads.
    """
    bounds = hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{prefix}{field.name}.")
        else:
            _check_value(f"{prefix}{field.name}", value, bounds[field.name])


@cache
def hints(section: type) -> dict[str, Any]:
    """The annotations of a dataclass, with their bounds, by field."""
    return get_type_hints(section, include_extras=True)


def plain(hint: Any) -> tuple[Any, bool]:
    """An annotation without its bounds, and whether it allows None."""
    optional = get_origin(hint) in (Union, UnionType)
    if optional:
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint, optional


def check_type(key: str, where: str, value: Any, hint: Any) -> None:
    """Raise UserError, which names the choices or the type, for a value that could not be converted to ``hint``."""
    hint, _ = plain(hint)
    if get_origin(hint) is Literal:
        check_name(key, str(value), get_args(hint))
    elif hint in SCALARS:
        shown = "null" if value is None else repr(value)
        raise UserError(f"{key} is {shown} in {where} and must be {SCALARS[hint]}.")


def _check_value(key: str, value: Any, hint: Any) -> None:
    if value is None:  # allowed here, or OmegaConf would have refused it
        return
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Annotated:
        hint, *constraints = get_args(hint)
    else:
        constraints = []
    if isinstance(value, list | dict) and hint in SCALARS:  # OmegaConf lets a list in a list of numbers pass
        raise UserError(f"{key} is {value} and must be {SCALARS[hint]}.")
    for constraint in constraints:
        _check_constraint(key, value, constraint)
    if hint is Any:  # checked by its constraint alone
        return
    if isinstance(value, int):  # what a tensor, a loader and safetensors can hold
        _check_constraint(key, value, Ge(-(2**63)))
        _check_constraint(key, value, Le(2**63 - 1))
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} is {value} and must be finite.")
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_value(f"{key}[{i}]", item, *get_args(hint))
    if isinstance(value, dict):
        name_hint, item_hint = get_args(hint)
        for name, item in value.items():
            _check_value(f"{key}:", name, name_hint)
            _check_value(f"{key}.{name}", item, item_hint)


def _check_constraint(key: str, value: Any, constraint: Any) -> None:
    # "not value >= bound" and the like, for NaN is neither above nor below a bound.
    match constraint:
        case OneOf(names=names):
            check_name(key, value, names)
        case Either(words=words, holds=holds) if not holds(value):
            raise UserError(f"{key} is {value!r} and must be {words}.")
        case Ge(ge=bound) if not value >= bound:
            raise UserError(f"{key} is {value} and must be at least {bound}.")
        case Gt(gt=bound) if not value > bound:
            raise UserError(f"{key} is {value} and must be above {bound}.")
        case Le(le=bound) if not value <= bound:
            raise UserError(f"{key} is {value} and must be at most {bound}.")
        case Lt(lt=bound) if not value < bound:
            raise UserError(f"{key} is {value} and must be below {bound}.")
        case Len(min_length=length) if len(value) != length:
            raise UserError(f"{key} is {value} and must have {length} entries.")
