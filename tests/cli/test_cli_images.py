"""PDF files and images on the command line, with a visual model and with one of text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import pdfs
from tests.support.commands import run

Image = pytest.importorskip("PIL.Image", reason="the colpali extra is not installed")
pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report of two pages, a locked one, a note, and two photos, one of them broken; in the folder we are in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    (folder / "photos").mkdir(parents=True)
    (folder / "report.pdf").write_bytes(pdfs.pdf(pdfs.text("The flow over a wing"), pdfs.DRAWING))
    (folder / "locked.pdf").write_bytes(pdfs.pdf("", locked=True))
    (folder / "note.txt").write_text("The cat and the dog.\n")
    Image.new("RGB", (40, 60), "blue").save(folder / "photos" / "sky.jpg")
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.mark.slow
def test_a_visual_model_indexes_pages_photos_and_texts(
    docs: Path, visual_model: Path, tmp_path: Path
) -> None:
    db = ("--db", tmp_path / "db", "--model", visual_model)
    result = run("index", docs, *db, "--json")
    assert result.exit_code == 1  # for what could not be read
    told = json.loads(result.stdout)
    assert (len(told["new"]), told["documents"]) == (4, 4)
    assert [problem["reason"] for problem in told["problems"]] == ["it is protected by a password."]
    assert ["broken.png" in failure["doc_id"] for failure in told["failures"]] == [True]
    found = json.loads(run("search", "a drawing", *db, "-k", 9, "--json").stdout)["results"]
    assert sorted(result["content_type"] for result in found) == ["image", "image", "image", "text"]
    page = next(result for result in found if result["metadata"].get("page") == 2)
    assert page["content"] == "report.pdf, page 2 of 2"
    assert page["metadata"] == {"image": "report.pdf#page=2", "source": "report.pdf", "page": 2, "pages": 2}
    shown = run("search", "a drawing", *db, "-k", 9).stdout
    for place in ("report.pdf, page 1", "report.pdf, page 2", "photos/sky.jpg", "note.txt:1"):
        assert place in shown
    assert "matching words" not in shown


@pytest.mark.slow
def test_pages_that_are_gone_are_deleted(docs: Path, visual_model: Path, tmp_path: Path) -> None:
    report = docs / "report.pdf"
    db = ("--db", tmp_path / "db", "--model", visual_model, "--json")
    assert json.loads(run("index", report, *db).stdout)["documents"] == 2
    report.write_bytes(pdfs.pdf(pdfs.DRAWING))
    assert json.loads(run("index", report, *db).stdout)["documents"] == 1


@pytest.mark.slow
def test_rows_of_json_may_have_an_image_beside_their_file(
    docs: Path, visual_model: Path, text_model: Path, tmp_path: Path
) -> None:
    rows = docs / "rows.jsonl"
    records = [{"id": "sky", "image": "photos/sky.jpg"}, {"id": "hello", "text": "hello", "image": "x.png"}]
    rows.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    result = run("index", rows, "--db", tmp_path / "visual", "--model", visual_model, "--json")
    told = json.loads(result.stdout)
    assert (told["new"], [failure["doc_id"] for failure in told["failures"]]) == (["sky"], ["hello"])
    blank = docs / "blank.csv"
    blank.write_text("id,text,image\na,one cat,\nb,one dog,photos/sky.jpg\n")
    for kind, model in (("visual", visual_model), ("text", text_model)):
        told = run("index", blank, "--db", tmp_path / f"{kind} of blank", "--model", model, "--json")
        assert len(json.loads(told.stdout)["new"]) == 2
    # For a model of text the name of an image is metadata like any other.
    db = ("--db", tmp_path / "text", "--model", text_model, "--json")
    told = json.loads(run("index", rows, *db).stdout)
    assert (told["new"], len(told["problems"])) == (["hello"], 1)
    [found] = json.loads(run("search", "hello", *db).stdout)["results"]
    assert (found["doc_id"], found["metadata"]["image"]) == ("hello", "x.png")


def test_a_text_model_reads_the_text_of_a_pdf(docs: Path, text_model: Path, tmp_path: Path) -> None:
    db = ("--db", tmp_path / "db", "--model", text_model)
    result = run("index", docs, *db)
    assert result.exit_code == 1
    assert "locked.pdf: it is protected by a password" in result.stderr
    assert "report.pdf: 1 of 2 pages show something, but have no text (page 2)" in result.stderr
    assert "2 left out (.jpg 1, .png 1), which need a visual model" in result.stderr
    assert "2 new, 0 changed, 0 unchanged, 0 removed, 2 left out (.jpg 1, .png 1), 2 failed." in result.stdout
    assert "5 files: 1 indexed, 2 left out, 2 failed." in result.stdout
    shown = run("search", "the wing", *db).stdout
    assert "report.pdf, page 1" in shown


def test_a_text_model_says_what_an_image_needs(docs: Path, text_model: Path, tmp_path: Path) -> None:
    result = run("index", docs / "photos" / "sky.jpg", "--db", tmp_path / "db", "--model", text_model)
    assert result.exit_code == 1
    assert "sky.jpg: an image, which needs a visual model such as ColQwen2" in result.stderr


def test_the_prefix_of_an_index_is_used_again(docs: Path, visual_model: Path, tmp_path: Path) -> None:
    from late_interaction import ColPaliModel, SyncPipeline

    model = ColPaliModel(visual_model, device="cpu", query_prefix="Find: ")
    with SyncPipeline(tmp_path / "db", model) as pipeline:
        pipeline.index_document({"content": "a cat"})
    result = run("search", "cat", "--db", tmp_path / "db", "--model", visual_model)
    assert result.exit_code == 0, result.stderr


def test_a_password_is_for_the_files_that_want_one(docs: Path, text_model: Path, tmp_path: Path) -> None:
    (docs / "locked.pdf").write_bytes(pdfs.pdf(pdfs.text("A secret"), password="dijk"))
    db = ("--db", tmp_path / "db", "--model", text_model)
    result = run("index", docs / "locked.pdf", docs / "note.txt", *db, "--password", "dijk", "--json")
    assert (result.exit_code, json.loads(result.stdout)["documents"]) == (0, 2)


def test_ocr_needs_its_program(
    docs: Path, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("index", docs, "--db", tmp_path / "db", "--model", text_model, "--ocr")
    assert result.exit_code == 1
    assert "OCR needs ocrmypdf, which is not installed" in result.stderr
