"""Keys of earlier versions in today's words, for the configs and checkpoints that name them."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def renewed(keys: dict[str, Any]) -> dict[str, Any]:
    """``{"section.key": value}`` without keys that are no more. What they asked for stands in the keys of today."""
    kept = dict(keys)
    # The run that ADDA starts from, whose average it took over, and not its critic.
    if folder := kept.pop("game.pretrained", ""):
        kept = {"init.run": folder, "init.weights": "ema", "init.parts": ["generator"], **kept}
    return kept


def renew(content: DictConfig) -> None:
    """The same for the keys of a file or of the command line, in place."""
    game = content.get("game")
    if isinstance(game, DictConfig) and "pretrained" in game:
        for key, value in renewed({"game.pretrained": game.pop("pretrained")}).items():
            OmegaConf.update(content, key, value, force_add=True)
