"""From a YAML file that may name a ``base:``, and ``key=value`` overrides, to a checked ``Config``."""

import dataclasses
import difflib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from adversarial.domains import METHODS
from utils.config import checks, fields, former, idle
from utils.config.reading import Loader, example, first_line, parse_overrides, read_file, whole_numbers
from utils.config.sections import AdaptationConfig, Config, InvarianceConfig, kinds, named_sections
from utils.errors import UserError, nearest, warn
from utils.paths import path_of

LONGEST_CHAIN = 100  # bases of bases
DEFAULT_RECIPE = Path(__file__).parents[2] / "configs/mnist_5k.yaml"

_IN_A_RUN = ("log.txt", "metrics.jsonl", "checkpoints", "best")  # beside the config.yaml of a run

OWN_FILES = ("folder", "zip")  # sets that are what data.root holds

Source = tuple[str, DictConfig]  # where keys were read, for messages, and the keys


def load(recipe: Path, overrides: list[str]) -> Config:
    """Read a YAML file with its bases, apply ``key=value`` overrides, and check every key, type, name and range.

    The ``config.yaml`` in a run's folder means that folder, wherever it was moved: ``run.dir`` and ``run.name`` are its
    place.

    Where a later file or override gives ``model``, ``game`` or ``data`` another name, keys that only the former name
    has are left out, which a warning tells; so are ``update.reuse_fakes`` and look-aheads where it gives another rule.
    Raises UserError with one sentence for the first thing that is wrong.
    """
    files, command_line = _with_bases(recipe), ("the command line", parse_overrides(overrides))
    sources = [*files, *_place_of(recipe), command_line]
    try:
        for _, content in sources:
            former.renew(content)
        names = _names_after_each(sources)
        schema = Config(**named_sections(**names[-1]))
        for source, before in zip(files, names, strict=False):
            _leave_out_other_kinds(source, before, names[-1], schema)
        _leave_out_other_rules(sources)
        for where, content in sources:
            _check_keys(where, content, schema)
        merged = _with_whole_numbers(OmegaConf.merge(*[content for _, content in sources]), schema)
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        raise UserError(_cannot_be_read(recipe, error)) from None
    try:
        named = [(section, type(getattr(schema, section)), name) for section, name in names[-1].items()]
        config: Config = OmegaConf.to_object(OmegaConf.merge(_typed(*named), merged))
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        if not isinstance(error, InterpolationResolutionError):
            _check_type(schema, sources, str(getattr(error, "full_key", None) or ""))
        raise UserError(_cannot_be_read(recipe, error)) from None
    config.run.name = config.run.name or _run_name(recipe, files, config.data)
    checks.check(config)
    # The config.yaml of a run has what its recipe's bases gave, too, idle or not.
    idle.check(config, _given([command_line] if _place_of(recipe) else [*files, command_line]))
    if isinstance(config.game, AdaptationConfig | InvarianceConfig) and METHODS[config.game.method].baseline:
        config.update.coefficient = 0.0  # the critic learns and is reported; nothing plays against it
    return config


@cache
def _typed(*named: tuple[str, type, str]) -> DictConfig:
    """The schema whose named sections are of these classes and names, as OmegaConf takes it.

    It is kept, because making it takes longer than the rest of loading.
    """
    schema = Config(**{section: kind(name=name) for section, kind, name in named})
    return OmegaConf.structured(schema, flags={"no_deepcopy_set_nodes": True})  # nobody else has its nodes


def _run_name(recipe: Path, files: list[Source], data: Any) -> str:
    """The recipe's name; on other data than the recipe's with their name behind it, such as folder_stylegan2-photos.

    The root of a set such as MNIST is only its place, and says nothing.
    """
    own = OmegaConf.merge(*[content.get("data", {}) for _, content in files])
    name = data.name if data.name != own.get("name", Config().data.name) else ""
    if data.name in OWN_FILES and (name or data.root != own.get("root", type(data)().root)):
        folder = os.path.basename(os.path.abspath(data.root)).removesuffix(".zip")  # without asking the disk
        name = re.sub(r"[^\w.-]+", "_", folder)[:100] or data.name
    return f"{recipe.stem}-{name}" if name else recipe.stem


def load_run(folder: Path, overrides: list[str]) -> Config:
    """The config of an existing run. Raises UserError if the folder holds none."""
    path = folder / "config.yaml"
    if not path.is_file():
        why = "it has no config.yaml" if folder.exists() else "nothing is there"
        raise UserError(f"{folder} is not the folder of a run ({why}): {name_a_run(folder)}.")
    return load(path, overrides)


def name_a_run(instead: Path) -> str:
    """What to do where ``instead`` is no run: name the one in it, around it or beside it whose path is most similar."""
    near = [*instead.glob("*/config.yaml"), *instead.parent.glob("*/config.yaml")]
    near += [folder / "config.yaml" for folder in list(instead.parents)[:2]]
    runs = sorted({str(path.parent) for path in near if path.is_file()})
    closest = difflib.get_close_matches(str(instead), runs, n=1, cutoff=0)
    return f"name one, such as {closest[0]}" if closest else "name one that train.py has made"


# --- Reading


