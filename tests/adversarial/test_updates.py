"""Every update rule gives the gradients of two plain, separate backward passes, whatever the game."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adversarial.augmentation import augmentation
from adversarial.compiled import with_slope
from adversarial.games import VIEWS, GenerationGame, Play
from adversarial.objectives import OBJECTIVES, Auxiliary
from adversarial.penalties import Gamma
from adversarial.updates import CRITIC, GENERATOR, Weights, alternating, simultaneous, single_pass
from models import auxiliary, mlp
from tests.adversarial.toy_games import (
    ALL_OF_THEM,
    BOTH,
    CLASSES,
    CONSISTENCY,
    DRAGAN,
    GP,
    LATENT,
    LECAM,
    MEMORY,
    NO_GAMMA,
    PLANS,
    R1,
    R2,
    SHAPE,
    SeededDraw,
    assert_same,
    domain_game,
    flat,
    gradients_of,
    image_batch,
    image_game,
    invariance_game,
    mapped_game,
    play_turns,
    relative_error,
    separate_passes,
    spread,
    stylegan_game,
    vector_batch,
)

EXACT = 1e-12  # relative, float64
SINGLE = 1e-5  # relative, float32

# (norm, whether real and fake are judged in one call of the critic). Judged apart, a spectral norm moves in between.
CRITICS = {
    "plain": ("none", True),
    "plain-apart": ("none", False),
    "group": ("group", True),
    "spectral": ("spectral", True),
    "spectral-apart": ("spectral", False),
    "batch": ("batch", False),
}
GAMMAS = {"r1": R1, "r2": R2, "r1+r2": BOTH, "gp": GP}

every_plan = pytest.mark.parametrize("plan", PLANS)
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def check(plan: str, game, name: str, batch, draw: SeededDraw, weights: Weights = Weights(), tolerance=EXACT, class_=0):
    objective = Auxiliary(OBJECTIVES[name], class_) if class_ else OBJECTIVES[name]
    want = separate_passes(plan, game, objective, batch, draw, weights)
    got = play_turns(PLANS[plan](game, objective, [(batch, draw)], weights), game)
    assert_same(got, want, tolerance)


# --- float64: the same gradients ---------------------------------------------------------------------------------


# A single pass is refused for BatchNorm: tests/adversarial/test_games.py shows why.
ACCEPTED = [(plan, critic) for plan in PLANS for critic in CRITICS if (plan, critic) != ("single_pass", "batch")]


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize(("plan", "critic"), ACCEPTED)
@every_objective
def test_same_gradients(objective, plan, critic, conditional):
    norm, together = CRITICS[critic]
    check(plan, image_game(norm, conditional, together), objective, image_batch(), SeededDraw(4))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(
    ("norm", "conditional", "together"),
    [("none", True, True), ("group", False, False), ("spectral", False, True)],
    ids=["plain-conditional", "group-apart", "spectral"],
)
@every_plan
@every_objective
def test_same_gradients_with_penalties(objective, plan, norm, conditional, together, gamma):
    game = image_game(norm, conditional, together)
    check(plan, game, objective, image_batch(3), SeededDraw(3), Weights(GAMMAS[gamma]))


@pytest.mark.parametrize("gamma", {"none": NO_GAMMA, **GAMMAS})
@every_plan
@every_objective
def test_same_gradients_where_the_generator_side_makes_both_samples(objective, plan, gamma):
    """Domain adaptation: the source's features are pushed to the other label, and the label head trains beside."""
    torch.manual_seed(0)
    weights = Weights({"none": NO_GAMMA, **GAMMAS}[gamma], coefficient=0.6)
    check(plan, domain_game(), objective, vector_batch(5, 3), SeededDraw(5), weights)


@pytest.mark.parametrize("view", VIEWS)
@every_plan
@every_objective
def test_same_gradients_whatever_the_domain_critics_see(objective, plan, view):
    """One critic or several, on one layer or several, weighted samples, a second head's log-odds."""
    torch.manual_seed(0)
    check(plan, domain_game(view), objective, vector_batch(5, 3), SeededDraw(5), Weights(BOTH, coefficient=0.6))
    check(plan, domain_game(view), objective, vector_batch(5, 3), SeededDraw(5), Weights(GP, coefficient=0.6))


