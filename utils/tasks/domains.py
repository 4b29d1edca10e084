"""What the tasks of both games of domains share: building recognisers and critics, where training starts, pictures."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from adversarial.coupling import couples_samples
from adversarial.domains import METHODS, Prediction
from adversarial.games import Side
from adversarial.objectives import log_odds
from models import FAMILIES
from models.domain import Critics, Recogniser, SplitRecogniser, split_tensors
from utils import pictures
from utils.config.former import renewed
from utils.config.identity import identity
from utils.config.sections import Config
from utils.data.domains import Domains
from utils.data.randomness import seeded
from utils.data.samples import Samples
from utils.errors import UserError
from utils.evaluation.domain_critics import verdict
from utils.evaluation.predictions import predict, prepared_batches, subset
from utils.evaluation.records import Record
from utils.tasks.checks import check_rule, refuse_options
from utils.tasks.explanations import Scored, explain_score, joined
from utils.tasks.task import COLUMNS, COUNT, Explanation, ImageBatch, Pictures
from utils.training import values
from utils.training.checkpoint import Checkpoint, Tensors
from utils.training.players import Players
from utils.training.state import RunState, Sizes

# What the run that ADDA starts from must share with the run itself, beside the model.
SHARED_WITH_SOURCE_RUN = (
    "game.method", "data.name", "data.source", "data.resolution", "data.fit", "data.transform",
)  # fmt: skip


class DomainTask:
    """The base of ``Adaptation`` and ``Invariance``, which add the rest of ``utils.tasks.task.Task``."""

    picture_tag = "embedding"
    critic_dominates_hint = (
        "Try a lower optimizer.critic_lr, a larger update.coefficient, or game.objective=non_saturating."
    )

    def networks(self, config: Config, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
        shape, classes = sizes.shape, sizes.classes
        try:
            with seeded(config.seed, "initialisation"):
                recogniser = Recogniser(FAMILIES[config.model.name].features(config.model, shape), classes)
                critics = build_critics(config, recogniser, sizes.outputs)
        except ValueError as error:
            raise UserError(
                f"model.name={config.model.name} does not fit data.name={config.data.name}: {error}."
            ) from None
        return SplitRecogniser(recogniser) if METHODS[config.game.method].split else recogniser, critics

    def start(self, config: Config, generator: nn.Module) -> None:
        """Load published weights (ImageNet's), where the network has any."""
        if hasattr(generator.features, "start"):
            try:
                generator.features.start()
            except ValueError as error:
                raise UserError(f"model.{error}; set model.weights=none to begin at random.") from None

    def offered(self, config: Config, data: Domains) -> tuple[str, ...]:
        """All metrics: they are of features and predictions, which every recogniser has."""
        return self.metrics

    def check_evaluation(self, config: Config, data: Domains, folder: Path, device: torch.device) -> None:
        """Nothing to check: the features are the run's own."""

    def share(self, config: Config, players: Players, data: Domains, folder: Path, rank: int, size: int) -> None:
        """Nothing to share: held-out samples are few, and the first process reads them alone."""

    def illustrate(self, config: Config, players: Players, data: Domains, records: list[Record]) -> Pictures:
        """The confusion matrix, where an oracle knows it."""
        made = {}
        for record in records:
            if "confusion" in record:
                made["confusion"] = pictures.confusion(torch.tensor(record["confusion"]), record["class_names"])
        return made

    def adopt(self, config: Config, source: Checkpoint) -> Tensors:
        """ADDA makes two networks of a recogniser that was trained on its source alone."""
        theirs = renewed(source.state.config)
        if not METHODS[config.game.method].split or METHODS[theirs.get("game.method", "source_only")].split:
            return source.tensors
        wanted = {**identity(config), "game.method": "source_only"}
        if "game.method" not in theirs:  # an export says neither how its network was trained nor on what
            wanted = {key: value for key, value in wanted.items() if key in theirs}
        for key, value in wanted.items():
            shared = key in SHARED_WITH_SOURCE_RUN or key.startswith("model.")
            # Its critic judges no features of the target.
            if shared and not key.startswith("model.critic") and theirs.get(key) != value:
                raise UserError(
                    f"init.run={config.init.run} has {key}={theirs.get(key)} and must have {value}: name a run on the "
                    "same source with the same model and game.method=source_only."
                )
        names = ("generator", "generator_ema")
        return {**source.tensors, **{name: split_tensors(source.tensors[name]) for name in names}}

    def gallery(self, config: Config, players: Players, state: RunState, options: Namespace) -> Pictures:
        """The picture of features, and for images some of them with the class that the recogniser predicts."""
        _refuse_generators_options(config, options)
        data = self.load(config)
        if len(data.shape) != 3:
            refuse_options(options, ["count", "columns"], f"is for images, and {data.name} has none")
        made = {"embedding": self.picture(config, players, data, bool(options.tsne))}
        if len(data.shape) == 3:
            made["predictions"] = _captioned(players.average, data, options.count or COUNT, options.columns or COLUMNS)
        return made

    def batches(self, config: Config, players: Players, state: RunState, options: Namespace) -> Iterator[ImageBatch]:
        """None: ``--each`` is refused."""
        _refuse_generators_options(config, options)
        return iter(())

    def verdict(self, config: Config, measured: list[Record]) -> str:
        # While λ is small the critic may well win, and features need not hide anything yet.
        full = config.update.coefficient
        return verdict([r for r in measured if full and values.coefficient_at(config, r["step"] - 1) >= full / 2])

    def explain(
        self, config: Config, players: Players, data: Domains, count: int, seed: int, layer: str = ""
    ) -> Explanation:
        """Of the logit of the predicted class, and of the critics' scores: what tells the domains (or attributes)
        apart. The samples are always the same ones, whatever the seed.
        """
        recogniser, critic = players.average, players.critic
        device = next(recogniser.parameters()).device
        hides_attribute = data.target is None  # invariance: the critics name an attribute, not a domain
        critic_inputs = METHODS[config.game.method].critic_inputs

        def of_target(x: Tensor) -> Prediction:
            return recogniser(x)[-1]

        def domain_score(network: Predict, attribute: Tensor | None, x: Tensor) -> Tensor:
            return critics_score(critic, critic_inputs(network(x)), attribute)

        def class_score(network: Predict, predicted: Tensor, x: Tensor) -> Tensor:
            return network(x).logits.gather(1, predicted[:, None]).squeeze(1)

        of_class, of_domain = [], []
        domains = [(data.sides[0], data.validation, recogniser.predict_source)]
        domains += [] if hides_attribute else [(data.sides[1], data.target, of_target)]
        for name, samples, network in domains:
            shown = subset(samples, count)
            x = torch.cat(list(prepared_batches(shown, device)))
            with torch.no_grad():
                predicted = network(x).logits.argmax(1)
            attribute = shown.attribute.to(device) if hides_attribute else None
            of_class.append(Scored(name, x, partial(class_score, network, predicted)))
            of_domain.append(Scored(name, x, partial(domain_score, network, attribute)))

        def class_field(x: Tensor) -> Tensor:
            return of_target(x).logits.max(1).values

        def domain_field(x: Tensor) -> Tensor:
            first = torch.zeros(len(x), dtype=torch.int64, device=device) if hides_attribute else None
            return domain_score(of_target, first, x)

        what = "log-odds of the attribute" if hides_attribute else "critics' score"
        both = nn.ModuleDict({"generator": recogniser, "critic": critic})
        return joined([
            explain_score("class", "logit of the predicted class", of_class, class_field, both, layer),
            explain_score("critic", what, of_domain, domain_field, both, layer),
        ])  # fmt: skip


Predict = Callable[[Tensor], Prediction]


def critics_score(critic: Critics, sides: list[Side], attribute: Tensor | None = None) -> Tensor:
    """The mean score ``[N]`` of all critics; where they give logits, the log-odds of the ``attribute`` ``[N]`` or of
    the class that the method conditions on.
    """
    found = []
    for side, score in zip(sides, critic(*(side.samples for side in sides)), strict=True):
        condition = side.condition if attribute is None else attribute
        found.append(score if condition is None else log_odds(score, condition))
    return torch.stack(found).mean(0)


def _refuse_generators_options(config: Config, options: Namespace) -> None:
    for_generators = ["class", "truncation", "interpolate", "mix", "video", "each", "seed"]
    refuse_options(options, for_generators, f"is for generators, and {options.run} is of game.name={config.game.name}")


def build_critics(config: Config, recogniser: Recogniser, outputs: int) -> Critics:
    """Critics with random weights, one for each of the method's inputs.

    They give one score a sample, or logits over ``outputs`` > 1; where the method conditions on a class (MDD), logits
    over the classes.
    """
    inputs = METHODS[config.game.method].critic_inputs(random_prediction(recogniser, 2))
    if inputs[0].condition is not None:
        outputs = recogniser.head.out_features
    return Critics(config.model, [side.samples.shape[1] for side in inputs], outputs)


def critics_couple_samples(config: Config, players: Players, device: torch.device) -> bool:
    """Whether the critics' scores depend on the rest of the batch. Raises UserError if the update rule forbids it."""
    with seeded(config.seed, "probe"):
        inputs = METHODS[config.game.method].critic_inputs(random_prediction(players.generator, 4))
    outputs = players.critic.outputs
    samples = [side.samples.to(device) for side in inputs]
    coupled = couples_samples(players.critic, *samples, classes=0 if outputs == 1 else outputs)
    check_rule(config, coupled, f"model.critic_norm={config.model.critic_norm}")
    return coupled


def random_prediction(recogniser: Recogniser | SplitRecogniser, n: int) -> Prediction:
    """Random features and logits of ``n`` samples, in the sizes of the recogniser's."""
    layers = tuple(torch.randn(n, size) for size in recogniser.features.sizes)
    return Prediction(layers, torch.randn(n, recogniser.head.out_features))


def _captioned(recogniser: nn.Module, data: Domains, count: int, columns: int) -> Tensor:
    """Samples that the recogniser was trained without the labels of, and what it predicts for them.

    They are the target's, those of an unseen domain, or held-out ones of the source, in this order.
    """
    candidates = [data.target, data.oracle, data.validation]
    samples: Samples = subset(next(x for x in candidates if x is not None).unlabelled(), count)
    images = torch.cat(list(prepared_batches(samples, torch.device("cpu"))))
    p, label = predict(recogniser, samples).logits.softmax(1).max(1)
    captions = [f"{data.class_names[k]} {100 * q:.0f} %" for k, q in zip(label.tolist(), p.tolist(), strict=True)]
    return pictures.captioned(images, captions, columns)
