"""The sections of a config: a key's type, bounds, default and comment stand on one line.

The trailing comment is the key's documentation: ``--print-config`` and the ``config.yaml`` of a run show it. ``model``,
``game`` and ``data`` have the keys of what their ``name`` chooses.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from adversarial import augmentation
from adversarial.domains import METHODS
from adversarial.objectives import OBJECTIVES
from adversarial.optimizers import OPTIMIZERS
from adversarial.penalties import PENALTIES, SLOPES
from adversarial.rules import RULES
from adversarial.schedules import SCHEDULES
from models import FAMILIES, dcgan
from utils.config.fields import NonNegativeFloat, NonNegativeInt, OneOf, PositiveInt, Share
from utils.data.datasets import DATASETS
from utils.data.domains import DOMAINS
from utils.data.sections import data_section
from utils.errors import check_name

Objective = Annotated[str, OneOf(OBJECTIVES)]
Rule = Annotated[str, OneOf(RULES)]
Schedule = Annotated[str, OneOf(SCHEDULES)]
Penalty = Annotated[str, OneOf(PENALTIES)]
Augmentation = Annotated[str, OneOf(augmentation.NAMES)]
Precision = Annotated[str, OneOf(("no", "bf16", "float64"))]  # no Literal: checks.py has more to say about fp16
Threads = Annotated[int, Ge(0), Le(4096)]  # PyTorch counts them in 32 bits, and starts them all
Timeout = Annotated[int, Ge(1), Le(7 * 24 * 3600)]  # a week, as long as processes wait for one that works alone
Limit = Annotated[float, Ge(0), Le(3e38)]  # clamping to more than float32 holds is an error
Beta = Annotated[float, Ge(0), Lt(1)]
Optimizer = Annotated[str, OneOf(OPTIMIZERS)]
Factor = Annotated[float, Gt(0)]
Player = Annotated[str, OneOf(("generator", "critic"))]
# What Accelerate has a tracker for, by the names of their packages.
Tracker = Annotated[str, OneOf(("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb"))]
AdaptationMethod = Annotated[str, OneOf(METHODS)]
Reference = Literal["auto", "held-out", "training"]
SPACES = ("auto", "classifier", "lite0", "inception", "dinov2", "file")  # utils.evaluation.spaces has the networks
Features = Annotated[str, OneOf(SPACES)]
Colour = Annotated[list[float], Len(3, 3)]
INVARIANCE_METHODS = ("dann", "layers", "mada", "source_only")  # those that need no target domain
InvarianceMethod = Annotated[str, OneOf(INVARIANCE_METHODS)]


@dataclass
class RunConfig:
    """Fields of ``run.*``."""

    name: str = ""  # folder of this run inside run.dir; empty: the name of the YAML file
    dir: str = "runs"  # folder that holds all runs
    device: Literal["auto", "cpu"] = "auto"  # auto: what accelerate finds; cpu: the CPU even with an accelerator
    processes: NonNegativeInt = 0  # refuse to start with another number (accelerate launch --cpu starts one); 0: any
    timeout: Timeout = 600  # seconds in which a process that dies or hangs has ended all others, too, and is named
    deterministic: bool = False  # the same bits on GPUs, too; slower there: utils.training.processes.make_deterministic
    threads: Threads = 0  # CPU threads of a process; 0: PyTorch's choice, one a core (slow on a shared machine)


class GameConfig:
    """What every kind of game says besides its keys."""

    datasets: ClassVar[dict]  # the registry of what it trains on
    networks: ClassVar[str]  # which networks a model family must have: "generator" or "features"
    offers: ClassVar[tuple[str, ...]]  # what it has that a penalty may need (``Penalty.needs``)
    metrics: ClassVar[tuple[str, ...]]  # by which checkpoint.best may choose: none looks at a target label


@dataclass
class GenerationConfig(GameConfig):
    """Fields of ``game.*`` for a GAN."""

    datasets = DATASETS
    networks = "generator"
    offers = ("fakes", "samples", "images", "mapping")  # the last two if the data and the networks have them
    metrics = (
        "modes", "high quality", "reverse KL", "recognised", "rarest class", "class score", "Fréchet distance",
        "kernel distance", "precision", "recall", "density", "coverage", "intra-class Fréchet distance",
        "intra-class kernel distance", "intra-class precision", "intra-class recall", "intra-class density",
        "intra-class coverage",
    )  # fmt: skip

    name: str = "generation"  # the game: generation (a GAN), adaptation (two domains) or invariance (K attributes)
    objective: Objective = "non_saturating"  # the players' losses: a key of adversarial.objectives.OBJECTIVES
    conditional: bool = False  # give the data's class labels to both players
    auxiliary: NonNegativeFloat = 0.0  # conditional: weight of AC-GAN's loss, whose critic names the class; 0: off
    pack: PositiveInt = 1  # samples that the critic judges at once (PacGAN), with one score for them all


@dataclass
class AdaptationConfig(GameConfig):
    """Fields of ``game.*`` for two domains, of which the source is labelled."""

    datasets = DOMAINS
    networks = "features"
    offers = ("fakes",)
    metrics = ("source accuracy", "entropy", "SND", "BNM", "IW risk", "DEV risk")

    name: str = "adaptation"  # the game: generation (a GAN), adaptation (two domains) or invariance (K attributes)
    objective: Objective = "non_saturating"  # the players' losses: a key of adversarial.objectives.OBJECTIVES
    method: AdaptationMethod = "dann"  # what the critics see, or a baseline: adversarial.domains.METHODS
    margin: NonNegativeFloat = 4.0  # mdd: γ, the weight of the source's side


@dataclass
class InvarianceConfig(GameConfig):
    """Fields of ``game.*`` for one labelled set whose samples have an attribute that the features should hide."""

    datasets = DOMAINS
    networks = "features"
    offers = ()
    metrics = ("source accuracy",)

    name: str = "invariance"  # the game: generation (a GAN), adaptation (two domains) or invariance (K attributes)
    objective: Objective = "non_saturating"  # the players' losses: a key of adversarial.objectives.OBJECTIVES
    method: InvarianceMethod = "dann"  # what the critics see, or a baseline: adversarial.domains.METHODS


@dataclass
class UpdateConfig:
    """Fields of ``update.*``."""

    rule: Rule = "single_pass"  # alternating, simultaneous or single_pass: adversarial/rules.py
    critic_steps: PositiveInt = 1  # critic updates for each generator update
    reuse_fakes: bool = False  # alternating only: the generator's step reuses the fakes of the last critic step
    coefficient: NonNegativeFloat = 1.0  # λ on the generator's adversarial gradient; the critic's update is not scaled
    schedule: Schedule = "constant"  # of λ over the run: a key of adversarial.schedules.SCHEDULES
    warmup: NonNegativeInt = 0  # steps over which λ rises linearly from 0 to its schedule
    lookahead: NonNegativeFloat = 0.0  # simultaneous, single_pass: play where the critic will be in so many steps
    lookahead_schedule: Schedule = "constant"  # of lookahead over the run: a key of adversarial.schedules.SCHEDULES
    generator_lookahead: NonNegativeFloat = 0.0  # simultaneous, single_pass: ... and where the generator will be


def _penalty_fields() -> Iterator[tuple[str, Any, Any]]:
    """For each penalty of the registry its weight γ, and its options as ``name_option``."""
    for name, penalty in PENALTIES.items():
        yield name, NonNegativeFloat, field(default=0.0, metadata={"comment": f"{penalty.summary}; 0: off"})
        for option in fields(penalty):
            comment = {"comment": f"{name}: {option.metadata['comment']}"}
            yield f"{name}_{option.name}", NonNegativeFloat, field(default=option.default, metadata=comment)


@dataclass
class PenaltyConfig(make_dataclass("Penalties", _penalty_fields())):
    """Fields of ``penalty.*``: those of the registry, and these."""

    clip: Limit = 0.0  # limit of the critic's weights after its steps (WGAN); 0.01 in its paper; 0: off
    every: dict[Penalty, PositiveInt] = field(default_factory=dict)  # lazy: {r1: 16} is R1 every 16th step, 16 times
    schedule: dict[Penalty, Schedule] = field(default_factory=dict)  # of γ over the run, {r1: name in SCHEDULES}


@dataclass
class AugmentConfig:
    """Fields of ``augment.*``: what the critic sees of real and fake images, both changed at random."""

    name: Augmentation = "none"  # none, diffaugment (every image) or ADA's: scheduled (p of the step), ada (adaptive)
    policy: list[str] = field(default_factory=list)  # transforms, named in adversarial/augmentation.py; []: the paper's
    p: Share = 0.3  # scheduled: the probability of each transform
    schedule: Schedule = "constant"  # scheduled: of p over the run, a key of adversarial.schedules.SCHEDULES
    warmup: NonNegativeInt = 0  # scheduled: steps over which p rises linearly from 0 to its schedule
    target: Annotated[float, Ge(-1), Le(1)] = 0.6  # ada: p grows while the mean sign of real scores is above it
    images: PositiveInt = 500000  # ada: images over which p can move by 1
    every: PositiveInt = 4  # ada: steps between moves of p


@dataclass
class OptimizerConfig:
    """Fields of ``optimizer.*``, of both players."""

    name: Optimizer = "adam"  # adam or sgd: adversarial/optimizers.py
    generator_lr: NonNegativeFloat = 2e-4  # generator's learning rate
    critic_lr: NonNegativeFloat = 2e-4  # critic's learning rate
    betas: Annotated[list[Beta], Len(2, 2)] = field(default_factory=lambda: [0.5, 0.999])  # Adam's β1, β2
    eps: Annotated[float, Gt(0)] = 1e-8  # Adam's ε
    momentum: NonNegativeFloat = 0.0  # sgd's
    weight_decay: NonNegativeFloat = 0.0  # L2, on all parameters
    schedule: Schedule = "constant"  # of both learning rates over the run: a key of adversarial.schedules.SCHEDULES
    warmup: NonNegativeInt = 0  # steps over which both learning rates rise linearly from 0
    scale: dict[str, Factor] = field(default_factory=dict)  # learning rates by layer, {critic.last: 10} is ten times


@dataclass
class InitConfig:
    """Fields of ``init.*``: where weights come from before the first step, and which of them never move."""

    run: str = ""  # folder of the run, or of the export, whose networks this one starts from; empty: none
    step: NonNegativeInt | None = None  # of that run's checkpoints the one of this step; null: the newest
    weights: Literal["same", "ema", "raw", "best"] = "same"  # the generator starts from; same: raw and average apart
    parts: list[Player] = field(default_factory=lambda: ["generator", "critic"])  # players that start from that run
    freeze: list[str] = field(default_factory=list)  # layers that do not learn, by name, such as critic.features.0
    fork: bool = False  # go on from that run's step, with its optimisers and schedules, instead of at step 0


@dataclass
class TrainConfig:
    """Fields of ``train.*``."""

    steps: PositiveInt | None = 10000  # generator updates; raise it to continue a finished run; null: until a signal
    batch_size: PositiveInt = 64  # samples per update over all processes together
    accumulate: PositiveInt = 1  # micro-batches that a process cuts its share of a batch into, to save memory
    precision: Precision = "no"  # no: float32; bf16: autocast to bfloat16; float64: to check what is exact
    sync_batchnorm: bool = False  # BatchNorm over the batch of all processes, not over each one's share
    compile: bool = False  # torch.compile both networks
    channels_last: bool = True  # NHWC memory for convolutions: faster on CPUs and on GPUs with tensor cores


@dataclass
class EmaConfig:
    """Fields of ``ema.*``: the moving average of the generator, which samples and metrics use."""

    half_life: NonNegativeFloat = 10000.0  # in images; 0: no averaging
    ramp_up: NonNegativeFloat = 0.05  # early on the half-life is at most this share of the images seen; 0: no ramp


@dataclass
class BurnInConfig:
    """Fields of ``burn_in.*``: where values start that reach their own keys' along half a cosine, as in R3GAN."""

    images: NonNegativeFloat = 0.0  # length of the burn-in, in images; 0: none
    lr: NonNegativeFloat = 1.0  # both learning rates start at this multiple of their own
    beta2: Beta | None = None  # Adam's β2 at the start; null: as in optimizer.betas
    ema_half_life: NonNegativeFloat | None = None  # half-life of the EMA at the start, in images; null: ema.half_life
    gamma: NonNegativeFloat = 1.0  # the weights γ of all penalties start at this multiple of their own
    augment_p: Share | None = None  # augment.name=scheduled: p at the start; null: as in augment.p


