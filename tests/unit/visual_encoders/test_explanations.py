"""Pages explained: contributions by patch, heat maps by word, in every family; and what no heat map is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import late_interaction
from late_interaction import ColPaliModel, LateInteractionModel, ModelError
from late_interaction.explain import Explanation, image_heat_maps, matched_parts
from tests.support import pdfs

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from PIL import Image

from tests.unit.visual_encoders.models import IMAGES, NAMES, TEXTS, noise

pytestmark = pytest.mark.slow
EXACT: Any = {"doc_pool_factor": 1, "query_pool_distance": 0, "packing": "float32"}


def saved(folder: Path) -> list[Path]:
    files = [folder / f"{i}.png" for i in range(len(IMAGES))]
    for file, image in zip(files, IMAGES, strict=True):
        image.save(file)
    return files


def check_sums(explanation: Explanation, score: float) -> None:
    assert explanation.score == pytest.approx(score, abs=1e-4)
    for part in (explanation.pairs, explanation.document_tokens, explanation.query_words):
        assert sum(one.contribution for one in part) == pytest.approx(score, abs=1e-4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_explained_by_its_patches(
    name: str, models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    model = models(name)
    with late_interaction.open(tmp_path / "index", model) as index:
        index.add([{"doc_id": file.name, "image": file} for file in saved(tmp_path)] + [TEXTS[1]])
        for query in (TEXTS[0], IMAGES[1]):
            for result in index.search(query):
                explanation = result.explain()
                check_sums(explanation, result.score)
                assert not any("does not give" in note for note in explanation.notes)
                if result.content_type == "text":
                    assert explanation.patches is None
                    assert any(token.text in result.content for token in explanation.document_tokens)
                    continue
                grid = explanation.heat_map()
                assert grid.shape == model.encode_patches(Image.open(tmp_path / result.doc_id)).shape[:2]
                assert np.isfinite(grid).all()
                boxes = [token.box for token in explanation.document_tokens if token.box]
                assert all(0 <= a < c <= 1 and 0 <= b < d <= 1 for a, b, c, d in boxes)
                words = range(len(explanation.query_words))
                by_word = np.sum([explanation.heat_map(word) for word in words], axis=0)
                assert np.allclose(by_word, grid, atol=1e-4)
                parts = matched_parts(explanation)
                assert [part["box"] for part in parts] == [list(box) for box in boxes]
                assert [sum(part["answers"].values()) for part in parts] == pytest.approx(
                    [token.contribution for token in explanation.document_tokens if token.box]
                )
                json.dumps(explanation.to_dict())
        if not name.startswith("colgemma"):
            assert "cat" in {word.text for word in index.explain("the cat", "0.png").query_words}


@pytest.mark.parametrize("name", ["colpali", "colqwen2", "colidefics3"])
def test_without_pooling_the_heat_map_is_that_of_the_image(
    name: str, models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    model = models(name)
    with late_interaction.open(tmp_path / "index", model, **EXACT) as index:
        index.add([{"doc_id": "page", "image": saved(tmp_path)[0]}])
        explanation = index.explain("the cat", "page")
    maps = image_heat_maps(model, "the cat", IMAGES[0])
    assert np.allclose(explanation.heat_map(), maps.sum(axis=0), atol=1e-4)
    cat = next(n for n, word in enumerate(explanation.query_words) if word.text == "cat")
    tokens = [
        n for n, token in enumerate(explanation.query_tokens) if token.text.strip() in {"c", "a", "t", "cat"}
    ]
    inside = [n for n in tokens if explanation.query_tokens[n].start >= 4]
    assert np.allclose(explanation.heat_map(cat), maps[inside].sum(axis=0), atol=1e-4)
    for token in explanation.document_tokens:
        if token.box is not None:
            rows, columns = maps.shape[1:]
            row, column = round(token.box[1] * rows), round(token.box[0] * columns)
            pairs = [p for p in explanation.pairs if explanation.document_tokens[p.document_token] == token]
            for pair in pairs:
                assert maps[pair.query_token, row, column] == pytest.approx(pair.contribution, abs=1e-4)
    with pytest.raises(IndexError):
        explanation.heat_map(99)


def test_html_of_a_page(models: Callable[[str], ColPaliModel], tmp_path: Path) -> None:
    with late_interaction.open(tmp_path / "index", models("colpali")) as index:
        index.add([{"doc_id": "<b>", "image": file} for file in saved(tmp_path)[:1]])
        results = index.search("the <i> cat")
        explanation, table = results[0].explain(), results._repr_html_()
    page = explanation.to_html()
    n_words = len(explanation.query_words)
    assert page.count('<input type="radio"') == page.count('class="li-heat"') == n_words + 1
    assert page.count("data:image/png;base64,") == n_words + 1
    assert page.count("data:image/jpeg;base64,") == 1
    assert "<b>" not in page
    assert "<i>" not in page
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", page))
    assert len(re.findall(r'<label for="([^"]+)">', page)) == n_words + 1
    assert table is not None
    assert table.count("data:image/jpeg;base64,") == table.count("data:image/png;base64,") == 1
    assert explanation.draw().size == explanation.patches.image.size  # type: ignore[union-attr]


def test_a_page_of_a_pdf_is_rendered_again(models: Callable[[str], ColPaliModel], tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")
    (tmp_path / "report.pdf").write_bytes(pdfs.pdf(pdfs.text("The flow over a wing"), pdfs.DRAWING))
    with late_interaction.open(tmp_path / "index", models("colpali")) as index:
        index.index_documents(late_interaction.pdf_pages(tmp_path / "report.pdf"))
        for result in index.search("the wing"):
            explanation = result.explain()
            check_sums(explanation, result.score)
            assert explanation.heat_map().size > 1


def test_pictures_of_a_folder_are_read_again_from_where_it_is_now(
    models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    first, second = (image.copy() for image in IMAGES[:2])  # a save leaves its options in an image
    first.copy().save(folder / "photo.png")
    first.save(folder / "fax.tif", save_all=True, append_images=[second])
    with late_interaction.open(tmp_path / "index", models("colpali")) as index:
        index.sync(folder)
    folder.rename(tmp_path / "moved")
    with late_interaction.open(tmp_path / "index", models("colpali"), image_root=tmp_path / "moved") as index:
        for result in index.search("the cat"):
            assert result.explain().heat_map().size > 1
    with late_interaction.open(tmp_path / "index", models("colpali")) as index:
        for name in ("photo.png", "fax.tif#page=1"):
            why = (
                rf"Its path, {name}, is from the folder that was indexed, which image_root= \(--root\) names"
            )
            with pytest.raises(ModelError, match=why):
                index.explain("cat", name.replace("page=", "")).heat_map()


def test_an_image_that_is_gone_or_another_has_no_heat_map(
    models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    file = saved(tmp_path)[0]
    with late_interaction.open(tmp_path / "index", models("colpali")) as index:
        index.add([{"doc_id": "page", "image": file}, {"doc_id": "bare", "image": noise(30, 30, 8)}])
        result = index.search("cat", ids=["page"])[0]
        noise(50, 40, 77).save(file)
        for doc_id, why in (("page", "does not give its stored vectors"), ("bare", "cannot be read again")):
            explanation = index.explain("cat", doc_id)
            with pytest.raises(ModelError, match=why):
                explanation.heat_map()
            assert all(token.box is None for token in explanation.document_tokens)
        file.unlink()
        explanation = result.explain()
        check_sums(explanation, result.score)
        with pytest.raises(ModelError, match=r"cannot be read again: .*0\.png"):
            explanation.draw()


class PagesWithoutPlaces(LateInteractionModel):
    """A model of images that does not say where its vectors lie."""

    dim, model_name, supports_images = 8, "placeless", True
    fingerprint: Mapping[str, Any] = {"family": "placeless"}  # type: ignore[assignment]

    def encode_queries(self, queries: Sequence[Any]) -> list[np.ndarray]:
        return [np.eye(8, dtype=np.float32)[:2] for _ in queries]

    encode_documents = encode_queries


def test_a_family_whose_grid_is_unknown_has_no_heat_map(tmp_path: Path) -> None:
    with late_interaction.open(tmp_path / "index", PagesWithoutPlaces()) as index:
        index.add([{"doc_id": "page", "image": saved(tmp_path)[0]}])
        result = index.search("cat")[0]
        explanation = result.explain()
        check_sums(explanation, result.score)
        with pytest.raises(ModelError, match="placeless does not tell which part of an image"):
            explanation.heat_map()
        assert "data:image" not in explanation.to_html()


def test_patches_that_are_no_square_are_refused(
    models: Callable[[str], ColPaliModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models("colpali")
    processor: Any = model._processor
    inputs = dict(processor.process_images([IMAGES[0]]))
    patches = (inputs["input_ids"][0] == model._model.config.image_token_id).nonzero()
    inputs["input_ids"] = inputs["input_ids"].clone()
    inputs["input_ids"][0, int(patches[0])] = 0
    monkeypatch.setattr(processor, "process_images", lambda images: inputs)
    monkeypatch.setattr(model, "_forward", lambda *_: [np.eye(64, model.dim, dtype=np.float32)])
    with pytest.raises(ModelError, match="15 parts of this image, which are no square"):
        model.encode_patches(IMAGES[0])
