"""A network out of a run: ``python export.py runs/mnist_5k exported`` writes a folder that a hub of models takes.

It holds ``model.safetensors``, ``config.json``, ``README.md`` (a model card) and ``samples.png``.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
from pathlib import Path

import sample
from utils import errors, pictures
from utils.errors import UserError
from utils.paths import path_of
from utils.run import card, export
from utils.run.folder import RunFolder
from utils.run.opening import OpenRun, open_run
from utils.training import checkpoint
from utils.training.players import WEIGHTS


def main(arguments: list[str]) -> int:
    """Parse the command line, write the files and say where."""
    options = parser().parse_intermixed_args(arguments)
    folder = path_of(options.folder)
    export.check_folder(options.folder, folder)
    if options.onnx:
        export.check_onnx()
    best = RunFolder(path_of(options.run)).best
    weights = options.weights or ("best" if checkpoint.steps(best) else "ema")
    run = open_run(options.run, options.overrides, weights)
    description, network = export.exported(run)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (export.SAMPLES, export.PROGRAM, export.ONNX):
        (folder / name).unlink(missing_ok=True)  # of an earlier export
    illustrated = draw(run, options.run, folder / export.SAMPLES)
    if options.program:
        export.write_program(folder / export.PROGRAM, description, network)
    if options.onnx:
        export.write_onnx(folder / export.ONNX, description, network)
    text = card.card(run, weights, description, options.license, illustrated)
    about = {"step": run.state.step, "weights": weights, "aspect": run.state.sizes.aspect}
    export.write(folder, description, network, text, **about)
    print(f"{folder}: {description.network} of step {run.state.step}, {weights} weights")
    return 0


def draw(run: OpenRun, name: str, path: Path) -> bool:
    """Write the first picture that ``sample.py`` draws, and return whether there is one: recognisers need the data."""
    try:
        made = run.task.gallery(run.config, run.players, run.state, sample.parser().parse_args([name]))
    except UserError as error:
        errors.warn(f"{path.name} is left out: {error}")
        return False
    pictures.save(next(iter(made.values())), path)
    return True


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Write a run's generator or recogniser to a folder, with a model card.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
    words.add_argument("folder", help="folder to write: a new one, or that of an earlier export")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--weights", choices=WEIGHTS, help="averaged, last or chosen weights (default: chosen, if any)")
    words.add_argument("--license", default="unknown", help="for the model card, by the hub's names, such as mit")
    words.add_argument("--program", action="store_true", help="also model.pt2, which needs torch alone")
    words.add_argument("--onnx", action="store_true", help="also model.onnx")
    return words


if __name__ == "__main__":
    errors.run(main)
