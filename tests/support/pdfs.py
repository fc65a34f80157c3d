"""PDF files made by hand: pages of text, of a drawing, of nothing, and a locked one."""

from __future__ import annotations

from collections.abc import Sequence

A4 = (595, 842)
DRAWING = "0.2 0.4 0.9 rg 100 100 300 300 re f"


def text(*lines: str) -> str:
    """A page's content: lines of text from the top."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 24 Tf 28 TL 72 760 Td {shown} ET"


def pdf(*pages: str, size: tuple[float, float] = A4, rotate: int = 0, locked: bool = False) -> bytes:
    """A PDF with these contents of pages."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, content in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Rotate {rotate} "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if locked:
        key = "00" * 32
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >>")
        trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Encrypt {len(objects)} 0 R /ID [<{key}> <{key}>]"
    return _file(objects, trailer)


def _file(objects: Sequence[str], trailer: str) -> bytes:
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << {trailer} >>\n"
    return data + f"{end}startxref\n{len(data)}\n%%EOF".encode()
