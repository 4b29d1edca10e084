"""How well features hide a domain or an attribute from a critic.

It is measured with the run's own critic and with a probe, a critic of the same size that is trained afresh on the
features as they are. A critic near chance is no fault: it is what the game is played for. Only the probe and the run's
history can tell a critic that is beaten from one that never learned (``verdict``).
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adversarial.domains import AdaptationGame, CriticInputs, Prediction
from adversarial.games import Pair
from adversarial.objectives import CROSS_ENTROPY, OBJECTIVES, Objective
from models.domain import Critics
from utils.data.randomness import seeded
from utils.evaluation import selection
from utils.evaluation.records import Record, record
from utils.evaluation.sampling import evaluating

PROBE_STEPS, PROBE_BATCH, PROBE_RATE = 200, 64, 3e-3
WINDOW = 3  # evaluations that must agree on a verdict
# Shares of the way from chance to always right: a critic below NEAR knows next to nothing, a probe above EASY sees a
# difference easily, a critic above WON is hardly ever wrong.
NEAR, EASY, WON = 0.2, 0.4, 0.8


def domain_critic_records(
    critic: Critics, critic_inputs: CriticInputs, objective: Objective, source: Prediction, target: Prediction
) -> list[Record]:
    """How well features hide the domain from a linear classifier, the run's ``critic`` and a probe.

    ``source`` and ``target`` are on the CPU; the critic is left as it is.
    """
    distance = selection.proxy_a_distance(source.layers[-1], target.layers[-1])
    critic = copy.deepcopy(critic).cpu()
    right, loss = domain_accuracy(critic, critic_inputs, source, target, objective.boundary)

    # Every other sample trains the probe, the rest test it.
    train, test = ([rows(prediction, slice(begin, None, 2)) for prediction in (source, target)] for begin in (0, 1))
    probe = fresh(critic)
    train_domain_probe(probe, critic_inputs, *train)
    probe_right, _ = domain_accuracy(probe, critic_inputs, *test, boundary=0.0)

    note = f" ({right[0]:.1f} source, {right[1]:.1f} target)"
    conditional = critic_inputs(source)[0].condition is not None
    if objective.critic == CROSS_ENTROPY and not objective.pairs and not conditional:
        # Only such a critic has a loss of ln 2 at chance: MDD's is a second head over the classes.
        note += f", loss {loss:.2f} (at chance {math.log(2):.2f})"
    common = {"higher_is_better": False, "split": "source validation, target training"}
    chance = {} if conditional else {"chance": 50.0}
    return [
        record("proxy A-distance", distance, "", " of 2 (0: a linear classifier cannot tell the domains apart)",
               **common),
        record("critic accuracy", sum(right) / 2, "%", note, source=right[0], target=right[1], cross_entropy=loss,
               **chance, **common),
        record("probe critic accuracy", sum(probe_right) / 2, "%", " of a critic trained afresh on the features",
               source=probe_right[0], target=probe_right[1], **common),
    ]  # fmt: skip


def attribute_critic_records(
    critic: Critics,
    critic_inputs: CriticInputs,
    train: tuple[Prediction, Tensor],
    held_out: tuple[Prediction, Tensor],
) -> list[Record]:
    """How well features hide the attribute from the run's ``critic`` and from a probe.

    ``train`` and ``held_out`` are predictions and attributes ``[N]`` of source samples, on the CPU; the critic is left
    as it is.
    """
    right, loss = attribute_accuracy(copy.deepcopy(critic).cpu(), critic_inputs, *held_out)
    probe = fresh(critic)
    train_attribute_probe(probe, critic_inputs, *train)
    probe_right, _ = attribute_accuracy(probe, critic_inputs, *held_out)
    note = f" on the attribute, loss {loss:.2f} (at chance {math.log(critic.outputs):.2f})"
    common = {"higher_is_better": False, "split": "source validation"}
    chance = 100 * float(held_out[1].bincount().max()) / len(held_out[1])  # always naming the most frequent attribute
    return [
        record("critic accuracy", right, "%", note, loss=loss, chance=chance, **common),
        record("probe critic accuracy", probe_right, "%", " of a critic trained afresh on the features", **common),
    ]


def verdict(history: list[Record]) -> str:
    """What a run's critic has come to, by the records of its evaluations so far, the newest last.

    An evaluation counts when the critic has had as many steps since the one before that counts as a probe has in all.
    It takes ``WINDOW`` of them, and they must agree; else "". Where features hide the domain from this critic, and not
    from a fresh one, the game goes on and nothing is said.
    """
    own = {r["step"]: r for r in history if r["metric"] == "critic accuracy" and "chance" in r}
    probe = {r["step"]: r for r in history if r["metric"] == "probe critic accuracy"}
    steps = [0]
    for step in own:
        if step in probe and step - steps[-1] >= PROBE_STEPS:
            steps.append(step)
    steps = steps[1:]
    if len(steps) < WINDOW:
        return ""
    chance = own[steps[-1]]["chance"]
    near, easy, won = (chance + share * (100 - chance) for share in (NEAR, EASY, WON))
    ever = [own[step]["value"] for step in steps]
    recent, fresh_ones = ever[-WINDOW:], [probe[step]["value"] for step in steps[-WINDOW:]]
    if max(ever) < near and min(fresh_ones) > easy:
        return (
            f"The critic has learned nothing: it is right on {recent[-1]:.0f} % (chance is {chance:.0f}), and a fresh "
            f"one on {fresh_ones[-1]:.0f} %. Raise optimizer.critic_lr, or lower update.coefficient."
        )
    if max(recent) < near and max(fresh_ones) < near:
        return (
            f"The critic is beaten, as it should be: it is right on {recent[-1]:.0f} % (chance is {chance:.0f}), and a "
            f"fresh one on {fresh_ones[-1]:.0f} %."
        )
    if min(recent) > won:
        return (
            f"The critic wins: it has been right on {min(recent):.0f} % or more (chance is {chance:.0f}) in the last "
            f"{WINDOW} evaluations, so the features do not hide enough. Raise update.coefficient."
        )
    return ""


def fresh(critic: Critics) -> Critics:
    """Critics like these on the CPU, always with the same first weights."""
    with seeded("probe critic"):
        return critic.fresh()


def rows(prediction: Prediction, index: slice | Tensor) -> Prediction:
    """The predictions for the samples at ``index``."""
    return Prediction(tuple(layer[index] for layer in prediction.layers), prediction.logits[index])


# --- domains ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def domain_accuracy(
    critic: Critics, critic_inputs: CriticInputs, source: Prediction, target: Prediction, boundary: float | None
) -> tuple[tuple[float, float], float]:
    """Per cent of source and of target samples on the right side of the ``boundary``, and the mean cross-entropy per
    side and critic.

    Without a boundary (Wasserstein's scores) it is in the middle between both sides' means.
    """
    with evaluating(critic):
        pairs = judged(critic, critic_inputs, source, target)
    real = torch.stack([pair.real.score for pair in pairs])
    fake = torch.stack([pair.fake.score for pair in pairs])
    if boundary is None:
        boundary = float(real.mean() + fake.mean()) / 2
    right = 100 * float((real > boundary).float().mean()), 100 * float((fake < boundary).float().mean())
    return right, float(domain_loss(pairs) / (2 * len(pairs)))


def train_domain_probe(critic: Critics, critic_inputs: CriticInputs, source: Prediction, target: Prediction) -> None:
    """Train critics in place to tell the domains apart, on features that stay as they are."""

    def loss() -> Tensor:
        batches = [rows(prediction, random_rows(prediction)) for prediction in (source, target)]
        return domain_loss(judged(critic, critic_inputs, *batches))

    fit(critic, loss)


def judged(critic: Critics, critic_inputs: CriticInputs, source: Prediction, target: Prediction) -> list[Pair]:
    """A pair for each critic, with its scores."""
    pairs = [Pair(*sides) for sides in zip(critic_inputs(source), critic_inputs(target), strict=True)]
    # Not together, for critics with BatchNorm: either side would change the other's statistics.
    AdaptationGame(nn.Identity(), critic, critic_inputs, together=False).judge(pairs)
    return pairs


def domain_loss(pairs: list[Pair]) -> Tensor:
    """The cross-entropy of all critics, summed over both sides, whose numbers of samples may differ."""
    loss = OBJECTIVES["minimax"].critic_loss
    return sum(loss(pair.real.score, None).mean() + loss(None, pair.fake.score).mean() for pair in pairs)


# --- attributes ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def attribute_accuracy(
    critic: Critics, critic_inputs: CriticInputs, prediction: Prediction, attribute: Tensor
) -> tuple[float, float]:
    """Per cent of samples whose attribute the critics read, and their cross-entropy; both are means over critics."""
    with evaluating(critic):
        logits = critic(*(side.samples for side in critic_inputs(prediction)))
    right = torch.stack([(x.argmax(1) == attribute).float().mean() for x in logits]).mean()
    return 100 * float(right), float(torch.stack([cross_entropy(x, attribute) for x in logits]).mean())


def train_attribute_probe(
    critic: Critics, critic_inputs: CriticInputs, prediction: Prediction, attribute: Tensor
) -> None:
    """Train critics in place to read the attribute, on features that stay as they are."""

    def loss() -> Tensor:
        index = random_rows(prediction)
        logits = critic(*(side.samples for side in critic_inputs(rows(prediction, index))))
        return sum(cross_entropy(x, attribute[index]) for x in logits)

    fit(critic, loss)


# --- both ------------------------------------------------------------------------------------------------------------


def random_rows(prediction: Prediction) -> Tensor:
    """Indices of a random minibatch."""
    return torch.randint(len(prediction.logits), (PROBE_BATCH,))


def fit(critic: Critics, loss: Callable[[], Tensor]) -> None:
    """Minimise the ``loss`` of random minibatches, which are always the same ones."""
    with torch.enable_grad(), seeded("probe critic"):
        optimizer = torch.optim.Adam(critic.parameters(), PROBE_RATE, fused=True)
        for _ in range(PROBE_STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
