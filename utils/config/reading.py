"""From the text of a file or of the command line to values: YAML, text as it stands, and references."""

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.config import fields
from utils.config.sections import Config, kinds
from utils.errors import UserError

DEEPEST, MOST = 20, 10_000  # levels and values of a file: far more than any recipe has
NULL = re.compile(r"(?:~|null|Null|NULL)$")


class Loader(yaml.SafeLoader):
    """Reads every word but null as text, which the typed fields then convert; refuses a key that stands there twice.

    So run.name=1.10 is no number, train.precision=no no boolean, and 2026-11-21 no date.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"the key '{key.value}' stands there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge no mappings: a base does that."""


Loader.yaml_implicit_resolvers = {}
Loader.add_implicit_resolver("tag:yaml.org,2002:null", NULL, list("~nN"))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. ``where`` begins the sentence of the UserError for a text that cannot be used."""
    try:
        content = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape beyond Unicode
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise UserError(f"{where} is not valid YAML for a config: it is nested too deeply.") from None
    for count, value in enumerate(_values(content, where)):
        if count > MOST:
            raise UserError(f"{where} has more than {MOST} values: write out its aliases, or leave some out.")
        if isinstance(value, str):
            check_text(value, where)
    return content


def _values(value: Any, where: str, depth: int = 0) -> Iterator[Any]:
    """A value and all keys and values in it, those behind an alias once for each alias."""
    if depth > DEEPEST:  # also what an alias within its own anchor leads to
        raise UserError(f"{where} is nested more than {DEEPEST} levels deep: write sections of 'key: value' lines.")
    yield value
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inside:
        yield from _values(item, where, depth + 1)


def check_text(text: str, where: str) -> None:
    """Raise UserError for '???', which would mean "missing", and for references to anything but another key.

    A resolver such as ``${oc.env:HOME}`` would copy a secret of this machine into a config.yaml that people share.
    """
    if text == "???":
        raise UserError(f"{where} holds '???', which stands for no value: give one, or leave the key out.")
    rest, found = text, 1
    while found:  # from the innermost one outwards
        rest, found = re.subn(r"\$\{[^${}:]*\}", "", rest)
    if "${" in rest:
        raise UserError(f"{where} holds {text!r}, and only a reference to another key, such as ${{seed}}, is possible.")


def read_file(path: Path) -> DictConfig:
    """The keys of a YAML file. Raises UserError if it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from None
    content = parse_yaml(text, str(path))
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'key: value' lines, not {type(content).__name__}.")
    try:
        return OmegaConf.create(content)
    except OmegaConfBaseException as error:
        raise UserError(f"{path} is not valid YAML for a config: {first_line(error)}.") from None


def parse_overrides(overrides: list[str]) -> DictConfig:
    """The keys of ``key=value`` words. The characters behind the first = are the value; only those of lists, maps and
    whole sections are YAML, and null is none for a field that may have none.
    """
    for text in overrides:
        if not is_override(text):
            raise UserError(f"{text!r} is not of the form key=value, such as update.rule=alternating.")
    parsed = OmegaConf.create()
    for text in overrides:
        key, value = text.split("=", 1)
        try:
            OmegaConf.update(parsed, key, _override_value(key, value), force_add=True)
        except (OmegaConfBaseException, TypeError) as error:
            raise UserError(f"The override {text!r} cannot be read: {first_line(error)}.") from None
    return parsed


def is_override(word: str) -> bool:
    """Whether a word of the command line is ``key=value``, not a path."""
    return re.match(r"[A-Za-z_][\w.]*=", word) is not None


def _override_value(key: str, text: str) -> Any:
    hint, optional = hint_of(key)
    where = f"The override {f'{key}={text}'!r}"
    if not _printable(text):
        raise UserError(f"{where} holds bytes that are not UTF-8: rename what it names, or set it in a YAML file.")
    if text and (get_origin(hint) in (list, dict) or (hint is Any and text.startswith("["))):
        try:
            return parse_yaml(text, where)
        except UserError:
            raise UserError(f"{where} cannot be read; write it as {example(key)}.") from None
    check_text(text, where)
    return None if optional and NULL.match(text) else text


def _printable(text: str) -> bool:
    """Whether a word of the command line was UTF-8: Python keeps other bytes as surrogates, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def hint_of(key: str) -> tuple[Any, bool]:
    """What a dotted key holds (``dict[str, Any]`` for a section, str for what is no key), and whether it may be null.

    Keys of the same name are of the same type in all kinds of ``model``, ``game`` and ``data``.
    """
    section, _, name = key.partition(".")
    if section not in Config.__dataclass_fields__:
        return str, False
    if not name:
        return (int, False) if section == "seed" else (dict[str, Any], False)
    owners = [kind for _, kind in kinds(section)] or [type(getattr(Config(), section))]
    owner = next((kind for kind in owners if name in getattr(kind, "__dataclass_fields__", {})), None)
    return fields.plain(fields.hints(owner)[name]) if owner else (str, False)


def example(key: str) -> str:
    """How a list, a map or a section is set on the command line."""
    hint, _ = hint_of(key)
    if hint is Any:
        return f"{key}=[64,32]" if key == "data.resolution" else f"{key}=[255,255,255]"
    if get_origin(hint) is list:
        items = {float: "0.5,0.99", int: "64,32"}.get(fields.plain(get_args(hint)[0])[0], "first,second")
        return f"{key}=[{items}]"
    section, _, name = key.partition(".")
    if key == "optimizer.scale":  # names of layers have dots of their own
        return f"'{key}={{critic.last: 10}}'"
    if name:
        return f"{key}.r1=4" if fields.plain(get_args(hint)[1])[0] is int else f"{key}.r1=linear_decay"
    return f"{section}.key=value, a key at a time"


def whole_numbers(value: Any, hint: Any) -> Any:
    """A value in which text such as 1e5 is an int where ``hint`` allows one; what is no whole number stays as it is."""
    hint, _ = fields.plain(hint)
    if hint is Any:  # a number, a name or a list of numbers
        hint = list[int] if isinstance(value, list) else int
    if isinstance(value, list) and get_origin(hint) is list:
        return [whole_numbers(item, get_args(hint)[0]) for item in value]
    if isinstance(value, dict) and get_origin(hint) is dict:
        return {name: whole_numbers(item, get_args(hint)[1]) for name, item in value.items()}
    if hint is not int or not isinstance(value, str):
        return value
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    small = number.is_finite() and number.adjusted() < 40  # int("1e999999999") would fill the memory
    return int(number) if small and number == number.to_integral_value() else value


def first_line(error: Exception) -> str:
    """The first line of an exception, to be quoted in a sentence."""
    return str(error).strip().partition("\n")[0].rstrip(".")
