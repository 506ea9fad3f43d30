"""Ways to damage a valid file, as Hypothesis's strategies: of its bytes, its text, its tree or its arrays."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from wsss_core.store.sealed import LENGTH, MARK

ODD_NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, -(2**63), 10**30)

LONG = "x" * 251
"""No file system takes such a name with an ending."""

HUGE = "y" * 200_000

ODD_TEXTS = (
    *("", " ", "0", "-1", "1e999", "nan", "inf", "null", "true", "\0", "a\0b", "\ud800", "é", "ﷺ" * 40, LONG, HUGE),
    *(
        "../../x",
        "/dev/zero",
        "/",
        ".",
        "a/b",
        '"',
        "'",
        '"""',
        "'\n",
        "\n",
        "\r",
        "\r\n",
        "\u2028",
        "\ufeff",
        "\x1b[1m",
    ),
    *(
        "=1+1",
        "background",
        "mean",
        "%00",
        "{",
        "}",
        "[",
        "]",
        "<",
        "&",
        "x" * 255,
        "𝟙",
        "٣",
        "1_0",
        "0x1F",
        "1" * 5000,
    ),
)

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
"""A text of 500 letters that stands for nine thousand million."""

ODD_YAML = (
    *(
        BOMB,
        "&a [*a]",
        "*a",
        "<<: *a\n",
        "? ",
        "- " * 500,
        "[" * 3000,
        "{a: " * 3000,
        "!!python/object/apply:os.system [x]",
    ),
    *(
        "!!binary x",
        ".nan",
        ".inf",
        "12:30:45",
        "2020-13-45",
        "2020-01-01",
        "~",
        "%YAML 9.9\n---\n",
        "---\n",
        "|\n x",
        "!",
    ),
    *(
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "? [a]\n: b",
        "{a: 1}: 2",
        "&a\n&b",
        "\t",
        "<<: [1]\n",
        "!!set {a}",
        "0o9",
    ),
)

ODD_JSON = ("[" * 3000, '{"a":' * 3000, "NaN", "-Infinity", "1e999", "1" * 5000, '"\\ud800"', "[1,]", '"\\u0000"', "{}")

ODD_XML = (
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;">]>',
    '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
    *(
        "&d;",
        "&#0;",
        "&#x10ffff;",
        "<object>" * 3000,
        "]]>",
        "<![CDATA[",
        "<!--",
        "<?xml version='1.0' encoding='utf-7'?>",
    ),
    *("<?xml version='1.0' encoding='utf-32'?>", "<a xmlns='b'>", "</annotation>", "<object/>", "<name/>", "<bndbox/>"),
)

UNWRITTEN = (OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)
"""What libraries raise that do not write some damage: it damages nothing."""

LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from((None, True, False, 0, -1, 1.5, "", "x", LONG, [], {}, [[]], [0], {"a": 1}, [None], float("nan"))),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(
        (float("inf"), -float("inf"), 1e308, -0.0, 5e-324, HUGE, "a\0b", "../x", "\ud800", [[[[[]]]]] * 99)
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-2, 300), max_size=5),
)
"""Values in place of others."""


def damaged(content: bytes, form: str) -> st.SearchStrategy[bytes]:
    """A file of this content, damaged in a way that its form knows (see `Reader.files`)."""
    ways: list[st.SearchStrategy[bytes]] = [_edited_bytes(content)]
    if form in ("text", "json", "yaml", "xml"):
        text = content.decode()
        odd = {"yaml": ODD_YAML, "json": ODD_JSON, "xml": ODD_XML}.get(form, ())
        ways += [_edited_text(text, (*ODD_TEXTS, *odd))] * 2
        ways.append(st.sampled_from((*ODD_TEXTS, *odd)).map(_encoded))
        if form in ("json", "yaml"):
            ways += [_edited_tree(json.loads(text) if form == "json" else yaml.safe_load(text), form)] * 2
    if form == "png":
        ways.append(_edited_bytes(content).map(with_checksums))
    if form == "hdf5":
        ways += [_edited_arrays(content)] * 3
    if form == "torch":
        ways += [_edited_network(content)] * 2
    return st.one_of(ways)


