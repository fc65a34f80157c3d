"""An image or a page, by what people have of it or what an index has stored of it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from late_interaction.images.loading import (
    IMAGE_SUFFIXES,
    NOT_A_PATH,
    Fit,
    ImageSource,
    LazyImage,
    LoadedImage,
    path_from,
    read_image,
)
from late_interaction.images.pages import ImagePage
from late_interaction.images.pdf import PdfPage

if TYPE_CHECKING:
    from PIL import Image

_PAGE = re.compile(r"(?P<path>.+)#page=(?P<page>[1-9]\d{0,8})", re.DOTALL)


def load_image(source: ImageSource, *, allow_urls: bool = False) -> Image.Image:
    """Load an image, upright (by its EXIF orientation) and in RGB, transparent parts on white.

    Args:
        source: an image of Pillow, a path, the bytes of a file, base64 with or without `data:image/…;base64,` in
            front, or a URL. AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF and WebP are read; of an animation the first
            picture (`image_pages` has all). A path may name a page, from 1, of a PDF or of an image of several, as
            an index stores it: "report.pdf#page=2".
        allow_urls: fetch http and https URLs. They are fetched from public addresses only, within 20 seconds, up to
            32 MB, over at most 3 redirects.

    Raises:
        ValueError: it is not an image that can be read, or too large (Pillow's `Image.MAX_IMAGE_PIXELS` pixels,
            64 MB).
        TypeError: it is none of the above.
        MissingExtraError: Pillow is not installed, pillow-heif for HEIC, or pypdfium2 for a page of a PDF.

    Example:
        >>> from PIL import Image
        >>> load_image(Image.new("L", (640, 480))).mode
        'RGB'
        >>> load_image("data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=").size
        (1, 1)
    """
    return open_image(source, allow_urls=allow_urls).image


def open_image(
    source: ImageSource,
    *,
    allow_urls: bool = False,
    fit: Fit | None = None,
    root: str | os.PathLike[str] | None = None,
) -> LoadedImage:
    """Load an image as `load_image` does, with the file that it was in.

    Args:
        source: as for `load_image`.
        allow_urls: as for `load_image`.
        fit: shrink an image that is far larger than the model looks at while it is decoded, so that it takes less
            memory. At least twice the model's width and height are left for the model's own scaling.
        root: where relative paths begin; None is the working directory.
    """
    page = _page(source, root)
    return read_image(source if page is None else page, allow_urls, fit, root)


def _page(source: object, root: str | os.PathLike[str] | None) -> LazyImage | None:
    """Return the page of a file that a path such as "report.pdf#page=2" names; None for any other source."""
    if not isinstance(source, str | os.PathLike):
        return None
    reference = os.fspath(source)
    named = _PAGE.fullmatch(reference)
    if named is None or NOT_A_PATH.match(reference) or os.path.lexists(path_from(reference, root)):
        return None
    path = path_from(named["path"], root)
    return (ImagePage if path.suffix.lower() in IMAGE_SUFFIXES else PdfPage)(str(path), int(named["page"]))
