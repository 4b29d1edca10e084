"""From a YAML file that may name a ``base:``, and ``key=value`` overrides, to a checked ``Config``."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adversarial.domains import METHODS
from utils.config import checks, fields
from utils.config.sections import AdaptationConfig, Config, InvarianceConfig, kinds, named_sections
from utils.errors import UserError, check_name, nearest, warn

DEFAULT_RECIPE = Path(__file__).parents[2] / "configs/digits.yaml"

Source = tuple[str, DictConfig]  # where keys were read, for messages, and the keys


def load(recipe: Path, overrides: list[str]) -> Config:
    """Read a YAML file with its bases, apply ``key=value`` overrides, and check every key, type, name and range.

    Where a later file or override gives ``model``, ``game`` or ``data`` another name, keys that only the former name
    has are left out, which a warning tells. Raises UserError with one sentence for the first thing that is wrong.
    """
    files, command_line = _with_bases(recipe), ("the command line", _parse_overrides(overrides))
    sources = [*files, command_line]
    try:
        names = _names_after_each(sources)
        schema = Config(**named_sections(**names[-1]))
        for source, before in zip(files, names, strict=False):
            _leave_out_other_kinds(source, before, names[-1], schema)
        for where, content in sources:
            _check_keys(where, content, schema)
        merged = OmegaConf.merge(*[content for _, content in sources])
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        raise UserError(_cannot_be_read(recipe, error)) from None
    try:
        config: Config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), merged))
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        _check_choice(schema, merged, str(error.full_key) if getattr(error, "full_key", None) else "")
        raise UserError(_cannot_be_read(recipe, error)) from None
    config.run.name = config.run.name or recipe.stem
    checks.check(config)
    if isinstance(config.game, AdaptationConfig | InvarianceConfig) and METHODS[config.game.method].baseline:
        config.update.coefficient = 0.0  # the critic learns and is reported; nothing plays against it
    return config


def load_run(folder: Path, overrides: list[str]) -> Config:
    """The config of an existing run. Raises UserError if the folder holds none."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml.")
    return load(path, overrides)


def is_override(word: str) -> bool:
    """Whether a word of the command line is ``key=value``, not a path."""
    return re.match(r"[A-Za-z_][\w.]*=", word) is not None


class _Loader(yaml.SafeLoader):
    """Reads every word but null as text, which the typed fields then convert.

    So run.name=1.10 is no number, train.precision=no no boolean, and 2026-11-21 no date.
    """


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL)$"), list("~nN"))


# --- Reading


