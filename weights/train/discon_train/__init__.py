"""Trains the parts of a DisCon model and writes its folder."""
