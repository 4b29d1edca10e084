"""What a recogniser predicts for a set of samples."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adversarial.domains import Prediction
from adversarial.draws import rng
from utils.data.samples import Resident, Samples, to_images
from utils.errors import NotFiniteError, UserError
from utils.evaluation.sampling import evaluating

BATCH = 500
STREAMED_BATCH = 100  # images that are decoded at once


@torch.no_grad()
def predict(recogniser: nn.Module, samples: Samples, of_source: bool = False) -> Prediction:
    """Features and logits of all samples in their order, in evaluation mode; the result is on the CPU.

    ``of_source`` uses the network for the source where it is another than the target's (ADDA). Raises NotFiniteError
    where features or logits are not finite, and UserError where an image cannot be read.
    """
    device = next(recogniser.parameters()).device
    dtype = torch.get_default_dtype()  # under autocast features are in bfloat16
    batches = []
    with evaluating(recogniser):
        for x in prepared_batches(samples, device):
            prediction = recogniser.predict_source(x) if of_source else recogniser(x)[-1]
            layers = tuple(layer.to("cpu", dtype) for layer in prediction.layers)
            batches.append(Prediction(layers, prediction.logits.to("cpu", dtype)))
    layers = tuple(torch.cat(parts) for parts in zip(*(batch.layers for batch in batches), strict=True))
    logits = torch.cat([batch.logits for batch in batches])
    if not all(bool(torch.isfinite(values).all()) for values in (*layers, logits)):
        raise NotFiniteError(
            "The features became NaN or infinite; the last checkpoint is from before. Lower optimizer.*_lr or "
            "update.coefficient, add penalty.r1, or try another seed."
        )
    return Prediction(layers, logits)


def prepared_batches(samples: Samples, device: torch.device) -> Iterator[Tensor]:
    """Samples in their order, as networks take them: images in [-1, 1], points in the default precision.

    Raises UserError for an image that cannot be read.
    """
    for x in batches(samples):
        yield to_images(x, device) if x.dtype == torch.uint8 else x.to(device, torch.get_default_dtype())


def batches(samples: Samples) -> Iterator[Tensor]:
    """Samples in their order, as they are kept: images in uint8.

    Image files are decoded here, in the main process. Raises UserError for one that cannot be read.
    """
    if isinstance(samples, Resident):
        yield from samples.x.split(BATCH)
        return
    for begin in range(0, len(samples), STREAMED_BATCH):
        images = [samples[i] for i in range(begin, min(begin + STREAMED_BATCH, len(samples)))]
        for image in images:
            if isinstance(image, UserError):
                raise image
        yield torch.stack(images)


def subset(samples: Samples, count: int) -> Samples:
    """Up to ``count`` of the samples, always the same ones, drawn at random: files are sorted by class."""
    if len(samples) <= count:
        return samples
    order = torch.randperm(len(samples), generator=rng("evaluation", len(samples)))
    return samples.part(order[:count])
