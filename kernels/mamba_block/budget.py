"""What a Mamba block on a GPU may keep and use. Plain numbers: whoever plans needs no Triton."""

from __future__ import annotations

# Most bytes of scratch of the scan's backward, and into how many parts of which it may take one a GPU's memory
# is divided. More fills the GPU better; what the block does not keep leaves room.
_SCRATCH, _SCRATCH_PARTS = 3 << 30, 40
# What the backward would compute again is kept, tensor by tensor, up to this part of a slab's bytes, and up to that
# part of a GPU's memory for all blocks and directions together. Short windows have the memory.
_OF_SLAB, _OF_MEMORY = 8, 32
_CHUNK = 256
# Into how many parts of which the scan's states, of all blocks and directions together, may take one.
_PLENTY = 8


def slab_tokens(per_token: int, slab_bytes: int) -> int:
    """Tokens of each row in a slab, whose projected input has ``per_token`` bytes for each; longer than L is L."""
    return max(_CHUNK, slab_bytes // max(1, per_token) // _CHUNK * _CHUNK)  # whole chunks of the scan


def fine_bytes(slab_bytes: int, device_bytes: int, scans: int) -> int:
    """That the states of one of a model's ``scans`` may take which spare the backward to rebuild them."""
    return min(slab_bytes, device_bytes // (_PLENTY * scans))


def small_bytes(slab_bytes: int, device_bytes: int, scans: int) -> int:
    """Up to how many bytes a block, of a model with so many ``scans``, keeps a tensor that it could compute again."""
    return min(slab_bytes // _OF_SLAB, device_bytes // (_OF_MEMORY * scans))


def scratch_bytes(device_bytes: int, *, in_slabs: bool) -> int:
    """Of the scan's backward; less in slabs, where memory is what runs short."""
    return min(_SCRATCH, device_bytes // _SCRATCH_PARTS) // (3 if in_slabs else 1)
