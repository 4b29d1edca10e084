"""Domain adaptation: a labelled source, an unlabelled target, and features that hide which domain a sample is from."""

from pathlib import Path
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adversarial.domains import METHODS, AdaptationGame, margin
from adversarial.games import Game
from adversarial.objectives import OBJECTIVES
from utils import pictures
from utils.config.sections import AdaptationConfig, Config
from utils.data import domains
from utils.data.domains import Domains
from utils.data.samples import Resident
from utils.evaluation.domain_critics import domain_critic_records
from utils.evaluation.predictions import predict, subset
from utils.evaluation.recognisers import completed, criteria, oracle_records, source_accuracy
from utils.evaluation.records import Record
from utils.pictures import Cloud, Plane
from utils.tasks.checks import judges_in_one_call
from utils.tasks.domains import DomainTask, critics_couple_samples
from utils.training.players import Players, wrapped
from utils.training.state import Sizes

PLANE_POINTS = 200  # along either axis of the plane of inputs
PLANE_MARGIN = 0.5  # around the data


class Adaptation(DomainTask):
    """Two domains (``utils.tasks.task.Task``)."""

    side_names = ("source", "target")
    progress_statistics: ClassVar = {
        "D": "critic_loss", "task": "task_loss", "D right on source": "critic_accuracy_source",
        "on target": "critic_accuracy_target",
    }  # fmt: skip
    metrics = AdaptationConfig.metrics
    best_metric = "BNM"  # the best or nearly so on every pair of domains that we measured: benchmarks/adaptation.md

    def load(self, config: Config) -> Domains:
        return domains.load(config.data, config.seed, config.game.method == "target_only")

    def sizes(self, data: Domains) -> Sizes:
        return Sizes(data.shape, data.classes)

    def game(self, config: Config, players: Players, data: Domains, accelerator: Accelerator) -> Game:
        method = METHODS[config.game.method]
        coupled = critics_couple_samples(config, players, accelerator.device)
        generator, critic = wrapped(config, players, accelerator)
        # Both sides need gradients, unless the source's network is frozen (ADDA): no one-sided gradient can be spared.
        together = not coupled and (judges_in_one_call(config) or not method.split)
        source_weight = config.game.margin if method.critic_inputs is margin else 1.0
        return AdaptationGame(
            generator, critic, method.critic_inputs, together, source_weight, learns_labels=not method.split
        )

    def picture(self, config: Config, players: Players, data: Domains, tsne: bool = False) -> Tensor:
        """Features of both domains in two dimensions; for points also the boundary between predicted classes."""
        count = config.evaluate.samples
        validation = subset(data.validation, count)
        source = predict(players.average, validation, of_source=True)
        target = predict(players.average, subset(data.target, count))
        clouds = [
            Cloud(data.sides[0], source.layers[-1], validation.label),
            Cloud(data.sides[1], target.layers[-1], target.logits.argmax(1)),
        ]
        plane = _plane(players.average, data) if data.shape == (2,) else None
        return pictures.clouds(clouds, data.class_names, plane, tsne)

    def evaluate(self, config: Config, players: Players, data: Domains, folder: Path) -> list[Record]:
        """What can be known without target labels, and after it what only an oracle knows."""
        count = config.evaluate.samples
        validation = subset(data.validation, count)
        source = predict(players.average, validation, of_source=True)
        train = predict(players.average, subset(data.train, count), of_source=True)
        target = predict(players.average, subset(data.target, count))
        critic_inputs, objective = METHODS[config.game.method].critic_inputs, OBJECTIVES[config.game.objective]
        records = [
            source_accuracy(source, validation.label),
            *criteria(source, validation.label, target, train),
            *domain_critic_records(players.critic, critic_inputs, objective, source, target),
            *oracle_records(players.average, data),
        ]
        return completed(records, data.name, len(target.logits), config.seed)


def _plane(recogniser: nn.Module, data: Domains) -> Plane:
    """Predicted classes over the plane of inputs ``[N, 2]``, and the training samples in it."""
    points = torch.cat([data.train.x, data.target.x])
    low, high = points.min(0).values - PLANE_MARGIN, points.max(0).values + PLANE_MARGIN
    axes = [torch.linspace(*ends, PLANE_POINTS) for ends in zip(low, high, strict=True)]
    u, v = torch.meshgrid(*axes, indexing="xy")
    lattice = Resident(torch.stack([u, v], dim=-1).flatten(0, 1), None)
    predicted = predict(recogniser, lattice).logits.argmax(1).unflatten(0, u.shape)
    return Plane(u, v, predicted, data.train.x, data.train.label, data.target.x)
