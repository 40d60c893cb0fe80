"""Data inside a page."""

import json


def json_in_html(data: object) -> str:
    """JSON that cannot end the script element that holds it.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
