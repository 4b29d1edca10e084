"""Configs: typed dataclasses, a YAML file that may name a ``base:``, and ``key=value`` overrides.

The trailing comment of a field is its documentation: ``--print-config`` and the ``config.yaml`` of a run show it.
"""

import dataclasses
import inspect
import io
import math
import re
import tokenize
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import annotated_types
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adversarial import augmentation
from adversarial.domains import METHODS
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import PENALTIES, SLOPES
from adversarial.rules import RULES
from adversarial.schedules import SCHEDULES
from models import FAMILIES, dcgan
from utils.data.fitting import FittedImages
from utils.data.sections import data_section
from utils.errors import UserError, check_name, nearest

DEFAULT_RECIPE = Path(__file__).parents[2] / "configs/digits.yaml"
PRECISIONS = ("no", "bf16", "float64")
OPTIMIZERS = ("adam", "sgd")


@dataclass
class RunConfig:
    """Fields of ``run.*``."""

    name: str = ""  # folder of this run inside run.dir; empty: the name of the YAML file
    dir: str = "runs"  # folder that holds all runs
    device: str = "auto"  # auto: what accelerate finds; cpu: the CPU even where there is an accelerator
    processes: int = 0  # refuse to start with another number of them (accelerate launch --cpu starts one); 0: any
    deterministic: bool = False  # the same bits on GPUs, too; slower there: utils.training.processes.make_deterministic
    threads: int = 0  # CPU threads of a process; 0: PyTorch's choice, one a core (slow where others use the cores, too)


@dataclass
class GameConfig:
    """Fields of ``game.*``."""

    name: str = "generation"  # who plays: generation (a GAN), adaptation (two domains) or invariance (K attributes)
    objective: str = "non_saturating"  # what the players minimise: a key of adversarial.objectives.OBJECTIVES
    conditional: bool = False  # generation: give the data's class labels to both players
    auxiliary: float = 0.0  # conditional: AC-GAN, weight of its class loss: the critic names the class, untold; 0: off
    pack: int = 1  # generation: samples that the critic judges at once (PacGAN), with one score for them all
    method: str = "dann"  # games of domains: what the critics see, or a baseline
    margin: float = 4.0  # mdd: γ, the weight of the source's side
    pretrained: str = ""  # adda: folder of a run with method=source_only, the same source and the same model


@dataclass
class UpdateConfig:
    """Fields of ``update.*``."""

    rule: str = "single_pass"  # alternating, simultaneous or single_pass: adversarial/updates.py
    critic_steps: int = 1  # critic updates for each generator update
    reuse_fakes: bool = False  # alternating only: the generator's step reuses the fakes of the last critic step
    coefficient: float = 1.0  # λ on the generator's adversarial gradient; the critic's update is not scaled
    schedule: str = "constant"  # of λ over the run: a key of adversarial.schedules.SCHEDULES
    warmup: int = 0  # steps over which λ rises linearly from 0 to its schedule


@dataclass
class PenaltyConfig:
    """Fields of ``penalty.*``."""

    r1: float = 0.0  # γ of γ/2·E|∂s/∂x|² over real samples; 0: off
    r2: float = 0.0  # the same over fakes
    gp: float = 0.0  # γ of WGAN-GP's γ·E(|∂s/∂x| - 1)² between reals and fakes; 10 in its paper
    dragan: float = 0.0  # γ of the same beside reals (DRAGAN); 10 in its paper
    dragan_noise: float = 0.25  # standard deviation of the noise around reals
    lecam: float = 0.0  # γ of LeCam's E(s - α)² on scores, α the other side's moving average; 0.01 to 0.3 in its paper
    consistency: float = 0.0  # γ of bCR's E(s(x) - s(T x))², T mirrors and shifts images; 10 in its paper
    path: float = 0.0  # γ of the generator's path length penalty (StyleGAN2); 2 in its paper
    lecam_decay: float = 0.99  # of LeCam's moving averages, per critic step
    path_decay: float = 0.99  # of the moving average of path lengths
    clip: float = 0.0  # limit of the critic's weights after each of its steps (WGAN); 0.01 in its paper; 0: off
    every: dict[str, int] = field(default_factory=dict)  # lazy: {r1: 16} applies R1 every 16th step, 16 times as strong
    schedule: dict[str, str] = field(default_factory=dict)  # of γ over the run, {r1: name in schedules.SCHEDULES}


