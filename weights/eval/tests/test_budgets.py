"""What the systems were given, counted by hand."""
import pytest

from discon_eval.budgets import BUDGETS, CONFIGS, budgets, of_part
from discon_train.data import read_config


def test_the_products_of_a_step_are_counted():
    """Stage 1: three times, forward and for two gradients, 2 operations a weight and place, and attention's."""
    config = read_config(CONFIGS / "avatars-64.json")
    net = config["rar"]["net"]
    D, places = net["hidden_size"], 64
    parameters, flops = of_part("rar", config)
    a_place = net["depth"] * ((4 + 6) * D * D + 2 * D * net["mlp_size"]) + 2 * D * D + D * config["vq"]["net"]["codebook_size"]
    attention = net["depth"] * 4 * places * (places + 1) * D
    assert 3 * (2 * places * a_place + attention) == pytest.approx(flops, rel=0.02)
    assert parameters == 4_663_552


def test_the_systems_are_as_large_as_is_said():
    found = budgets()
    assert list(found) == list(BUDGETS)
    total = {name: sum(p["parameters"] for p in parts) for name, parts in found.items()}
    flops = {name: sum(p["TFLOP"] for p in parts) for name, parts in found.items()}
    assert total["continuous only"] == pytest.approx(total["DisCon"], rel=0.01) and flops["continuous only"] == pytest.approx(flops["DisCon"], rel=0.02)
    (codes, stage_2), (without,) = found["DisCon"], found["without codes"]
    assert without["steps"] == read_config(CONFIGS / "avatars-64-without-codes.json")["discon"]["train"]["steps"]
    # At the full rate: without one cooldown of 700 steps, and without two.
    assert 0.9 < (without["steps"] - 700) / (stage_2["steps"] - 1400) < 1 and without["parameters"] < stage_2["parameters"]
