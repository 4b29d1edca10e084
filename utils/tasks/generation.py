"""Around the generation game: its data, networks, pictures and metrics."""

from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adversarial.augmentation import augmentation, resamples
from adversarial.games import Game, GenerationGame, couples_samples
from adversarial.penalties import input_gradients, zero_centred
from models import FAMILIES, auxiliary
from utils import pictures
from utils.config.sections import METRICS, Config, penalised_slope
from utils.data import datasets
from utils.data.datasets import DataSet
from utils.data.randomness import Draw, seeded
from utils.errors import UserError
from utils.evaluation import generation as evaluation
from utils.evaluation import sampling
from utils.evaluation.generation import Record
from utils.evaluation.sampling import every_class, latents, sample
from utils.training.players import Players, wrapped

Pictures = dict[str, Tensor]
POINTS = 2500  # points in a scatter plot
_COUPLED = (
    "update.rule=single_pass needs a critic that judges each sample on its own, and the scores of this one "
    "({name}) depend on the whole batch, as with BatchNorm; use update.rule=simultaneous or update.rule=alternating, "
    "or a critic without batch statistics."
)


class Generation:
    """A GAN (``utils.tasks.registry.Task``)."""

    sides = ("real", "fake")
    shown: ClassVar = {"D": "critic_loss", "G": "generator_loss", "real": "real_score", "fake": "fake_score"}
    picture_name = "samples"
    metrics = METRICS["generation"]
    best = ""
    advice = "Try penalty.r1, a lower optimizer.critic_lr, or model.critic_norm=spectral."

    def load(self, config: Config) -> DataSet:
        data = datasets.load(config.data, config.seed)
        if config.game.conditional and data.classes:
            _check_classes(data)
        return data

    def sizes(self, data: DataSet) -> dict[str, Any]:
        return {"shape": data.shape, "classes": data.classes}

    def networks(self, config: Config, sizes: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        if config.game.conditional and not sizes["classes"]:
            raise UserError(f"game.conditional=true needs class labels, and data set '{config.data.name}' has none.")
        if config.game.auxiliary and sizes["classes"] < 2:
            raise UserError(f"game.auxiliary tells classes apart, and data set '{config.data.name}' has one alone.")
        family, shape = FAMILIES[config.model.name], tuple(sizes["shape"])
        _check_images(config, shape)
        classes = sizes["classes"] if config.game.conditional else 0
        try:
            with seeded(config.seed, "initialisation"):
                generator = family.generator(config.model, shape, classes)
                judged = _judged_shape(config, shape)
                critic = family.critic(config.model, judged, 0 if config.game.auxiliary else classes)
                critic = auxiliary.Critic(critic, judged, classes) if config.game.auxiliary else critic
        except ValueError as error:
            raise UserError(
                f"model.name={config.model.name} does not fit data.name={config.data.name}: {error}."
            ) from None
        if config.penalty.path and not (hasattr(generator, "map") and hasattr(generator, "synthesise")):
            raise UserError(
                f"penalty.path needs a generator with a mapping network, and model.name={config.model.name} has none; "
                "use penalty.path=0."
            )
        return generator, critic

    def start(self, config: Config, generator: nn.Module) -> None:
        """A generator begins at random."""

    def game(self, config: Config, players: Players, data: DataSet, accelerator: Accelerator) -> Game:
        """A critic that couples samples cannot be played in a single pass, and is given real and fake one by one."""
        _check_packs(config, accelerator.num_processes)
        _check_deterministic(config, accelerator.device)
        scores = 2 if config.game.auxiliary else 0  # the score itself and the class's log-odds
        coupled = couples_samples(players.critic, *_probe(config, data, 4, accelerator.device), classes=scores)
        check_rule(config, coupled, config.model.name)
        generator, critic = wrapped(config, players, accelerator)
        together = not coupled and judges_in_one_call(config)
        if config.train.compile and penalised_slope(config):
            share = config.train.batch_size // (accelerator.num_processes * config.train.accumulate)
            count = share * (2 if together else 1) // config.game.pack
            _check_compiled(config, coupled, critic, *_probe(config, data, count, accelerator.device), accelerator)
        return GenerationGame(
            generator, critic, config.model.latent_dim, config.game.conditional, together, config.game.pack,
            augment=augmentation(config.augment.name, config.augment.policy), memory=players.memory,
        )  # fmt: skip

    def picture(self, config: Config, players: Players, data: DataSet) -> Tensor:
        """Samples of the average generator, from the same latents every time."""
        count = config.sample.count if len(data.shape) == 3 else POINTS
        z = latents(count, config.model.latent_dim, config.seed)
        samples = sample(players.average, z, every_class(count, data.classes if config.game.conditional else 0))
        return pictures.picture(samples, columns=round(count**0.5), modes=data.modes)

    def gallery(self, config: Config, players: Players, state: dict[str, Any], options: Namespace) -> Pictures:
        """Samples in a grid, or walks between latents."""
        _check_options(options, config, state)
        dimension, kind = config.model.latent_dim, "interpolation" if options.interpolate else "grid"
        if options.interpolate:
            latent = sampling.interpolation(options.interpolate, options.columns, dimension, options.seed)
        else:
            latent = latents(options.count, dimension, options.seed, options.truncation)
        samples = sample(players.average, latent, _labels(options, config, state["classes"], len(latent)))
        modes = self.load(config).modes if samples.ndim == 2 else None
        return {kind: pictures.picture(samples, options.columns, modes)}

    def evaluate(self, config: Config, players: Players, data: DataSet, folder: Path) -> list[Record]:
        return evaluation.evaluate(
            players.average, data, config.game.conditional, config.model.latent_dim,
            config.evaluate.samples, config.seed, folder,
        )  # fmt: skip


def check_rule(config: Config, coupled: bool, critic: str) -> None:
    """Raise UserError, naming the ``critic``, if it couples samples and the update rule cannot serve that."""
    if coupled and config.update.rule == "single_pass":
        raise UserError(_COUPLED.format(name=critic))


def judges_in_one_call(config: Config) -> bool:
    """One call of the critic for both sides is faster, unless a gradient of one alone is taken: it would pass both."""
    return config.update.rule != "simultaneous" and (config.penalty.r1 > 0) == (config.penalty.r2 > 0)


def _judged_shape(config: Config, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what the critic judges at once."""
    return (config.game.pack * shape[0], *shape[1:])


def _probe(config: Config, data: DataSet, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Noise in the shape of what the critic judges, and labels where it is given any."""
    draw = Draw((config.seed, "probe"), count, slice(None), device)
    label = torch.arange(count, device=device) % data.classes if config.game.conditional else None
    return draw.normal("x", _judged_shape(config, data.shape)), label


def _check_classes(data: DataSet) -> None:
    """Raise UserError unless the K labels are 0 to K - 1: classes without samples would be drawn untrained."""
    labels = data.train.label.unique().tolist()
    if len(labels) != data.classes or labels[-1] != data.classes - 1:
        missing = next((i for i, label in enumerate(labels) if i != label), len(labels))
        raise UserError(
            f"The samples of data set '{data.name}' have {len(labels)} labels, up to {labels[-1]}, and should have "
            f"{data.classes}; label {missing} is missing. Number the classes 0, 1, 2, ... or set "
            "game.conditional=false."
        )


def _check_packs(config: Config, processes: int) -> None:
    """Raise UserError if a process's share of the batch is not made of whole packs."""
    parts = config.game.pack * processes * config.train.accumulate
    if config.train.batch_size % parts:
        raise UserError(
            f"train.batch_size is {config.train.batch_size} and must be a multiple of {parts}: "
            f"game.pack={config.game.pack} samples are judged at once, in each of {processes} processes and "
            f"{config.train.accumulate} micro-batches."
        )


def _check_deterministic(config: Config, device: torch.device) -> None:
    """Raise UserError where bits were promised that an augmentation cannot keep on a GPU."""
    moves = config.penalty.consistency or resamples(config.augment.name, config.augment.policy)
    if config.run.deterministic and device.type == "cuda" and moves:
        raise UserError(
            "run.deterministic=true cannot serve augmentations that move pixels about, nor penalty.consistency: their "
            "gradient has no deterministic form on GPUs; use augment.policy=[colour,cutout] or run.deterministic=false."
        )


def _check_compiled(
    config: Config, coupled: bool, critic: nn.Module, inputs: Tensor, label: Tensor | None, accelerator: Accelerator
) -> None:
    """Raise UserError if the critic's slope cannot be compiled: found out by a penalised step, which is then undone.

    The ``critic`` is as the update rules call it, and is given as many samples: it is then compiled for the first step.
    """
    what = f"train.compile cannot serve penalty.{penalised_slope(config)} with the critic of model.name="
    if coupled:
        raise UserError(
            f"{what}{config.model.name}: its scores depend on the whole batch, as with BatchNorm; use "
            "train.compile=false or a critic without batch statistics."
        )
    from torch._dynamo.exc import TorchDynamoException  # here, for it takes a second, which only compiling is worth

    before = {name: value.clone() for name, value in critic.state_dict().items()}
    try:
        with accelerator.no_sync(critic):
            x = inputs.requires_grad_()
            (slope,) = input_gradients([critic(x, label)], [x])
        learning = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        torch.autograd.grad(zero_centred(slope).mean(), learning, allow_unused=True)
    except (RuntimeError, TorchDynamoException) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{what}{config.model.name} ({reason}); use train.compile=false.") from error
    critic.load_state_dict(before)


def _check_images(config: Config, shape: tuple[int, ...]) -> None:
    """Raise UserError where samples of this shape cannot be changed as ``config`` says."""
    square = len(shape) == 3 and shape[1] == shape[2]
    what = f"samples of shape {shape} in data.name={config.data.name}"
    if config.augment.name != "none" and not (square and shape[0] in (1, 3)):
        raise UserError(
            f"augment.name={config.augment.name} changes square images of 1 or 3 channels, not the {what}; use "
            "augment.name=none."
        )
    if config.penalty.consistency and not square:
        raise UserError(
            f"penalty.consistency mirrors and shifts square images, not the {what}; use penalty.consistency=0."
        )


def _check_options(options: Namespace, config: Config, state: dict[str, Any]) -> None:
    """Raise UserError for options that do not fit the run."""
    if vars(options)["class"] is not None and not config.game.conditional:
        raise UserError(f"--class needs a class-conditional run, and {options.run} is not (game.conditional=false).")
    if vars(options)["class"] is not None and not 0 <= vars(options)["class"] < state["classes"]:
        raise UserError(f"--class is {vars(options)['class']} and must be from 0 to {state['classes'] - 1}.")
    if options.truncation is not None and not options.truncation > 0:
        raise UserError(f"--truncation is {options.truncation} and must be above 0.")
    if options.truncation is not None and options.interpolate:
        raise UserError("--truncation and --interpolate cannot be used together.")
    if options.interpolate and len(state["shape"]) != 3:
        raise UserError(f"--interpolate draws images, and {options.run} makes points.")


def _labels(options: Namespace, config: Config, classes: int, count: int) -> Tensor | None:
    """One class, or all in turn; on an interpolation one class a row."""
    if not config.game.conditional:
        return None
    if vars(options)["class"] is not None:
        return torch.full((count,), vars(options)["class"])
    if options.interpolate:
        return (torch.arange(options.interpolate) % classes).repeat_interleave(options.columns)
    return every_class(count, classes)
