"""What a worker that reads PDF files answers, asked in this process: files, pages, and what cannot be read."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from late_interaction.images import pdf_worker
from late_interaction.images.pdf_worker import serve
from tests.support import pdfs

pdfium = pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")

Answers = list[tuple[dict[str, Any], bytes]]
ABOUT: dict[str, Any] = {"title": "", "author": "", "labels": []}


@pytest.fixture(autouse=True)
def _limits_of_this_process() -> Iterator[None]:
    """Put back what the worker limits: here that is the process of the tests."""
    resource = pytest.importorskip("resource", reason="there are no limits here")
    before = {number: resource.getrlimit(number) for number in (resource.RLIMIT_AS, resource.RLIMIT_CPU)}
    yield
    for number, limits in before.items():
        resource.setrlimit(number, limits)


def request(what: str, path: Path, page: int = 1, **details: Any) -> bytes:
    limits = {"memory": -1, "processor_s": 10_000}
    return json.dumps({"what": what, "path": str(path), "page": page, **limits, **details}).encode() + b"\n"


def read(out: bytes) -> Answers:
    answers, stream = [], io.BytesIO(out)
    assert stream.readline() == b"ready\n"
    while line := stream.readline():
        values = json.loads(line)
        length = values.pop("length")
        data = stream.read(length)
        assert len(data) == length
        answers.append((values, data))
    return answers


def ask(*requests: bytes, pdfium: Any = pdfium) -> Answers:
    out = io.BytesIO()
    serve(pdfium, requests, out)
    return read(out.getvalue())


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "report.pdf"
    file.write_bytes(pdfs.pdf(pdfs.text("The wing"), pdfs.DRAWING, ""))
    return file


def test_each_request_has_its_answer(report: Path) -> None:
    asked = ask(request("about", report), *(request("text", report, page) for page in (1, 2, 3)))
    nothing: dict[str, Any] = {"text": "", "notes": [], "unmapped": 0, "objects": 0, "shows": False}
    assert [values for values, _ in asked] == [
        ABOUT | {"pages": 3},
        nothing | {"text": "The wing", "objects": 1, "shows": True},
        nothing | {"shows": True},
        nothing,
    ]


def test_a_page_comes_as_its_pixels(report: Path) -> None:
    [(values, data)] = ask(request("render", report, 2, dpi=72, max_pixels=10**7))
    assert (values["width"], values["height"]) == (595, 842)
    assert len(data) == values["stride"] * values["height"]
    at = 600 * values["stride"] + 250 * values["channels"]
    assert tuple(data[:3]) == (255, 255, 255)
    assert tuple(data[at : at + 3]) == (51, 102, 230)


@pytest.mark.parametrize(
    ("size", "dpi", "expected"),
    [
        ((72, 144), 150, 150 / 72),
        ((1000, 1000), 720, 1),  # a million pixels at most
        ((200_000, 1), 7200, 0.1),  # 20,000 on an edge at most
    ],
)
def test_the_scale_of_a_page(size: tuple[float, float], dpi: float, expected: float) -> None:
    assert pdf_worker._scale(size, dpi, 1_000_000) == pytest.approx(expected)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (math.nan, 5), (5, math.inf)])
def test_a_page_of_no_size_is_damaged(size: tuple[float, float]) -> None:
    with pytest.raises(pdf_worker._Refused, match="damaged"):
        pdf_worker._scale(size, 150, 1_000_000)


@pytest.mark.parametrize(
    ("said", "missing", "believed"),
    [
        (3, range(1, 4), 3),  # each of a few pages is an error of its own
        (4000, range(4000, 4001), 4000),
        (4000, range(2001, 4001), 4000),
        (4000, range(1, 4001), 1000),
        (1_000_000, range(101, 1_000_001), 976),
        (1_000_000, [], 1_000_000),
    ],
)
def test_a_number_of_pages_that_are_not_there_is_not_believed(
    said: int, missing: Container[int], believed: int
) -> None:
    class Claims(Opened):
        def __len__(self) -> int:
            return said

        def get_page_size(self, index: int) -> tuple[float, float]:
            if index + 1 in missing:
                raise pdfium.PdfiumError("Failed to get page size by index.")
            return 9, 9

    assert pdf_worker._page_count(Claims()) == believed


def test_a_small_file_that_says_it_has_a_million_pages(tmp_path: Path) -> None:
    file = tmp_path / "tree.pdf"
    data = pdfs.pdf("").replace(b"/Kids [4 0 R] /Count 1 >>", b"/Kids [2 0 R] /Count 1000000 >>")
    file.write_bytes(data)
    [(values, _)] = ask(request("about", file))
    assert values["pages"] <= 1000


def test_a_page_that_is_not_there_is_absent_and_the_last_one_is_named(report: Path) -> None:
    [(about, _), (values, data)] = ask(request("about", report), request("text", report, 9))
    assert (values["refused"], values["detail"]) == ("absent", str(about["pages"]))
    assert data == b""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (pdfs.pdf("", locked=True), "locked"),
        (b"no PDF at all", "unreadable"),
        (None, "missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_so_and_the_next_is_read(
    tmp_path: Path, report: Path, content: bytes | None, kind: str
) -> None:
    file = tmp_path / "other.pdf"
    if content is not None:
        file.write_bytes(content)
    first, (refused, _), last = ask(
        request("about", report), request("about", file), request("about", report)
    )
    assert first == last == (ABOUT | {"pages": 3}, b"")
    assert refused["refused"] == kind
    assert refused["detail"]


def test_a_folder_is_no_pdf(tmp_path: Path) -> None:
    [(values, _)] = ask(request("about", tmp_path))
    assert values["refused"] in {"missing", "unreadable"}


def test_a_name_that_is_not_utf8_is_opened(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pdf"))
    file.write_bytes(pdfs.pdf(pdfs.text("The wing")))
    assert ask(request("about", file)) == [(ABOUT | {"pages": 1}, b"")]


class Opened:
    """A document that only knows that it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def __len__(self) -> int:
        return 1

    def init_forms(self) -> None:
        """Take any form."""

    def close(self) -> None:
        self.is_closed = True


