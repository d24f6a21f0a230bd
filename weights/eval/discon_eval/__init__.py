"""How good the pictures of a model are: distances to held-out pictures in two feature spaces, and what memorising would show in."""
