"""Images as people have them: read, turned upright, and converted to RGB."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from late_interaction.errors import MissingExtraError
from late_interaction.images.fetching import fetch_image

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of a file that is opened as an image."""

# The formats that Pillow may open: some of its others run programs, or are seldom looked after.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_WEB_TYPES = {"GIF": "gif", "JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")
_SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF")


@runtime_checkable
class LazyImage(Protocol):
    """An image that is made when it is needed, such as a page of a PDF."""

    @property
    def reference(self) -> str:
        """What to store in its place."""

    def render(self) -> Image.Image:
        """Make the image; called on a thread of its own, once for each time it is needed."""


ImageSource: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | LazyImage"


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image and where it came from.

    Attributes:
        image: upright, RGB.
        data: the file as it was, where it is of a kind that a browser shows.
        media_type: of the file, such as "image/png".
    """

    image: Image.Image
    data: bytes | None = None
    media_type: str | None = None


def load_image(source: ImageSource, *, allow_urls: bool = False) -> Image.Image:
    """An image, upright (by its EXIF orientation) and in RGB, what is transparent on white.

    Args:
        source: an image of Pillow, a path, the bytes of a file, base64 with or without `data:image/…;base64,` in
            front, or a URL. BMP, GIF, JPEG, PNG, TIFF and WebP are read; of an animation the first picture.
        allow_urls: fetch http and https URLs. They are fetched from public addresses only, within 20 seconds, up to
            32 MB, over at most 3 redirects.

    Raises:
        ValueError: it is no image that can be read, or too large (Pillow's `Image.MAX_IMAGE_PIXELS` pixels, 64 MB).
        TypeError: it is nothing of the above.
        MissingExtraError: Pillow is not installed.
    """
    return open_image(source, allow_urls=allow_urls).image


def open_image(source: ImageSource, *, allow_urls: bool = False) -> LoadedImage:
    """`load_image`, with the file that the image was in."""
    try:
        from PIL import Image, ImageFile, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("Reading images", "colpali", "pillow") from error

    if isinstance(source, ImageFile.ImageFile):  # Opened by the caller, and not changed since.
        return LoadedImage(_decoded(source, "the image"))
    if isinstance(source, Image.Image):
        return LoadedImage(_rgb(source))
    if isinstance(source, LazyImage):
        return LoadedImage(_rgb(source.render()))
    name, data = _read(source, allow_urls)
    if data.startswith(b"%PDF-"):
        raise ValueError(f"{name} is a PDF: pdf_pages(path) makes an image of each of its pages.")
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has {len(data):,} bytes; an image may have {MAX_BYTES:,}.")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:
        what = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(f"{name} is no {', '.join(_FORMATS)} image, or is damaged{what}.") from error
    web_type = _WEB_TYPES.get(image.format or "")
    decoded = _decoded(image, name)
    return LoadedImage(decoded, data, f"image/{web_type}") if web_type else LoadedImage(decoded)


def _read(source: object, allow_urls: bool) -> tuple[str, bytes]:
    """A name for messages, and the bytes of the file."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"what begins with {bytes(source[:8])!r}", bytes(source)
    if isinstance(source, str):
        encoded = encoded_part(source)
        if encoded is not None:
            try:
                return "the base64 data", base64.b64decode("".join(encoded.split()), validate=True)
            except binascii.Error as error:
                raise ValueError(f"{source[:40]!r}… is no valid base64 ({error}).") from None
        if re.match(r"https?://", source, re.IGNORECASE):
            if not allow_urls:
                raise ValueError("images are fetched from URLs only with allow_urls=True.")
            return fetch_image(source)
    elif not isinstance(source, os.PathLike):
        raise TypeError(
            f"an image is a PIL image, a path, bytes, base64, a data URI or a URL, not a {type(source).__name__}."
        )
    path = Path(os.path.expanduser(source))  # noqa: PTH111 – of "~a.png", no user's home, Path's would be an error
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; an image may have {MAX_BYTES:,}.")
        return str(path), path.read_bytes()
    except OSError as error:
        raise ValueError(f"the image {str(path)[:200]} cannot be read: {error.strerror}.") from None


def encoded_part(text: str) -> str | None:
    """The base64 in a data URI, or a text that is itself the base64 of an image; else None."""
    if text[:5].lower() == "data:":
        match = _DATA_URI.match(text[:200])
        if match is None:
            raise ValueError(f"{text[:40]!r}… is no data URI in base64.")
        return text[match.end() :]
    # No path is taken for base64: an image's file has a suffix, and a dot is not in the alphabet.
    if _BASE64.fullmatch(text) and base64.b64decode(text[:16]).startswith(_SIGNATURES):
        return text
    return None


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """The pixels of a file just opened, upright and in RGB."""
    from PIL import Image, ImageOps

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{name} has {image.width}×{image.height} pixels, more than {limit:,} (PIL.Image.MAX_IMAGE_PIXELS)."
        )
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(
            f"{name} has {image.n_frames} pages: give each as an image of its own, or the file as a PDF."  # type: ignore[attr-defined]
        )
    try:
        return _rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        raise ValueError(f"{name} is damaged: {error}.") from error


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if 0 in image.size:
        raise ValueError(f"the image has no pixels: it is {image.width}×{image.height}.")
    if image.mode.startswith("I;16"):  # Pillow would cut off all that is brighter than 255 of 65,535.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
