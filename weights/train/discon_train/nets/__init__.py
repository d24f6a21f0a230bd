"""The four networks. Tensor names are those of the published checkpoints, so a state dict is the exported file."""
