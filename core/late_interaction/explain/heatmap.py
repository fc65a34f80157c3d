"""Heat maps over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import Item
from late_interaction.encoders.colpali import ColPaliModel

if TYPE_CHECKING:
    from PIL import Image


def image_heat_maps(model: ColPaliModel, query: Item, image: Image.Image) -> NDArray[np.float32]:
    """Compute how well each patch of an image answers each vector of a query.

    Args:
        model: the encoder of the index.
        query: a text, or an image.
        image: as it was indexed.

    Returns:
        (n_query_vectors, rows, columns): the dot products of which MaxSim takes the largest for each query vector,
        before pooling. Their mean over the first axis is one map of the whole query.

    Example:
        >>> from late_interaction import ColPaliModel, load_image
        >>> page = load_image("page.png")  # doctest: +SKIP
        >>> maps = image_heat_maps(ColPaliModel(), "revenue by quarter", page)  # doctest: +SKIP
        >>> draw_heat_map(page, maps.mean(axis=0)).save("seen.png")  # doctest: +SKIP
    """
    (vectors,) = model.encode_queries([query])
    maps: NDArray[np.float32] = np.moveaxis(model.encode_patches(image) @ vectors.T, 2, 0)
    return maps


def draw_heat_map(image: Image.Image, heat_map: NDArray[np.float32]) -> Image.Image:
    """Draw the map over the image: grey where it is lowest, in its own colours and tinted red where it is highest.

    Args:
        image: the image.
        heat_map: (rows, columns), such as the mean of `image_heat_maps`; only its differences count.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> drawn = draw_heat_map(Image.new("RGB", (20, 10), "white"), np.array([[0.1, 0.9]]))
        >>> drawn.size, drawn.getpixel((0, 5)), drawn.getpixel((19, 5))
        ((20, 10), (255, 255, 255), (255, 178, 178))
    """
    from PIL import Image, ImageOps

    mask = Image.fromarray((scaled(heat_map) * 255).astype(np.uint8)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    tinted = Image.blend(image.convert("RGB"), Image.new("RGB", image.size, "red"), 0.3)
    return Image.composite(tinted, ImageOps.grayscale(image.convert("RGB")).convert("RGB"), mask)


def scaled(heat_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map from 0, where it is lowest or not known, to 1, where it is highest."""
    known = np.isfinite(heat_map)
    if not known.any():
        return np.zeros_like(heat_map)
    low, high = float(heat_map[known].min()), float(heat_map[known].max())
    shares = (heat_map - low) / max(high - low, float(np.finfo(np.float32).tiny))
    return np.where(known, shares, 0).astype(np.float32)
