"""A file of each kind that is read, made small, and of each fault that files have."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path

from tests.support import pdfs

FERRY = "The ferry crosses the river at noon."

HTML = f"""<!doctype html><html><head><title>Boats &amp; sails</title><script>var x = "SCRIPT"</script>
<style>p {{}}</style></head><body><p>Before any heading.</p><h1>Boats</h1><p>{FERRY}</p><ul><li>oak<li>pine</ul>
<table><tr><th>Year<th>Boats<tr><td>1999<td>5</table><h2>Sails</h2><p>Wind&nbsp;&eacute; drives<br>them.</p>
<img src="http://127.0.0.1:9/x.png" alt="a boat"></body></html>"""

RST = f"=====\nBoats\n=====\n\n{FERRY}\n\nSails\n-----\n\n.. note:: Keep :ref:`this`.\n\n::\n\n    x = 1\n"
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Boats\n", "\n", FERRY]},
        {"cell_type": "code", "source": "x = '''```'''\nprint(x)", "outputs": [{"text": "PRINTED"}]},
    ],
    "metadata": {"language_info": {"name": "python"}},
}


def docx() -> bytes:
    from docx import Document

    document = Document()
    document.core_properties.title, document.core_properties.author = "The Lease", "Ann"
    document.add_heading("Boats", 1)
    document.add_paragraph(FERRY)
    document.add_paragraph("oak", style="List Bullet")
    document.add_heading("Rent", 2)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (*table.rows[0].cells, *table.rows[1].cells), ("Year", "Rent", "1999", "500"), strict=True
    ):
        cell.text = text
    return saved(document)


def pptx() -> bytes:
    from pptx import Presentation

    slides = Presentation()
    for title, body in (("Boats", FERRY), ("Sails", "Wind drives them.")):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
    slides.slides[1].notes_slide.notes_text_frame.text = "Speak slowly."
    return saved(slides)


def xlsx() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.active.title = "People"
    for row in (["Name", "Born"], [FERRY, 1980], ["Bob", None]):
        book.active.append(row)
    book.create_sheet("Sums").append(["total", 7])
    return saved(book)


def saved(made: object) -> bytes:
    """The bytes of an office file."""
    file = io.BytesIO()
    made.save(file)  # type: ignore[attr-defined]
    return file.getvalue()


def archive(members: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def epub() -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles><rootfile '
        'full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    book = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Book</dc:title><dc:creator>Ann</dc:creator>'
        '<dc:identifier id="i">1</dc:identifier><dc:language>en</dc:language></metadata><manifest>'
        '<item id="b" href="2.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="a" href="1.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{}</body></html>'
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/book.opf": book,
            "OEBPS/1.xhtml": page.format(f"<h1>Boats</h1><p>{FERRY}</p>"),
            "OEBPS/2.xhtml": page.format("<h1>Sails</h1><p>Wind drives them.</p>"),
        }
    )


def eml(*, html: bool = False) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = (
        "Tickets – été",
        "Ann <ann@example.org>",
        "bob@example.org",
    )
    message["Date"] = "Fri, 06 Jun 2025 10:00:00 +0200"
    if html:
        message.set_content(f"<h1>Boats</h1><p>{FERRY}</p>", subtype="html")
    else:
        message.set_content(f"{FERRY}\n\nÀ bientôt")
        message.add_alternative(f"<p>{FERRY}</p>", subtype="html")
    message.add_attachment(b"PNG", maintype="image", subtype="png", filename="plan.png")
    return bytes(message)


def texts() -> dict[str, bytes]:
    """Files of each kind that needs nothing but Python; each says `FERRY`."""
    made = {
        "a.txt": FERRY,
        "a.log": FERRY,
        "a.md": f"# Boats\n\n{FERRY}\n",
        "a.markdown": f"Boats\n=====\n\n{FERRY}\n",
        "a.mdx": f"# Boats\n\n{FERRY}\n",
        "a.rst": RST,
        "a.csv": f"id;text\n1;{FERRY}\n",
        "a.tsv": f"id\ttext\n2\t{FERRY}\n",
        "a.jsonl": json.dumps({"text": FERRY}),
        "a.json": json.dumps([{"text": FERRY}]),
        "a.ipynb": json.dumps(NOTEBOOK),
        "a.py": f'"""{FERRY}"""\n\n\ndef cross():\n    return 1\n',
        "a.ts": f"// {FERRY}\n",
        "a.yaml": f"ferry: {FERRY}\n",
    }
    return {name: text.encode() for name, text in made.items()} | {"a.eml": eml()}


def office() -> dict[str, bytes]:
    """Files of each kind that the extra `files` reads; each says `FERRY`."""
    html = HTML.encode()
    office = {"a.docx": docx(), "a.pptx": pptx(), "a.xlsx": xlsx(), "a.epub": epub()}
    return {"a.html": html, "a.htm": html, "a.xhtml": html, **office}


def broken() -> dict[str, bytes]:
    """Files that cannot be read, or not all of them; each must be told."""
    unpacks_to_much = archive({"word/document.xml": bytes(1000)})
    size = unpacks_to_much.index(b"PK\x01\x02") + 24
    unpacks_to_much = (
        unpacks_to_much[:size] + (600 * 1024**2).to_bytes(4, "little") + unpacks_to_much[size + 4 :]
    )
    return {
        "broken.docx": b"PK\x03\x04 and then nothing",
        "locked.docx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "other.xlsx": archive({"a.txt": "no workbook"}),
        "bomb.docx": unpacks_to_much,
        "empty.pptx": b"",
        "broken.epub": archive({"mimetype": "application/epub+zip"}),
        "broken.ipynb": b"{}}",
        "broken.json": b"[1, 2",
        "broken.eml": b"\x00\x01 no mail",
        "binary.txt": bytes(range(256)) * 8,
        "binary.py": bytes(4000),
        "columns.csv": b"name,city\nAnn,Delft\n",
        "short.csv": b"id,text\n3,good\n4\n",
        "bad.jsonl": b'{"text": "good"}\n{\n',
        "empty.pdf": b"",
        "locked.pdf": pdfs.pdf("", locked=True),
        "scan.pdf": pdfs.pdf(pdfs.DRAWING),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
