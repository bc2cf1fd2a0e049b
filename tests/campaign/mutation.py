"""Mutations of bytes and of nested values (the contents of JSON and TOML files), drawn from a seeded generator."""

import copy
import math
from collections.abc import Iterator
from random import Random
from typing import Any

_STRINGS = (
    *("", " ", "x", "true", "1", "-1", "nan", "None", "é\u200b", "\x00", "a\nb", "%s{0}", "x" * 5000),
    *("..", "/", "../../outside", "/nonexistent/file", "a/b", "-", "--fresh", "os:system", "builtin:nothing", "control:crop"),
)
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63))
_FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-300, 1e-8, 1e30, 1.7e308, math.inf, -math.inf, math.nan)


def mutated_bytes(data: bytes, rng: Random) -> tuple[str, bytes]:
    """(what was done, the bytes after it). One to three changes of the kinds that disks, copies and attackers make."""
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what, data = _one_change(data, rng)
        said.append(what)
    return ", ".join(said), data


def _one_change(data: bytes, rng: Random) -> tuple[str, bytes]:
    size = len(data)
    early = rng.random() < 0.5  # headers are at the start
    at = rng.randrange(max(1, min(size, 512) if early else size))
    length = min(rng.choice((1, 2, 4, 8, 64, 512, 4096)), max(0, size - at))
    match rng.choice(("flip", "set", "set", "cut", "cut", "insert", "delete", "double", "zero", "empty", "swap", "end")):
        case "flip":
            changed = bytearray(data or b"\0")
            changed[at] ^= 1 << rng.randrange(8)
            return f"bit flipped at {at}", bytes(changed)
        case "set":
            new = rng.choice((b"\xff", b"\x00", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80\0\0\0", rng.randbytes(max(1, length))))
            return f"{len(new)} bytes set at {at}", data[:at] + new + data[at + len(new) :]
        case "cut":
            return f"cut off at {at}", data[:at]
        case "insert":
            return f"{length} bytes inserted at {at}", data[:at] + rng.randbytes(length) + data[at:]
        case "delete":
            return f"{length} bytes deleted at {at}", data[:at] + data[at + length :]
        case "double":
            return f"{length} bytes doubled at {at}", data[: at + length] + data[at:]
        case "zero":
            return f"{length} bytes zeroed at {at}", data[:at] + bytes(length) + data[at + length :]
        case "swap":
            other = rng.randrange(max(1, size))
            there = data[other : other + length]
            return f"{length} bytes of {other} copied to {at}", data[:at] + there + data[at + len(there) :]
        case "end":
            return "bytes appended", data + rng.randbytes(rng.choice((1, 100, 5000)))
    return "emptied", b""


def mutated_value(value: Any, rng: Random) -> tuple[str, Any]:
    """(what was done, a changed copy of a nested value)."""
    value = copy.deepcopy(value)
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places or rng.random() < 0.005:
            what, value = "all replaced", _hostile(value, rng)
        else:
            what = _change(*rng.choice(places), rng)
        said.append(what)
    return ", ".join(said), value


def _places(value: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, container, key) of every nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{where}.{key}", value, key
        yield from _places(inner, f"{where}.{key}")


def _change(where: str, holder: Any, key: Any, rng: Random) -> str:
    old = holder[key]
    match rng.choice(("hostile", "hostile", "hostile", "near", "near", "near", "delete", "rename", "add", "wrap", "copy")):
        case "near":
            holder[key] = _near(old, rng)
            return f"{where} = {_shown(holder[key])}"
        case "delete":
            del holder[key]
            return f"{where} deleted"
        case "rename" if isinstance(holder, dict):
            new = rng.choice((str(key)[:-1], f"{key}s", str(key).upper(), "", f"{key}.x", "a b", "é"))
            holder[new] = holder.pop(key)
            return f"{where} renamed to {new!r}"
        case "add" if isinstance(holder, dict):
            holder[rng.choice(("unknown", "kind", "", "__class__", "self"))] = _hostile(old, rng)
            return f"a key beside {where}"
        case "wrap":
            holder[key] = rng.choice(([old], {"x": old}, {str(old): old}, [old] * rng.choice((2, 3, 300)), [[[old]]]))
            return f"{where} wrapped"
        case "copy":
            holder[key] = copy.deepcopy(rng.choice(list(holder.values()) if isinstance(holder, dict) else holder))
            return f"{where} = its neighbour {_shown(holder[key])}"
    holder[key] = _hostile(old, rng)
    return f"{where} = {_shown(holder[key])}"


def _near(old: Any, rng: Random) -> Any:
    """A value of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice((old + 1, old - 1, -old, old * 2, old // 2, old * 1000, rng.choice(_NUMBERS)))
    if isinstance(old, float):
        return rng.choice((old * 2, -old, old * 1e6, old / 3, rng.choice(_FLOATS)))
    if isinstance(old, str):
        return rng.choice((old[:-1], old + "x", old.upper(), old * 50, rng.choice(_STRINGS)))
    if isinstance(old, list):
        return rng.choice((old[:-1], old[1:], old * 2, old[::-1], [], old[:1]))
    return {}


def _hostile(old: Any, rng: Random) -> Any:
    deep: Any = old
    for _ in range(rng.choice((30, 200))):
        deep = [deep]
    choices = (None, True, False, [], {}, [None], {"kind": "x"}, deep, str(old)[:1000], [old], _NUMBERS, _FLOATS, _STRINGS)
    chosen = rng.choice((*choices, _NUMBERS, _FLOATS, _STRINGS))
    return rng.choice(chosen) if isinstance(chosen, tuple) else copy.deepcopy(chosen)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
