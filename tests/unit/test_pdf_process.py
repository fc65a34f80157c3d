"""PDF files that hang, crash or fill the memory: an error of their own, while the others are read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from late_interaction import load_image, pdf_pages
from late_interaction.images import pdf_process
from late_interaction.images.pdf import PdfPage, page_count, page_text
from tests.support import pdfs

pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")


def drawing_itself(times: int) -> bytes:
    """A page of a form that draws itself: once is noticed by PDFium, twice keeps it busy for ever."""
    drawn = "/F Do " * times
    page = pdfs.pdf("/F Do").decode("latin-1")
    resources = "/Resources << /XObject << /F 9 0 R >> >>"
    form = f"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] {resources} /Length {len(drawn)} >>"
    page = page.replace("/Font << /F1 3 0 R >>", "/XObject << /F 9 0 R >>")
    return page.replace("xref\n", f"9 0 obj\n{form}\nstream\n{drawn}\nendstream\nendobj\nxref\n", 1).encode(
        "latin-1"
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.pdf"
    file.write_bytes(pdfs.pdf(pdfs.text("The wing"), pdfs.DRAWING))
    return file


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    file = tmp_path / "endless.pdf"
    file.write_bytes(drawing_itself(2))
    return file


@pytest.fixture(autouse=True)
def _own_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pool = pdf_process.Pool()
    monkeypatch.setattr(pdf_process, "_pool", pool)
    yield
    pool.close()


def workers() -> set[int]:
    pool = pdf_process._pool
    return {worker._process.pid for worker in (*pool._idle, *pool._busy)}


def test_a_form_that_draws_itself_once_is_read(tmp_path: Path) -> None:
    file = tmp_path / "once.pdf"
    file.write_bytes(drawing_itself(1))
    assert page_text(file, 1).unread
    assert load_image(next(pdf_pages(file))["image"]).width == 1240


@pytest.mark.slow
@pytest.mark.parametrize(
    "read",
    [
        lambda file: page_text(file, 1, pdf_timeout_s=2),
        lambda file: PdfPage(str(file), 1, pdf_timeout_s=2).render(),
    ],
)
def test_a_page_that_never_ends_is_an_error_within_its_time(endless: Path, good: Path, read: object) -> None:
    page_text(good, 1)
    before = workers()
    start = time.monotonic()
    with pytest.raises(
        ValueError, match=r"endless.pdf: (takes longer than 2 seconds|crashes the PDF reader)"
    ):
        read(endless)  # type: ignore[operator]
    assert time.monotonic() - start < 15
    assert page_text(good, 1).text == "The wing"
    assert workers() - before


@pytest.mark.slow
def test_the_time_is_named(good: Path) -> None:
    page_text(good, 1)
    [worker] = pdf_process._pool._idle
    os.kill(worker._process.pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match=r"takes longer than 0.5 seconds \(pdf_timeout_s\)"):
        page_text(good, 1, pdf_timeout_s=0.5)
    assert page_text(good, 1).text == "The wing"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("timeout_s", [1e10, 1e300])
def test_more_time_than_a_system_can_wait_is_as_much_as_it_can(good: Path, timeout_s: float) -> None:
    assert page_text(good, 1, pdf_timeout_s=timeout_s).text == "The wing"
    assert page_text(good, 1, pdf_timeout_s=30).text == "The wing"


@pytest.mark.slow
def test_another_file_is_read_meanwhile(endless: Path, good: Path) -> None:
    failed: list[ValueError] = []

    def read_endless() -> None:
        try:
            page_text(endless, 1, pdf_timeout_s=8)
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=read_endless)
    thread.start()
    while not pdf_process._pool._busy:
        time.sleep(0.01)
    assert page_text(good, 1).text == "The wing"
    assert not failed
    thread.join()
    assert len(failed) == 1


def test_a_worker_that_was_killed_is_replaced(good: Path) -> None:
    assert page_count(good) == 2
    [before] = workers()
    os.kill(before, signal.SIGKILL)
    assert page_count(good) == 2
    assert before not in workers()


def test_a_worker_is_used_again_and_sees_a_file_that_changed(good: Path) -> None:
    assert page_text(good, 1).text == "The wing"
    before = workers()
    good.write_bytes(pdfs.pdf(pdfs.text("Another text of another length")))
    assert page_text(good, 1).text == "Another text of another length"
    assert workers() == before


def test_no_more_workers_than_allowed(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_process, "MOST_WORKERS", 2)
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(page_text(good, 1).text)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["The wing"] * 12
    assert len(workers()) <= 2


def test_a_worker_takes_no_more_memory_than_it_may(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("there is no such limit")
    page_text(good, 1)
    monkeypatch.setattr(pdf_process, "MEMORY", 32 * 2**20)  # less than it has already
    with pytest.raises(ValueError, match="MB of memory"):
        PdfPage(str(good), 1, dpi=400).render()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own(good: Path) -> None:
    page_text(good, 1)
    before = workers()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(page_text, (good, 1)).text == "The wing"
    assert page_text(good, 1).text == "The wing"
    assert workers() == before


def test_a_spawned_process_reads_too(good: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(page_text, (good, 1)).text == "The wing"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="/proc is asked")
@pytest.mark.parametrize("end", ["pass", "import os; os.kill(os.getpid(), 9)"])
def test_the_workers_end_with_the_process(good: Path, end: str) -> None:
    code = (
        "import sys; from late_interaction.images import pdf, pdf_process; pdf.page_text(sys.argv[1], 1); "
        f"print(pdf_process._pool._idle[0]._process.pid, flush=True); {end}"
    )
    done = subprocess.run([sys.executable, "-c", code, good], stdout=subprocess.PIPE, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_a_worker_imports_nothing_heavy(good: Path) -> None:
    page_text(good, 1)
    [worker] = pdf_process._pool._idle
    maps = Path(f"/proc/{worker._process.pid}/maps")
    if not maps.exists():
        pytest.skip("there is no /proc")
    loaded = maps.read_text()
    assert "pdfium" in loaded
    assert not [name for name in ("torch", "numpy", "PIL") if f"/{name}/" in loaded]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pdf"))
    file.write_bytes(pdfs.pdf(pdfs.text("The wing")))
    assert page_text(file, 1).text == "The wing"
