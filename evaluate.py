"""Numbers out of a run: ``python evaluate.py runs/mnist_5k``, as records that say what was measured."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, which take seconds, shows no trace

import argparse
import contextlib
import json
from collections.abc import Iterator

from utils import errors, pictures
from utils.errors import UserError
from utils.evaluation.records import Record, describe
from utils.run.opening import open_run
from utils.tasks.registry import check_sizes
from utils.training.players import WEIGHTS


def main(arguments: list[str]) -> int:
    """Parse the command line, measure the newest checkpoint, print lines for people and append JSON records."""
    options = parser().parse_intermixed_args(arguments)
    if options.samples is not None and not 2 <= options.samples < 2**63:
        raise UserError(f"--samples is {options.samples} and must be at least 2 and below 2**63.")
    folder, cfg, task, players, state = open_run(options.run, options.overrides, options.weights)
    if options.seed is not None and cfg.game.networks != "generator":
        raise UserError(f"--seed is of latents, and {options.run} is of game.name={cfg.game.name}, which has none.")
    cfg.evaluate.samples = options.samples or cfg.evaluate.samples
    data = task.load(cfg)
    check_sizes(cfg, state.sizes, data)
    if options.seed is not None:
        cfg.seed = options.seed  # only now: the data are a function of the run's own seed
    records = task.evaluate(cfg, players, data, folder.features)
    records = [{"step": state.step, "weights": options.weights, **record} for record in records]
    with warned_if_not_written(), open(folder.path / "evaluations.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    if options.json:
        print("\n".join(json.dumps(record) for record in records))
        return 0
    print(f"{folder.path}, step {state.step}, {options.weights} weights", *describe(records), sep="\n")
    for record in records:
        if "confusion" in record:
            tell_classes(record)
    for name, image in task.illustrate(cfg, players, data, records).items():
        with warned_if_not_written():
            path = folder.samples / f"{name}-step-{state.step:08d}-{options.weights}.png"
            print(f"{name}: {pictures.save(image, path)}")
    return 0


@contextlib.contextmanager
def warned_if_not_written() -> Iterator[None]:
    """Make a warning of a file that cannot be written: the result is printed, and the run may be someone else's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        errors.warn(f"{error.filename or 'A file'} could not be written ({error.strerror}); the result is only shown.")


def tell_classes(record: Record) -> None:
    """Print the accuracy of each class."""
    names = record["class_names"]
    width = max(map(len, names))
    print("of each class:")
    for name, right, counts in zip(names, record["per_class"], record["confusion"], strict=True):
        print(f"  {name:{width}} {f'{right:6.2f} %' if any(counts) else 'none in the target'}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description="Measure a run's newest checkpoint.")
    words.add_argument("run", help="folder of the run, such as runs/mnist_5k")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--samples", type=int, help="number of samples (default: evaluate.samples of the run)")
    words.add_argument("--seed", type=int, help="seed of the latents (default: the run's)")
    words.add_argument("--weights", choices=WEIGHTS, default="ema", help="averaged, last or chosen weights")
    words.add_argument("--json", action="store_true", help="print the records as JSON lines instead")
    return words


if __name__ == "__main__":
    errors.run(main)
