"""`galore-mem calibrate`."""

from galore_mem import streams


def calibrate(*, json: bool = False) -> None:
    """Measure what this machine's GPU takes for itself: plan and trace use it from then on, and say so.

    Args:
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.calibrate import calibrate as answer

    result = answer(told=lambda stage: streams.narrate(f"{stage} ..."))
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(result.to_dict()))
    else:
        from galore_mem.render.calibration import print_calibration

        print_calibration(result)
