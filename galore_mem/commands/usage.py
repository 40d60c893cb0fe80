"""What is wrong with a command line that does not parse, in one sentence, and where to read on."""

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError


def usage_line(error: CycloptsError) -> str:
    """Say what does not parse, and name the help page."""
    error.verbose = False
    chain = [word for word in error.command_chain or () if not word.startswith("-")]
    return f"{_what(error).rstrip()} See: {' '.join(['galore-mem', *chain, '--help'])}"


def _what(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return f"Nothing takes {words!r} here; an option may lack its name."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if not name.startswith("--") or error.argument.field_info.is_positional:
            missing = name.lstrip("-").upper()
            return f"{missing} is missing; it comes before the options, as in galore-mem plan llama-7b --gpu 4090."
        return f"{error.keyword or name} needs a value."
    said = str(error)
    for typed, nearest, meant in _MEANT:
        if f'Invalid value "{typed}"' in said:
            said = said.replace(f'Did you mean "{nearest}"?', f'Did you mean "{meant}"?')
    return said


_MEANT = (("fp16", "bf16", "amp-fp16"), ("gpu", "cpu", "cuda"))
"""What is typed, what is nearest to it by letters, and what it means."""
