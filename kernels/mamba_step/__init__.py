"""One token through a Mamba language model: `triton.py` is the door, the model's own `step` the equations."""