@dataclass
class LogConfig:
    """Fields of ``log.*``."""

    trackers: list[Tracker] = field(default_factory=list)  # besides TensorBoard: [wandb], [mlflow, trackio], ...
    project: str = "flipside"  # what trackers call the project, or the experiment
    every: PositiveInt = 100  # steps between lines of metrics.jsonl and points of TensorBoard curves


@dataclass
class GuardConfig:
    """Fields of ``guard.*``: what is done about runs that go wrong. NaN and Inf always stop or roll back."""

    rollbacks: NonNegativeInt = 0  # times that a run goes back to its last checkpoint, to leave out a NaN or Inf step
    score_gap: NonNegativeFloat = 50.0  # warn of a dominant critic if mean real and fake scores are this far apart ...
    patience: PositiveInt = 3  # ... in so many log lines in a row
    vanished: NonNegativeFloat = 1e-10  # warn if the norm of the generator's gradient is below this


@dataclass
class SampleConfig:
    """Fields of ``sample.*``."""

    every: NonNegativeInt = 500  # steps between pictures of the same latents; 0: only at the end
    count: PositiveInt = 64  # samples in a picture of images (points are drawn as a scatter plot of more)


@dataclass
class ExplainConfig:
    """Fields of ``explain.*``: pictures of what the critic looks at, as ``explain.py`` makes them."""

    every: NonNegativeInt = 0  # steps between such pictures, in explain/ and in TensorBoard; 0: none
    count: PositiveInt = 6  # samples of each side in them


