"""Images as people have them: read, turned upright, and converted to RGB."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from late_interaction.errors import MissingExtraError
from late_interaction.images.fetching import fetch_image
from late_interaction.images.large import (
    ORIENTATION,
    is_large,
    orientation_undecoded,
    shrunk_rgb,
    size_in_file,
)
from late_interaction.images.scaling import Size, factors_for, scaled_rgb

if TYPE_CHECKING:
    from PIL import Image

HEIF_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", *HEIF_SUFFIXES, ".avif")
MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of a file that is opened as an image."""
NOT_A_PATH = re.compile(r"(?:https?|data):", re.IGNORECASE)
"""How a URL begins, and an image that is itself the text."""

# The formats that Pillow may open: some of its others run programs, or are seldom looked after.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF")
_OF_PAGES = ("GIF", "PNG", "TIFF", "WEBP")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WEB_TYPES = {"GIF": "gif", "JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}")  # of a text without white space at its end
_SIDEWAYS = (5, 6, 7, 8)
_SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF")


@runtime_checkable
class LazyImage(Protocol):
    """An image that is made when it is needed, such as a page of a PDF."""

    @property
    def reference(self) -> str:
        """What to store in its place."""

    def render(self) -> Image.Image:
        """Make the image; it is called on another thread, once for each time that the image is needed."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image that is stored under a name of its own, such as its path from a folder that may move.

    Attributes:
        source: the image.
        reference: what to store in its place.
    """

    source: ImageSource
    reference: str


ImageSource: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | LazyImage | NamedImage"
Fit: TypeAlias = "Callable[[Size], Size]"
"""The size to which a model scales an image of this size; see `LateInteractionModel.scaled_size`."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image and where it came from.

    Attributes:
        image: upright, RGB; smaller than the file's where it was loaded for a model.
        size: width and height of the whole image, upright.
        data: the file, unchanged, where it is of a kind that a browser shows.
        media_type: of the file, such as "image/png".
    """

    image: Image.Image
    size: Size
    data: bytes | None = None
    media_type: str | None = None


def read_image(
    source: ImageSource, allow_urls: bool, fit: Fit | None, root: str | os.PathLike[str] | None
) -> LoadedImage:
    """Load an image as `open_image` (opening.py) does, but not a page that a path names."""
    _check_pillow()
    from PIL import Image, ImageFile

    if isinstance(source, NamedImage):
        source = source.source
    if isinstance(source, ImageFile.ImageFile):  # opened by the caller, and not changed since
        return _decoded(source, "the image", fit, data=None)
    if isinstance(source, LazyImage):
        source = source.render()
    if isinstance(source, Image.Image):
        return LoadedImage(scaled_rgb(source, factors_for(source.size, fit)), source.size)
    name, data = _read(source, allow_urls, root)
    if data.startswith(b"%PDF-"):
        raise ValueError(
            f"{name} is a PDF: pdf_pages(path) makes an image of each of its pages, and {name}#page=1 is one."
        )
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has {len(data):,} bytes; an image may have {MAX_BYTES:,}.")
    image = _opened(io.BytesIO(data), name)
    web_type = _WEB_TYPES.get(image.format or "")
    decoded = _decoded(image, name, fit, data=data)
    return replace(decoded, data=data, media_type=f"image/{web_type}") if web_type else decoded


def page_count(path: str) -> int:
    """Return how many pages or pictures an image file has; 1 where it is of one picture, or cannot be opened.

    Raises:
        MissingExtraError: Pillow is not installed, or pillow-heif for HEIC.
    """
    try:
        with open(path, "rb") as file, _opened(file, path) as image:  # noqa: PTH123 – as a path is written
            return getattr(image, "n_frames", 1) if image.format in _OF_PAGES else 1
    except MissingExtraError:
        raise
    except Exception:  # noqa: BLE001 – whoever loads it says what is wrong
        return 1


def load_page(path: str, page: int) -> Image.Image:
    """Load a page of an image file, from 1, as `load_image` does.

    Raises:
        ValueError: there is no such page, or it is damaged, or too large.
    """
    name = f"{path}, page {page}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 – as a path is written
            image = _opened(file, name)
            try:
                image.seek(page - 1)
            except EOFError:
                raise ValueError(f"{path}: there is no page {page}.") from None
            except Exception as error:
                raise ValueError(f"{name} is damaged: {error}.") from error
            return _decoded(image, name, None, data=None, is_page=True).image
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}.") from None


