"""Invariance: one labelled set whose samples have an attribute (camera, person, domain) that features should hide."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from accelerate import Accelerator
from torch import Tensor

from adversarial.domains import METHODS, InvarianceGame
from adversarial.games import Game
from adversarial.objectives import OBJECTIVES
from utils import pictures
from utils.config.sections import Config, InvarianceConfig
from utils.data import domains
from utils.data.domains import Domains
from utils.errors import UserError
from utils.evaluation.domain_critics import attribute_critic_records
from utils.evaluation.predictions import predict, subset
from utils.evaluation.recognisers import completed, oracle_records, source_accuracy
from utils.evaluation.records import Record
from utils.pictures import Cloud
from utils.tasks.domains import DomainTask, critics_couple_samples
from utils.training.players import Players, wrapped
from utils.training.state import Sizes


class Invariance(DomainTask):
    """K attributes (``utils.tasks.task.Task``)."""

    side_names = ("attribute", "none")
    progress_statistics: ClassVar = {"D": "critic_loss", "task": "task_loss", "right": "source_accuracy"}
    metrics = InvarianceConfig.metrics
    best_metric = "source accuracy"

    def load(self, config: Config) -> Domains:
        data = domains.load(config.data, config.seed)
        if len(data.attribute_names) < 2:
            raise UserError(
                f"game.name=invariance needs samples with at least two attributes, and data.name={config.data.name} "
                f"gives {len(data.attribute_names)}; join domains, as data.source=a+b, or add 'attributes'."
            )
        return replace(data, target=None)  # the second domain is for the oracle's report alone

    def sizes(self, data: Domains) -> Sizes:
        return Sizes(data.shape, data.classes, outputs=len(data.attribute_names))

    def game(self, config: Config, players: Players, data: Domains, accelerator: Accelerator) -> Game:
        critics_couple_samples(config, players, accelerator.device)  # only to refuse: there is one side to judge
        every_class = OBJECTIVES[config.game.objective].every_class and len(data.attribute_names) > 2
        if every_class and config.update.rule == "single_pass":
            raise UserError(
                f"game.objective={config.game.objective} over {len(data.attribute_names)} attributes has a gradient of "
                "another direction than the critic's: no coefficient per sample turns one into the other; use "
                "update.rule=simultaneous or update.rule=alternating."
            )
        generator, critic = wrapped(config, players, accelerator)
        return InvarianceGame(generator, critic, METHODS[config.game.method].critic_inputs, every_class)

    def picture(self, config: Config, players: Players, data: Domains, tsne: bool = False) -> Tensor:
        """Features of held-out samples in two dimensions, by attribute and by class."""
        samples = subset(data.validation, config.evaluate.samples)
        features = predict(players.average, samples).layers[-1]
        clouds = []
        for i, name in enumerate(data.attribute_names):
            having = samples.attribute == i
            if bool(having.any()):  # a small subset may not have them all
                clouds.append(Cloud(name, features[having], samples.label[having]))
        return pictures.clouds(clouds, data.class_names, tsne=tsne)

    def evaluate(self, config: Config, players: Players, data: Domains, folder: Path) -> list[Record]:
        """Accuracy on held-out samples, how well the attribute is hidden, and accuracy on an unseen domain."""
        train, held_out = (subset(samples, config.evaluate.samples) for samples in (data.train, data.validation))
        on_train, on_held_out = (predict(players.average, samples) for samples in (train, held_out))
        records = [
            source_accuracy(on_held_out, held_out.label),
            *attribute_critic_records(
                players.critic,
                METHODS[config.game.method].critic_inputs,
                (on_train, train.attribute),
                (on_held_out, held_out.attribute),
            ),
            *oracle_records(players.average, data),
        ]
        return completed(records, data.name, len(held_out), config.seed)
