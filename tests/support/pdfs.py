"""PDF files made by hand: pages of text, of a drawing, of nothing, with fields and notes, and locked ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

A4 = (595, 842)
DRAWING = "0.2 0.4 0.9 rg 100 100 300 300 re f"
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def text(*lines: str) -> str:
    """A page's content: lines of text from the top."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 24 Tf 28 TL 72 760 Td {shown} ET"


def pdf(
    *pages: str,
    size: tuple[float, float] = A4,
    rotate: int = 0,
    locked: bool = False,
    password: str | None = None,
    entries: str = "",
    catalog: str = "",
    info: str = "",
    objects: Sequence[str] = (),
) -> bytes:
    """A PDF with these contents of pages.

    Args:
        pages: their contents.
        size: of each, in points.
        rotate: of each, in degrees.
        locked: by a password that nobody knows.
        password: the one that opens it.
        entries: more entries of each page.
        catalog: more entries of the catalogue.
        info: what the file says of itself.
        objects: more of them; the first has the number 4 + 2 × pages.
    """
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    all_objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, content in enumerate(pages):
        all_objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Rotate {rotate} {entries} "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * i} 0 R >>"
        )
        if password is not None:
            content = _rc4(_key_of(password, 5 + 2 * i), content.encode("latin-1")).decode("latin-1")
        all_objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    all_objects += objects
    trailer = "/Root 1 0 R"
    if info:
        all_objects.append(f"<< {info} >>")
        trailer += f" /Info {len(all_objects)} 0 R"
    if locked or password is not None:
        owner, user = ("00" * 32,) * 2
        if password is not None:
            owner, user = _owner(password).hex(), _rc4(_key(password), _PADDING).hex()
        all_objects.append(f"<< /Filter /Standard /V 1 /R 2 /O <{owner}> /U <{user}> /P -4 >>")
        trailer += f" /Encrypt {len(all_objects)} 0 R /ID [<{'00' * 16}> <{'00' * 16}>]"
    return _file(all_objects, f"/Size {len(all_objects) + 1} {trailer}")


def _owner(password: str) -> bytes:
    padded = (password.encode() + _PADDING)[:32]
    return _rc4(hashlib.md5(padded).digest()[:5], padded)


def _key(password: str) -> bytes:
    """The key of a file, of 40 bits (PDF 1.4, algorithm 3.2)."""
    padded = (password.encode() + _PADDING)[:32]
    permissions = (-4).to_bytes(4, "little", signed=True)
    return hashlib.md5(padded + _owner(password) + permissions + bytes(16)).digest()[:5]


def _key_of(password: str, number: int) -> bytes:
    """The key of an object of a file."""
    return hashlib.md5(_key(password) + number.to_bytes(3, "little") + bytes(2)).digest()[:10]


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i, j, out = 0, 0, bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _file(objects: Sequence[str], trailer: str) -> bytes:
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << {trailer} >>\n"
    return data + f"{end}startxref\n{len(data)}\n%%EOF".encode()
