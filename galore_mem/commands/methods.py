"""`galore-mem methods`."""

from galore_mem import streams


def methods(*, json: bool = False) -> None:
    """List the training methods: what each trains, with which optimizer.

    Args:
        json: One JSON object on stdout.
    """
    from galore_mem.answers.catalogue import list_methods, methods_dict

    rows = list_methods()
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(methods_dict(rows)))
    else:
        from galore_mem.render.catalogue import print_methods

        print_methods(rows)
