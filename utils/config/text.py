"""A config as YAML with the comment of every key: what ``--print-config`` shows and a run's ``config.yaml`` holds."""

import dataclasses
import inspect
import io
import math
import re
import tokenize
from functools import cache
from typing import Any

import yaml

from utils.config.sections import Config


def to_yaml(config: Config, header: str = "") -> str:
    """The resolved config as YAML, every field with its comment; ``header`` lines go on top as comments."""
    lines = [f"# {line}" for line in header.splitlines()]
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        if not dataclasses.is_dataclass(value):
            lines.append(_line(section.name, value, comments(Config)[section.name], indent=0))
            continue
        lines.append(f"{section.name}:")
        said = comments(type(value))
        for key in dataclasses.fields(value):
            lines.append(_line(key.name, getattr(value, key.name), said[key.name], indent=2))
    return "\n".join(lines) + "\n"


@cache
def comments(section: type) -> dict[str, str]:
    """The trailing comment of every field of a dataclass, by the field's name."""
    found: dict[str, str] = {}
    for base in reversed([c for c in section.__mro__ if dataclasses.is_dataclass(c)]):
        found |= _own_comments(base)
    return found


def _own_comments(section: type) -> dict[str, str]:
    found = {key.name: key.metadata["comment"] for key in dataclasses.fields(section) if "comment" in key.metadata}
    if section.__name__ == "Penalties":  # generated from a registry: it has no source
        return found
    name = None
    # Python keeps no comments, so they are read from the source.
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(section)).readline):
        if match := re.match(r"\s+(\w+): ", token.line):
            name = match.group(1)
        if token.type == tokenize.COMMENT and name:
            found[name] = token.string.lstrip("# ")
    return found


def _line(key: str, value: Any, comment: str, indent: int) -> str:
    text = yaml.safe_dump(_escaped(value), default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
    return f"{' ' * indent}{key}: {text}".ljust(36) + f"  # {comment}"


def _escaped(value: Any) -> Any:
    """A value whose text holds no references: ${seed} is text by now, and is still text when it is read again."""
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    return value
