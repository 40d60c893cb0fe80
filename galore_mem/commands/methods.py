"""`galore-mem methods`."""

from galore_mem import streams


def methods(*, json: bool = False) -> None:
    """List the training methods: what each trains, with which optimizer.

    Args:
        json: One JSON object on stdout.
    """
    from galore_mem.answers.catalogue import list_methods

    rows = list_methods()
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text({"schema": "galore-mem/methods/1", "methods": [row.to_dict() for row in rows]}))
    else:
        from galore_mem.render.catalogue import methods_text

        streams.write(methods_text(rows))
