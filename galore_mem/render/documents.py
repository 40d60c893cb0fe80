"""Results as JSON and CSV, without rich."""

from collections.abc import Mapping, Sequence
from typing import Any


def json_text(data: Mapping[str, Any]) -> str:
    """One JSON object with sorted keys, pure ASCII, ended by a newline."""
    import json

    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one set of columns as CSV with a header; None is an empty cell."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
