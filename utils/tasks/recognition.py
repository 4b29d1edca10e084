"""Around the games of domains: their methods, networks, pictures and metrics.

Nothing here but the records called oracle looks at target labels.
"""

import copy
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adversarial import games
from adversarial.games import AdaptationGame, Game, InvarianceGame, Play, Recognition, View, couples_samples
from adversarial.objectives import CROSS_ENTROPY, OBJECTIVES
from models import FAMILIES
from models.domain import Critics, Recogniser, SplitRecogniser
from utils import errors, pictures
from utils.config.identity import identity
from utils.config.sections import METRICS, Config
from utils.data import domains
from utils.data.datasets import Resident, to_images
from utils.data.domains import Domains, Samples, unlabelled
from utils.data.randomness import rng, seeded
from utils.errors import UserError
from utils.evaluation import selection
from utils.evaluation.generation import Record, record
from utils.evaluation.sampling import evaluating
from utils.pictures import Cloud, Plane
from utils.tasks.generation import Pictures, check_rule, judges_in_one_call
from utils.training import checkpoint
from utils.training.players import Players, load, wrapped

BATCH = 500
ORACLE = "target accuracy (oracle)"
# What a pretrained source run must share with the run that takes it over, beside the model.
PRETRAINED = ("game.method", "data.name", "data.source", "data.resolution", "data.fit", "data.transform")
PROBE_STEPS, PROBE_BATCH, PROBE_RATE = 200, 64, 3e-3
NEAR_CHANCE = 0.95  # a critic whose loss is above this share of ln K has learnt next to nothing
TELLS_APART = 10.0  # per cent above chance: a fresh critic that is right more often sees a difference


class Method(NamedTuple):
    """What the critics see, and whether the target has a network of its own."""

    view: Callable[[Recognition], View]
    split: bool = False


METHODS = {
    "dann": Method(games.features),
    "layers": Method(games.layers),
    "cdan": Method(games.multilinear),
    "cdan_e": Method(games.multilinear_entropy),
    "mada": Method(games.classes),
    "mdd": Method(games.margin),
    "adda": Method(games.features, split=True),
    # The baselines, for which the config sets λ to 0. The target still passes through the network, so BatchNorm's
    # statistics see its inputs.
    "source_only": Method(games.features),
    "target_only": Method(games.features),
}


class Seen(NamedTuple):
    """What a recogniser makes of a set of samples, on the CPU: its view, features ``[N, d]`` and logits ``[N, K]``."""

    view: View
    features: Tensor
    logits: Tensor
    samples: Samples


