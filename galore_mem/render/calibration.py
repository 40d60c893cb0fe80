"""`galore-mem calibrate` for a terminal."""

from galore_mem.answers.calibrate import Calibrated
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from profiles.gpus import MIB

LABEL = 26
READ_FROM = {"process": "as the driver counts this process", "card": "a difference on the whole card"}


def print_calibration(result: Calibrated, screen: Terminal | None = None) -> None:
    """What was measured, and where it was written."""
    screen = screen or terminal()
    found = result.calibration
    head = Text(found.device_name, style="bold").append(
        f", torch {found.torch}, driver {found.driver}", style="not bold"
    )
    rows = (
        ("total memory", words.gib(found.total_bytes), "GiB, as torch reports it"),
        ("context, small step", _mib(found.context_low_bytes), f"MiB, {READ_FROM[found.read_from]}"),
        ("context, every kernel", _mib(found.context_high_bytes), "MiB"),
        ("cuBLAS workspace", _mib(found.workspace_bytes), "MiB per thread; a training step has two"),
        *(
            (f"SVD of {each.shorter} x {each.longer}", _mib(each.scratch_bytes), "MiB beside matrix and factors")
            for each in found.svd
        ),
    )
    lines = flow(head, screen.width, indent=2)
    for name, figure, unit in rows:
        lines.append(Text(f"{name:<{LABEL}}{figure:>10}").append(f" {unit}", style="dim"))
    ending = f"Written to {result.path} in {result.seconds:.0f} s. plan and trace use it for this card, and say so."
    screen.show([*lines, Text(), *flow(Text(ending), screen.width)])


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:,.1f}"