@dataclass
class AugmentConfig:
    """Fields of ``augment.*``: what the critic sees of real and fake images, both changed at random."""

    name: str = (
        "none"  # none, diffaugment (on every image), or ADA's pipeline: scheduled (p of the step), ada (adaptive)
    )
    policy: list[str] = field(default_factory=list)  # transforms, named in adversarial/augmentation.py; []: the paper's
    p: float = 0.3  # scheduled: the probability of each transform
    schedule: str = "constant"  # scheduled: of p over the run, a key of adversarial.schedules.SCHEDULES
    warmup: int = 0  # scheduled: steps over which p rises linearly from 0 to its schedule
    target: float = 0.6  # ada: p grows where the mean sign of real scores is above it
    images: int = 500000  # ada: images over which p can move by 1
    every: int = 4  # ada: steps between moves of p


@dataclass
class OptimizerConfig:
    """Fields of ``optimizer.*``, of both players."""

    name: str = "adam"  # adam or sgd
    generator_lr: float = 2e-4  # generator's learning rate
    critic_lr: float = 2e-4  # critic's learning rate
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])  # Adam's β1, β2 for both players
    eps: float = 1e-8  # Adam's ε
    momentum: float = 0.0  # sgd's
    weight_decay: float = 0.0  # L2, on all parameters
    schedule: str = "constant"  # of both learning rates over the run: a key of adversarial.schedules.SCHEDULES
    warmup: int = 0  # steps over which both learning rates rise linearly from 0


@dataclass
class TrainConfig:
    """Fields of ``train.*``."""

    steps: int | None = 10000  # generator updates; raise it to continue a finished run; null: until a signal stops it
    batch_size: int = 64  # samples per update over all processes together
    accumulate: int = 1  # micro-batches that a process cuts its share of a batch into, to save memory
    precision: str = "no"  # no: float32; bf16: autocast to bfloat16; float64: to check what is exact
    sync_batchnorm: bool = False  # BatchNorm over the batch of all processes, not over each one's share
    compile: bool = False  # torch.compile both networks
    channels_last: bool = True  # NHWC memory for convolutions: faster on CPUs and on GPUs with tensor cores


@dataclass
class EmaConfig:
    """Fields of ``ema.*``: the moving average of the generator, which samples and metrics use."""

    half_life: float = 10000.0  # in images; 0: no averaging
    ramp_up: float = 0.05  # early on the half-life is at most this share of the images seen; 0: no ramp


@dataclass
class BurnInConfig:
    """Fields of ``burn_in.*``: where values start that reach their own keys' along half a cosine, as in R3GAN."""

    images: float = 0.0  # length of the burn-in, in images; 0: none
    lr: float = 1.0  # both learning rates start at this multiple of their own
    beta2: float | None = None  # Adam's β2 at the start; null: as in optimizer.betas
    ema_half_life: float | None = None  # the average's half-life at the start, in images; null: as in ema.half_life
    gamma: float = 1.0  # the weights γ of all penalties start at this multiple of their own
    augment_p: float | None = None  # augment.name=scheduled: p at the start; null: as in augment.p


@dataclass
class LogConfig:
    """Fields of ``log.*``."""

    every: int = 100  # steps between lines of metrics.jsonl and points of TensorBoard curves


@dataclass
class GuardConfig:
    """Fields of ``guard.*``: what is done about runs that go wrong. NaN and Inf always stop or roll back."""

    rollbacks: int = 0  # times that a run goes back to its last checkpoint, to leave out a step that gave NaN or Inf
    score_gap: float = 50.0  # a critic has won where mean real and fake scores are this far apart ...
    patience: int = 3  # ... in so many log lines in a row: a warning
    vanished: float = 1e-10  # norm of the generator's gradient under which it moves nothing: a warning


