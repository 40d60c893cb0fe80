"""The one error that facts and theory raise for input that cannot be used."""


class InputError(ValueError):
    """What a person typed, or a file holds, cannot be used.

    Args:
        what: what happened, naming the offending value.
        why: the reason, one clause; may be empty.
        fix: the exact thing to type or change next; may be empty.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(". ".join(part.rstrip(".") for part in (what, why, fix) if part))


class UncoveredError(InputError):
    """A model that may well be valid, and that no closed form covers."""