AUGMENTATIONS = {
    "diffaugment": augmentation("diffaugment", []),
    "ada": augmentation("ada", ["blit", "geometry", "colour:0.5", "cutout"]),
}


MORE_GAMMAS = {"none": NO_GAMMA, **GAMMAS, "dragan": DRAGAN, "lecam": LECAM, "consistency": CONSISTENCY}


@pytest.mark.parametrize("gamma", {**MORE_GAMMAS, "all": ALL_OF_THEM})
@pytest.mark.parametrize("kind", ["augmented", "augmented-conditional", "packed-augmented"])
@every_plan
@every_objective
def test_same_gradients_with_every_penalty_whatever_the_critic_is_shown(objective, plan, kind, gamma):
    """Augmented images and packs of two: the gradient passes through both to the generator, and penalties are taken on
    the images before them.
    """
    options = {
        "augmented": {"augment": AUGMENTATIONS["ada"]},
        "augmented-conditional": {"augment": AUGMENTATIONS["diffaugment"], "conditional": True, "norm": "group"},
        "packed-augmented": {"pack": 2, "augment": AUGMENTATIONS["ada"], "norm": "spectral"},
    }
    game = image_game(**options[kind], memory=MEMORY)
    check(plan, game, objective, image_batch(), SeededDraw(4), Weights({**MORE_GAMMAS, "all": ALL_OF_THEM}[gamma], 0.6))


def naming_game(**options) -> GenerationGame:
    """A critic that names the class (AC-GAN)."""
    game, told = image_game(**options), image_game(conditional=True)
    critic = auxiliary.Critic(game.critic.float(), SHAPE, CLASSES).double()
    spread(critic.head)
    return GenerationGame(told.generator, critic, LATENT, True, game.together, 1, game.augment, game.memory)


@pytest.mark.parametrize("gamma", {**MORE_GAMMAS, "all": ALL_OF_THEM})
@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "single_pass"])
@every_objective
def test_same_gradients_with_a_critic_that_names_the_class(objective, plan, gamma):
    """Penalties are on the score alone."""
    game = naming_game(norm="group", augment=AUGMENTATIONS["ada"], memory=MEMORY)
    weights = Weights({**MORE_GAMMAS, "all": ALL_OF_THEM}[gamma], 0.6)
    check(plan, game, objective, image_batch(), SeededDraw(4), weights, class_=0.7)


@pytest.mark.parametrize("plan", ["alternating-fresh", "simultaneous"])
def test_reports_how_well_the_class_is_named(plan):
    """The mean probability that the critic gives a sample's class."""
    game, batch, draw = naming_game(), image_batch(), SeededDraw(4)
    (turn, *_) = _played(PLANS[plan], game, [(batch, draw)], Auxiliary(OBJECTIVES["hinge"], 1.0))
    play = game.play(batch, draw)
    for side, (x,) in (("real", play.real), ("fake", play.fake)):
        p = game.critic.head(game.critic.critic.features(x)).softmax(1)[range(4), batch.label]
        torch.testing.assert_close(turn.report[f"class_probability_{side}"], p.mean().detach())


def test_a_single_pass_refuses_a_critic_that_names_the_class():
    with pytest.raises(ValueError, match="one score per sample; use the simultaneous or the alternating rule"):
        check("single_pass", naming_game(), "hinge", image_batch(), SeededDraw(4), class_=1)


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("gamma", {"path": NO_GAMMA, "path+r1+r2": BOTH})
@every_plan
def test_same_gradients_with_the_generators_path_length(plan, gamma, layers):
    torch.manual_seed(0)
    weights = Weights(replace({"path": NO_GAMMA, "path+r1+r2": BOTH}[gamma], path=2.0), 0.6)
    check(plan, mapped_game(layers), "non_saturating", image_batch(), SeededDraw(4), weights)


@every_plan
def test_same_gradients_with_the_path_length_of_stylegan2(plan):
    weights = Weights(replace(BOTH, path=2.0))
    check(plan, stylegan_game(), "non_saturating", image_batch(), SeededDraw(4), weights)