@dataclass
class SampleConfig:
    """Fields of ``sample.*``."""

    every: int = 500  # steps between pictures of the same latents; 0: only at the end
    count: int = 64  # samples in a picture of images (points are drawn as a scatter plot of more)


@dataclass
class EvaluateConfig:
    """Fields of ``evaluate.*``."""

    every: int = 0  # steps between evaluations; 0: only at the end
    samples: int = 1000  # generated samples, or samples of each domain, that a metric is computed on (an oracle: all)


@dataclass
class CheckpointConfig:
    """Fields of ``checkpoint.*``."""

    every: int = 500  # steps between checkpoints; one is also written at the end and on a signal
    keep: int = 2  # newest checkpoints that are kept; at least 2
    best: str = "auto"  # metric whose best evaluation is kept beside them, in best/; auto: the game's own; none


@dataclass
class Config:
    """Everything that describes a run."""

    seed: int = 0  # every random number of the run is a function of this and the step
    run: RunConfig = field(default_factory=RunConfig)
    data: Any = field(default_factory=FittedImages)
    model: Any = field(default_factory=dcgan.Config)
    game: GameConfig = field(default_factory=GameConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    burn_in: BurnInConfig = field(default_factory=BurnInConfig)
    log: LogConfig = field(default_factory=LogConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


# What may change when a run is resumed. Everything else identifies the run.
RUNTIME_KEYS = (
    "run", "log", "guard", "sample", "evaluate", "checkpoint", "train.steps", "train.compile", "train.channels_last",
    "train.accumulate",
    "data.root", "data.photos", "data.download", "data.workers", "data.resident_gib",
)  # fmt: skip


def load(recipe: Path, overrides: list[str]) -> Config:
    """Read a YAML file with its bases, apply ``key=value`` overrides, and check every key, type, name and range.

    Raises UserError with one sentence for the first thing that is wrong.
    """
    sources = [*_with_bases(recipe), ("the command line", _parse_overrides(overrides))]
    try:
        schema = Config(data=_data_config(sources), model=_model_config(sources))
        for source, content in sources:
            _check_keys(source, content, schema)
        merged = OmegaConf.merge(*[content for _, content in sources])
        config: Config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), merged))
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        where = f", {error.full_key}" if getattr(error, "full_key", None) else ""
        raise UserError(f"{recipe} and the command line{where}: {_first_line(error)}.") from None
    config.run.name = config.run.name or recipe.stem
    if config.game.method in METHODS and METHODS[config.game.method].baseline:
        config.update.coefficient = 0.0  # the critic learns and is reported; nothing plays against it
    _check_values(config)
    return config


def load_run(folder: Path, overrides: list[str]) -> Config:
    """The config of an existing run. Raises UserError if the folder holds none."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml.")
    return load(path, overrides)


def to_yaml(config: Config, header: str = "") -> str:
    """The resolved config as YAML, every field with its comment; ``header`` lines go on top as comments."""
    lines = [f"# {line}" for line in header.splitlines()]
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        if not dataclasses.is_dataclass(value):
            lines.append(_line(section.name, value, comments(Config)[section.name], indent=0))
            continue
        lines.append(f"{section.name}:")
        for key in dataclasses.fields(value):
            lines.append(_line(key.name, getattr(value, key.name), comments(type(value))[key.name], indent=2))
    return "\n".join(lines) + "\n"


def identity(config: Config) -> dict[str, Any]:
    """What identifies a run, as {"section.key": value}: a run that differs in it is another run."""
    runtime = tuple(f"{name}." for name in RUNTIME_KEYS)
    return {key: value for key, value in _flat(config).items() if not f"{key}.".startswith(runtime)}


def penalised_slope(config: Config) -> str | None:
    """The first penalty in use, if any, for which the critic's input gradient is differentiated."""
    sloped = [name for name, penalty in PENALTIES.items() if penalty.acts_on == SLOPES]
    return next((name for name in sloped if getattr(config.penalty, name)), None)


