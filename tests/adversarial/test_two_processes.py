"""Each of two data-parallel processes has the gradients of one that sees the whole batch, whatever is penalised."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from adversarial.objectives import OBJECTIVES
from adversarial.penalties import Gamma
from adversarial.updates import RULES, Weights
from tests.adversarial.toy_games import SeededDraw, image_batch, mapped_game, play_turns, relative_error

N = 8
GAMMAS = {
    "off in this step": Gamma(),
    "r1": Gamma(r1=0.7),
    "path length": Gamma(path=2),
    "all": Gamma(r1=0.7, r2=1.3, gp=0.9, dragan=0.8, consistency=0.6, path=2),
}


class Rows(SeededDraw):
    """One process's rows of the global batch's numbers."""

    def __init__(self, path: str, rows: slice):
        super().__init__(N, path)
        self.rows = rows

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        return super().normal(stream, shape)[self.rows]

    def fork(self, name: str) -> "Rows":
        return Rows(f"{self.path}/{name}", self.rows)


def work(rank: int, store: str) -> None:
    """Hold this process's gradients to those of a game without processes, rule by rule."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    batch, rows = image_batch(N), slice(rank * N // 2, (rank + 1) * N // 2)
    mine = batch._replace(x=batch.x[rows], label=batch.label[rows])
    for rule in RULES.values():
        for gamma in GAMMAS.values():
            torch.manual_seed(0)
            game = mapped_game(2)
            alone = copy.deepcopy(game)
            game.generator, game.critic = (
                DistributedDataParallel(network, broadcast_buffers=False) for network in (game.generator, game.critic)
            )
            options = OBJECTIVES["hinge"], Weights(gamma)
            got = play_turns(rule(game, options[0], [(mine, Rows("0", rows))], options[1]), game)
            want = play_turns(rule(alone, options[0], [(batch, SeededDraw(N))], options[1]), alone)
            for player in want:
                assert relative_error(got[player], want[player]) <= 1e-12
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_penalised_steps_in_two_processes(tmp_path):
    """With and without a lazy penalty, and with the path length, whose forward goes past the wrapper."""
    torch.multiprocessing.spawn(work, args=(str(tmp_path / "store"),), nprocs=2)