@dataclass
class EvaluateConfig:
    """Fields of ``evaluate.*``."""

    every: NonNegativeInt = 0  # steps between evaluations; 0: only at the end
    samples: Annotated[int, Ge(2)] = 1000  # generated, or of each domain, that a metric is computed on (an oracle: all)
    reference: Reference = "auto"  # split that generated images are compared with: auto is held-out if there is one
    reference_samples: Annotated[int, Ge(2)] = 10000  # images of each split that generated ones are compared with
    features: Features = "auto"  # space: classifier, lite0, inception, dinov2, file; auto: classifier, or else lite0
    features_file: str = ""  # network (file) or weights of the space; empty: the space's own, fetched where need be
    features_resolution: NonNegativeInt = 0  # file: pixels that the network takes; 0: as many as the images have
    features_mean: Colour = field(default_factory=lambda: [0.485, 0.456, 0.406])  # file: subtracted of pixels in [0, 1]
    features_std: Colour = field(default_factory=lambda: [0.229, 0.224, 0.225])  # file: what it divides them by


@dataclass
class CheckpointConfig:
    """Fields of ``checkpoint.*``."""

    every: PositiveInt = 500  # steps between checkpoints; one is also written at the end and on a signal
    keep: Annotated[int, Ge(2)] = 2  # newest checkpoints that are kept; at least 2
    best: str = "auto"  # metric whose best evaluation is kept in best/; auto: the game's own; none


