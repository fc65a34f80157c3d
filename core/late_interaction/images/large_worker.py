"""A process of its own that shrinks one picture: its file on standard input; width, height and RGB on standard output.

`large` runs this file as a script, with the format, the two factors and the folders of pyvips as arguments.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

MEMORY = 2 * 1024**3
"""Most bytes of address space, where the system can limit them: threads and libraries count, used or not."""


def shrunk(vips: Any, kind: str, data: bytes, across: int, down: int) -> Any:
    """Return a picture in RGB, 8 bits a channel, its blocks averaged."""
    # The loader is named: the one that libvips would find by itself may be any of some forty.
    if kind == "WEBP":  # is decoded at a smaller size at once, to within a pixel of the one wanted
        whole = vips.Image.webpload_buffer(data)
        wanted = -(-whole.width // across), -(-whole.height // down)
        image = on_white(vips.Image.webpload_buffer(data, scale=1 / min(across, down), fail_on="error"))
        return image.resize(wanted[0] / image.width, vscale=wanted[1] / image.height, kernel="linear")
    load = {"PNG": vips.Image.pngload_buffer, "TIFF": vips.Image.tiffload_buffer}[kind]
    return on_white(load(data, access="sequential", fail_on="error")).shrink(across, down, ceil=True)


def on_white(image: Any) -> Any:
    """Return a picture in RGB, 8 bits a channel, what is transparent on white."""
    if image.format == "ushort":
        image = (image >> 8).cast("uchar")
    if image.bands in (2, 4):
        image = image.flatten(background=255)
    return image if image.bands == 3 else image.bandjoin([image, image])


def main() -> None:
    """Answer the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which ends this one
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):  # Windows, or a limit that is lower already
        pass
    kind, across, down, *folders = sys.argv[1:]
    sys.path[:0] = folders
    os.environ["VIPS_CONCURRENCY"] = "1"  # each thread has rows of its own in memory
    import pyvips

    try:
        image = shrunk(pyvips, kind, sys.stdin.buffer.read(), int(across), int(down))
        pixels = image.write_to_memory()
    except pyvips.Error as error:
        sys.exit(f"libvips: {error}")
    sys.stdout.buffer.write(f"{image.width} {image.height}\n".encode() + pixels)


if __name__ == "__main__":
    main()
