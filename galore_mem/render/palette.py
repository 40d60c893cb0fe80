"""What each part of a bar looks like: a colour that colour-blind eyes can tell apart, and a glyph of its own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Categories that share one look."""

    name: str
    categories: tuple[str, ...]
    glyph: str
    ascii: str
    colour: str
    """From Okabe and Ito's palette (jfly.uni-koeln.de/color)."""
    ground: str = ""
    """The same colour, darker, behind the glyph."""

    @property
    def style(self) -> str:
        """Foreground and background of its cells."""
        return f"{self.colour} on {self.ground}" if self.ground else self.colour


PARTS: tuple[Part, ...] = (
    Part(name="weights", categories=("weights", "buffers"), glyph="█", ascii="W", colour="#0072b2", ground="#00466e"),
    Part(name="gradients", categories=("gradients",), glyph="▓", ascii="G", colour="#d55e00", ground="#843a00"),
    Part(
        name="optimizer states",
        categories=("optimizer_states",),
        glyph="▒",
        ascii="S",
        colour="#e69f00",
        ground="#8e6200",
    ),
    Part(name="projectors", categories=("projectors",), glyph="▚", ascii="P", colour="#cc79a7", ground="#7e4b67"),
    Part(
        name="activations",
        categories=("activations", "inputs"),
        glyph="░",
        ascii="A",
        colour="#009e73",
        ground="#006147",
    ),
    Part(name="logits", categories=("logits",), glyph="▞", ascii="L", colour="#f0e442", ground="#948d28"),
    Part(
        name="temporaries",
        categories=("temporaries", "workspaces", "remainders"),
        glyph="▤",
        ascii="T",
        colour="#56b4e9",
        ground="#356f90",
    ),
)
CONTEXT = Part(name="cache and context", categories=(), glyph="▪", ascii="C", colour="#999999")
BOUND = Part(name="up to the bound", categories=(), glyph="·", ascii=".", colour="#777777")


def shares(by_category: Mapping[str, int]) -> list[tuple[Part, int]]:
    """Bytes of each part, in the order of drawing; parts without bytes are left out."""
    sums = [(part, sum(by_category.get(category, 0) for category in part.categories)) for part in PARTS]
    return [(part, nbytes) for part, nbytes in sums if nbytes]