class Adaptation:
    """Two domains (``utils.tasks.registry.Task``)."""

    sides = ("source", "target")
    shown: ClassVar = {
        "D": "critic_loss", "task": "task_loss", "D right on source": "critic_accuracy_source",
        "on target": "critic_accuracy_target",
    }  # fmt: skip
    picture_name = "embedding"
    metrics = METRICS["adaptation"]
    best = "BNM"  # the best or among the best on every pair of domains that we measured: benchmarks/adaptation.md
    advice = "Try a lower optimizer.critic_lr, a larger update.coefficient, or game.objective=non_saturating."

    def load(self, config: Config) -> Domains:
        return domains.load(config.data, config.seed, config.game.method == "target_only")

    def sizes(self, data: Domains) -> dict[str, Any]:
        return {"shape": data.shape, "classes": data.classes, "outputs": 1}

    def networks(self, config: Config, sizes: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        method = METHODS[config.game.method]
        with seeded(config.seed, "initialisation"):
            try:
                features = FAMILIES[config.model.name].features(config.model, tuple(sizes["shape"]))
                recogniser: nn.Module = Recogniser(features, sizes["classes"])
                return SplitRecogniser(recogniser) if method.split else recogniser, self.critics(
                    config, features, sizes
                )
            except ValueError as error:
                raise UserError(
                    f"model.name={config.model.name} does not fit data.name={config.data.name}: {error}."
                ) from None

    def critics(self, config: Config, features: nn.Module, sizes: dict[str, Any]) -> Critics:
        """Critics with random weights, one for each entry of the method's view."""
        view = METHODS[config.game.method].view(_blank(features, sizes["classes"], 2))
        outputs = sizes["outputs"] if view.condition is None else sizes["classes"]
        return Critics(config.model, [x.shape[1] for x in view.samples], outputs)

    def fresh_critics(self, config: Config, players: Players, data: Domains) -> Critics:
        """Critics like the run's own, always with the same first weights."""
        with seeded(config.seed, "probe critic"):
            return self.critics(config, players.generator.features, self.sizes(data))

    def start(self, config: Config, generator: nn.Module) -> None:
        """A network may come with weights of its own (ImageNet's); ADDA's was trained on the source."""
        if not METHODS[config.game.method].split:
            if hasattr(generator.features, "start"):
                try:
                    generator.features.start()
                except ValueError as error:
                    raise UserError(f"model.{error}; set model.weights=none to begin at random.") from None
            return
        folder = Path(config.game.pretrained)
        saved = checkpoint.newest(folder / "checkpoints", errors.warn)
        if saved is None:
            raise UserError(
                f"game.pretrained={folder} holds no checkpoint: train it first, with game.method=source_only."
            )
        wanted = {**identity(config), "game.method": "source_only"}
        for key in (key for key in wanted if key in PRETRAINED or key.startswith("model.")):
            theirs = saved.state["config"].get(key)
            if theirs != wanted[key] and not key.startswith("model.critic"):
                raise UserError(
                    f"game.pretrained={folder} has {key}={theirs} and must have {wanted[key]}: a run on the same "
                    "source with the same model and game.method=source_only."
                )
        former = copy.deepcopy(config)
        former.game.method, former.game.pretrained = "source_only", ""
        source, _ = load(former, folder / "checkpoints", self.networks, errors.warn)
        generator.start_from(source.average.cpu())

    def game(self, config: Config, players: Players, data: Domains, accelerator: Accelerator) -> Game:
        together = self.probe_coupling(config, players, data, accelerator)
        generator, critic = wrapped(config, players, accelerator)
        method = METHODS[config.game.method]
        weight = config.game.margin if method.view is games.margin else 1.0
        return AdaptationGame(generator, critic, method.view, together, weight, learns_labels=not method.split)

    def probe_coupling(self, config: Config, players: Players, data: Domains, accelerator: Accelerator) -> bool:
        """Whether both sides may be judged in one call. Raises UserError for a rule that does not suit the critics."""
        with seeded(config.seed, "probe"):
            view = METHODS[config.game.method].view(_blank(players.generator.features, data.classes, 4))
        inputs = [x.to(accelerator.device) for x in view.samples]
        outputs = self.sizes(data)["outputs"] if view.condition is None else data.classes
        coupled = couples_samples(players.critic, *inputs, classes=0 if outputs == 1 else outputs)
        check_rule(config, coupled, f"model.critic_norm={config.model.critic_norm}")
        return not coupled and (judges_in_one_call(config) or not METHODS[config.game.method].split)

    def picture(self, config: Config, players: Players, data: Domains, tsne: bool = False) -> Tensor:
        """Features of both domains in two dimensions, and for points the boundary, too."""
        source = self.look(config, players, data.validation, source=True)
        target = self.look(config, players, self.shown_samples(data))
        return pictures.clouds(
            [
                Cloud(data.sides[0], source.features, source.samples.label),
                Cloud(data.sides[1], target.features, target.logits.argmax(1)),
            ],
            data.class_names,
            self.boundary(players, data) if data.shape == (2,) else None,
            tsne,
        )

    def boundary(self, players: Players, data: Domains) -> Plane:
        """Predictions over the plane of the inputs."""
        points = torch.cat([data.train.x, data.target.x])
        low, high = points.min(0).values - 0.5, points.max(0).values + 0.5
        u, v = torch.meshgrid(*(torch.linspace(*ends, 200) for ends in zip(low, high, strict=True)), indexing="xy")
        lattice = Resident(torch.stack([u, v], dim=-1).flatten(0, 1), None)
        predicted = see(players.average, lattice, games.features).logits.argmax(1).unflatten(0, u.shape)
        return Plane(u, v, predicted, data.train.x, data.train.label, data.target.x)

    def gallery(self, config: Config, players: Players, state: dict[str, Any], options: Namespace) -> Pictures:
        """The features of both domains, and for images what the recogniser reads in the target."""
        for option in ("class", "truncation", "interpolate"):
            if vars(options)[option] is not None:
                raise UserError(f"--{option} is for generators, and {options.run} is of game.name={config.game.name}.")
        data = self.load(config)
        made = {"embedding": self.picture(config, players, data, options.tsne)}
        if len(data.shape) == 3:
            seen = see(players.average, some(self.shown_samples(data), options.count), games.features)
            images = torch.cat(list(_batches(seen.samples, torch.device("cpu"))))
            p, label = seen.logits.softmax(1).max(1)
            words = [f"{data.class_names[k]} {100 * q:.0f} %" for k, q in zip(label.tolist(), p.tolist(), strict=True)]
            made["predictions"] = pictures.captioned(images, words, options.columns)
        return made

    def shown_samples(self, data: Domains) -> Samples:
        """Samples to read in, without labels: the target's, an unseen domain's, or held-out ones of the source."""
        return unlabelled(next(x for x in (data.target, data.oracle, data.validation) if x is not None))

    def look(self, config: Config, players: Players, samples: Samples, source: bool = False) -> Seen:
        """The average recogniser on up to ``evaluate.samples`` of the samples."""
        view = METHODS[config.game.method].view
        return see(players.average, some(samples, config.evaluate.samples), view, source)

    def evaluate(self, config: Config, players: Players, data: Domains, folder: Path) -> list[Record]:
        """What can be known without target labels, and apart from it what only an oracle knows."""
        source = self.look(config, players, data.validation, source=True)
        target = self.look(config, players, self.shown_samples(data))
        train = self.look(config, players, data.train, source=True)
        records = [
            *_choosing(source, target, train),
            *self.rivals(config, players, data, source, target),
            *_oracle(players.average, data),
        ]
        return _completed(records, config, data, len(target.features))

    def rivals(self, config: Config, players: Players, data: Domains, source: Seen, target: Seen) -> list[Record]:
        """How well the features hide the domain: from a linear classifier, the run's critic, and a fresh critic."""
        distance = selection.proxy_a_distance(source.features, target.features)
        critic = _on_cpu(players.critic)
        objective = OBJECTIVES[config.game.objective]
        right, loss = _judged(self.cpu_game(critic, config), source.view, target.view, objective.boundary)
        probe = self.fresh_critics(config, players, data)
        halves = [
            (_part(seen.view, slice(0, None, 2)), _part(seen.view, slice(1, None, 2))) for seen in (source, target)
        ]
        game = self.cpu_game(probe, config)
        _train_probe(game, *(half[0] for half in halves))
        fresh, _ = _judged(game, *(half[1] for half in halves), boundary=0.0)
        # Only a critic that learns cross-entropy on domains has a loss of ln 2 at chance (not MDD's second head).
        speaks = objective.critic == CROSS_ENTROPY and not objective.pairs and source.view.condition is None
        says = f", loss {loss:.2f}{verdict(loss, 2, sum(fresh) / 2)}" if speaks else ""
        percent = {"unit": "%", "split": "source validation, target training"}
        return [
            record("proxy A-distance", distance, "", " of 2 (0: a linear classifier cannot tell the domains apart)",
                   higher_is_better=False, split="source validation, target training"),
            record("critic accuracy", sum(right) / 2, note=f" ({right[0]:.1f} source, {right[1]:.1f} target){says}",
                   higher_is_better=False,
                   source=right[0], target=right[1], cross_entropy=loss, **percent),
            record("probe critic accuracy", sum(fresh) / 2, note=" of a critic trained afresh on the features",
                   higher_is_better=False, source=fresh[0], target=fresh[1], **percent),
        ]  # fmt: skip

    def cpu_game(self, critic: nn.Module, config: Config) -> AdaptationGame:
        """A game of critics alone, on features that are there already; judged apart, as BatchNorm needs it."""
        return AdaptationGame(nn.Identity(), critic, METHODS[config.game.method].view, together=False)


def verdict(loss: float, classes: int, fresh: float) -> str:
    """What a critic's ``loss`` over so many classes says, beside the accuracy (%) of one trained afresh.

    A loss of ln K is that of a critic that knows nothing: the features hide it all, or the critic has stopped learning.
    """
    chance = math.log(classes)
    if loss < NEAR_CHANCE * chance:
        return f" (at chance {chance:.2f})"
    if loss > 2 * chance:
        return f", worse than chance ({chance:.2f}): overtaken; lower update.coefficient or optimizer.generator_lr"
    if fresh > 100 / classes + TELLS_APART:
        return f", at chance ({chance:.2f}): DEAD, for a fresh one sees a difference; raise optimizer.critic_lr"
    return f", at chance ({chance:.2f}): beaten, for a fresh one sees no difference either"


class Invariance(Adaptation):
    """One labelled set whose samples have an attribute that features should hide (``utils.tasks.registry.Task``)."""

    sides = ("attribute", "none")
    shown: ClassVar = {"D": "critic_loss", "task": "task_loss", "right": "source_accuracy"}
    metrics = METRICS["invariance"]
    best = "source accuracy"

    def load(self, config: Config) -> Domains:
        data = domains.load(config.data, config.seed)
        if len(data.attribute_names) < 2:
            raise UserError(
                f"game.name=invariance needs samples with at least two attributes, and data.name={config.data.name} "
                f"gives {len(data.attribute_names)}; join domains, as data.source=a+b, or add 'attributes'."
            )
        return replace(data, target=None)

    def sizes(self, data: Domains) -> dict[str, Any]:
        return {"shape": data.shape, "classes": data.classes, "outputs": len(data.attribute_names)}

    def game(self, config: Config, players: Players, data: Domains, accelerator: Accelerator) -> Game:
        self.probe_coupling(config, players, data, accelerator)
        every_class = OBJECTIVES[config.game.objective].every_class and len(data.attribute_names) > 2
        if every_class and config.update.rule == "single_pass":
            raise UserError(
                f"game.objective={config.game.objective} over {len(data.attribute_names)} attributes has a gradient of "
                "another direction than the critic's: no coefficient per sample turns one into the other; use "
                "update.rule=simultaneous or update.rule=alternating."
            )
        generator, critic = wrapped(config, players, accelerator)
        return InvarianceGame(generator, critic, METHODS[config.game.method].view, every_class)

    def picture(self, config: Config, players: Players, data: Domains, tsne: bool = False) -> Tensor:
        """Features in two dimensions, by attribute and by class."""
        seen = self.look(config, players, data.validation)
        clouds = [
            Cloud(name, seen.features[mine], seen.samples.label[mine])
            for i, name in enumerate(data.attribute_names)
            if bool((mine := seen.samples.attribute == i).any())
        ]
        return pictures.clouds(clouds, data.class_names, tsne=tsne)

    def evaluate(self, config: Config, players: Players, data: Domains, folder: Path) -> list[Record]:
        """Accuracy on held-out samples and on an unseen domain, and how well the attribute is hidden."""
        source, train = (self.look(config, players, samples) for samples in (data.validation, data.train))
        probe = self.fresh_critics(config, players, data)
        _train_attribute_probe(probe, train.view, train.samples.attribute)
        right, loss = _attribute_accuracy(_on_cpu(players.critic), source.view, source.samples.attribute)
        fresh, _ = _attribute_accuracy(probe, source.view, source.samples.attribute)
        percent = {"unit": "%", "higher_is_better": False, "split": "source validation"}
        records = [
            _source_accuracy(source),
            record("critic accuracy", right, note=f" on the attribute, loss {loss:.2f}"
                   f"{verdict(loss, len(data.attribute_names), fresh)}", loss=loss, **percent),
            record("probe critic accuracy", fresh, note=" of a critic trained afresh on the features", **percent),
            *_oracle(players.average, data),
        ]  # fmt: skip
        return _completed(records, config, data, len(source.features))


# --- what a recogniser sees ------------------------------------------------------------------------------------------


@torch.no_grad()
def see(recogniser: nn.Module, samples: Samples, view: Callable[[Recognition], View], source: bool = False) -> Seen:
    """Run a recogniser in evaluation mode; ``source`` uses the source's own network where there is one (ADDA)."""
    device = next(recogniser.parameters()).device
    parts = []
    with evaluating(recogniser):
        for x in _batches(samples, device):
            seen = recogniser(x, x[:1])[0] if source else recogniser(x)[-1]
            layers = tuple(layer.to("cpu", torch.get_default_dtype()) for layer in seen.layers)
            parts.append(Recognition(layers, seen.logits.to("cpu", torch.get_default_dtype())))
    layers = tuple(torch.cat(layer) for layer in zip(*(part.layers for part in parts), strict=True))
    if not bool(torch.isfinite(layers[-1]).all()):
        raise UserError(
            "The features became NaN or infinite; the last checkpoint is from before. Lower optimizer.*_lr or "
            "update.coefficient, add penalty.r1, or try another seed."
        )
    whole = Recognition(layers, torch.cat([part.logits for part in parts]))
    return Seen(view(whole), layers[-1], whole.logits, samples)


def _batches(samples: Samples, device: torch.device) -> Iterator[Tensor]:
    """Prepared samples in their order; streamed ones are decoded here, in the main process."""
    if isinstance(samples, Resident):
        for x in samples.x.split(BATCH):
            yield to_images(x, device) if x.dtype == torch.uint8 else x.to(device, torch.get_default_dtype())
        return
    for begin in range(0, len(samples), BATCH // 5):
        images = [samples[i] for i in range(begin, min(begin + BATCH // 5, len(samples)))]
        for image in images:
            if isinstance(image, UserError):
                raise image
        yield to_images(torch.stack(images), device)


def some(samples: Samples, count: int) -> Samples:
    """Up to ``count`` of the samples, always the same ones."""
    if len(samples) <= count:
        return samples
    order = torch.randperm(len(samples), generator=rng("evaluation", len(samples)))
    return samples.part(order[:count])


def _blank(features: nn.Module, classes: int, n: int) -> Recognition:
    """Random features and logits of ``n`` samples, in the shapes of the network's."""
    return Recognition(tuple(torch.randn(n, size) for size in features.sizes), torch.randn(n, classes))


def _part(view: View, index: slice) -> View:
    weights = tuple(w[index] if isinstance(w, Tensor) else w for w in view.weights)
    condition = None if view.condition is None else view.condition[index]
    return View(tuple(x[index] for x in view.samples), weights, condition)


def _on_cpu(critic: nn.Module) -> nn.Module:
    return copy.deepcopy(critic).cpu()


# --- records ---------------------------------------------------------------------------------------------------------


def _completed(records: list[Record], config: Config, data: Domains, samples: int) -> list[Record]:
    """The records with what is the same for all of them that do not say otherwise."""
    common = {"features": "the run's own", "features_sha256": None, "samples": samples, "seed": config.seed}
    return [{**common, "reference": data.name, "resizer": None, **record} for record in records]


def _source_accuracy(source: Seen) -> Record:
    value = 100 * float((source.logits.argmax(1) == source.samples.label).float().mean())
    return record("source accuracy", value, "%", " on held-out source samples", higher_is_better=True,
                  split="source validation")  # fmt: skip


def _choosing(source: Seen, target: Seen, train: Seen) -> list[Record]:
    """The criteria that need no target label."""
    losses = cross_entropy(source.logits, source.samples.label, reduction="none").double()
    weights = selection.importance_weights(train.features, target.features, source.features)
    better, worse = ({"higher_is_better": b, "split": "target training, no labels"} for b in (True, False))
    both = {"higher_is_better": False, "split": "source validation weighted by the target's density"}
    return [
        _source_accuracy(source),
        record("entropy", selection.entropy(target.logits), "nats", " of target predictions", **worse),
        record("SND", selection.soft_neighbourhood_density(target.logits), "nats", " on the target", **better),
        record("BNM", selection.batch_nuclear_norm(target.logits), "", " of 1 on the target", **better),
        record("IW risk", selection.weighted_risk(losses, weights), "nats", "", **both),
        record("DEV risk", selection.deep_embedded_validation(losses, weights), "nats", "", **both),
    ]


def _oracle(recogniser: nn.Module, data: Domains) -> list[Record]:
    """The only place where target labels are read, for a report."""
    if data.oracle is None:
        return []
    from sklearn.metrics import confusion_matrix  # here, for it takes a second that the start of a run need not wait

    predicted = see(recogniser, data.oracle, games.features).logits.argmax(1)
    matrix = confusion_matrix(data.oracle.label, predicted, labels=range(data.classes))
    per_class = (100 * matrix.diagonal() / matrix.sum(1).clip(min=1)).tolist()
    accuracy = 100 * float((predicted == data.oracle.label).float().mean())
    return [
        record(ORACLE, accuracy, "%", f" on {len(data.oracle)} samples of '{data.sides[1]}'", higher_is_better=True,
               split="target test", samples=len(data.oracle), oracle=True, per_class=per_class,
               confusion=matrix.tolist(), class_names=list(data.class_names)),
    ]  # fmt: skip


# --- critics on features that are there already ----------------------------------------------------------------------


def _judged(
    game: AdaptationGame, source: View, target: View, boundary: float | None
) -> tuple[tuple[float, float], float]:
    """Per cent of source and of target samples that the critics place rightly, and their cross-entropy per side.

    Scores without a boundary (Wasserstein's) are parted in the middle between both sides' means.
    """
    with torch.no_grad(), evaluating(game.critic):
        scores = [torch.stack(side) for side in game.judge(_as_play(source, target))]
        loss = _cross_entropy(*scores) / (2 * len(scores[0]))
    if boundary is None:
        boundary = float(sum(side.mean() for side in scores)) / 2
    right = (scores[0] > boundary).float().mean(), (scores[1] < boundary).float().mean()
    return (100 * float(right[0]), 100 * float(right[1])), float(loss)


def _train_probe(game: AdaptationGame, source: View, target: View) -> None:
    """Train the game's critics on features that stay as they are."""

    def loss() -> Tensor:
        return _cross_entropy(*game.judge(_as_play(_minibatch(source), _minibatch(target))))

    _fit(game.critic, loss)


def _train_attribute_probe(critic: nn.Module, view: View, attribute: Tensor) -> None:
    def loss() -> Tensor:
        batch = _minibatch(view._replace(condition=attribute))
        return sum(cross_entropy(logits, batch.condition) for logits in critic(*batch.samples))

    _fit(critic, loss)


def _minibatch(view: View) -> View:
    return _part(view, torch.randint(len(view.samples[0]), (PROBE_BATCH,)))


def _fit(critic: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Minimise a ``loss`` of random minibatches."""
    with torch.enable_grad(), seeded("probe critic"):
        optimizer = torch.optim.Adam(critic.parameters(), PROBE_RATE, fused=True)
        for _ in range(PROBE_STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()


@torch.no_grad()
def _attribute_accuracy(critic: nn.Module, view: View, attribute: Tensor) -> tuple[float, float]:
    """Per cent of samples whose attribute the critics read, and their loss; both are means over critics."""
    with evaluating(critic):
        logits = critic(*view.samples)
    right = torch.stack([(x.argmax(1) == attribute).float().mean() for x in logits]).mean()
    return 100 * float(right), float(torch.stack([cross_entropy(x, attribute) for x in logits]).mean())


def _cross_entropy(real: Iterable[Tensor], fake: Iterable[Tensor]) -> Tensor:
    """The critics' loss on both sides, which need not have the same number of samples."""
    loss = OBJECTIVES["minimax"].critic_loss
    return sum(loss(r, None).mean() + loss(None, f).mean() for r, f in zip(real, fake, strict=True))


def _as_play(source: View, target: View) -> Play:
    return Play(source.samples, target.samples, (source.condition, target.condition))
