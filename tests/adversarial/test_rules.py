"""Every update rule gives the gradients of two plain, separate backward passes, whatever the game."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial.augmentation import augmentation
from adversarial.compiled import with_slope
from adversarial.games import GenerationGame
from adversarial.objectives import OBJECTIVES, Auxiliary
from adversarial.passes import Strengths
from adversarial.penalties import CRITIC, GENERATOR
from adversarial.rules import alternating, single_pass
from models import auxiliary, mlp
from tests.adversarial.exactness import (
    CRITICS,
    EVERY_PENALTY,
    EXACT,
    PLAIN_AND_SLOPES,
    SLOPES,
    check,
    every_objective,
    every_plan,
    played,
)
from tests.adversarial.textbook import separate_passes
from tests.adversarial.toy_games import (
    CLASSES,
    INPUT_METHODS,
    LATENT,
    PLANS,
    SHAPE,
    Probability,
    SeededDraw,
    assert_same,
    domain_game,
    flat,
    gradients_of,
    image_batch,
    image_game,
    invariance_game,
    mapped_game,
    penalties,
    play_turns,
    relative_error,
    spread,
    stylegan_game,
    vector_batch,
)

# --- float64: the same gradients ---------------------------------------------------------------------------------


# A single pass is refused for BatchNorm: tests/adversarial/test_games.py shows why.
ACCEPTED = [(plan, critic) for plan in PLANS for critic in CRITICS if (plan, critic) != ("single_pass", "batch")]


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize(("plan", "critic"), ACCEPTED)
@every_objective
def test_same_gradients(objective, plan, critic, conditional):
    norm, together = CRITICS[critic]
    check(plan, image_game(norm, conditional, together), objective, image_batch(), SeededDraw(4))


@pytest.mark.parametrize("gamma", SLOPES)
@pytest.mark.parametrize(
    ("norm", "conditional", "together"),
    [("none", True, True), ("group", False, False), ("spectral", False, True)],
    ids=["plain-conditional", "group-apart", "spectral"],
)
@every_plan
@every_objective
def test_same_gradients_with_penalties(objective, plan, norm, conditional, together, gamma):
    game = image_game(norm, conditional, together)
    check(plan, game, objective, image_batch(3), SeededDraw(3), Strengths(penalties(*SLOPES[gamma])))


@pytest.mark.parametrize("gamma", PLAIN_AND_SLOPES)
@every_plan
@every_objective
def test_same_gradients_where_the_generator_side_makes_both_samples(objective, plan, gamma):
    """Domain adaptation: the source's features are pushed to the other label, and the label head trains beside."""
    torch.manual_seed(0)
    strengths = Strengths(penalties(*PLAIN_AND_SLOPES[gamma]), coefficient=0.6)
    check(plan, domain_game(), objective, vector_batch(5, 3), SeededDraw(5), strengths)


@pytest.mark.parametrize("method", INPUT_METHODS)
@every_plan
@every_objective
def test_same_gradients_whatever_the_domain_critics_see(objective, plan, method):
    """One critic or several, on one layer or several, weighted samples, a second head's log-odds."""
    torch.manual_seed(0)
    for names in (("r1", "r2"), ("gp",)):
        strengths = Strengths(penalties(*names), coefficient=0.6)
        check(plan, domain_game(method), objective, vector_batch(5, 3), SeededDraw(5), strengths)


AUGMENTATIONS = {
    "diffaugment": augmentation("diffaugment", []),
    "ada": augmentation("ada", ["blit", "geometry", "colour:0.5", "cutout"]),
}


SHOWN = {
    "augmented": {"augment": AUGMENTATIONS["ada"], "probability": Probability()},
    "augmented-conditional": {"augment": AUGMENTATIONS["diffaugment"], "conditional": True, "norm": "group"},
    "packed-augmented": {"pack": 2, "augment": AUGMENTATIONS["ada"], "norm": "spectral", "probability": Probability()},
}
# Every plan with every penalty and every objective. What is shown takes turns: each kind meets each plan with each
# penalty, and each objective.
EVERY_PLAY = [
    (objective, plan, gamma, list(SHOWN)[(i + j + k) % len(SHOWN)])
    for i, objective in enumerate(OBJECTIVES)
    for j, plan in enumerate(PLANS)
    for k, gamma in enumerate(EVERY_PENALTY)
]