def _check_pillow() -> None:
    """Raise MissingExtraError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Reading images", "colpali", "pillow") from error


def _opened(file: IO[bytes], name: str) -> Image.Image:
    """Open a file as an image of a kind that is read, without decoding it."""
    _check_pillow()
    from PIL import Image, UnidentifiedImageError

    start = file.read(12)
    file.seek(0)
    if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise MissingExtraError("Reading HEIC images", "files", "pillow-heif") from error
        register_heif_opener()
    Image.init()
    try:
        return Image.open(file, formats=[kind for kind in _FORMATS if kind in Image.OPEN])
    except Exception as error:
        what = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(f"{name} is not a {', '.join(_FORMATS)} image, or is damaged{what}.") from error


def _read(source: object, allow_urls: bool, root: str | os.PathLike[str] | None) -> tuple[str, bytes]:
    """Return a name for messages, and the bytes of the file."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"what begins with {bytes(source[:8])!r}", bytes(source)
    if isinstance(source, str):
        encoded = encoded_part(source)
        if encoded is not None:
            try:
                return "the base64 data", base64.b64decode("".join(encoded.split()), validate=True)
            except binascii.Error as error:
                raise ValueError(f"{source[:40]!r}… is not valid base64 ({error}).") from None
        if re.match(r"https?://", source, re.IGNORECASE):
            if not allow_urls:
                raise ValueError("images are fetched from URLs only with allow_urls=True.")
            return fetch_image(source)
    elif not isinstance(source, os.PathLike):
        raise TypeError(
            f"an image is a PIL image, a path, bytes, base64, a data URI or a URL, not a {type(source).__name__}."
        )
    path = path_from(source, root)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; an image may have {MAX_BYTES:,}.")
        return str(path), path.read_bytes()
    except OSError as error:
        raise ValueError(f"the image {str(path)[:200]} cannot be read: {error.strerror}.") from None


def path_from(source: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> Path:
    """Return a path, which begins at `root` where it is relative, and may begin with "~"."""
    return Path(root or "", os.path.expanduser(source))  # noqa: PTH111 – of "~a.png", no user's home, Path's would be an error


def encoded_part(text: str) -> str | None:
    """Return the base64 in a data URI, or a text that is itself the base64 of an image; else None."""
    if text[:5].lower() == "data:":
        match = _DATA_URI.match(text[:200])
        if match is None:
            raise ValueError(f"{text[:40]!r}… is not a data URI in base64.")
        return text[match.end() :]
    # A path is never taken for base64: an image's file has a suffix, and a dot is not in the alphabet.
    if _BASE64.fullmatch(text.rstrip()) and base64.b64decode(text[:16]).startswith(_SIGNATURES):
        return text
    return None


def is_relative(reference: str) -> bool:
    """Tell whether what is stored of an image is a path that begins somewhere else."""
    return not (os.path.isabs(reference) or NOT_A_PATH.match(reference))  # noqa: PTH117


def _decoded(
    image: Image.Image, name: str, fit: Fit | None, *, data: bytes | None, is_page: bool = False
) -> LoadedImage:
    """Decode a file just opened, upright and in RGB.

    Args:
        image: the opened file.
        name: for messages.
        fit: as for `open_image`.
        data: the file, where nobody else uses this image, so that it may be decoded at a smaller size.
        is_page: the file is at the page that is wanted.
    """
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{name} has {image.width}×{image.height} pixels, more than {limit:,} (PIL.Image.MAX_IMAGE_PIXELS)."
        )
    try:
        n_frames = getattr(image, "n_frames", 1) if image.format == "TIFF" and not is_page else 1
        if n_frames == 1:
            return _shrunk(image, fit, data)
    except MissingExtraError:
        raise
    except Exception as error:
        raise ValueError(f"{name} is damaged: {error}.") from error
    raise ValueError(f"{name} has {n_frames} pages: image_pages(path) gives each as a row.")


def _shrunk(image: Image.Image, fit: Fit | None, data: bytes | None) -> LoadedImage:
    if data is not None and is_large(image):
        orientation = orientation_undecoded(image, data)
        size, factors = _plan(size_in_file(image), orientation, fit)
        if factors != (1, 1):
            return LoadedImage(_upright(shrunk_rgb(data, image, factors), orientation), size)
    draft = data is not None and image.format in ("JPEG", "MPO")
    if not draft:
        image.load()  # A PNG may tell its orientation behind its pixels, and a TIFF turns itself.
    orientation = image.getexif().get(ORIENTATION, 1)
    size, (across, down) = _plan(image.size, orientation, fit)
    if draft:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size.
        width = image.width
        image.draft(None, (width // across, image.height // down))
        drafted = round(width / image.width)
        across, down = max(1, across // drafted), max(1, down // drafted)
    return LoadedImage(_upright(scaled_rgb(image, (across, down)), orientation), size)


def _plan(size: Size, orientation: int, fit: Fit | None) -> tuple[Size, tuple[int, int]]:
    """Return the upright size of an image, and the factors by which it may be shrunk as it lies in the file."""
    if orientation not in _SIDEWAYS:
        return size, factors_for(size, fit)
    upright = size[1], size[0]
    down, across = factors_for(upright, fit)
    return upright, (across, down)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by what its EXIF orientation says."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image
