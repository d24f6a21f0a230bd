"""bfloat16 where it is asked for and the machine is fast at it, float32 elsewhere."""
import pytest
import torch

from discon_train import precision


@pytest.mark.parametrize("wanted, has, half", [(True, True, True), (True, False, False), (False, True, False)])
def test_products_are_in_bfloat16_where_that_is_fast(monkeypatch, wanted, has, half):
    monkeypatch.setattr(precision, "HAS_BF16", has)
    with precision.half_products(wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if half else torch.float32)