def schedules(config: Config) -> dict[str, str]:
    """The schedules over the run, by their keys."""
    sections = {f"{name}.schedule": getattr(config, name).schedule for name in ("update", "augment", "optimizer")}
    return sections | {f"penalty.schedule.{name}": schedule for name, schedule in config.penalty.schedule.items()}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where two identities differ, as "section.key: old -> new"."""
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]


def is_override(word: str) -> bool:
    """Whether a word of the command line is ``key=value``, not a path."""
    return re.match(r"[A-Za-z_][\w.]*=", word) is not None


@cache
def comments(section: type) -> dict[str, str]:
    """The trailing comment of every field of a dataclass."""
    found: dict[str, str] = {}
    for base in reversed([c for c in section.__mro__ if dataclasses.is_dataclass(c)]):
        found |= _own_comments(base)
    return found


def _own_comments(section: type) -> dict[str, str]:
    found: dict[str, str] = {}
    name = None
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(section)).readline):
        if match := re.match(r"\s+(\w+): ", token.line):
            name = match.group(1)
        if token.type == tokenize.COMMENT and name:
            found[name] = token.string.lstrip("# ")
    return found


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in dataclasses.asdict(config).items():
        flat |= {f"{section}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {section: value}
    return flat


def _line(key: str, value: Any, comment: str, indent: int) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"{' ' * indent}{key}: {text}".ljust(36) + f"  # {comment}"


def _with_bases(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """The chain of a recipe's files, the most basic first."""
    if not path.is_file():
        raise UserError(_missing_recipe(path))
    if path.resolve() in seen:
        raise UserError(f"{path} is among its own bases: its 'base:' lines form a circle.")
    try:
        content = yaml.load(path.read_text(), _Loader) or {}
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class _Loader(yaml.SafeLoader):
    """Reads every word but null as text, which the typed fields then convert.

    So run.name=1.10 is no number, train.precision=no no boolean, and 2026-11-21 no date.
    """


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL)$"), list("~nN"))


def _model_config(sources: list[tuple[str, DictConfig]]) -> Any:
    """The typed fields of the model family that the last source with a ``model.name`` names."""
    name = dcgan.Config.name
    for source, content in sources:
        model = content.get("model", {})
        if not isinstance(model, DictConfig | dict):
            raise UserError(
                f"'model' in {source} must be a section of 'key: value' lines with a name ({', '.join(FAMILIES)}), "
                f"not {model!r}."
            )
        name = str(model.get("name", name))
    check_name("model.name", name, FAMILIES)
    return FAMILIES[name].config()


def _data_config(sources: list[tuple[str, DictConfig]]) -> Any:
    """The typed fields of the data set that the last sources with a ``data.name`` and a ``game.name`` name."""
    names = {"data": FittedImages.name, "game": GameConfig.name}
    for _, content in sources:
        for section in names:
            given = content.get(section)
            if isinstance(given, DictConfig) and "name" in given:  # _check_keys refuses what is no section
                names[section] = str(given["name"])
    return data_section(names["data"], names["game"])()


def _check_keys(source: str, content: DictConfig, schema: Any, prefix: str = "") -> None:
    """Raise UserError for an unknown key, a value in a section's place, or a section in a value's place."""
    valid = [f.name for f in dataclasses.fields(schema)]
    for key, value in OmegaConf.to_container(content).items():
        if key not in valid:
            raise UserError(f"Unknown key '{prefix}{key}' in {source}; {nearest(str(key), valid)}.")
        is_section = dataclasses.is_dataclass(getattr(schema, key))
        if (is_section or isinstance(getattr(schema, key), dict)) != isinstance(value, dict):
            wanted = "a section of 'key: value' lines" if is_section else "a value"
            if isinstance(getattr(schema, key), dict):
                wanted = f"set for each penalty on its own, such as {prefix}{key}.r1"
            raise UserError(f"'{prefix}{key}' in {source} must be {wanted}, not {value!r}.")
        if is_section:
            _check_keys(source, content[key], getattr(schema, key), f"{prefix}{key}.")