@pytest.mark.parametrize("rounds", [1, 2])
@every_plan
def test_the_critics_weights_are_clipped_after_each_of_its_steps(plan, rounds):
    game = image_game()
    played = [(image_batch(path=f"data{i}"), SeededDraw(4, str(i))) for i in range(rounds)]
    for turn in PLANS[plan](game, OBJECTIVES["wasserstein"], played, Weights(Gamma(clip=0.01))):
        with torch.no_grad():
            for player in turn.players:  # an optimiser that moves far
                for p in getattr(game, player).parameters():
                    p += 1 if p.grad is None else p.grad.sign()
        if turn.players == (GENERATOR,):
            assert flat(game.critic.parameters()).abs().max() <= 0.01
        game.critic.zero_grad()
        game.generator.zero_grad()
    assert flat(game.critic.parameters()).abs().max() == pytest.approx(0.01)
    assert flat(game.generator.parameters()).abs().max() > 0.1


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    pack=st.integers(1, 4),
    packs=st.integers(1, 3),
    width=st.integers(1, 3),
    gamma=st.builds(Gamma, *[st.sampled_from([0.0, 0.7])] * 5),
    together=st.booleans(),
)
def test_packs_of_any_size(objective, pack, packs, width, gamma, together):
    """Points, too: m of them are one input of the critic, with one coefficient for all m."""
    torch.manual_seed(pack)
    config, n = mlp.Config(latent_dim=2, width=5, depth=1), pack * packs
    generator = mlp.Generator(config, (width,), 0).double()
    critic = mlp.Critic(config, (pack * width,), 0).double()
    game = GenerationGame(generator, critic, 2, False, together, pack, memory=MEMORY)
    batch = vector_batch(n, width)
    for plan in PLANS:
        check(plan, game, objective, batch, SeededDraw(n), Weights(gamma))


@pytest.mark.parametrize("gamma", {**GAMMAS, "dragan": DRAGAN, "all": ALL_OF_THEM})
@every_plan
def test_same_gradients_with_a_compiled_critic(monkeypatch, plan, gamma):
    """Scores and slope come out of one compiled function, whole (fullgraph)."""
    torch._dynamo.reset()  # it counts how often a function is compiled
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", **options))
    options = {"norm": "group", "augment": AUGMENTATIONS["ada"], "memory": MEMORY, "conditional": True}
    game, plain = image_game(**options), image_game(**options)
    objective, batch, draw = OBJECTIVES["relativistic"], image_batch(), SeededDraw(4)
    weights = Weights({**GAMMAS, "dragan": DRAGAN, "all": ALL_OF_THEM}[gamma])
    want = separate_passes(plan, plain, objective, batch, draw, weights)
    game.critic.forward = with_slope(game.critic)
    assert_same(play_turns(PLANS[plan](game, objective, [(batch, draw)], weights), game), want, EXACT)


ONE_SIDED = [name for name, objective in OBJECTIVES.items() if not objective.pairs]


@pytest.mark.parametrize("view", ["features", "layers", "classes"])
@pytest.mark.parametrize("gamma", {"none": NO_GAMMA, "r1": R1})
@every_plan
@pytest.mark.parametrize("objective", ONE_SIDED)
def test_same_gradients_against_a_critic_of_attributes(objective, plan, gamma, view):
    """All samples are real, a score is the log-odds of one of four attributes."""
    torch.manual_seed(0)
    weights = Weights({"none": NO_GAMMA, "r1": R1}[gamma], coefficient=0.6)
    check(plan, invariance_game(view), objective, vector_batch(5, 3), SeededDraw(5), weights)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "single_pass"])
def test_same_gradients_of_confusion_over_all_attributes(plan):
    torch.manual_seed(0)
    for gamma in (NO_GAMMA, R1):
        check(plan, invariance_game(every_class=True), "confusion", vector_batch(5, 3), SeededDraw(5), Weights(gamma))


def test_single_pass_refuses_several_scores_a_sample():
    game = invariance_game(every_class=True)
    with pytest.raises(ValueError, match="one score per sample; use the simultaneous or the alternating rule"):
        next(single_pass(game, OBJECTIVES["confusion"], [(vector_batch(5, 3), SeededDraw(5))]))