def sealed(content: bytes) -> bytes:
    """The same with a seal that fits."""
    return content + MARK + hashlib.sha256(content).hexdigest().encode()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def _edited_bytes(draw: Callable, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        way, place = draw(st.sampled_from(BYTE_WAYS)), draw(st.integers(0, max(0, len(data) - 1)))
        way(draw, data, place)
    return bytes(data)


def _flip(draw: Callable, data: bytearray, place: int) -> None:
    if data:
        data[place] ^= 1 << draw(st.integers(0, 7))


def _put_byte(draw: Callable, data: bytearray, place: int) -> None:
    if data:
        data[place] = draw(st.integers(0, 255))


def _put_number(draw: Callable, data: bytearray, place: int) -> None:
    code = draw(st.sampled_from(("<I", ">I", "<H", ">H", "<Q", ">Q")))
    number = draw(st.sampled_from(ODD_NUMBERS)) % (1 << (8 * struct.calcsize(code)))
    data[place : place + struct.calcsize(code)] = struct.pack(code, number)


def _cut(draw: Callable, data: bytearray, place: int) -> None:
    del data[place : place + draw(st.integers(1, 64))]


def _end(draw: Callable, data: bytearray, place: int) -> None:
    del data[place:]


def _double(draw: Callable, data: bytearray, place: int) -> None:
    data[place:place] = data[place : place + draw(st.integers(1, 64))]


def _insert(draw: Callable, data: bytearray, place: int) -> None:
    data[place:place] = draw(st.binary(max_size=16))


def _zero(draw: Callable, data: bytearray, place: int) -> None:
    stop = min(len(data), place + draw(st.integers(1, 512)))
    data[place:stop] = bytes(stop - place)


BYTE_WAYS = (_flip, _put_byte, _put_number, _cut, _end, _double, _insert, _zero)


@st.composite
def _edited_text(draw: Callable, text: str, odd: Sequence[str]) -> bytes:
    tokens = re.findall(r"\w+|\s|.", text)
    for _ in range(draw(st.integers(1, 3))):
        way, place = draw(st.integers(0, 5)), draw(st.integers(0, max(0, len(tokens) - 1)))
        word = draw(st.one_of(st.sampled_from(odd), st.sampled_from(tokens or ["x"]), st.text(max_size=6)))
        match way:
            case 0:
                tokens[place : place + 1] = [word]
            case 1:
                tokens.insert(place, word)
            case 2:
                del tokens[place : place + draw(st.integers(1, 12))]
            case 3:
                tokens[place:place] = tokens[place : place + draw(st.integers(1, 40))]
            case 4:
                other = draw(st.integers(0, max(0, len(tokens) - 1)))
                if tokens:
                    tokens[place], tokens[other] = tokens[other], tokens[place]
            case 5:
                lines = "".join(tokens).split("\n")
                number = draw(st.integers(0, len(lines) - 1))
                lines.insert(draw(st.integers(0, len(lines))), lines.pop(number))
                tokens = re.findall(r"\w+|\s|.", "\n".join(lines))
    codec = draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32")))
    return "".join(tokens).encode(codec, "surrogatepass" if "utf" in codec else "replace")


@st.composite
def _edited_tree(draw: Callable, tree: Any, form: str) -> bytes:
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        _edit(draw, tree)
    if form == "yaml" and draw(st.booleans()):
        try:
            return _encoded(yaml.dump(tree, Dumper=yaml.SafeDumper))
        except yaml.YAMLError:
            pass
    return json.dumps(tree, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _edit(draw: Callable, tree: Any) -> None:
    """Change something somewhere in nested mappings and lists."""
    places = _places(tree)
    if not places:
        return
    node, key = draw(st.sampled_from(places))
    other_node, other_key = draw(st.sampled_from(places))
    match draw(st.integers(0, 5)):
        case 0 | 1:
            node[key] = draw(LEAVES)
        case 2:
            del node[key]
        case 3:
            node[key] = json.loads(json.dumps(other_node[other_key]))
        case 4:
            node[key] = [node[key]] * draw(st.sampled_from((1, 2, 3, 40)))
        case 5:
            if isinstance(node, dict):
                node[draw(st.sampled_from((*ODD_TEXTS[:14], LONG, "settings", "id")))] = node.pop(key)
            else:
                node.insert(key, node[key])


def _places(node: Any) -> list[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in [(node, key), *_places(node[key])]]


def with_checksums(content: bytes) -> bytes:
    """A PNG whose checksums are made to fit, so that what was damaged reaches the decoder."""
    made, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        length = struct.unpack(">I", content[place : place + 4])[0]
        body = content[place + 4 : place + 8 + length]
        made += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(made + content[place:])


@st.composite
def _edited_arrays(draw: Callable, content: bytes) -> bytes:
    """An HDF5 file, sealed, with other arrays, attributes or links than there should be."""
    held = io.BytesIO(content[:-LENGTH])
    with h5py.File(held, "r+") as file:
        for _ in range(draw(st.integers(1, 3))):
            names: list[str] = [""]
            file.visit(names.append)
            place = file[draw(st.sampled_from(names)) or "/"]
            with suppress(*UNWRITTEN):
                if draw(st.booleans()) and len(place.attrs):
                    _edit_attribute(draw, place.attrs, draw(st.sampled_from(sorted(place.attrs))))
                else:
                    _edit_item(draw, file, place)
    return sealed(held.getvalue())


def _edit_attribute(draw: Callable, attrs: Any, name: str) -> None:
    text = attrs[name] if isinstance(attrs[name], str) else "0"
    odd: Any = draw(
        st.one_of(
            st.sampled_from(
                (None, 0, -1, 2**40, 1.5, float("nan"), "", "x", "[]", "{}", "null", text[:-1], text + text)
            ),
            st.lists(st.sampled_from((0, 1, -1, 5, 255, 2**33)), max_size=4).map(np.array),
            st.sampled_from(
                (np.zeros((2, 2)), np.array([b"x"]), True, '["a"]', '["z", "a"]', '{"class_names": 5}', "[[]]")
            ),
        )
    )
    del attrs[name]
    if odd is not None:
        attrs[name] = odd


def _edit_item(draw: Callable, file: h5py.File, place: Any) -> None:
    if place.name == "/":
        file["new"] = draw(st.sampled_from((0, "x", h5py.SoftLink("/a"), h5py.ExternalLink("/etc/passwd", "/"))))
        return
    parent, name = place.parent, place.name.rpartition("/")[2]
    dataset = isinstance(place, h5py.Dataset)
    values = np.asarray(place[()]) if dataset else np.zeros(3)
    ways = (
        lambda: values.astype(draw(st.sampled_from(("f8", "f4", "i8", "u1", "i1", "S3", "?", "c8")))),
        lambda: values.reshape(-1),
        lambda: values[..., : draw(st.integers(0, 2))],
        lambda: values[:0],
        lambda: values[None],
        lambda: np.concatenate([values, values]),
        lambda: np.full_like(
            values, draw(st.sampled_from((0, 1, 255, -1, np.nan, np.inf))) if values.dtype.kind == "f" else 255
        ),
        lambda: -values if values.dtype.kind in "fi" else values,
        lambda: h5py.SoftLink("/nowhere"),
        lambda: h5py.ExternalLink("other.h5", "/x"),
        lambda: "text",
        lambda: np.float32(1),
        lambda: None,
    )
    made = draw(st.sampled_from(ways))()
    del parent[name]
    if made is None:
        return
    new = draw(st.sampled_from((name, name, name, "scale_x", "scale_2.0", "more")))
    if new in parent:
        return
    parent[new] = made


@st.composite
def _edited_network(draw: Callable, content: bytes) -> bytes:
    """What torch.save writes, with other entries than there should be; sealed if it was."""
    bare = content[:-LENGTH] if MARK in content[-LENGTH:] else content
    tree = torch.load(io.BytesIO(bare), weights_only=True)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(tree)
        if not places:
            break
        node, key = draw(st.sampled_from(places))
        value, (other, other_key) = node[key], draw(st.sampled_from(places))
        with suppress(*UNWRITTEN):
            match draw(st.integers(0, 5)):
                case 0:
                    node[key] = draw(LEAVES)
                case 1:
                    del node[key]
                case 2:
                    node[key] = other[other_key]
                case 3:
                    if isinstance(node, dict):
                        node[draw(st.sampled_from(("", "x", "weight", 0, None)))] = node.pop(key)
                case _:
                    if isinstance(value, torch.Tensor):
                        node[key] = draw(st.sampled_from(TENSOR_WAYS))(value)
    if draw(st.integers(0, 9)) == 9:
        tree = draw(LEAVES)
    made = io.BytesIO()
    try:
        torch.save(tree, made)
    except UNWRITTEN:
        return content[:-1]
    return sealed(made.getvalue()) if bare is not content else made.getvalue()


TENSOR_WAYS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda tensor: tensor.double(),
    lambda tensor: tensor.to(torch.int32),
    lambda tensor: tensor.flatten(),
    lambda tensor: tensor[None],
    lambda tensor: tensor.flatten()[:0],
    lambda tensor: tensor.flatten()[:1],
    lambda tensor: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
    lambda tensor: torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor,
    lambda tensor: tensor.to_sparse() if tensor.ndim else tensor,
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor.tolist(),
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor,
    lambda tensor: tensor.numpy().tolist(),
)
