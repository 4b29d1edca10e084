"""Generation, a GAN: its data, networks, pictures and metrics."""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adversarial.augmentation import augmentation, resamples
from adversarial.coupling import couples_samples
from adversarial.draws import Draw
from adversarial.games import Game, GenerationGame, Side, packed
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import take_slopes, zero_centred
from models import FAMILIES, auxiliary
from utils import pictures
from utils.config.checks import check_penalties
from utils.config.sections import Config, GenerationConfig, penalised_slope
from utils.data import datasets
from utils.data.randomness import seeded
from utils.data.samples import DataSet
from utils.errors import UserError
from utils.evaluation import generation as evaluation
from utils.evaluation import sampling
from utils.evaluation.features import Features
from utils.evaluation.image_critics import overfitting
from utils.evaluation.predictions import prepared_batches, subset
from utils.evaluation.records import Record
from utils.evaluation.sampling import evaluating, every_class, latents, sample
from utils.tasks import drawing
from utils.tasks.checks import check_rule, judges_in_one_call
from utils.tasks.explanations import Scored, explain_score, joined
from utils.tasks.task import Explanation, ImageBatch, Pictures
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.players import Players, wrapped
from utils.training.state import RunState, Sizes

POINTS = 2500  # points in a scatter plot
MOST_JUDGED = 2000  # images of a split that the critic is asked about at once