@every_plan
def test_coefficient_scales_the_adversarial_gradient_of_the_generator_alone(plan):
    torch.manual_seed(0)
    game, batch, draw = domain_game(), vector_batch(5, 3), SeededDraw(5)

    def gradients(coefficient):
        return play_turns(PLANS[plan](game, objective, [(batch, draw)], Weights(BOTH, coefficient)), game)

    objective = OBJECTIVES["non_saturating"]
    off, one, scaled = gradients(0.0), gradients(1.0), gradients(2.5)
    assert relative_error(scaled[CRITIC], one[CRITIC]) <= EXACT
    # λ = 0 leaves the task's gradient; beyond it the generator's grows in proportion to λ.
    adversarial, task = flat(one[GENERATOR]) - flat(off[GENERATOR]), flat(off[GENERATOR])
    assert adversarial.norm() > 0.01 * task.norm() > 0
    torch.testing.assert_close(flat(scaled[GENERATOR]), task + 2.5 * adversarial, rtol=0, atol=EXACT * task.norm())


@every_plan
def test_coefficient_with_images(plan):
    check(plan, image_game(), "non_saturating", image_batch(), SeededDraw(4), Weights(coefficient=0.25))


@every_plan
def test_parameters_that_the_user_froze_stay_frozen(plan):
    """A critic with frozen first layers (FreezeD): they get no gradient, and are not thawed by a rule."""
    game = image_game()
    game.critic.features[0].requires_grad_(False)
    check(plan, game, "hinge", image_batch(), SeededDraw(4), Weights(R1))
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


# --- float32 -----------------------------------------------------------------------------------------------------


@every_plan
@every_objective
def test_same_gradients_in_float32(objective, plan):
    """1e-5: rounding 2^-24 in each of a few hundred terms, that partly cancel; measured: 4e-7 at most."""
    game = image_game("group", dtype=torch.float32)
    check(plan, game, objective, image_batch(dtype=torch.float32), SeededDraw(4, dtype=torch.float32), tolerance=SINGLE)


class MarkedPoints(nn.Module):
    """A generator whose points carry their score's offset as last coordinate."""

    def __init__(self, offset: Tensor):
        super().__init__()
        self.points = nn.Sequential(nn.Linear(LATENT, 6), nn.Tanh(), nn.Linear(6, 3))
        self.register_buffer("offset", offset)

    def forward(self, latent: Tensor, label: None = None) -> Tensor:
        return torch.cat([self.points(latent), self.offset[:, None]], dim=1)


