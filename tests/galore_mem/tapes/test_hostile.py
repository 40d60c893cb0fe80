"""Files that nobody vouches for: one line, bounded memory, nothing run."""

import gzip
import json
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from galore_mem.errors import UsageError
from galore_mem.tapes.checks import Refusal
from galore_mem.tapes.file import tape_bytes
from galore_mem.tapes.recording import read_recording, recording_from_bytes
from tests.galore_mem.tapes import snapshots


class Runs:
    """What an attacker pickles."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        """A command that loading the pickle would run."""
        return os.system, ("touch /tmp/galore-mem-was-here",)


def _nested(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\x80",
    "no pickle": b"\x7fELF\x02\x01\x01",
    "text": b"hello\n",
    "protocol 0": pickle.dumps([1], protocol=0),
    "protocol 9": b"\x80\x09].",
    "runs code": pickle.dumps(Runs(), protocol=4),
    "runs code, protocol 2": pickle.dumps([Runs()], protocol=2),
    "a class": pickle.dumps(Path),
    "persistent id": b"\x80\x04\x8c\x01aQ.",
    "extension": b"\x80\x04\x82\x01.",
    "huge memo index": b"\x80\x02]r\xff\xff\xff\x7f.",
    "memo index of its own length": b"\x80\x02]r\xff\x00\x00\x00.",
    "memo slot of an earlier object": b"\x80\x02]q\x00]q\x00.",
    "refers back to an event": (
        b"\x80\x04}(\x8c\x0ddevice_traces]](}\x94(\x8c\x06action\x8c\x05alloc\x8c\x04sizeK\x01u}(h\x00h\x00ueau."
    ),
    "more values than containers": b"\x80\x04" + b"N" * 4_000_000 + b".",
    "memo that is not there": b"\x80\x04h\x07.",
    "text longer than the file": b"\x80\x04X\xff\xff\xff\x7fabc.",
    "text of 2^63": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"a.",
    "bytes of 2^60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"a.",
    "number of a thousand digits": pickle.dumps([10**1000]),
    "number in decimal": b"\x80\x02I" + b"9" * 5000 + b"\n.",
    "deep tuples": b"\x80\x04})" + b"\x85" * 200_000 + b"K\x01s.",
    "a million nested lists": _nested(1_000_000),
    "twenty million dicts": b"\x80\x04(" + b"}" * 20_000_000 + b"l.",
    "marks only": b"\x80\x04" + b"(" * 100_000 + b".",
    "pops from nothing": b"\x80\x04e.",
    "no stop": b"\x80\x04](K\x01",
    "stop at once": b"\x80\x04.",
    "broken text": b"\x80\x04\x8c\x02\xff\xfe.",
    "a number": pickle.dumps(7),
    "a list of numbers": pickle.dumps([1, 2, 3]),
    "gzip of nothing": gzip.compress(b""),
    "gzip cut off": gzip.compress(b"x" * 1000)[:20],
    "gzip broken": b"\x1f\x8b" + b"\x00" * 30,
    "gzip of code": gzip.compress(pickle.dumps(Runs(), protocol=4)),
    "json": b"{}",
    "json of another schema": b'{"schema": "galore-mem/plan/1"}',
    "json of the future": b'{"schema": "galore-mem/tape/99"}',
    "json cut off": b'{"schema": "galore-mem/tape/1"',
    "json nested": b"{" + b'"a":[' * 100_000,
    "json with a long number": b'{"schema":' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(HOSTILE[name])
    with pytest.raises(UsageError) as caught:
        read_recording(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(file))
    assert not Path("/tmp/galore-mem-was-here").exists()


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(UsageError):
            read_recording(path)


def test_the_command_says_so_with_exit_code_2_and_little_memory(tmp_path: Path) -> None:
    """In a process of its own, limited to 2 GiB of addresses."""
    file = tmp_path / "snapshot.pickle"
    for name in (
        "runs code",
        "huge memo index",
        "a million nested lists",
        "twenty million dicts",
        "deep tuples",
    ):
        file.write_bytes(HOSTILE[name])
        done = subprocess.run(
            [sys.executable, "-P", "-m", "galore_mem", "replay", str(file)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        )
        assert done.returncode == 2, (name, done.stderr)
        assert done.stderr.count("\n") == 1, name
        assert done.stdout == ""


def _damaged() -> list[tuple[str, object]]:
    """A good snapshot with one value of each kind replaced by something else."""
    found: list[tuple[str, object]] = []
    strangers: list[object] = [None, -1, 2**70, "x", [], {}, 1.5, True, [[]], {"a": 1}]
    for key in ("segments", "device_traces", "allocator_settings", "external_annotations"):
        found += [(f"{key}={stranger!r}", {**_good(), key: stranger}) for stranger in strangers]
    for key in ("action", "addr", "size", "stream", "time_us", "frames", "pool_id", "user_metadata"):
        for stranger in strangers:
            made = _good()
            made["device_traces"][0][3][key] = stranger
            found.append((f"entry {key}={stranger!r}", made))
    for key in (
        "address",
        "total_size",
        "stream",
        "segment_type",
        "segment_pool_id",
        "is_expandable",
        "blocks",
        "device",
    ):
        for stranger in strangers:
            made = _good()
            made["segments"][0][key] = stranger
            found.append((f"segment {key}={stranger!r}", made))
    for key in ("size", "requested_size", "state", "address"):
        for stranger in strangers:
            made = _good()
            made["segments"][0]["blocks"][0][key] = stranger
            found.append((f"block {key}={stranger!r}", made))
    for stranger in strangers:
        made = _good()
        made["device_traces"][0].insert(0, stranger)
        found.append((f"entry {stranger!r}", made))
    return found


def _good() -> snapshots.Snapshot:
    return snapshots.snapshot(snapshots.program(seed=1, length=30))


@pytest.mark.parametrize(("name", "made"), _damaged(), ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_types_inside_are_refused_or_harmless(name: str, made: object) -> None:
    """Never a traceback: a refusal with a reason, or a Tape that can be replayed or refused in its turn."""
    from galore_mem.answers.replay import replay_tape
    from profiles.errors import InputError

    with suppress(Refusal, InputError):
        replay_tape(recording_from_bytes(pickle.dumps(made, protocol=4)))


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.tapes.file.LARGEST_CONTENT_BYTES", 1 << 20)
    for first, more in ((b"{", b" "), (b"\x80\x04", b"N")):
        with pytest.raises(Refusal, match="unpacks to more"):
            recording_from_bytes(gzip.compress(first + more * (2 << 20)))


def test_every_truncation_is_refused() -> None:
    data = pickle.dumps(_good(), protocol=4)
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(Refusal):
            recording_from_bytes(data[:length])


def test_every_truncation_of_a_tape_is_refused() -> None:
    data = tape_bytes(snapshots.tape_of(snapshots.program(seed=1, length=30)))
    text = gzip.decompress(data)
    for length in range(len(data)):
        with pytest.raises(Refusal):
            recording_from_bytes(data[:length])
    for length in range(0, len(text), 11):
        with pytest.raises(Refusal):
            recording_from_bytes(gzip.compress(text[:length]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["devices"], {}),
        (["devices", 0], []),
        (["devices", 0, "device"], -1),
        (["devices", 0, "history"], "none"),
        (["devices", 0, "events"], 7),
        (["devices", 0, "events"], -1),
        (["devices", 0, "names"], ["x"]),
        (["devices", 0, "names"], []),
        (["devices", 0, "columns"], {}),
        (["devices", 0, "columns", "size"], {"type": "q", "data": "AAAA"}),
        (["devices", 0, "columns", "size"], {"type": "d", "data": ""}),
        (["devices", 0, "columns", "size"], {"type": "B", "data": "%%%"}),
        (["devices", 0, "columns", "colour"], {"type": "B", "data": ""}),
        (["devices", 0, "columns", "action"], {"type": "B", "data": "/////////////////////////////////////////w=="}),
        (["devices", 0, "initial"], [[1, 2]]),
        (["devices", 0, "initial"], [[1, -2, 0, False, 0, False, []]]),
        (["devices", 0, "marks"], [[99, "phase", "", None, None]]),
        (["devices", 0, "marks"], [[0, 5, "", None, None]]),
        (["devices", 0, "total_bytes"], "many"),
        (["settings"], 5),
        (["metadata"], []),
        (["source"], "elsewhere"),
    ],
)
def test_damaged_tapes_are_refused(path: list[str | int], value: object) -> None:
    content = json.loads(gzip.decompress(tape_bytes(snapshots.tape_of(snapshots.program(seed=1, length=31)))))
    spot = content
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = value
    with pytest.raises(Refusal):
        recording_from_bytes(json.dumps(content).encode())


def test_the_scan_allows_every_honest_opcode() -> None:
    """What Python's own pickler makes of a snapshot, of protocols 2 to 5."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps({**_good(), "x": [True, None, 0.5, -1, 2**31, 2**62, "é" * 300]}, protocol=protocol)
        assert {op.name for op, _, _ in pickletools.genops(data)} >= {"PROTO", "STOP", "TUPLE2"}
        assert recording_from_bytes(data).devices
