"""Other people's weights in, and ours out.

A dialect (`state_spaces`, `caduceus`, `transformers_mamba`) knows how one original writes a configuration and names its
tensors; `checkpoint` reads files, `importing` and `exporting` do what is common.
"""