@pytest.mark.parametrize(("objective", "plan", "gamma", "kind"), EVERY_PLAY)
def test_same_gradients_with_every_penalty_whatever_the_critic_is_shown(objective, plan, gamma, kind):
    """Augmented images and packs of two: the gradient passes through both to the generator, and penalties are taken on
    the images before them.
    """
    game = image_game(**SHOWN[kind])
    check(plan, game, objective, image_batch(), SeededDraw(4), Strengths(penalties(*EVERY_PENALTY[gamma]), 0.6))


def naming_game(**options) -> GenerationGame:
    """A critic that names the class (AC-GAN)."""
    game, told = image_game(**options), image_game(conditional=True)
    critic = auxiliary.Critic(game.critic.float(), SHAPE, CLASSES).double()
    spread(critic.head)
    return GenerationGame(told.generator, critic, LATENT, True, game.together, 1, game.augment, game.probability)


@pytest.mark.parametrize("gamma", EVERY_PENALTY)
@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "single_pass"])
@every_objective
def test_same_gradients_with_a_critic_that_names_the_class(objective, plan, gamma):
    """Penalties are on the score alone."""
    game = naming_game(norm="group", augment=AUGMENTATIONS["ada"], probability=Probability())
    strengths = Strengths(penalties(*EVERY_PENALTY[gamma]), 0.6)
    check(plan, game, objective, image_batch(), SeededDraw(4), strengths, class_=0.7)


@pytest.mark.parametrize("plan", ["alternating-fresh", "simultaneous"])
def test_reports_how_well_the_class_is_named(plan):
    """The probability that the critic gives a sample's class."""
    game, batch, draw = naming_game(), image_batch(), SeededDraw(4)
    (turn, *_) = played(PLANS[plan], game, [(batch, draw)], Auxiliary(OBJECTIVES["hinge"], 1.0))
    play = game.play(batch, draw)
    for name, side in zip(("real", "fake"), play.pairs[0], strict=True):
        p = game.critic.head(game.critic.critic.features(side.samples)).softmax(1)[range(4), batch.label]
        torch.testing.assert_close(turn.report[f"class_probability_{name}"], p.detach())


def test_a_single_pass_refuses_a_critic_that_names_the_class():
    with pytest.raises(ValueError, match="one score per sample; use the simultaneous or the alternating rule"):
        check("single_pass", naming_game(), "hinge", image_batch(), SeededDraw(4), class_=1)


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("gamma", ["path", "path+r1+r2"])
@every_plan
def test_same_gradients_with_the_generators_path_length(plan, gamma, layers):
    torch.manual_seed(0)
    strengths = Strengths(penalties(*gamma.split("+")), 0.6)
    check(plan, mapped_game(layers), "non_saturating", image_batch(), SeededDraw(4), strengths)


@every_plan
def test_same_gradients_with_the_path_length_of_stylegan2(plan):
    strengths = Strengths(penalties("r1", "r2", "path"))
    check(plan, stylegan_game(), "non_saturating", image_batch(), SeededDraw(4), strengths)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    pack=st.integers(1, 4),
    packs=st.integers(1, 3),
    width=st.integers(1, 3),
    names=st.sets(st.sampled_from(["r1", "r2", "gp", "dragan", "lecam"])),
    together=st.booleans(),
)
def test_packs_of_any_size(objective, pack, packs, width, names, together):
    """Points, too: m of them are one input of the critic, with one coefficient for all m."""
    torch.manual_seed(pack)
    config, n = mlp.Config(latent_dim=2, width=5, depth=1), pack * packs
    generator = mlp.Generator(config, (width,), 0).double()
    critic = mlp.Critic(config, (pack * width,), 0).double()
    game = GenerationGame(generator, critic, 2, False, together, pack)
    batch = vector_batch(n, width)
    for plan in PLANS:
        check(plan, game, objective, batch, SeededDraw(n), Strengths(penalties(*sorted(names))))


