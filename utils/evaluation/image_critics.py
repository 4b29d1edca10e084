"""Whether a critic knows its training images by heart."""

from torch import Tensor

from utils.evaluation.records import Record, record


def overfitting(seen: Tensor, unseen: Tensor, made: Tensor, boundary: float | None) -> Record:
    """How far held-out images are scored below training images, on the way down to generated ones.

    0: alike; 1: held-out images look generated to the critic (r_v of Karras et al. 2020, eq. 1). All are scores
    ``[N]``. None where the critic does not score training images above generated ones. With the ``boundary`` of the
    objective also the share of training and of held-out images, in per cent, that the critic takes for real.
    """
    means = [float(scores.double().mean()) for scores in (seen, unseen, made)]
    margin = means[0] - means[2]
    about: Record = {"score_training": means[0], "score_held_out": means[1], "score_generated": means[2]}
    note = " (0: held-out images are scored like training images; 1: like generated ones)"
    if boundary is not None:
        right = [100 * float((scores > boundary).double().mean()) for scores in (seen, unseen)]
        about |= {"accuracy_training": right[0], "accuracy_held_out": right[1]}
        note += f"; of training images {right[0]:.1f} % are taken for real, of held-out ones {right[1]:.1f} %"
    value = (means[0] - means[1]) / margin if margin > 0 else None
    return record("critic overfitting", value, "", note, higher_is_better=False, **about)
