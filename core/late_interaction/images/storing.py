"""What is stored of an image beside its vectors: its path or URL, a thumbnail, or the whole file."""

from __future__ import annotations

import base64
import io
import os
from typing import TYPE_CHECKING, Any, Literal, get_args

from late_interaction.images.loading import Fit, ImageSource, LazyImage, LoadedImage, NamedImage, encoded_part
from late_interaction.images.scaling import Size
from late_interaction.validation import check_one_of

if TYPE_CHECKING:
    from PIL import Image

StoreImages = Literal["reference", "thumbnail", "full"]

IMAGE_KEY = "image"
"""Metadata key of a stored image: its path or URL, or with `store_images="full"` the image as a data URI."""
THUMBNAIL_KEY = "thumbnail"
"""Metadata key of a stored thumbnail, a JPEG as a data URI."""

MAX_STORED = 6 * 1024 * 1024
"""Most characters of an image in a row: a database's row holds some 10 MB, the token vectors among them."""
THUMBNAIL_EDGE = 512
"""Longest edge of a thumbnail in pixels: a page's headings can be read, in 20 to 70 kB."""


def check_store_images(store: str) -> None:
    """Check the value of `store_images`.

    Raises:
        ValueError: it is not one of `StoreImages`.
    """
    check_one_of("store_images", store, get_args(StoreImages))


def image_reference(source: ImageSource) -> str | None:
    """Return the path or URL of an image, which can be stored in its place; None where it has none."""
    if isinstance(source, str):
        return None if encoded_part(source) is not None else source
    if isinstance(source, os.PathLike):
        return os.fspath(source)
    if isinstance(source, LazyImage | NamedImage):
        return source.reference
    return None


def describe_image(loaded: LoadedImage) -> str:
    """Return what stands for an image that has neither a caption nor a path."""
    return f"image of {loaded.size[0]}×{loaded.size[1]} pixels"


def fit_for(store: StoreImages, scaled_size: Fit) -> Fit | None:
    """Return how far an image may be shrunk while it is loaded: for the model, and for what is stored of it.

    Args:
        store: what is stored.
        scaled_size: of the model that encodes the image.
    """
    if store == "full":
        return None
    if store == "reference":
        return scaled_size

    def at_least_a_thumbnail(size: Size) -> Size:
        width, height = scaled_size(size)
        return max(width, THUMBNAIL_EDGE), max(height, THUMBNAIL_EDGE)

    return at_least_a_thumbnail


def stored_image(source: ImageSource, loaded: LoadedImage | None, store: StoreImages) -> dict[str, Any]:
    """Return what is stored of an image, as metadata.

    Args:
        source: where it came from.
        loaded: the image; needed for all but a reference.
        store: what to store.

    Raises:
        ValueError: the whole image would be too large to store.
    """
    reference = image_reference(source)
    kept = {} if reference is None else {IMAGE_KEY: reference}
    if loaded is None or store == "reference":
        return kept
    if store == "thumbnail":
        return kept | {THUMBNAIL_KEY: _thumbnail(loaded.image)}
    uri = _data_uri(*(_png(loaded.image) if loaded.data is None else (loaded.data, loaded.media_type)))
    if len(uri) > MAX_STORED:
        raise ValueError(
            f"the whole image takes {len(uri):,} bytes in the row, and {MAX_STORED:,} is the most: store a "
            "reference or a thumbnail (store_images=)."
        )
    return {IMAGE_KEY: uri}


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return _data_uri(file.getvalue(), "image/jpeg")


def _png(image: Image.Image) -> tuple[bytes, str]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), "image/png"


def _data_uri(data: bytes, media_type: str | None) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
