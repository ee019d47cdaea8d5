"""Edits of pickles, and pickles that would run code: they leave a folder where somebody lets them."""

import pickle
import pickletools
import random
import struct
from typing import Any

PAYLOAD = "payload-ran"  # a folder or file of this name is made by code that stands in an input

_FUNCTIONS = (
    ("os", "mkdir", (PAYLOAD,)),
    ("posix", "mkdir", (PAYLOAD,)),
    ("os", "system", (f"mkdir {PAYLOAD}",)),
    ("builtins", "exec", (f"import os; os.mkdir({PAYLOAD!r})",)),
    ("builtins", "eval", (f"__import__('os').mkdir({PAYLOAD!r})",)),
    ("__builtin__", "eval", (f"__import__('os').mkdir({PAYLOAD!r})",)),
    ("subprocess", "check_call", (["mkdir", PAYLOAD],)),
    ("pathlib", "Path.mkdir", (PAYLOAD,)),
    ("torch", "save", (1, PAYLOAD)),
    ("torch", "load", ("in/odd.pyt",)),
    ("torch.hub", "load", (".", "x")),
    ("torch.serialization", "load", ("in/odd.pyt",)),
    ("numpy", "save", (PAYLOAD, [1])),
    ("numpy.core.multiarray", "_reconstruct", ("x", (0,), b"b")),
    ("shutil", "copytree", ("in", PAYLOAD)),
    ("_codecs", "encode", ("a" * 10, "latin1")),
    ("collections", "OrderedDict", ([("a", 1)],)),
    ("runpy", "_run_code", (f"import os; os.mkdir({PAYLOAD!r})", {})),
    ("torch.storage", "_load_from_bytes", (b"\x80\x02cos\nmkdir\n(X\x0b\x00\x00\x00payload-ranltR.",)),
    ("torch._utils", "_rebuild_tensor_v2", (1, 2, 3)),
)


def payload(random: random.Random, data: bytes) -> tuple[bytes, str]:
    """A pickle that calls a function, alone or in front of or inside a whole one."""
    module, name, arguments = random.choice(_FUNCTIONS)
    protocol = random.choice((2, 2, 3, 4))
    body = pickle.dumps(arguments, protocol)[2:-1]  # without PROTO and STOP
    if protocol == 4:
        body = pickle.dumps(arguments, 3)[2:-1]
        text = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
        call = text + b"\x93" + body + random.choice((b"R", b"\x81"))
    else:
        call = f"c{module}\n{name}\n".encode() + body + random.choice((b"R", b"R", b"\x81"))
    head, place = bytes([0x80, protocol]), random.choice(("alone", "in front", "behind", "as state"))
    if place == "alone":
        result = head + call + b"."
    elif place == "in front":
        result = head + call + b"0" + data[2:]
    elif place == "behind":
        result = data[:-1] + call + b"."
    else:
        result = data[:-1] + call + b"b."
    return result, f"pickle: {module}.{name} {place}"


def edited(random: random.Random, data: bytes) -> tuple[bytes, str]:
    """One to three opcodes removed, doubled, exchanged or given another argument."""
    names = []
    for _ in range(random.choice((1, 1, 2, 3))):
        try:
            codes = [(code, argument, place) for code, argument, place in pickletools.genops(data)]
        except ValueError:
            break
        if len(codes) < 2:
            break
        index = random.randrange(len(codes) - 1)
        code, argument, start = codes[index]
        stop = codes[index + 1][2]
        how = random.choice(("removed", "doubled", "another", "argument", "argument", "argument", "deep"))
        old = data[start:stop]
        if how == "removed":
            new = b""
        elif how == "doubled":
            new = old * 2
        elif how == "another":
            new = random.choice(pickletools.opcodes).code.encode("latin1") + old[1:]
        elif how == "deep":
            depth = random.choice((500, 5_000, 100_000))
            new = old + b"(" * depth if random.random() < 0.5 else b"]" * depth + old + b"a" * depth
        else:
            new = _argument(random, code.name, argument, old)
        data = data[:start] + new + data[stop:]
        names.append(f"{code.name} {how}")
    return data, "pickle: " + " + ".join(names)


def _argument(random: random.Random, name: str, argument: Any, old: bytes) -> bytes:
    if name in ("BININT", "BININT1", "BININT2", "LONG1"):
        number = random.choice(
            (0, 1, -1, 2**31 - 1, -(2**31), 2**20, argument + 1, argument * 2 % 2**31, 10**9)
        )
        if random.random() < 0.3:
            body = random.choice((2**63 - 1, 2**62, -(2**62), 2**64)).to_bytes(9, "little", signed=True)
            return b"\x8a\x09" + body
        return b"J" + struct.pack("<i", max(-(2**31), min(number, 2**31 - 1)))
    if name == "BINUNICODE":
        texts = (
            argument + "x",
            "",
            "encoder.layers.0.bias",
            argument[:-1],
            "cuda:0",
            "meta",
            "0",
            "a\nb",
            "x" * 5000,
        )
        text = random.choice(texts).encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if name == "GLOBAL":
        names = ("torch HalfStorage", "torch ComplexFloatStorage", "torch QInt8Storage", "torch BoolStorage",
                 "torch DoubleStorage", "torch._utils _rebuild_parameter",
                 "torch._utils _rebuild_sparse_tensor",
                 "torch._utils _rebuild_meta_tensor_no_storage", "torch Tensor", "torch Size",
                 "collections Counter",
                 "torch.nn.parameter Parameter", "os system", "torch device",
                     "torch UntypedStorage")  # fmt: skip
        return b"c" + random.choice(names).replace(" ", "\n").encode() + b"\n"
    if name in ("NEWTRUE", "NEWFALSE"):
        return random.choice((b"\x88", b"\x89", b"N", b"K\x05", b"}"))
    return random.choice((b"N", b"}", b"]", b")", b"K\x00", old[:1] + b"\xff" * (len(old) - 1)))
