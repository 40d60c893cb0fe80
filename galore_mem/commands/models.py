"""`galore-mem models`."""

from galore_mem import streams


def models(*, json: bool = False) -> None:
    """List the models, with their parameters and other names.

    Args:
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.catalogue import list_models, models_dict

    rows = list_models()
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(models_dict(rows)))
    else:
        from galore_mem.render.catalogue import print_models

        print_models(rows)
