"""bfloat16 where it is asked for and the machine is fast at it, float32 elsewhere."""
import pytest
import torch

from discon_train import precision


@pytest.mark.parametrize("wanted, has, half", [(True, True, True), (True, False, False), (False, True, False)])
def test_products_are_in_bfloat16_where_that_is_fast(monkeypatch, wanted, has, half):
    monkeypatch.setattr(precision, "processor_multiplies_halves", lambda: has)
    with precision.half_products(wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if half else torch.float32)


@pytest.mark.parametrize("seconds, fast", [({torch.bfloat16: 4, torch.float32: 10}, True), ({torch.bfloat16: 9, torch.float32: 10}, False)])
def test_a_processor_takes_bfloat16_where_a_trial_finds_it_faster(monkeypatch, seconds, fast):
    monkeypatch.setattr(precision, "trial", seconds.get)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert precision.processor_multiplies_halves.__wrapped__() is fast


def test_a_processor_without_the_instructions_is_not_tried(monkeypatch):
    monkeypatch.setattr(precision, "trial", lambda _: pytest.fail("tried"))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert precision.processor_multiplies_halves.__wrapped__() is False
