"""The page is filled with what was measured, and only between its markers."""
import json

import pytest

from discon_eval.report import COLUMNS, report
from discon_train.errors import TrainError

PAGE = "before\n<!-- made: systems -->\nold\n<!-- end -->\nbetween\n<!-- made: rebuilt -->\n<!-- end -->\n<!-- made: tuning -->\n<!-- end -->\n<!-- made: budgets -->\n<!-- end -->\nafter\n"


def figures(value):
    return {key: value for _, key, _ in COLUMNS}


@pytest.fixture
def results(tmp_path):
    rebuilt = figures(0.25) | {"PSNR": 27.5, "SSIM": 0.9, "perceptual": 0.125}
    found = {"sets": {"held out": figures(0.5), "rebuilt": rebuilt}, "systems": {"DisCon": [figures(1.0), figures(2.0), figures(3.0)]}, "seconds": {"DisCon": 0.125}}
    (tmp_path / "systems.json").write_text(json.dumps(found))
    rows = [{"value": v, "judge distance": v, "photo distance": 2 * v, "seconds": 0.1} for v in (1, 2, 4)]
    (tmp_path / "settings.json").write_text(json.dumps({"own": {"rounds": 2}, "base": {"rounds": 8}, "tried": {"rounds": rows}}))
    tried = [{"settings": {"guidance": g, "temperature": 0.7}, "judge distance": g, "photo distance": 10} for g in (3.0, 1.5)]
    (tmp_path / "tuning.json").write_text(json.dumps({"ours": {"tried": tried, "best": tried[1]["settings"]}}))
    part = {"part": "rar", "parameters": 1_250_000, "steps": 4000, "batch": 8, "TFLOP": 12.4}
    (tmp_path / "budgets.json").write_text(json.dumps({"ours": [part, part | {"TFLOP": 2000}]}))
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def test_the_page_has_every_figure_and_its_spread(results):
    report(results, results / "page.md")
    text = (results / "page.md").read_text()
    assert text.startswith("before\n") and "\nbetween\n" in text and text.endswith("\nafter\n") and "old" not in text
    assert "| **DisCon** | 2.00 ± 1.00 | 2.000 ± 1.000 |" in text and "± 1.00 | 125 |" in text
    assert "| ours | 2 | guidance 1.5, temperature 0.7 | 1.50 | 10 |" in text
    assert "Fréchet distance, photo" in (results / "images/systems.svg").read_text()
    assert "| held out | 0.50 | 0.500 |" in text
    assert "| ours | 1.25 + 1.25 | 4,000 x 8 + 4,000 x 8 | 12 + 2000 | 2,012 |" in text
    assert "| rebuilt | 27.50 | 0.9000 | 0.125 |" in text and "| held out | 27" not in text
    assert "ms a picture" in (results / "images/settings.svg").read_text()


def test_the_same_results_give_the_same_bytes(results):
    report(results, results / "page.md")
    first = (results / "page.md").read_bytes(), (results / "images/settings.svg").read_bytes(), (results / "images/systems.svg").read_bytes()
    report(results, results / "page.md")
    assert first == ((results / "page.md").read_bytes(), (results / "images/settings.svg").read_bytes(), (results / "images/systems.svg").read_bytes())


def test_a_page_without_its_sections_is_named(results):
    (results / "page.md").write_text("nothing")
    with pytest.raises(TrainError, match="systems.*found 0"):
        report(results, results / "page.md")
    (results / "page.md").unlink()
    with pytest.raises(TrainError, match="page.md: not there"):
        report(results, results / "page.md")
