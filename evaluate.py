"""Numbers out of a run: ``python evaluate.py runs/digits``, as records that say what was measured."""

import argparse
import json
from pathlib import Path

from utils import config, datasets, errors, evaluation, players
from utils.errors import UserError
from utils.run import RunFolder


def main(arguments: list[str]) -> int:
    """Parse the command line, measure the newest checkpoint, print lines for people and append JSON records."""
    words = argparse.ArgumentParser(description="Measure a run's newest checkpoint.")
    words.add_argument("run", help="folder of the run, such as runs/digits")
    words.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=elsewhere")
    words.add_argument("--samples", type=int, default=1000, help="number of generated samples (default: 1000)")
    words.add_argument("--seed", type=int, default=0, help="seed of the latents (default: 0)")
    words.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or last weights")
    words.add_argument("--json", action="store_true", help="print the records as JSON lines instead")
    options = words.parse_intermixed_args(arguments)
    if options.samples < 2:
        raise UserError(f"--samples is {options.samples} and must be at least 2.")

    folder = RunFolder(Path(options.run))
    cfg = config.load_run(folder.path, options.overrides)
    data = datasets.load(cfg.data, cfg.seed)
    generator, state = players.load_generator(cfg, folder.checkpoints, raw=options.weights == "raw", warn=errors.warn)
    step = state["step"]
    records = evaluation.evaluate(
        generator, data, cfg.game.conditional, cfg.model.latent_dim, options.samples, options.seed, folder.path
    )
    if not records:
        raise UserError(f"Data set '{data.name}' offers no metric: it needs labels and a held-out split, or modes.")
    records = [{"step": step, "weights": options.weights, **record} for record in records]
    output = folder.path / "evaluations.jsonl"
    with open(output, "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    lines = [json.dumps(record) for record in records] if options.json else evaluation.describe(records)
    print("\n".join(lines if options.json else [f"{folder.path}, step {step}, {options.weights} weights", *lines]))
    return 0


if __name__ == "__main__":
    errors.run(main)