def _check_values(config: Config) -> None:
    """Names and ranges; what needs the data or the networks is checked where these are built."""
    check_name("game.objective", config.game.objective, OBJECTIVES)
    check_name("optimizer.name", config.optimizer.name, OPTIMIZERS)
    check_name("update.rule", config.update.rule, RULES)
    check_name("run.device", config.run.device, ("auto", "cpu"))
    for key in ("every", "schedule"):
        for name in getattr(config.penalty, key):
            check_name(f"penalty.{key}: the penalty", name, PENALTIES)
    for key, schedule in schedules(config).items():
        check_name(key, schedule, SCHEDULES)
    if config.train.precision == "fp16":
        raise UserError(
            "train.precision=fp16 is not offered: its range holds neither small critic gradients nor the floor of "
            "the single pass; use bf16."
        )
    check_name("train.precision", config.train.precision, PRECISIONS)
    for key, least in _MINIMA.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value is not None and not value >= least:
            raise UserError(f"{key} is {value} and must be at least {least}.")
    _check_data_bounds(config.data)
    for name, every in config.penalty.every.items():
        if every < 1:
            raise UserError(f"penalty.every.{name} is {every} and must be at least 1.")
    for key, value in _flat(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value} and must be finite.")
        least = 0 if key.endswith(("_depth", "_embedding")) else 1
        if key.startswith("model.") and type(value) is int and not value >= least:
            raise UserError(f"{key} is {value} and must be at least {least}.")
    for key, schedule in schedules(config).items():
        if config.train.steps is None and schedule != "constant":
            raise UserError(
                f"{key}={schedule} runs over train.steps, which is null: set train.steps=20000 or {key}=constant."
            )
    if not config.optimizer.eps > 0:
        raise UserError(f"optimizer.eps is {config.optimizer.eps} and must be above 0.")
    if len(config.optimizer.betas) != 2 or not all(isinstance(b, float) and 0 <= b < 1 for b in config.optimizer.betas):
        raise UserError(f"optimizer.betas is {config.optimizer.betas} and must be two numbers in [0, 1).")
    _check_burn_in(config)
    if config.update.reuse_fakes and config.update.rule != "alternating":
        raise UserError(f"update.reuse_fakes is for update.rule=alternating; {config.update.rule} shares its fakes.")
    if config.update.reuse_fakes and config.train.accumulate > 1:
        raise UserError(
            "update.reuse_fakes keeps the graphs of all micro-batches, so train.accumulate would save no memory; "
            "choose one of the two."
        )
    _check_conditioning(config)
    _check_augment(config)
    penalised = penalised_slope(config)
    if config.train.compile and penalised and (config.game.name != "generation" or config.game.auxiliary):
        raise UserError(
            f"train.compile cannot serve penalty.{penalised} in this game: the compiler has no double backward, and "
            "there is a way around it for one critic with one score alone; use train.compile=false."
        )
    if "/" in config.run.name or config.run.name in (".", ".."):
        raise UserError(f"run.name is '{config.run.name}' and must be a plain folder name; the parent is run.dir.")


def _check_data_bounds(data: Any) -> None:
    """Raise UserError for a field out of the bounds that its type is annotated with."""
    for name, hint in get_type_hints(type(data), include_extras=True).items():
        value = getattr(data, name)
        for bound in getattr(hint, "__metadata__", ()):
            match bound:
                case annotated_types.Ge(least) if not value >= least:
                    raise UserError(f"data.{name} is {value} and must be at least {least}.")
                case annotated_types.Gt(limit) if not value > limit:
                    raise UserError(f"data.{name} is {value} and must be above {limit}.")
                case annotated_types.Lt(limit) if not value < limit:
                    raise UserError(f"data.{name} is {value} and must be below {limit}.")


