"""Colours of the page: the terminal's, one for each category."""

from galore_mem.render.palette import PARTS

STACK: tuple[str, ...] = (
    *("weights", "buffers", "optimizer_states", "projectors", "gradients", "activations", "inputs", "logits"),
    *("temporaries", "workspaces", "unattributed", "remainders"),
)
"""From the bottom of the timeline to its top: what stays lies below what comes and goes."""
UNATTRIBUTED = "#8a8f98"
REMAINDERS = "#b8bec8"


def category_colours() -> dict[str, str]:
    """A colour for each category; those of one part of the terminal's bars are shades of one colour."""
    found = {"unattributed": UNATTRIBUTED, "remainders": REMAINDERS}
    for part in PARTS:
        for number, category in enumerate(part.categories):
            found.setdefault(category, part.colour if number == 0 else part.ground)
    return found


PHASE_COLOURS: dict[str, str] = {
    "between": "#00000000",
    "forward": "#7fb8da",
    "loss": "#f0e442",
    "backward": "#e0976a",
    "step": "#b58fd0",
    "refresh": "#cc79a7",
    "whole": "#7fb8da",
}
"""Told apart in grey as well: each band carries its name."""
