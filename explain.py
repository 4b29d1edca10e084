"""What a run's networks look at: ``python explain.py runs/mnist_5k`` draws which pixels the critic's scores hang on.

Real and generated samples (or both domains) stand beside gradients, integrated gradients, SmoothGrad and guided
backpropagation, and with ``--layer`` beside Grad-CAM. Of a generator it also shows the Jacobian: singular values, and
the directions that change images most.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
import json
from pathlib import Path

from utils import errors, pictures
from utils.errors import UserError
from utils.evaluation.records import describe
from utils.paths import path_of
from utils.run.folder import RunFolder
from utils.run.opening import open_run
from utils.tasks.explanations import explain_generator, joined
from utils.tasks.registry import check_sizes
from utils.training.players import WEIGHTS


def main(arguments: list[str]) -> int:
    """Parse the command line, explain the newest checkpoint, write PNGs, append JSON records and say what was found."""
    options = parser().parse_intermixed_args(arguments)
    out = RunFolder(path_of(options.run)).explanations if options.out is None else path_of(options.out)
    check_output(options.out, out)
    device = [f"run.device={options.device}"] if options.device else []
    _, cfg, task, players, state = open_run(options.run, [*options.overrides, *device], options.weights)
    count, seed = options.count or cfg.explain.count, cfg.seed if options.seed is None else options.seed
    data = task.load(cfg)
    check_sizes(cfg, state.sizes, data)

    made = [task.explain(cfg, players, data, count, seed, options.layer)]
    if cfg.game.networks == "generator":
        classes = data.classes if cfg.game.conditional else 0
        latent_dim, chunk = cfg.model.latent_dim, options.chunk
        made.append(explain_generator(players.average, latent_dim, classes, data.shape, count, seed, chunk))
    found = joined(made)

    records = [{"step": state.step, "weights": options.weights, **record} for record in found.records]
    for name, image in found.pictures.items():
        print(pictures.save(image, out / f"{name}-step-{state.step:08d}-{options.weights}.png"))
    with open(out / "records.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    print(*describe(records), sep="\n")
    return 0


def check_output(text: str | None, path: Path) -> None:
    """Raise UserError unless ``path``, given as ``text``, is a folder or can become one."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--out is '{text or path}', which is no folder: name one, in which PNGs are written.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Draw what the networks of a run's newest checkpoint look at.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--count", type=positive, help="samples of each side (default: explain.count of the run)")
    words.add_argument("--seed", type=int, help="seed of the latents (default: the run's)")
    words.add_argument("--weights", choices=WEIGHTS, default="ema", help="averaged, last or chosen weights")
    words.add_argument("--device", choices=("auto", "cpu"), help="default: run.device of the run")
    words.add_argument("--layer", default="", metavar="NAME", help="also Grad-CAM at it, such as critic.features.0")
    words.add_argument(
        "--chunk", type=positive, default=16, help="columns of a Jacobian at once: fewer need less memory"
    )
    words.add_argument("--out", help="folder to write into (default: explain in the run's folder)")
    return words


def positive(text: str) -> int:
    """A whole number from 1 to 1000."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    errors.run(main)
