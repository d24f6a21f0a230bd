"""How good the pictures of a model are: distances to held-out pictures in two feature spaces, and what memorising would show in.

Builds on the trainer, which lies beside it and is found there.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "train"))
