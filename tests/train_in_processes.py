"""Run by a launcher in several processes: trains, and leaves every process's parameters as a digest in a folder.

... -m tests.train_in_processes FOLDER recipe.yaml key=value ...
"""

import hashlib
import os
from pathlib import Path

import torch

import train
from utils import errors, players


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    built, build = [], players.build

    def noted(*given):
        built.append(build(*given))
        return built[-1]

    players.build = noted
    code = train.main(arguments[1:])
    digest = hashlib.sha256()
    for network in (built[0].generator, built[0].critic):
        for parameter in network.parameters():
            digest.update(parameter.detach().contiguous().numpy().tobytes())
    Path(arguments[0]).mkdir(parents=True, exist_ok=True)
    Path(arguments[0], f"{os.environ['RANK']}.txt").write_text(f"{code} {digest.hexdigest()}")
    return code


if __name__ == "__main__":
    errors.run(main)
