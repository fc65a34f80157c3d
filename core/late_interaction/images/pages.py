"""Images of several pages: TIFF of scanners and faxes, and animations, a row for each page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from late_interaction.images.loading import LazyImage, NamedImage, load_page, page_count

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class ImagePage:
    """A page of an image file, which is decoded when it is needed.

    Attributes:
        path: the file.
        page: the page's number, from 1.
        name: what the file is called in what is stored; None for its path.
    """

    path: str
    page: int
    name: str | None = None

    @property
    def reference(self) -> str:
        """The file and the page."""
        return f"{self.name or self.path}#page={self.page}"

    def render(self) -> Image.Image:
        """Decode the page, upright and in RGB.

        Raises:
            ValueError: it is damaged or too large.
        """
        return load_page(self.path, self.page)


def image_pages(path: str | os.PathLike[str], *, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row for each page of an image file; one without page numbers, if it has only one.

    Rows have `image`, `doc_id` and the metadata `source`; and `content` ("fax.tif, page 2 of 3"), `page` and `pages`
    where there are several.

    Args:
        path: the file, of any kind that `load_image` reads.
        name: what to call it in `doc_id`, in `source` and in what is stored of the image; None for its path.

    Raises:
        ValueError: it is not an image, or damaged.
        MissingExtraError: Pillow is not installed, or pillow-heif for HEIC.

    Example:
        >>> from PIL import Image
        >>> from late_interaction import image_pages
        >>> page = Image.new("L", (40, 30))
        >>> page.save("fax.tif", save_all=True, append_images=[page])
        >>> [row["content"] for row in image_pages("fax.tif")]
        ['fax.tif, page 1 of 2', 'fax.tif, page 2 of 2']
    """
    source = os.fspath(path)
    pages = page_count(source)
    if pages == 1:
        known = source if name is None else name
        yield {
            "image": source if name is None else NamedImage(source, name),
            "doc_id": known,
            "source": known,
        }
        return
    for page in range(1, pages + 1):
        yield page_row(ImagePage(source, page, name), {"page": page, "pages": pages})


class _Page(LazyImage, Protocol):
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str | None: ...


def page_row(page: _Page, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a page; `about` is its metadata, `page` and `pages` among them."""
    name = page.path if page.name is None else page.name
    return {
        "image": page,
        "content": f"{Path(page.path).name}, page {about['page']} of {about['pages']}",
        "doc_id": f"{name}#{about['page']}",
        "source": name,
        **about,
    }
