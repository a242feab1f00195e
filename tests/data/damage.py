"""Seeded damage to the bytes of a file, and to the JSON, archives and arrays in it."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from normkit.models import archive

Damage = Callable[[bytes, random.Random], bytes]


def flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def overwritten(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 8, 64, 512))
    word = rng.choice((b"\0", b"\xff", b"\x7f", rng.randbytes(1)))
    part = rng.randbytes(length) if rng.random() < 0.3 else word * length
    return (content[:start] + part + content[start + length :])[: len(content)]


def number_changed(content: bytes, rng: random.Random) -> bytes:
    """A number in it becomes a huge, negative or otherwise wrong one."""
    code = rng.choice(("<i", "<q", ">i", "<H"))
    size = struct.calcsize(code)
    start = rng.randrange(max(1, len(content) - size)) // size * size
    bits = 8 * size - 1
    value = rng.choice((0, 1, 2**bits - 1, 2 ** (bits - 4), 2 ** (bits // 2), -1 if code != "<H" else 7))
    return content[:start] + struct.pack(code, value) + content[start + size :]


def swapped(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((4, 8, 8, 64))
    one, two = (rng.randrange(max(1, len(content) - size)) // 4 * 4 for _ in range(2))
    damaged = bytearray(content)
    damaged[one : one + size], damaged[two : two + size] = (
        content[two : two + size],
        content[one : one + size],
    )
    return bytes(damaged[: len(content)])


def inserted(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return (
        content[:start] + content[rng.randrange(len(content)) :][: rng.choice((1, 8, 100))] + content[start:]
    )


def in_zip(content: bytes, rng: random.Random) -> bytes:
    """Damage to a member of an archive whose own checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as before:
        members = {name: before.read(name) for name in before.namelist()}
    name = rng.choice(list(members))
    is_json = name.endswith(".json")
    members[name] = (json_changed if is_json else rng.choice(BYTES))(members[name], rng)
    damaged = io.BytesIO()
    with zipfile.ZipFile(damaged, "w") as after:
        for name, part in members.items():
            after.writestr(name, part)
    return damaged.getvalue()


def in_gzip(content: bytes, rng: random.Random) -> bytes:
    return gzip.compress(rng.choice(BYTES)(gzip.decompress(content), rng))


OTHERS = (None, True, False, 0, -1, 1, 3, 10**8, 10**12, 10**30, 0.5, float("nan"), float("inf"), "", "x", [], {}, [1], [10**9, 10**9], {"a": 1}, [[]], "0")  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and dicts, as what it is in and its key."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def changed(value: Any, rng: random.Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2))):
        there = list(places(value))
        if not there:
            return rng.choice(OTHERS)
        owner, key = rng.choice(there)
        what = rng.random()
        if what < 0.1:
            del owner[key]
        elif what < 0.25:
            owner[key] = copy.deepcopy(rng.choice([inner[name] for inner, name in there]))
        else:
            owner[key] = copy.deepcopy(rng.choice(OTHERS))
    return value


def json_changed(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(changed(json.loads(content), rng)).encode()


def header_changed(content: bytes, rng: random.Random) -> bytes:
    """Damage to the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = json_changed(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def crafted(content: bytes, rng: random.Random) -> bytes:
    """Another configuration, or other arrays, in a model's file whose checksum is right."""
    with tempfile.TemporaryDirectory() as folder:
        return _crafted(Path(folder) / "crafted", content, rng)


def _crafted(path: Path, content: bytes, rng: random.Random) -> bytes:
    path.write_bytes(content)
    config, arrays = archive.read(path)
    if rng.random() < 0.8:
        config = changed(config, rng)
    else:
        name = rng.choice(list(arrays))
        other = (
            np.ones(3),
            np.ones((0,)),
            np.ones((1, 1)),
            arrays[name].astype("f8"),
            arrays[name].T,
            arrays[name] * np.nan,
        )
        arrays[rng.choice((name, "weights/0/more"))] = rng.choice(other)
    archive.write(path, config, arrays)
    return path.read_bytes()


BYTES: tuple[Damage, ...] = (flipped, truncated, overwritten, number_changed, swapped, inserted)
