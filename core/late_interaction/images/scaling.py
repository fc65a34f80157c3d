"""Shrink images before they are converted, so that a large one takes little more memory than its file's pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_SPARE = 2
"""How many times the width and height that a model looks at are left for the model's own scaling: averaged down to
that, and scaled by the model, an image is within a few grey levels of what the model alone would make of it."""
_BAND_PIXELS = 4_000_000


def factors_for(size: Size, fit: Callable[[Size], Size] | None) -> tuple[int, int]:
    """Return by what whole numbers width and height may be divided; 1 where nothing is gained.

    Args:
        size: of the image.
        fit: the size to which the model scales an image of this size; None to keep every pixel.
    """
    if fit is None or 0 in size:
        return 1, 1
    wanted = fit(size)
    return (
        max(1, int(size[0] / (_SPARE * max(1, wanted[0])))),
        max(1, int(size[1] / (_SPARE * max(1, wanted[1])))),
    )


def scaled_rgb(image: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """Return an image in RGB, each block of `factors` pixels averaged to one.

    It is converted in bands, so that a large image is never there in another mode as a whole.

    Raises:
        ValueError: the image has no pixels.
    """
    from PIL import Image

    if 0 in image.size:
        raise ValueError(f"the image has no pixels: it is {image.width}×{image.height}.")
    if factors == (1, 1):
        return _rgb(image)
    image.load()
    across, down = factors
    scaled = Image.new("RGB", (-(-image.width // across), -(-image.height // down)))
    rows = down * max(1, _BAND_PIXELS // (image.width * down))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        scaled.paste(_rgb(band).reduce(factors), (0, top // down))
    return scaled


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow would cut off all that is brighter than 255 of 65,535.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