@pytest.fixture(scope="module", params=PLANS)
def compiled(request):
    """A plan's name and two equal games, the first with a compiled critic: all penalties share what is compiled."""
    torch._dynamo.reset()  # it counts how often a function is compiled
    compile_ = torch.compile
    options = {"norm": "group", "augment": AUGMENTATIONS["ada"], "probability": Probability(), "conditional": True}
    game, plain = image_game(**options), image_game(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", dynamic=False, **options))
        game.critic.forward = with_slope(game.critic)
    return request.param, game, plain


@pytest.mark.parametrize("gamma", [*SLOPES, "dragan", "all"])
def test_same_gradients_with_a_compiled_critic(compiled, gamma):
    """Scores and slope come out of one compiled function, whole (fullgraph)."""
    plan, game, plain = compiled
    objective, batch, draw = OBJECTIVES["relativistic"], image_batch(), SeededDraw(4)
    strengths = Strengths(penalties(*EVERY_PENALTY[gamma]))
    want = separate_passes(plan, plain, objective, batch, draw, strengths)
    assert_same(play_turns(PLANS[plan](game, objective, [(batch, draw)], strengths), game), want, EXACT)


ONE_SIDED = [name for name, objective in OBJECTIVES.items() if not objective.pairs]


@pytest.mark.parametrize("method", ["dann", "layers", "mada"])
@pytest.mark.parametrize("gamma", ["none", "r1"])
@every_plan
@pytest.mark.parametrize("objective", ONE_SIDED)
def test_same_gradients_against_a_critic_of_attributes(objective, plan, gamma, method):
    """All samples are real, a score is the log-odds of one of four attributes."""
    torch.manual_seed(0)
    strengths = Strengths(penalties(*PLAIN_AND_SLOPES[gamma]), coefficient=0.6)
    check(plan, invariance_game(method), objective, vector_batch(5, 3), SeededDraw(5), strengths)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "single_pass"])
def test_same_gradients_of_confusion_over_all_attributes(plan):
    torch.manual_seed(0)
    for names in ([], ["r1"]):
        check(
            plan,
            invariance_game(every_class=True),
            "confusion",
            vector_batch(5, 3),
            SeededDraw(5),
            Strengths(penalties(*names)),
        )


def test_single_pass_refuses_several_scores_a_sample():
    game = invariance_game(every_class=True)
    with pytest.raises(ValueError, match="one score per sample; use the simultaneous or the alternating rule"):
        next(single_pass(game, OBJECTIVES["confusion"], [(vector_batch(5, 3), SeededDraw(5))]))


@every_plan
def test_coefficient_scales_the_adversarial_gradient_of_the_generator_alone(plan):
    torch.manual_seed(0)
    game, batch, draw = domain_game(), vector_batch(5, 3), SeededDraw(5)

    def gradients(coefficient):
        return play_turns(
            PLANS[plan](game, objective, [(batch, draw)], Strengths(penalties("r1", "r2"), coefficient)), game
        )

    objective = OBJECTIVES["non_saturating"]
    off, one, scaled = gradients(0.0), gradients(1.0), gradients(2.5)
    assert relative_error(scaled[CRITIC], one[CRITIC]) <= EXACT
    # λ = 0 leaves the task's gradient; beyond it the generator's grows in proportion to λ.
    adversarial, task = flat(one[GENERATOR]) - flat(off[GENERATOR]), flat(off[GENERATOR])
    assert adversarial.norm() > 0.01 * task.norm() > 0
    torch.testing.assert_close(flat(scaled[GENERATOR]), task + 2.5 * adversarial, rtol=0, atol=EXACT * task.norm())


@every_plan
def test_coefficient_with_images(plan):
    check(plan, image_game(), "non_saturating", image_batch(), SeededDraw(4), Strengths(coefficient=0.25))


@every_plan
def test_parameters_that_the_user_froze_stay_frozen(plan):
    """A critic with frozen first layers (FreezeD): they get no gradient, and are not thawed by a rule."""
    game = image_game()
    game.critic.features[0].requires_grad_(False)
    check(plan, game, "hinge", image_batch(), SeededDraw(4), Strengths(penalties("r1")))
    assert [name for name, p in game.critic.named_parameters() if not p.requires_grad] == [
        "features.0.weight",
        "features.0.bias",
    ]


def test_alternating_plays_the_generator_against_the_critic_that_has_stepped():
    """Between the turns the caller steps the critic: the generator's gradient is taken at the new critic."""
    game, batch, draw, objective = image_game(), image_batch(), SeededDraw(4), OBJECTIVES["non_saturating"]
    stepped = copy.deepcopy(game)
    turns = alternating(game, objective, [(batch, draw)])
    next(turns)
    with torch.no_grad():
        for p, twin in zip(game.critic.parameters(), stepped.critic.parameters(), strict=True):
            p -= 0.1 * p.grad
            twin.copy_(p)
    game.critic.zero_grad()
    next(turns)
    want = separate_passes("alternating-fresh", stepped, objective, batch, draw)
    assert relative_error(gradients_of(game.generator), want[GENERATOR]) <= EXACT