@dataclass
class Config:
    """Everything that describes a run."""

    seed: int = 0  # every random number of the run is a function of this and the step
    run: RunConfig = field(default_factory=RunConfig)
    data: Any = field(default_factory=lambda: data_section("digits", DATASETS)(name="digits"))
    model: Any = field(default_factory=dcgan.Config)
    game: Any = field(default_factory=GenerationConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    init: InitConfig = field(default_factory=InitConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    burn_in: BurnInConfig = field(default_factory=BurnInConfig)
    log: LogConfig = field(default_factory=LogConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


GAMES = {"generation": GenerationConfig, "adaptation": AdaptationConfig, "invariance": InvarianceConfig}


def named_sections(model: str, game: str, data: str) -> dict[str, Any]:
    """The defaults of the three sections whose keys depend on their name, by section.

    Raises UserError, with the nearest valid names, for an unknown name.
    """
    check_name("game.name", game, GAMES)
    check_name("model.name", model, FAMILIES)
    return {
        "model": FAMILIES[model].config(name=model),
        "game": GAMES[game](name=game),
        "data": data_section(data, GAMES[game].datasets)(name=data),
    }


def kinds(section: str) -> Iterator[tuple[str, type]]:
    """Every name of ``model``, ``game`` or ``data`` with the dataclass that it chooses; nothing for other sections."""
    match section:
        case "model":
            yield from ((name, family.config) for name, family in FAMILIES.items())
        case "game":
            yield from GAMES.items()
        case "data":
            for registry in (DATASETS, DOMAINS):
                yield from ((name, data_section(name, registry)) for name in registry)


def metric_named(name: str, metrics: Iterable[str]) -> str | None:
    """The metric of this name, which may be written without accents and in any case: ``frechet distance``."""
    return next((metric for metric in metrics if _plain(metric) == _plain(name)), None)


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c)).casefold()


def penalised_slope(config: Config) -> str | None:
    """The first penalty in use, if any, for which the critic's input gradient is differentiated."""
    given = vars(config.penalty)
    return next((name for name, penalty in PENALTIES.items() if given[name] and penalty.acts_on == SLOPES), None)


def schedules(config: Config) -> dict[str, str]:
    """The schedules over the run, by their keys."""
    return {
        "update.schedule": config.update.schedule,
        "update.lookahead_schedule": config.update.lookahead_schedule,
        "augment.schedule": config.augment.schedule,
        "optimizer.schedule": config.optimizer.schedule,
        **{f"penalty.schedule.{name}": schedule for name, schedule in config.penalty.schedule.items()},
    }
