"""Snapshots are pickles, and pickles can do anything: so this one is read before it is loaded.

A snapshot needs numbers, texts, booleans, None, lists, dicts and pairs of integers. Every opcode is checked against
that before the unpickler sees the file: no globals, no calls, no persistent ids, no memo index beyond the file's own
length (nine bytes can otherwise ask for 64 GiB), no text longer than the file, no tuples but pairs of integers (hashing
deep ones overflows the stack), and not more containers than a file of this size can honestly have.
"""

import io
import pickle
import re
from typing import NoReturn

from galore_mem.tapes.checks import Refusal, refuse

_BYTES_PER_CONTAINER = 120
_BASE_BUDGET_BYTES = 256 << 20
_BUDGET_PER_FILE_BYTE = 16

_INT = rb"(?:K.|M..|J.{4}|\x8a(?:\x00|\x01.|\x02..|\x03.{3}|\x04.{4}|\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8}|\x09.{9}))"
_FRAME = rb"(?:\x95.{8})"
_FIXED = rb"[hq].|j.{4}|[\x94(u}\]easN\x88\x89]|G.{8}|\x95.{8}|\x80[\x02-\x05]"
_TEXT_LENGTH_BYTES = {0x8C: 1, ord("X"): 4, 0x8D: 8}
_STOP = ord(".")


def load(data: bytes) -> object:
    """The content of a snapshot's pickle.

    Raises:
        Refusal: it is not a pickle, is cut off, or holds something that no snapshot holds.
    """
    _scan(data)
    try:
        content: object = _Unpickler(io.BytesIO(data)).load()
        return content
    except Refusal:
        raise
    except MemoryError:
        refuse("there is not enough memory for its content")
    except Exception as error:  # a malformed pickle may raise almost anything
        refuse(f"its pickle is broken: {str(error)[:120] or type(error).__name__}")


class _Unpickler(pickle.Unpickler):
    """The second lock: should a class ever get past the scan, it is refused here."""

    def find_class(self, module: str, name: str) -> NoReturn:
        refuse(f"it asks for {module}.{name}: snapshots hold plain data only")

    def persistent_load(self, pid: object) -> NoReturn:
        refuse("it refers to data outside itself")


def _scan(data: bytes) -> None:
    """Walk the opcodes: runs of fixed length in one expression, texts one by one."""
    if not data:
        refuse("it is empty")
    if data[0] != 0x80:
        refuse("it does not begin like a pickle of protocol 2 or later")
    containers = data.count(b"}") + data.count(b"]")
    if containers * _BYTES_PER_CONTAINER > _BASE_BUDGET_BYTES + _BUDGET_PER_FILE_BYTE * len(data):
        refuse("it holds more lists and dicts than a snapshot of its size can")
    run = _run_pattern(len(data))
    position = 0
    while True:
        match = run.match(data, position)
        position = match.end() if match else position
        if position >= len(data):
            refuse("it is cut off")
        opcode = data[position]
        if opcode == _STOP:
            return
        width = _TEXT_LENGTH_BYTES.get(opcode)
        if width is None:
            refuse(_why_not(opcode, data, position))
        start = position + 1 + width
        position = start + int.from_bytes(data[position + 1 : start], "little")
        if position > len(data):
            refuse("it is cut off inside a text")


def _run_pattern(length: int) -> re.Pattern[bytes]:
    """Opcodes of fixed length; LONG_BINPUT's index has no more digits (base 256) than the file's length."""
    digits = max(1, min(4, (length.bit_length() + 7) // 8))
    leading = min(255, length >> 8 * (digits - 1))
    index = b".{%d}[\\x00-%s]%s" % (digits - 1, re.escape(bytes([leading])), rb"\x00" * (4 - digits))
    pair = b"%s%s?(?:%s%s?\x86)?" % (_INT, _FRAME, _INT, _FRAME)  # a frame may begin anywhere, also inside a pair
    expression = b"(?:%s|%s|r%s)*+" % (_FIXED, pair, index)
    return re.compile(expression, re.DOTALL)


def _why_not(opcode: int, data: bytes, position: int) -> str:
    if chr(opcode) in "cRioQP\x81\x92\x93b" or opcode in (0x82, 0x83, 0x84):
        return "it asks for code or objects: snapshots hold plain data only"
    if opcode == ord("r"):
        if position + 5 > len(data):
            return "it is cut off"
        return "it refers to more objects than it can hold"
    if opcode in (ord("K"), ord("M"), ord("J"), 0x8A, ord("h"), ord("q"), ord("j"), ord("G"), 0x95):
        return "it is cut off" if position + 12 > len(data) else "it holds a number of more than 64 bits"
    return f"it holds something (opcode {opcode:#04x}) that no snapshot holds"