def _with_bases(path: Path, seen: tuple[Path, ...] = ()) -> list[Source]:
    """The chain of a recipe's files, the most basic first."""
    if not path.is_file():
        raise UserError(_missing_recipe(path))
    if path.resolve() in seen:
        raise UserError(f"{path} is among its own bases: its 'base:' lines form a circle.")
    if len(seen) == LONGEST_CHAIN:
        raise UserError(f"{path} is the base of a base more than {LONGEST_CHAIN} times over: join some of these files.")
    content = read_file(path)
    base = content.pop("base", None)
    bases = _with_bases(path.parent / path_of(str(base)), (*seen, path.resolve())) if base else []
    return [*bases, (str(path), content)]


def _place_of(recipe: Path) -> list[Source]:
    """``run.dir`` and ``run.name`` of the folder in which ``recipe`` lies if that is a run's; else nothing."""
    # A user's own recipe may be called config.yaml, too.
    if recipe.name != "config.yaml" or not any((recipe.parent / name).exists() for name in _IN_A_RUN):
        return []
    folder = recipe.parent if recipe.parent.name not in ("", "..") else recipe.parent.resolve()
    return [(f"the place of {recipe}", OmegaConf.create({"run": {"dir": str(folder.parent), "name": folder.name}}))]


def _missing_recipe(path: Path) -> str:
    recipes = [str(p) for p in path.parent.glob("*.yaml")] or [str(p) for p in DEFAULT_RECIPE.parent.glob("*.yaml")]
    return f"There is no config {path}; {nearest(str(path), sorted(recipes))}."


def _given(sources: list[Source]) -> dict[str, int]:
    """The number of the last source that gives a key, for each "section.key" and "section.key.entry" that is given."""
    last = {}
    for number, (_, content) in enumerate(sources):
        for section, keys in OmegaConf.to_container(content).items():
            for key, value in keys.items() if isinstance(keys, dict) else ():
                entries = [f"{section}.{key}.{entry}" for entry in value] if isinstance(value, dict) else []
                last |= dict.fromkeys([f"{section}.{key}", *entries], number)
    return last


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


def _leave_out_other_rules(sources: list[Source]) -> None:
    """Remove the keys of ``update`` that a rule refuses where they were given before the rule was."""
    given = _given(sources)
    chosen = given.get("update.rule", 0)
    rule = OmegaConf.select(sources[chosen][1], "update.rule")
    refused = ("lookahead", "lookahead_schedule", "generator_lookahead") if rule == "alternating" else ("reuse_fakes",)
    defaults, left_out = vars(Config().update), {}
    for key in refused:
        number = given.get(f"update.{key}", chosen)
        asked = yaml.safe_load(str(OmegaConf.select(sources[number][1], f"update.{key}")))
        if number < chosen and asked not in (None, defaults[key]):
            for _, content in sources[: number + 1]:
                content.get("update", {}).pop(key, None)
            left_out.setdefault(sources[number][0], []).append(f"update.{key}")
    for where, keys in left_out.items():
        warn(f"update.rule={rule}: left out of {where}, which has it for another rule: {', '.join(keys)}.")


def _as_read(value: Any) -> Any:
    """A value as the loader would read it from YAML."""
    return yaml.load(yaml.safe_dump(value), Loader)


def _with_whole_numbers(merged: DictConfig, schema: Config) -> DictConfig:
    """The keys with numbers such as 1e5 in the form in which OmegaConf takes them for whole numbers."""
    content = OmegaConf.to_container(merged)
    for section, given in content.items():
        if isinstance(given, dict):
            hints = fields.hints(type(getattr(schema, section)))
            content[section] = {name: whole_numbers(value, hints[name]) for name, value in given.items()}
        else:
            content[section] = whole_numbers(given, fields.hints(Config)[section])
    return OmegaConf.create(content)


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
                of = "layer" if key == "scale" else "penalty"
                wanted = f"set for each {of} on its own, such as {example(prefix + key)}"
            raise UserError(f"'{prefix}{key}' in {where} must be {wanted}, not {value!r}.")
        if isinstance(getattr(schema, key), list) and not isinstance(value, list):
            shown = "null" if value is None else repr(value)
            raise UserError(f"'{prefix}{key}' in {where} is {shown} and must be a list: {example(prefix + key)}.")
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


def _check_type(schema: Config, sources: list[Source], key: str) -> None:
    """Raise UserError if the value at ``key``, which OmegaConf refuses, is of the wrong type or not among choices."""
    section, name, *inside = [*re.findall(r"\w+", key), "", ""][:3] if key else ("", "")
    keys = type(getattr(schema, section, None)) if name else Config
    hints = fields.hints(keys) if dataclasses.is_dataclass(keys) else {}
    if hint := hints.get(name or section):
        where, value = next((w, OmegaConf.select(c, key)) for w, c in reversed(sources) if _has(c, section, name))
        hint, _ = fields.plain(hint)
        fields.check_type(key, where, value, get_args(hint)[-1] if any(inside) else hint)


def _has(content: DictConfig, section: str, name: str) -> bool:
    return section in content and (not name or name in content[section])


def _cannot_be_read(recipe: Path, error: Exception) -> str:
    where = f", {error.full_key}" if getattr(error, "full_key", None) else ""
    return f"{recipe} and the command line{where}: {first_line(error)}."