def _check_burn_in(config: Config) -> None:
    """Raise UserError for a start that nothing leads away from, or one out of range."""
    burn_in, none = config.burn_in, BurnInConfig()
    for key in ("lr", "beta2", "ema_half_life", "gamma", "augment_p"):
        if not burn_in.images and getattr(burn_in, key) != getattr(none, key):
            raise UserError(f"burn_in.{key} needs the length of the burn-in: set burn_in.images=20000000, for example.")
    if burn_in.augment_p is not None and config.augment.name != augmentation.SCHEDULED:
        raise UserError(
            f"burn_in.augment_p is for augment.name=scheduled, and augment.name is {config.augment.name}; "
            "leave it null."
        )
    if burn_in.augment_p is not None and not burn_in.augment_p <= 1:
        raise UserError(f"burn_in.augment_p is {burn_in.augment_p} and must be at most 1.")
    if burn_in.beta2 is None:
        return
    if config.optimizer.name != "adam":
        raise UserError(f"burn_in.beta2 is Adam's, and optimizer.name is {config.optimizer.name}; leave it null.")
    if not burn_in.beta2 < 1:
        raise UserError(f"burn_in.beta2 is {burn_in.beta2} and must be below 1.")


def _check_conditioning(config: Config) -> None:
    game = config.game
    if game.auxiliary and not game.conditional:
        raise UserError(f"game.auxiliary={game.auxiliary} needs classes: set game.conditional=true.")
    if game.auxiliary and config.update.rule == "single_pass":
        raise UserError(
            "game.auxiliary has both players want the same class but opposite scores, which one backward pass cannot "
            "tell apart; use update.rule=simultaneous or update.rule=alternating."
        )
    if game.pack > 1 and game.conditional:
        raise UserError(
            f"game.pack={game.pack} gives several samples one score, and game.conditional=true each a class of its "
            "own; use game.pack=1 or game.conditional=false."
        )


def _check_augment(config: Config) -> None:
    augment = config.augment
    check_name("augment.name", augment.name, augmentation.NAMES)
    try:
        augmentation.augmentation(augment.name, augment.policy)
    except ValueError as error:
        raise UserError(f"augment.policy does not fit augment.name={augment.name}: {error}.") from None
    if not augment.p <= 1:
        raise UserError(f"augment.p is {augment.p} and must be at most 1.")
    if not augment.target <= 1:
        raise UserError(f"augment.target is {augment.target}, a mean of signs, and must be at most 1.")
    if augment.name == augmentation.ADAPTIVE and OBJECTIVES[config.game.objective].boundary is None:
        raise UserError(
            "augment.name=ada moves p by how many real scores are on the real side of a boundary, and "
            f"game.objective={config.game.objective} has none; use augment.name=scheduled."
        )


_MINIMA = {
    "run.threads": 0, "run.processes": 0, "train.steps": 1, "train.batch_size": 1, "game.margin": 0,
    "game.auxiliary": 0, "game.pack": 1,
    "update.critic_steps": 1, "update.coefficient": 0, "update.warmup": 0, "penalty.r1": 0, "penalty.r2": 0,
    "penalty.gp": 0, "penalty.dragan": 0, "penalty.dragan_noise": 0, "penalty.lecam": 0, "penalty.consistency": 0,
    "penalty.path": 0, "penalty.clip": 0, "augment.p": 0,
    "augment.warmup": 0, "augment.target": -1, "augment.images": 1, "augment.every": 1,
    "optimizer.generator_lr": 0, "optimizer.critic_lr": 0, "optimizer.momentum": 0,
    "optimizer.weight_decay": 0, "optimizer.warmup": 0, "ema.half_life": 0, "ema.ramp_up": 0, "log.every": 1,
    "burn_in.images": 0, "burn_in.lr": 0, "burn_in.beta2": 0, "burn_in.ema_half_life": 0, "burn_in.gamma": 0,
    "burn_in.augment_p": 0,
    "guard.rollbacks": 0, "guard.score_gap": 0, "guard.patience": 1, "guard.vanished": 0, "train.accumulate": 1,
    "sample.every": 0, "sample.count": 1, "evaluate.every": 0, "evaluate.samples": 2,
    "checkpoint.every": 1, "checkpoint.keep": 2,
}  # fmt: skip
