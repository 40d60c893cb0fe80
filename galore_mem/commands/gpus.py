"""`galore-mem gpus`."""

from galore_mem import streams


def gpus(*, json: bool = False) -> None:
    """List the GPUs, with what torch can use of each.

    Args:
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.catalogue import gpus_dict, list_gpus

    rows = list_gpus()
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(gpus_dict(rows)))
    else:
        from galore_mem.render.catalogue import print_gpus

        print_gpus(rows)