class Greedy(Opened):
    """A document that takes more memory than there is."""

    def __getitem__(self, number: int) -> None:
        raise MemoryError


def opens(open_document: Callable[[str, str | None], Any]) -> SimpleNamespace:
    return SimpleNamespace(PdfDocument=open_document, PdfiumError=pdfium.PdfiumError, raw=pdfium.raw)


def test_a_file_stays_open_until_it_changes_or_enough_pages_were_read(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_worker, "_PAGES_KEPT_OPEN", 3)
    opened: list[Opened] = []

    def open_document(path: str, password: str | None) -> Opened:
        opened.append(Opened())
        return opened[-1]

    files = pdf_worker._Files(opens(open_document))
    assert [files.open(str(report), None) for _ in range(7)] == [opened[0]] * 3 + [opened[1]] * 3 + [
        opened[2]
    ]
    os.utime(report, ns=(1, 1))
    assert files.open(str(report), None) is opened[3]
    assert [document.is_closed for document in opened] == [True, True, True, False]


def test_too_much_memory_is_said_so_and_the_file_is_let_go(report: Path) -> None:
    greedy = Greedy()
    asked = ask(request("text", report), pdfium=opens(lambda path, password: greedy))
    assert asked == [({"refused": "memory", "detail": ""}, b"")]
    assert greedy.is_closed


def test_a_file_that_the_system_does_not_let_us_read_is_missing(report: Path) -> None:
    def refuse(path: str, password: str | None) -> None:
        raise PermissionError(13, "Permission denied")

    assert ask(request("about", report), pdfium=opens(refuse)) == [
        ({"refused": "missing", "detail": "Permission denied"}, b"")
    ]


def test_each_request_brings_its_limits(report: Path) -> None:
    import resource

    ask(request("about", report, processor_s=50_000))
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    assert 50_000 <= soft < 50_000 + sum(os.times()[:2]) + 2


def test_a_limit_above_what_the_process_may_have_is_that(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limited: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda number: (5, 10))
    monkeypatch.setattr(resource, "setrlimit", lambda number, limits: limited.append(limits))
    for value in (7, 70):
        pdf_worker._limit("RLIMIT_CPU", value)
    assert limited == [(7, 10), (10, 10)]


def test_it_goes_without_limits_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_CPU)
    monkeypatch.setitem(sys.modules, "resource", None)
    pdf_worker._limit("RLIMIT_CPU", 1)
    assert resource.getrlimit(resource.RLIMIT_CPU) == before


def test_the_script_answers_on_what_was_its_output_and_nothing_else_gets_there(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["pdf_worker.py", str(tmp_path)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(request("about", report))))
    interrupt, output = signal.getsignal(signal.SIGINT), os.dup(1)
    answers = tmp_path / "answers"
    try:
        with answers.open("wb") as file:
            os.dup2(file.fileno(), 1)
        with warnings.catch_warnings():
            pdf_worker.main()
        os.write(1, b"printed by a library")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        os.dup2(output, 1)
        os.close(output)
        signal.signal(signal.SIGINT, interrupt)
    assert sys.path[0] == str(tmp_path)
    assert read(answers.read_bytes()) == [(ABOUT | {"pages": 3}, b"")]
