"""A network out of a run, in files that need none of it: weights, description, model card, samples, programs."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn

from models import FAMILIES, loading
from models.domain import Recogniser, SplitRecogniser
from models.loading import CONFIG, WEIGHTS, Description
from utils.errors import UserError
from utils.run.opening import OpenRun

CARD, SAMPLES, PROGRAM, ONNX = "README.md", "samples.png", "model.pt2", "model.onnx"
FILES = (WEIGHTS, CONFIG, CARD, SAMPLES, PROGRAM, ONNX)


def check_folder(text: str, folder: Path) -> None:
    """Raise UserError unless ``folder``, given as ``text``, is new, holds hidden files alone, or an earlier export."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UserError(f"'{text}' is a file where a folder is to be written: name another.")
    if all(path.name.startswith(".") for path in folder.iterdir()):  # a fresh clone of a hub's repository
        return
    try:
        loading.read(folder / CONFIG)
    except (OSError, ValueError):
        raise UserError(f"The folder '{text}' holds files and no export: name a new folder.") from None


def check_onnx() -> None:
    """Raise UserError unless the packages that write ONNX are installed."""
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--onnx needs the package {package}: run 'pip install onnx onnxscript', or leave it out.")


def exported(run: OpenRun) -> tuple[Description, nn.Module]:
    """The averaged network of a run, on the CPU in evaluation mode, and its description.

    Of ADDA's two feature networks it is the target's. Raises UserError for a network that ``models`` does not have.
    """
    is_generator = run.config.game.networks == "generator"
    sizes = run.state.sizes
    known = FAMILIES[run.config.model.name].generator if is_generator else Recogniser | SplitRecogniser
    if not isinstance(run.players.average, known):
        raise UserError(
            f"game.name={run.config.game.name} has a network of its own, which models/ does not have: make it a family "
            "of models.FAMILIES to export it."
        )
    description = Description(
        network="generator" if is_generator else "recogniser",
        family=run.config.model.name,
        model=dataclasses.asdict(run.config.model),
        shape=sizes.shape,
        classes=sizes.classes if not is_generator or run.config.game.conditional else 0,
    )
    weights = {name: value.cpu() for name, value in run.players.average.state_dict().items()}
    if isinstance(run.players.average, SplitRecogniser):
        weights = {name: value for name, value in weights.items() if not name.startswith("source.")}
    return description, loading.build(description, weights).eval()


def write(folder: Path, description: Description, network: nn.Module, card: str, **about: Any) -> None:
    """Write weights, model card and description, each whole or not at all. ``about`` joins the description."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    contents = {
        WEIGHTS: serialise(tensors, {"format": "pt"}),
        CARD: card.encode(),
        CONFIG: description.to_json(**about).encode(),
    }
    for name, content in contents.items():
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)


class Logits(nn.Module):
    """A recogniser as a function of tensors: samples ``[N, ...]`` to logits ``[N, K]``."""

    def __init__(self, recogniser: nn.Module):
        super().__init__()
        self.recogniser = recogniser

    def forward(self, x: Tensor) -> Tensor:
        # Not the recogniser itself, which takes several batches and splits them again: torch.export fixes their sizes.
        return self.recogniser.head(self.recogniser.features(x)[-1])


def function_of(description: Description, network: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network as a function of tensors alone, and an example of what it takes, by name."""
    if description.network == "recogniser":
        return Logits(network).eval(), {"x": torch.zeros(2, *description.shape)}
    inputs = {"latent": torch.zeros(2, description.model["latent_dim"])}
    return network, inputs | ({"label": torch.zeros(2, dtype=torch.int64)} if description.classes else {})


def write_program(path: Path, description: Description, network: nn.Module) -> None:
    """Write what ``torch.export`` makes of the network, for batches of any size."""
    function, inputs = function_of(description, network)
    program = torch.export.export(function, tuple(inputs.values()), dynamic_shapes=_any_batch(inputs))
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")  # torch asks for the suffix
    torch.export.save(program, partial)
    partial.replace(path)


def write_onnx(path: Path, description: Description, network: nn.Module) -> None:
    """Write the network as ONNX, for batches of any size, with one output called ``output``."""
    function, inputs = function_of(description, network)
    partial = path.with_name(f".{path.name}.partial")
    torch.onnx.export(
        function, tuple(inputs.values()), partial, dynamo=True, dynamic_shapes=_any_batch(inputs),
        input_names=list(inputs), output_names=["output"], external_data=False, verbose=False,
    )  # fmt: skip
    partial.replace(path)


def _any_batch(inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {name: {0: torch.export.Dim("N")} for name in inputs}
