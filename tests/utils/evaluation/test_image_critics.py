"""Whether a critic knows its training images by heart."""

import pytest
import torch

from utils.evaluation.image_critics import overfitting


@pytest.mark.parametrize(("unseen", "want"), [(3.0, 0.0), (1.0, 0.5), (-1.0, 1.0), (-3.0, 1.5)])
def test_held_out_images_between_training_and_generated_ones(unseen, want):
    """Training images score 2 and 4, generated ones -1: 1 is half-way down."""
    found = overfitting(torch.tensor([2.0, 4.0]), torch.full((3,), unseen), torch.full((2,), -1.0), boundary=2.5)
    assert found["value"] == pytest.approx(want)
    assert (found["accuracy_training"], found["accuracy_held_out"]) == (50.0, 100.0 if unseen > 2.5 else 0.0)


def test_nothing_is_said_of_a_critic_that_prefers_generated_images():
    found = overfitting(torch.zeros(2), torch.zeros(2), torch.ones(2), boundary=None)
    assert found["value"] is None
    assert "accuracy_held_out" not in found
