"""Large pictures, shrunk while they are read: libvips averages blocks row by row, and no picture is there as a whole.

Pillow decodes all but JPEG whole: 88 million pixels with transparency took 690 MB as PNG, and 1.4 GB as WebP. libvips
hangs in a process that was forked after its first use, so it works in a process of its own, started for each picture.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.errors import MissingExtraError
from late_interaction.images.scaling import Size

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
"""The tag of EXIF."""
LARGE = 8_000_000
"""From so many pixels on a picture goes to the process: below that Pillow takes 32 MB."""
TIMEOUT_S = 60.0

_SCRIPT = Path(__file__).with_name("large_worker.py")
_LIBRARIES = ("pyvips", "_libvips", "cffi", "_cffi_backend")
_MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "I;16",
    "I;16B",
)  # libvips reads other colours in its own way


def is_large(image: Image.Image) -> bool:
    """Tell whether a file that Pillow has opened, and not decoded, is better shrunk by libvips."""
    return (
        image.format in ("PNG", "TIFF", "WEBP")
        and image.mode in _MODES
        and image.width * image.height >= LARGE
    )


def shrunk_rgb(data: bytes, image: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """Return a large picture in RGB, each block of `factors` pixels averaged to one, transparent parts on white.

    Args:
        data: the file.
        image: the same, opened by Pillow.
        factors: by what width and height are divided.

    Raises:
        ValueError: the file is damaged, or takes too long.
        MissingExtraError: pyvips is not installed.
    """
    from PIL import Image

    command = [sys.executable, "-I", "-S", str(_SCRIPT), str(image.format), *map(str, factors), *_folders()]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603 – our own script
    except subprocess.TimeoutExpired:
        raise ValueError(f"it took longer than {TIMEOUT_S:g} seconds to decode") from None
    if done.returncode:
        raise ValueError(" ".join(done.stderr.decode(errors="replace").split())[-300:] or "libvips crashed")
    header, _, pixels = done.stdout.partition(b"\n")
    width, height = map(int, header.split())
    return Image.frombytes("RGB", (width, height), pixels)


def size_in_file(image: Image.Image) -> Size:
    """Return width and height as the file has them; Pillow says those of a turned TIFF turned."""
    tags = getattr(image, "tag_v2", None)
    return (int(tags[256]), int(tags[257])) if image.format == "TIFF" and tags else image.size


def orientation_undecoded(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a file that Pillow has opened, without decoding its pixels.

    Pillow would decode a PNG for it, whose orientation may stand behind its pixels.
    """
    if image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys():
        return int(image.getexif().get(ORIENTATION, 1))
    from PIL import Image

    at = len(b"\x89PNG....")
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"eXIf":
            exif = Image.Exif()
            exif.load(b"Exif\0\0" + data[at + 8 : end])
            return int(exif.get(ORIENTATION, 1))
        at = end + len(b"CRC.")
    return 1


def _folders() -> list[str]:
    """Return the folders that the process imports pyvips from."""
    folders = []
    for name in _LIBRARIES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise MissingExtraError("Reading large PNG, TIFF and WebP images", "colpali", "pyvips")
        folders.append(str(Path(found.origin).parents[1 if found.submodule_search_locations else 0]))
    return list(dict.fromkeys(folders))