class Generation:
    """A generator against a critic (``utils.tasks.task.Task``)."""

    side_names = ("real", "fake")
    progress_statistics: ClassVar = {
        "D": "critic_loss", "G": "generator_loss", "real": "real_score", "fake": "fake_score",
    }  # fmt: skip
    picture_tag = "samples"
    metrics = GenerationConfig.metrics
    best_metric = "Fréchet distance"
    critic_dominates_hint = "Try penalty.r1, a lower optimizer.critic_lr, or model.critic_norm=spectral."

    def load(self, config: Config) -> DataSet:
        data = datasets.load(config.data, config.seed)
        if config.game.conditional and data.classes:
            _check_classes(data)
        return data

    def sizes(self, data: DataSet) -> Sizes:
        return Sizes(data.shape, data.classes, aspect=data.aspect)

    def networks(self, config: Config, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        shape, known_classes = sizes.shape, sizes.classes
        _check_conditioning(config, known_classes)
        _check_augmentation(config, shape)
        family, auxiliary_loss = FAMILIES[config.model.name], config.game.auxiliary
        classes = known_classes if config.game.conditional else 0
        judged = _judged_shape(config, shape)
        try:
            with seeded(config.seed, "initialisation"):
                generator = family.generator(config.model, shape, classes)
                # AC-GAN's critic must not be given the class that it is to name.
                critic = family.critic(config.model, judged, 0 if auxiliary_loss else classes)
                critic = auxiliary.Critic(critic, judged, classes) if auxiliary_loss else critic
        except ValueError as error:
            raise UserError(
                f"model.name={config.model.name} does not fit data.name={config.data.name}: {error}."
            ) from None
        where = f"model.name={config.model.name} on samples of shape {shape} (data.name={config.data.name})"
        check_penalties(config, _offered(generator, shape), where)
        return generator, critic

    def start(self, config: Config, generator: nn.Module) -> None:
        """Nothing to load: a generator starts from random weights."""

    def adopt(self, config: Config, source: Checkpoint) -> Tensors:
        return source.tensors

    def game(self, config: Config, players: Players, data: DataSet, accelerator: Accelerator) -> Game:
        _check_packs(config, accelerator.num_processes)
        _check_deterministic(config, accelerator.device)
        scores = 2 if config.game.auxiliary else 0  # the score itself and the class's log-odds
        coupled = couples_samples(players.critic, *_noise(config, data, 4, accelerator.device), classes=scores)
        check_rule(config, coupled, config.model.name)
        generator, critic = wrapped(config, players, accelerator)
        # A critic that couples samples must not see real and fake in one batch (Radford et al. 2016).
        together = not coupled and judges_in_one_call(config)
        if config.train.compile and penalised_slope(config):
            share = config.train.batch_size // (accelerator.num_processes * config.train.accumulate)
            count = share * (2 if together else 1) // config.game.pack
            inputs = _noise(config, data, count, accelerator.device)
            _check_compiled(config, coupled, critic, *inputs, accelerator)
        return GenerationGame(
            generator, critic, config.model.latent_dim, config.game.conditional, together, config.game.pack,
            augment=augmentation(config.augment.name, config.augment.policy), probability=players.probability,
        )  # fmt: skip

    def picture(self, config: Config, players: Players, data: DataSet) -> Tensor:
        """Samples of the averaged generator, from the same latents every time."""
        count = config.sample.count if len(data.shape) == 3 else POINTS
        z = latents(count, config.model.latent_dim, config.seed)
        samples = sample(players.average, z, every_class(count, data.classes if config.game.conditional else 0))
        centres = None if data.modes is None else data.modes.centres
        return pictures.picture(samples, columns=round(count**0.5), centres=centres, aspect=data.aspect)

    def gallery(self, config: Config, players: Players, state: RunState, options: Namespace) -> Pictures:
        """Samples in a grid, walks between latents, mixtures of styles, or a film."""
        modes = self.load(config).modes if len(state.sizes.shape) == 1 else None
        centres = None if modes is None else modes.centres
        return drawing.gallery(players.average, config, state.sizes, options, centres)

    def batches(self, config: Config, players: Players, state: RunState, options: Namespace) -> Iterator[ImageBatch]:
        return drawing.batches(players.average, config, state.sizes, options)

    def explain(
        self, config: Config, players: Players, data: DataSet, count: int, seed: int, layer: str = ""
    ) -> Explanation:
        """Of the critic's score, and where the critic names classes (AC-GAN) of the log-odds of the sample's own."""
        pack, device = config.game.pack, next(players.critic.parameters()).device
        count = max(min(count, len(data.train)) // pack, 1) * pack
        train = subset(data.train, count)
        real = torch.cat(list(prepared_batches(train, device)))
        label = train.label.to(device) if config.game.conditional else None  # as in the game, of both sides
        z = latents(count, config.model.latent_dim, seed)
        fake = sample(players.average, z, None if label is None else label.cpu()).to(device)

        def scores(x: Tensor, label: Tensor | None, output: int) -> Tensor:
            found = players.critic(packed(x, pack) if pack > 1 else x, label)
            return found.reshape(len(found), -1)[:, output]

        def field(points: Tensor, output: int) -> Tensor:
            """Mean over classes, and in packs with the same real samples everywhere."""
            mates = real[: pack - 1].flatten().expand(len(points), -1)
            x = torch.cat([points, mates], dim=1).reshape(-1, *data.shape)
            classes = range(data.classes) if config.game.conditional else [None]
            of_class = [None if k is None else torch.full((len(x),), k, device=device) for k in classes]
            return torch.stack([scores(x, label, output) for label in of_class]).mean(0)

        outputs = {"critic": "critic's score", **({"class": "class's log-odds"} if config.game.auxiliary else {})}
        network = nn.ModuleDict({"critic": players.critic})
        made = []
        for i, (name, output) in enumerate(outputs.items()):
            score = partial(scores, label=label, output=i)
            sides = [Scored("real", real, score), Scored("generated", fake, score)]
            made.append(explain_score(name, output, sides, partial(field, output=i), network, layer))
        return joined(made)

    def offered(self, config: Config, data: DataSet) -> tuple[str, ...]:
        return tuple(name for name in evaluation.offered(data, _settings(config)) if name in self.metrics)

    def check_evaluation(self, config: Config, data: DataSet, folder: Path, device: torch.device) -> None:
        evaluation.check(data, _settings(config), folder, device)

    def evaluate(
        self, config: Config, players: Players, data: DataSet, folder: Path, made: Features | None = None
    ) -> list[Record]:
        records = evaluation.evaluate(players.average, data, _settings(config), folder, made)
        return records + _overfitting(config, players, data)

    def share(
        self, config: Config, players: Players, data: DataSet, folder: Path, rank: int, size: int
    ) -> evaluation.Share | None:
        return evaluation.share_of(players.average, data, _settings(config), folder, rank, size)

    def illustrate(self, config: Config, players: Players, data: DataSet, records: list[Record]) -> Pictures:
        """Samples, and below each the training image that is nearest to it."""
        made = {}
        for record in records:
            if "neighbours" in record:
                images = evaluation.beside(players.average, data, _settings(config), record["neighbours"])
                made["neighbours"] = pictures.picture(images, columns=len(record["neighbours"]))
        return made

    def verdict(self, config: Config, measured: list[Record]) -> str:
        return ""  # no critic is trained afresh on images


def _settings(config: Config) -> evaluation.Settings:
    given = dict(vars(config.evaluate))
    del given["every"]
    return evaluation.Settings(config.model.latent_dim, seed=config.seed, conditional=config.game.conditional, **given)


def _overfitting(config: Config, players: Players, data: DataSet) -> list[Record]:
    """How differently the critic scores training and held-out images; nothing where none were held out."""
    if data.test is None:
        return []
    pack, device = config.game.pack, next(players.critic.parameters()).device
    count = min(len(data.train), len(data.test), config.evaluate.samples, MOST_JUDGED) // pack * pack
    label = every_class(count, data.classes if config.game.conditional else 0)
    made = sample(players.average, latents(count, config.model.latent_dim, config.seed), label).to(device)

    def scores(x: Tensor, label: Tensor | None) -> Tensor:
        label = None if label is None or not config.game.conditional else label.to(device)
        found = players.critic(packed(x, pack) if pack > 1 else x, label)
        return found.reshape(len(found), -1)[:, 0]

    with evaluating(players.critic), torch.no_grad():
        reals = [subset(split, count) for split in (data.train, data.test)]
        seen, unseen = (scores(torch.cat(list(prepared_batches(x, device))), x.label) for x in reals)
        found = overfitting(seen, unseen, scores(made, label), OBJECTIVES[config.game.objective].boundary)
    about = {"reference": data.name, "split": "held-out", "reference_samples": count, "samples": count}
    nothing = dict.fromkeys(("features", "features_sha256", "truncation", "resizer"))
    return [{**found, **about, **nothing, "seed": config.seed}]


def _judged_shape(config: Config, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what the critic judges at once."""
    return (config.game.pack * shape[0], *shape[1:])


def _noise(config: Config, data: DataSet, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Inputs to try the critic on: noise in the shape of what it judges, and labels where it is given any."""
    draw = Draw((config.seed, "probe"), count, device=device)
    label = torch.arange(count, device=device) % data.classes if config.game.conditional else None
    return draw.normal("x", _judged_shape(config, data.shape)), label


def _offered(generator: nn.Module, shape: tuple[int, ...]) -> set[str]:
    """What penalties may need (``checks.NEEDS``) and find in the game of this generator."""
    offered = {"fakes", "samples"}
    if _is_square_image(shape):
        offered.add("images")
    if sampling.has_mapping(generator):
        offered.add("mapping")
    return offered


def _is_square_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] == shape[2]


def _check_conditioning(config: Config, classes: int) -> None:
    """Raise UserError where the game needs classes that the data do not have."""
    if config.game.conditional and not classes:
        raise UserError(f"game.conditional=true needs class labels, and data set '{config.data.name}' has none.")
    if config.game.auxiliary and classes < 2:
        raise UserError(f"game.auxiliary needs at least two classes, and data set '{config.data.name}' has only one.")


def _check_classes(data: DataSet) -> None:
    """Raise UserError unless the K labels are 0 to K - 1: a class without samples would be drawn but never trained."""
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
    """Raise UserError where an augmentation on a GPU would break the promise of the same bits."""
    moves = config.penalty.consistency or resamples(config.augment.name, config.augment.policy)
    if config.run.deterministic and device.type == "cuda" and moves:
        raise UserError(
            "run.deterministic=true cannot serve augmentations that move pixels about, nor penalty.consistency: their "
            "gradient has no deterministic form on GPUs; use augment.policy=[colour,cutout] or run.deterministic=false."
        )


def _check_compiled(
    config: Config, coupled: bool, critic: nn.Module, inputs: Tensor, label: Tensor | None, accelerator: Accelerator
) -> None:
    """Raise UserError if the critic's slope cannot be compiled.

    There is no telling but by trying: a penalised step is taken and undone. ``critic`` is as the update rules call it,
    and ``inputs`` are as many as in training, so this also compiles it for the first step.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    what = f"train.compile cannot serve penalty.{penalised_slope(config)} with the critic of model.name="
    if coupled:
        raise UserError(
            f"{what}{config.model.name}: its scores depend on the whole batch, as with BatchNorm; use "
            "train.compile=false or a critic without batch statistics."
        )

    before = {name: value.clone() for name, value in critic.state_dict().items()}
    try:
        with accelerator.no_sync(critic):
            x = inputs.requires_grad_()
            side = Side(x, score=critic(x, label), cut=x)
            take_slopes([side])
        trainable = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        torch.autograd.grad(zero_centred(side.slope.flatten(1)).mean(), trainable, allow_unused=True)
    except (RuntimeError, TorchDynamoException) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{what}{config.model.name} ({reason}); use train.compile=false.") from error
    critic.load_state_dict(before)  # a forward pass may have moved buffers, such as spectral norm's


def _check_augmentation(config: Config, shape: tuple[int, ...]) -> None:
    """Raise UserError where samples of this shape cannot be augmented."""
    if config.augment.name != "none" and not (_is_square_image(shape) and shape[0] in (1, 3)):
        raise UserError(
            f"augment.name={config.augment.name} changes square images of 1 or 3 channels, not the samples of shape "
            f"{shape} in data.name={config.data.name}; use augment.name=none, or data.fit=stretch with a square "
            "data.resolution."
        )
