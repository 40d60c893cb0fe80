"""Rotary positions that turn a part of each head."""

from profiles.config_keys import ConfigKeys


def rotary_dim(keys: ConfigKeys, head_dim: int, factor_key: str, default: float) -> int:
    """Elements of each head that positions turn: a share of them, rounded down.

    The share stands in `rope_parameters`, in `rope_scaling` which older configs have, or under a key of its own
    (transformers, modeling_rope_utils.py).

    Raises:
        InputError: a share that leaves nothing, or an odd number.
    """
    rope = keys.within("rope_scaling" if keys.has("rope_scaling") else "rope_parameters")
    own = keys.share(factor_key, default)
    share = rope.share("partial_rotary_factor", own)
    turned = int(head_dim * share)
    if not turned:
        raise keys.contradiction(factor_key, f"{share} leaves nothing of heads of {head_dim}")
    if turned % 2:
        raise keys.contradiction(factor_key, f"{share} turns {turned} of {head_dim} elements, and positions turn pairs")
    return turned
