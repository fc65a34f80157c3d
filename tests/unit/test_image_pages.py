"""Images of several pages, and those of phones: TIFF, animations, HEIC and AVIF."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import MissingExtraError, image_pages, load_image
from late_interaction.reading.files import ReadProblem, read_rows

Image = pytest.importorskip("PIL.Image", reason="the colpali extra is not installed")
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def read(file: Path) -> tuple[list[Any], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, images=True)), problems


def pages(file: Path, **options: Any) -> Path:
    first, *others = [Image.new("RGB", (40, 30), colour) for colour in COLOURS]
    first.save(file, save_all=True, append_images=others, **options)
    return file


@pytest.mark.parametrize("name", ["fax.tif", "fax.tiff", "a.gif", "a.webp", "a.png"])
def test_each_page_is_a_row(tmp_path: Path, name: str) -> None:
    file = pages(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    rows, problems = read(file)
    assert not problems
    assert [(row["doc_id"], row["page"], row["pages"]) for row in rows] == [
        (f"{file}#{n}", n, 3) for n in (1, 2, 3)
    ]
    assert rows[1]["content"] == f"{name}, page 2 of 3"
    assert rows[1]["image"].reference == f"{file}#page=2"
    for row, colour in zip(rows, COLOURS, strict=True):
        found = load_image(pickle.loads(pickle.dumps(row["image"])))
        assert np.array_equal(found, load_image(row["image"].reference))
        assert found.mode == "RGB"
        assert max(abs(a - b) for a, b in zip(found.getpixel((5, 5)), colour, strict=True)) < 8


def test_a_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = pages(tmp_path / "fax.tif")
    with pytest.raises(ValueError, match=r"fax.tif: there is no page 4.$"):
        load_image(f"{file}#page=4")


def test_a_file_of_that_very_name_is_loaded_itself(tmp_path: Path) -> None:
    pages(tmp_path / "fax.tif")
    Image.new("RGB", (4, 3)).save(tmp_path / "fax.tif#page=2", "PNG")
    assert load_image(tmp_path / "fax.tif#page=2").size == (4, 3)


def test_a_page_of_fax_is_black_on_white(tmp_path: Path) -> None:
    file = tmp_path / "fax.tif"
    Image.new("1", (40, 30), 1).save(file, save_all=True, append_images=[Image.new("1", (20, 10), 0)])
    first, second = (load_image(row["image"]) for row in read(file)[0])
    assert (first.getpixel((0, 0)), second.getpixel((0, 0)), second.size) == ((255,) * 3, (0,) * 3, (20, 10))


def test_a_page_is_upright(tmp_path: Path) -> None:
    file, exif = tmp_path / "fax.tif", Image.Exif()
    exif[0x0112] = 6
    page = Image.new("L", (40, 30))
    page.save(file, save_all=True, append_images=[page], exif=exif)
    assert load_image(read(file)[0][0]["image"]).size == (30, 40)


def test_an_image_of_one_page_has_no_page(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (4, 3)).save(file)
    assert list(image_pages(file)) == [{"image": str(file), "doc_id": str(file), "source": str(file)}]


def test_what_is_no_image_is_said_when_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"II*\0 broken")
    [row] = image_pages(file)
    with pytest.raises(ValueError, match=r"is not a .*TIFF.* image, or is damaged"):
        load_image(row["image"])


def test_a_page_that_is_damaged_is_named(tmp_path: Path) -> None:
    file = pages(tmp_path / "fax.tif")
    rows = list(image_pages(file))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"fax\.tif, page 3 is damaged"):
        load_image(rows[2]["image"])


def test_a_page_of_a_file_that_is_gone(tmp_path: Path) -> None:
    file = pages(tmp_path / "fax.tif")
    [first, *_] = image_pages(file)
    file.unlink()
    with pytest.raises(ValueError, match=r"fax\.tif, page 1 cannot be read: No such file"):
        load_image(first["image"])


def test_a_file_of_pages_given_as_an_image_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 3 pages: image_pages\(path\) gives each as a row"):
        load_image(pages(tmp_path / "fax.tif"))


@pytest.mark.parametrize("name", ["photo.heic", "photo.HEIF", "photo.avif"])
def test_photos_of_phones_are_read(tmp_path: Path, name: str) -> None:
    if name != "photo.avif":
        pytest.importorskip("pillow_heif", reason="the files extra is not installed").register_heif_opener()
    file = tmp_path / name
    Image.new("RGB", (64, 48), COLOURS[0]).save(
        file, format="AVIF" if name == "photo.avif" else "HEIF", quality=95
    )
    [row], problems = read(file)
    assert not problems
    for source in (row["image"], file.read_bytes()):
        found = load_image(source)
        assert (found.mode, found.size) == ("RGB", (64, 48))
        assert abs(found.getpixel((5, 5))[0] - 200) < 12


def test_heic_without_its_reader_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "photo.heic"
    file.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    rows, [problem] = read(file)
    assert not rows
    assert problem.reason.endswith("pip install 'late-interaction[files]'")
    with pytest.raises(MissingExtraError):
        load_image(file)