def _with_bases(path: Path, seen: tuple[Path, ...] = ()) -> list[Source]:
    """The chain of a recipe's files, the most basic first."""
    if not path.is_file():
        raise UserError(_missing_recipe(path))
    if path.resolve() in seen:
        raise UserError(f"{path} is among its own bases: its 'base:' lines form a circle.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
        if not isinstance(content, dict):
            raise UserError(f"{path} must hold 'key: value' lines, not {type(content).__name__}.")
        content = OmegaConf.create(content)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    base = content.pop("base", None)
    bases = _with_bases(path.parent / str(base), (*seen, path.resolve())) if base else []
    return [*bases, (str(path), content)]


def _missing_recipe(path: Path) -> str:
    recipes = [str(p) for p in path.parent.glob("*.yaml")] or [str(p) for p in DEFAULT_RECIPE.parent.glob("*.yaml")]
    return f"There is no config {path}; {nearest(str(path), sorted(recipes))}."


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for text in overrides:
        if not is_override(text):
            raise UserError(f"{text!r} is not of the form key=value, such as update.rule=alternating.")
    parsed = OmegaConf.create()
    for text in overrides:
        key, value = text.split("=", 1)
        try:
            OmegaConf.update(parsed, key, yaml.load(value, _Loader) if value else "", force_add=True)
        except (OmegaConfBaseException, yaml.YAMLError, TypeError) as error:
            raise UserError(f"The override {text!r} cannot be read: {_first_line(error)}.") from None
    return parsed


# --- Sections whose keys depend on their name


def _names_after_each(sources: list[Source]) -> list[dict[str, str]]:
    """The names of model, game and data that hold after each source: the last ones given until there."""
    names = {section: getattr(Config(), section).name for section in ("model", "game", "data")}
    after = []
    for where, content in sources:
        for section in names:
            given = content.get(section, {})
            if not isinstance(given, DictConfig | dict):
                valid = ", ".join(dict.fromkeys(name for name, _ in kinds(section)))
                raise UserError(
                    f"'{section}' in {where} must be a section of 'key: value' lines with a name ({valid}), "
                    f"not {given!r}."
                )
            names = {**names, section: str(given.get("name", names[section]))}
        after.append(names)
    return after


def _leave_out_other_kinds(source: Source, before: dict[str, str], names: dict[str, str], schema: Config) -> None:
    """Remove the keys of a file that belong to another name of their section, where the file may well have them.

    It may if a later source chose the present name. It also may if the value is the key's default: the config.yaml of
    a run by an older version has the keys of all names, and there those values meant nothing.
    """
    where, content = source
    for section in names:
        renamed = before[section] != names[section] or (section == "data" and before["game"] != names["game"])
        own = {field.name for field in dataclasses.fields(getattr(schema, section))}
        left_out = []
        for key, value in OmegaConf.to_container(content).get(section, {}).items():
            if key in own:
                continue
            owners = [kind(name=name) for name, kind in kinds(section) if key in kind.__dataclass_fields__]
            is_default = any(value == _as_read(getattr(owner, key)) for owner in owners)
            if (owners and renamed) or is_default:
                del content[section][key]
                left_out.append(f"{section}.{key}")
        if left_out:
            warn(f"{section}.name={names[section]}: left out of {where}: {', '.join(left_out)}.")


def _as_read(value: Any) -> Any:
    """A value as the loader would read it from YAML."""
    return yaml.load(yaml.safe_dump(value), _Loader)


# --- Checks of what was read


def _check_keys(where: str, content: DictConfig, schema: Any, prefix: str = "") -> None:
    """Raise UserError for an unknown key, a value in a section's place, or a section in a value's place."""
    valid = [f.name for f in dataclasses.fields(schema)]
    for key, value in OmegaConf.to_container(content).items():
        if key not in valid:
            raise UserError(_unknown_key(where, str(key), schema, prefix))
        is_section = dataclasses.is_dataclass(getattr(schema, key))
        if (is_section or isinstance(getattr(schema, key), dict)) != isinstance(value, dict):
            wanted = "a section of 'key: value' lines" if is_section else "a value"
            if isinstance(getattr(schema, key), dict):
                wanted = f"set for each penalty on its own, such as {prefix}{key}.r1"
            raise UserError(f"'{prefix}{key}' in {where} must be {wanted}, not {value!r}.")
        if is_section:
            _check_keys(where, content[key], getattr(schema, key), f"{prefix}{key}.")


def _unknown_key(where: str, key: str, schema: Any, prefix: str) -> str:
    hint = nearest(key, [f.name for f in dataclasses.fields(schema)])
    owners = [name for name, kind in kinds(prefix.removesuffix(".")) if key in kind.__dataclass_fields__]
    if owners:
        return (
            f"'{prefix}{key}' in {where} is a key of {prefix}name={' or '.join(dict.fromkeys(owners))}, and "
            f"{prefix}name is {schema.name}; {hint}."
        )
    return f"Unknown key '{prefix}{key}' in {where}; {hint}."


def _check_choice(schema: Config, merged: DictConfig, key: str) -> None:
    """Raise UserError if the value at ``key``, which OmegaConf refuses, is not among the choices of a Literal."""
    section, _, name = key.partition(".")
    keys = type(getattr(schema, section, None))
    if name in getattr(keys, "__dataclass_fields__", {}) and (valid := fields.choices(keys, name)):
        check_name(key, str(OmegaConf.select(merged, key)), valid)


def _cannot_be_read(recipe: Path, error: Exception) -> str:
    where = f", {error.full_key}" if getattr(error, "full_key", None) else ""
    return f"{recipe} and the command line{where}: {_first_line(error)}."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
