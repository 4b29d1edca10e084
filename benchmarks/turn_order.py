"""Does it matter which player moves first in an alternating step?

    python benchmarks/turn_order.py --root data                # trains what is missing, one run after the other
    python benchmarks/turn_order.py --root data --only moons
    python benchmarks/turn_order.py --tell                     # from the committed results alone

The alternating rule moves the generator first in a game of domains, and the critic first in a GAN: those runs are in
``benchmarks/time_to_quality.jsonl``. Here the same recipes are played in other orders. What finished runs have reached
goes to ``benchmarks/turn_order.jsonl``, a line a run. Prints a table; ``docs/lookahead.md`` says what it means.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import train
from adversarial.games import Game
from adversarial.objectives import Auxiliary, Objective
from adversarial.passes import Rounds, Strengths, Turn
from adversarial.penalties import CRITIC, GENERATOR
from adversarial.rules import RULES, Rule, critic_turns, generator_turn
from benchmarks.time_to_quality import ALTERNATING, FRESH, QUESTIONS, SINGLE, by_way, known
from utils import errors
from utils.sweeps.results import results_of
from utils.sweeps.rows import Row
from utils.sweeps.tables import Means, Table

RESULTS = Path(__file__).parent / "turn_order.jsonl"
CRITIC_FIRST, GENERATOR_FIRST, OWN_BATCHES = "critic first", "generator first", "a batch for each player"
# Who moves, and on which of the step's batches.
ORDERS = {
    CRITIC_FIRST: ((CRITIC, 0), (GENERATOR, 0)),
    GENERATOR_FIRST: ((GENERATOR, 0), (CRITIC, 0)),
    OWN_BATCHES: ((CRITIC, 0), (GENERATOR, 1)),
}
# Questions of time to quality: the number of seeds, and the orders that the alternating rule does not have by itself.
GAMES = {
    "moons": (10, (CRITIC_FIRST,)),
    "mnist_usps": (3, (CRITIC_FIRST,)),
    "usps_mnist": (3, (CRITIC_FIRST,)),
    "amazon_reviews": (10, (CRITIC_FIRST,)),
    "digit_patches": (5, (CRITIC_FIRST,)),
    "ring": (10, (GENERATOR_FIRST, OWN_BATCHES)),
}


def rule_of(order: str) -> Rule:
    """An alternating step in this order, each player on what is played when its turn comes."""

    def rule(game: Game, objective: Objective | Auxiliary, rounds: Rounds, strengths: Strengths) -> Iterator[Turn]:
        for player, batch_index in ORDERS[order]:
            if player == CRITIC:
                yield from critic_turns(game, objective, [rounds[batch_index]], strengths)
            else:
                batch, draw = rounds[batch_index]
                play = game.play(batch, draw.fork("generator"))
                yield generator_turn(game, objective, play, draw, strengths)

    return rule


def rows(name: str, order: str, root: str, runs: Path) -> list[Row]:
    """The runs of a game in one order."""
    question, (seeds, _) = QUESTIONS[name], GAMES[name]
    words = [*question.words, *(["update.critic_steps=2"] if order == OWN_BATCHES else [])]
    way = ALTERNATING if ALTERNATING in question.ways else FRESH
    return replace(question, seeds=seeds, words=tuple(words)).rows(name, way, root, runs / order.replace(" ", "-"))


def gather(names: list[str], root: str, runs: Path) -> None:
    """Put what finished runs have reached in the place of what the results held of them."""
    lines = {(x["game"], x["order"], x["seed"]): x for x in known(RESULTS)}
    for name in names:
        for order in GAMES[name][1]:
            for row in rows(name, order, root, runs):
                if row.is_finished():
                    (result,) = results_of([str(row.folder.path)], errors.warn)
                    seed, last = result.config["seed"], result.measured(QUESTIONS[name].metrics[0])[-1]
                    lines[name, order, seed] = {"game": name, "order": order, "seed": seed, "value": last["value"]}
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf-8")


def table() -> Table:
    """A row for each game: the quality at the end, in each order that was played, and of a single pass."""
    others, own, cells = known(RESULTS), known(), []
    for name in GAMES:
        metric = QUESTIONS[name].metrics[0]
        ends = {order: [x["value"] for x in others if (x["game"], x["order"]) == (name, order)] for order in ORDERS}
        ways = {way: [x["values"][metric][-1] for x in lines] for way, lines in by_way(name, own).items()}
        ends[GENERATOR_FIRST] += ways.get(ALTERNATING, [])
        ends[CRITIC_FIRST] += ways.get(FRESH, [])
        found = [f"{Means(values)} ({len(values)})" if values else "" for values in (*ends.values(), ways[SINGLE])]
        cells.append([name, metric, *found])
    return Table(["game (seeds in brackets)", "quality", *ORDERS, "single pass"], cells)


def main(arguments: list[str]) -> int:
    """Train what is missing, gather, and tell. Returns 0, or the exit code of a run that failed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", nargs="+", choices=GAMES, default=list(GAMES), metavar="GAME")
    words.add_argument("--root", default="data", help="MNIST, USPS and amazon_reviews/")
    words.add_argument("--runs", type=Path, default=Path("runs/order"))
    words.add_argument("--tell", action="store_true", help="train nothing")
    options = words.parse_args(arguments)
    if not options.tell:
        for name in options.only:
            for order in GAMES[name][1]:
                RULES["alternating"] = rule_of(order)
                for row in rows(name, order, options.root, options.runs):
                    if not row.is_finished() and (code := train.main(list(row.words))):
                        return code
        gather(options.only, options.root, options.runs)
    print(table().markdown())
    return 0


if __name__ == "__main__":
    errors.run(main)
