"""The watch on the hot path sees every way to wait, and lets pass what does not wait."""

import pytest
import torch

from tests.no_waiting import WAITS, NoWaiting, WaitedError


@pytest.mark.parametrize("name", WAITS)
def test_each_way_to_wait_is_refused(name):
    x = torch.tensor(1.5)
    WAITS[name](x)  # fine outside
    with pytest.raises(WaitedError), NoWaiting():
        WAITS[name](x)
    WAITS[name](x)


def test_what_does_not_wait_may_pass():
    with NoWaiting():
        x = torch.randn(4, requires_grad=True)
        y = torch.where(x > 0, x, 0.1 * x).square().mean()
        y.backward()
        total = y.detach().double() + x[torch.arange(2)].sum().detach().to(torch.float32) + x.grad.clamp(max=1).sum()
    assert torch.isfinite(total)
