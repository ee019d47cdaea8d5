"""Edits of JSON: by key, by type, by value, and of the text itself."""

import copy
import json
import random
from typing import Any

from . import odd


def edited(random: random.Random, value: Any) -> tuple[Any, str]:
    """A changed copy, one to three edits, and their names."""
    value, names = copy.deepcopy(value), []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return odd.value(random), "replaced"
        container, key = random.choice(places)
        edit = random.choice(
            (_replace, _replace, _replace, _scale, _scale, _delete, _rename, _add, _retype, _swap)
        )
        names.append(f"{edit.__name__.strip('_')} {str(key)[:30]!r}")
        edit(random, container, key, places)
    return value, " + ".join(names)


def text(random: random.Random, value: Any) -> tuple[bytes, str]:
    """A file of JSON with an edit of the value, of the text, or of both."""
    how = random.random()
    made = []
    if how < 0.8:
        value, name = edited(random, value)
        made.append(name)
    text = written(value, indent=random.choice((None, 2)))
    if how > 0.75:
        name, edit = random.choice(_TEXTS)
        text = edit(random, text)
        made.append(name)
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if how > 0.95 and data:
        data, name = odd.edited(random, data, [data, b"PK\x03\x04", b"\x80\x02}q\x00."])
        made.append(name)
    return data, " + ".join(made)


def written(value: Any, indent: int | None = None) -> str:
    """As JSON; half an object where a number has more digits than Python writes."""
    try:
        return json.dumps(value, indent=indent)
    except ValueError:
        return "{"


def _deep(random, text):
    depth = random.choice((100, 2_000, 200_000))
    return random.choice(("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth))


def _repeated(random, text):
    return text.replace("{", '{"encoder": {}, "steps": 1, "model": 3, ', 1)


def _long_number(random, text):
    return text.replace("2", "2" * 6000, 1)


_TEXTS = (
    ("deeply nested", _deep),
    ("keys twice", _repeated),
    ("a number of 6000 digits", _long_number),
    ("a byte order mark", lambda random, text: "\ufeff" + text),
    ("utf-16", lambda random, text: text.encode("utf-16")),
    ("latin-1", lambda random, text: text.encode("ascii", "replace") + b"\xff\xe9"),
    ("nothing", lambda random, text: ""),
    ("another document behind it", lambda random, text: text + text),
    ("a lone surrogate", lambda random, text: text.replace('"', '"\\ud800', 1)),
    (
        "bare words",
        lambda random, text: random.choice(("null", "NaN", "true", "3", '"x"', "[]", "-Infinity")),
    ),
    ("zeros behind it", lambda random, text: text.encode() + b"\0" * 100),
    ("comments", lambda random, text: "// x\n" + text),
)


def _places(value, depth=0):
    if depth > 12:
        return
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key], depth + 1)


def _replace(random, container, key, places):
    container[key] = odd.value(random)


def _scale(random, container, key, places):
    old = container[key]
    if isinstance(old, (int, float)) and not isinstance(old, bool):
        factor, more = random.choice(
            ((2, 0), (1, 1), (1, -1), (-1, 0), (10**6, 0), (1000, 0), (0, 0), (0, 0.5))
        )
        container[key] = old * factor + more if abs(old) < 1e300 else -old
    else:
        _replace(random, container, key, places)


def _delete(random, container, key, places):
    del container[key]


def _rename(random, container, key, places):
    if isinstance(container, dict):
        container[random.choice((f"{key}_", str(key).upper(), random.choice(odd.TEXTS[:20])))] = (
            container.pop(key)
        )


def _add(random, container, key, places):
    if isinstance(container, dict):
        container[random.choice(("extra", "", "#", "config", *odd.TEXTS[:20]))] = odd.value(random)
    else:
        container.append(odd.value(random))


def _retype(random, container, key, places):
    old = container[key]
    container[key] = random.choice((str(old), [old], {"value": old}, not old, json.dumps(old)))


def _swap(random, container, key, places):
    other, other_key = random.choice(places)
    container[key] = copy.deepcopy(other[other_key])
