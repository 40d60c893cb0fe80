"""Cards of this machine with what `galore-mem calibrate` measured in the place of what is known of their kind."""

import os
from dataclasses import replace

from galore_mem.answers.homes import user_folder
from galore_mem.answers.names import Card
from profiles.errors import InputError

VARIABLE = "GALORE_MEM_CALIBRATION"
"""Names another file; empty: none."""


def calibration_path() -> str | None:
    """The file of this machine's calibrations; None where a person wants none."""
    return os.environ.get(VARIABLE, os.path.join(user_folder(), "calibration.json")) or None


def calibrated(card: Card) -> Card:
    """The card as calibrated here, with a note that says so; the same card where it was not.

    A file that cannot be used is named in the note, and changes nothing.
    """
    path = calibration_path()
    if path is None or not os.path.exists(path):
        return card
    from profiles.calibration import calibrated_gpu, calibration_for, read_calibrations

    try:
        found = calibration_for(card.gpu, read_calibrations(path))
    except InputError as error:
        return replace(card, note=f"not calibrated: {error}")
    if found is None:
        return card
    gpu = calibrated_gpu(card.gpu, found)
    return replace(
        card, gpu=gpu, note=f"{gpu.name}: context {gpu.context_source}; total memory and workspaces likewise"
    )