class MarkedCritic(nn.Module):
    """Adds a point's last coordinate to its score: real and fake scores go wherever a test wants them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))

    def forward(self, x: Tensor, label: None = None) -> Tensor:
        return self.layers(x[:, :-1]) + x[:, -1]


def marked_game(real: float | Tensor, fake: float | Tensor, n: int = 4):
    """A float32 game whose scores lie within about 1 of ``real`` and ``fake``; with its batch and draw."""
    torch.manual_seed(1)
    offset = torch.as_tensor(fake).expand(n).clone()
    game = GenerationGame(MarkedPoints(offset), MarkedCritic(), LATENT, conditional=False, together=True)
    spread(game.critic)
    batch = vector_batch(n, 4, dtype=torch.float32)
    batch.x[:, -1] = torch.as_tensor(real)
    return game, batch, SeededDraw(n, dtype=torch.float32)


def in_float64(game: GenerationGame, batch):
    twin = copy.deepcopy(game)
    twin.generator.double(), twin.critic.double()
    return twin, batch._replace(x=batch.x.double())


class Rounded(SeededDraw):
    """The numbers that a float32 draw gives, in float64."""

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        return super().normal(stream, shape).float().double()

    def fork(self, name: str) -> "Rounded":
        return Rounded(self.n, f"{self.path}/{name}")


def floor_allowance(game, objective, batch, draw, bits: int) -> float:
    """How far the floor documented in ``updates._floored`` may move the critic's gradient, by its norm.

    Every fake whose |c_i| lies below the floor enters with the floor in its place, which moves the gradient by at
    most floor · |∂s_i/∂θ|. The floor is at most 2^-bits (40 in float32, 69 in float64) times the batch's largest |c|,
    where that is taken as 2^-bits if it is smaller. ``game`` and its companions are in float64.
    """
    play = game.play(batch, draw)
    scores = [s.detach().requires_grad_() for (s,) in game.judge(play)]
    c = torch.autograd.grad(objective.critic_loss(*scores).mean(), scores, materialize_grads=True)
    largest = max(x.abs().max().item() for x in c)
    floor = 2.0**-bits * max(largest, 2.0**-bits)
    allowance = 0.0
    for i, c_i in enumerate(c[1]):
        if c_i.abs() < floor:
            condition = None if play.condition is None else play.condition[i : i + 1]
            ((score,),) = game.judge_fake(Play(play.real, (play.fake[0][i : i + 1].detach(),), condition))
            slopes = torch.autograd.grad(score, list(game.critic.parameters()), materialize_grads=True)
            allowance += floor * flat(slopes).norm().item()
    return allowance


# What the critic has settled: (real, fake) scores of ±80 in all four combinations, of both kinds in one batch, and the
# hinge's inactive cases.
MIXED = torch.tensor([-160.0, -80.0, 0.0, 160.0])
EXTREMES = (
    {
        f"{name}-real{real:+.0f}-fake{fake:+.0f}": (name, real, fake)
        for name in OBJECTIVES
        for real in (80.0, -80.0)
        for fake in (80.0, -80.0)
    }
    | {f"{name}-mixed": (name, MIXED.flip(0), MIXED) for name in OBJECTIVES}
    | {
        "hinge-inactive-fakes": ("hinge", 0.0, -3.0),
        "hinge-inactive-reals": ("hinge", 3.0, 0.0),
        "hinge-all-inactive": ("hinge", 3.0, -3.0),
    }
)


@pytest.mark.parametrize("case", EXTREMES)
@every_plan
def test_same_gradients_in_float32_at_extreme_scores(plan, case):
    """Held to a float64 reference of the same numbers.

    The scores themselves are rounded: by 2^-18 (half a unit in the last place at 80), and c and g, that may be
    e^-score, by that much relatively: 3.8e-6 < 1e-5. The relativistic loss sees the difference of two: up to 7.6e-6.
    (Scores of ±160 are rounded by 2^-17, but e^-160 is no float32, and they stand beside scores of 0.)
    Beyond 1e-5, an error is allowed only where float32 has no numbers: 2^-149 per term of a sum, its smallest number,
    to which products are rounded (the relativistic e^-160 is 0); and for the critic in a single pass, the documented
    floor under c_i (see ``floor_allowance``).
    """
    name, real, fake = EXTREMES[case]
    objective = OBJECTIVES[name]
    game, batch, draw = marked_game(real, fake)
    exact_game, exact_batch = in_float64(game, batch)
    want = separate_passes(plan, exact_game, objective, exact_batch, Rounded(4))
    got = play_turns(PLANS[plan](game, objective, [(batch, draw)]), game)

    # A parameter's gradient is a sum over 8 samples (and each term one over at most 6 units).
    absolute = {player: 8 * 6 * 2.0**-149 * len(flat(want[player])) ** 0.5 for player in want}
    if plan == "single_pass":
        absolute[CRITIC] += floor_allowance(exact_game, objective, exact_batch, Rounded(4), bits=40)
    for player in (CRITIC, GENERATOR):
        error = (flat(got[player]) - flat(want[player])).norm().item()
        allowed = SINGLE * flat(want[player]).norm().item() + absolute[player]
        assert error <= allowed, f"{player}: error {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generator_learns_from_fakes_that_the_critic_has_settled(name):
    """The floor must not be paid by the generator: beside fakes at -80 its gradient is exact, not merely small."""
    game, batch, draw = marked_game(80.0, -80.0)
    want = separate_passes("single_pass", game, OBJECTIVES[name], batch, draw)[GENERATOR]
    got = play_turns(single_pass(game, OBJECTIVES[name], [(batch, draw)]), game)[GENERATOR]
    if name == "minimax":
        # Its generator does saturate: g = e^-80 (Goodfellow et al. 2014, section 3), though not to zero.
        assert 0 < flat(want).norm() < 1e-30
    else:
        assert flat(want).norm() > 1e-2
    assert relative_error(got, want) <= SINGLE


@pytest.mark.parametrize("gamma", GAMMAS)
def test_same_gradients_beside_penalties_where_the_critic_has_settled(gamma):
    """The critic's own loss has no gradient here, c = 0: the penalties give it one, and the generator's g is -1."""
    game, batch, draw = marked_game(80.0, -80.0)
    check("single_pass", game, "relativistic", batch, draw, Weights(GAMMAS[gamma]), tolerance=SINGLE)


# --- the property, over sizes ------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    n=st.integers(1, 6),
    latent=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    classes=st.integers(0, 3),
    coefficient=st.floats(0.01, 10),
    scale=st.floats(0.01, 100),
    together=st.booleans(),
)
def test_one_forward_equals_two(objective, n, latent, shape, classes, coefficient, scale, together):
    """One shared forward gives the gradients of two separate passes at any size and any scale of the scores."""
    torch.manual_seed(n + 10 * latent)
    config = mlp.Config(latent_dim=latent, width=5, depth=1)
    game = GenerationGame(
        mlp.Generator(config, tuple(shape), classes).double(),
        mlp.Critic(config, tuple(shape), classes).double(),
        latent,
        classes > 0,
        together,
    )
    with torch.no_grad():
        game.critic.layers[-1].weight *= scale
    batch = vector_batch(n, 1)
    batch = batch._replace(
        x=SeededDraw(n, "data").normal("x", tuple(shape)), label=torch.arange(n) % classes if classes else None
    )
    draw, weights = SeededDraw(n), Weights(coefficient=coefficient)

    rule = OBJECTIVES[objective]
    want = separate_passes("simultaneous", game, rule, batch, draw, weights)
    for plan in ("simultaneous", "single_pass"):
        got = play_turns(PLANS[plan](game, rule, [(batch, draw)], weights), game)
        absolute = {CRITIC: 0.0, GENERATOR: 0.0}
        if plan == "single_pass":
            absolute[CRITIC] = floor_allowance(game, rule, batch, draw, bits=69)
        for player in want:
            error = (flat(got[player]) - flat(want[player])).norm().item()
            assert error <= EXACT * flat(want[player]).norm().item() + absolute[player], (plan, player)


# --- turns: who plays when, and what exists while they do ----------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4])
@every_plan
def test_turns(plan, k):
    """k rounds give k - 1 turns of the critic alone, then the generator's with one more of the critic's."""
    game = image_game()
    rounds = [(image_batch(path=f"data{i}"), SeededDraw(4, str(i))) for i in range(k)]
    players = [turn.players for turn in _played(PLANS[plan], game, rounds)]
    last = [(CRITIC,), (GENERATOR,)] if plan.startswith("alternating") else [(CRITIC, GENERATOR)]
    assert players == [(CRITIC,)] * (k - 1) + last


@every_plan
def test_every_critic_update_has_its_own_round_and_the_last_serves_the_generator(plan):
    game = image_game()
    rounds = [(image_batch(path=f"data{i}"), SeededDraw(4, str(i))) for i in range(3)]
    objective = OBJECTIVES["non_saturating"]
    critic, generator = [], None
    for turn in PLANS[plan](game, objective, rounds):
        if CRITIC in turn.players:
            critic.append(gradients_of(game.critic))
        if GENERATOR in turn.players:
            generator = gradients_of(game.generator)
        game.critic.zero_grad()
        game.generator.zero_grad()
    want = [separate_passes(plan, game, objective, *round) for round in rounds]
    for got, reference in zip(critic, want, strict=True):
        assert relative_error(got, reference[CRITIC]) <= EXACT
    assert relative_error(generator, want[-1][GENERATOR]) <= EXACT


def _played(rule, game, rounds, objective=OBJECTIVES["non_saturating"], **options):
    """Run a rule, clear the gradients after each turn as a training loop does, and list the turns."""
    turns = []
    for turn in rule(game, objective, rounds, **options):
        turns.append(turn)
        game.critic.zero_grad()
        game.generator.zero_grad()
    return turns


def spied(game: GenerationGame) -> SimpleNamespace:
    """Record, for every forward, whether gradients were enabled, and for the critic, whether its input had a graph."""
    seen = SimpleNamespace(generator=[], critic=[], frozen=[])
    game.generator.register_forward_hook(lambda *_: seen.generator.append(torch.is_grad_enabled()))

    def record(module, inputs, output):
        seen.critic.append(inputs[0].grad_fn is not None and output.requires_grad)
        seen.frozen.append(not any(p.requires_grad for p in module.parameters()))

    game.critic.register_forward_hook(record)
    return seen


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
def test_alternating_runs_the_generator_without_a_graph_for_the_critic(reuse):
    """Only the fakes that the generator's own turn needs are made with a graph: the last round's if they are reused."""
    game = image_game()
    seen = spied(game)
    rounds = [(image_batch(), SeededDraw(4, str(i))) for i in range(3)]
    _played(alternating, game, rounds, reuse_fakes=reuse)
    assert seen.generator == ([False, False, True] if reuse else [False, False, False, True])
    assert [draw.forks for _, draw in rounds] == [[], [], [] if reuse else ["generator"]]
    # Judged together, real and fake are concatenated; no graph may hang on them until the generator's turn.
    assert seen.critic == [False, False, False, True]
    assert seen.frozen == [False, False, False, True]


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
def test_alternating_moves_one_player_at_a_time(reuse):
    game = image_game()
    turns = alternating(game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))], Weights(BOTH), reuse_fakes=reuse)
    assert next(turns).players == (CRITIC,)
    assert all(p.grad is None for p in game.generator.parameters())
    critic = gradients_of(game.critic)
    # Left in place on purpose: the generator's turn must add nothing to them.
    assert next(turns).players == (GENERATOR,)
    assert all(torch.equal(a, b) for a, b in zip(critic, gradients_of(game.critic), strict=True))
    assert all(p.grad is not None for p in game.generator.parameters())
    assert all(p.requires_grad for p in game.critic.parameters())
    assert list(turns) == []


def test_alternating_leaves_a_cleared_critic_without_gradients():
    game = image_game()
    turns = alternating(game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))])
    next(turns)
    game.critic.zero_grad()
    next(turns)
    assert all(p.grad is None for p in game.critic.parameters())


def test_alternating_thaws_the_critic_after_an_exception():
    game = image_game()

    def fail(play):
        raise RuntimeError("out of memory")

    turns = alternating(game, OBJECTIVES["hinge"], [(image_batch(), SeededDraw(4))])
    next(turns)
    game.judge_fake = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        next(turns)
    assert all(p.requires_grad for p in game.critic.parameters())


@pytest.mark.parametrize("rule", [simultaneous, single_pass], ids=["simultaneous", "single_pass"])
def test_shared_forwards_make_a_graph_in_the_last_round_alone(rule):
    game = image_game()
    seen = spied(game)
    rounds = [(image_batch(), SeededDraw(4, str(i))) for i in range(3)]
    _played(rule, game, rounds)
    assert seen.generator == [False, False, True]
    assert [draw.forks for _, draw in rounds] == [[], [], []]


@pytest.mark.parametrize("gamma", {"none": NO_GAMMA, **GAMMAS})
@every_plan
def test_reports_are_detached_and_complete(plan, gamma):
    """What is logged must not keep a graph alive; losses are the ones that were minimised."""
    torch.manual_seed(0)
    game, batch, draw = domain_game(), vector_batch(5, 3), SeededDraw(5)
    objective = OBJECTIVES["least_squares"]
    weights = Weights({"none": NO_GAMMA, **GAMMAS}[gamma], coefficient=0.5)
    report = {}
    for turn in PLANS[plan](game, objective, [(batch, draw)], weights):
        report |= turn.report
    with torch.no_grad():
        (real,), (fake,) = game.judge(game.play(batch, draw))
        mine = game.play(batch, draw.fork("generator") if plan == "alternating-fresh" else draw)
        generator_loss = 0.5 * objective.generator_loss(*(score for (score,) in game.judge(mine))).mean()
    assert not any(value.requires_grad for value in report.values())
    assert torch.equal(report["real_score"], real)
    assert torch.equal(report["fake_score"], fake)
    torch.testing.assert_close(report["critic_loss"], objective.critic_loss(real, fake).mean())
    torch.testing.assert_close(report["generator_loss"], generator_loss)
    assert ("penalty" in report) == (gamma != "none")
    assert report.keys() - {"penalty"} == {
        "critic_loss", "generator_loss", "task_loss", "real_score", "fake_score", "source_accuracy",
        "critic_accuracy_real", "critic_accuracy_fake",
    }  # fmt: skip
    assert report["critic_accuracy_real"] == (real > 0.5).double().mean()  # labels are 1 and 0
    assert report["critic_accuracy_fake"] == (fake < 0.5).double().mean()
