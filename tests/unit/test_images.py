"""Images as people have them: read, turned upright, refused where they should be, fetched only from public places."""

from __future__ import annotations

import base64
import http.server
import io
import ipaddress
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from late_interaction import load_image
from late_interaction.errors import MissingExtraError
from late_interaction.images import fetching, large, storing
from late_interaction.images import loading as images
from late_interaction.images.opening import open_image
from late_interaction.images.storing import describe_image, image_reference, stored_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(width: int = 8, height: int = 6) -> Image.Image:
    """Red above, blue below, and one green pixel in the corner."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height))
    image.putpixel((0, 0), (0, 255, 0))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)  # type: ignore[arg-type]
    return file.getvalue()


PNG = encoded(picture())


# --- what is read


def test_an_image_is_the_same_however_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    sources = [picture(), Image.open(file), file, str(file), PNG, bytearray(PNG), text, wrapped]
    sources += [f"data:image/png;base64,{text}", f"data:;base64,{text}", f"DATA:image/png;x=y;base64,{text}"]
    for source in sources:
        image = load_image(source)  # type: ignore[arg-type]
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_every_format_is_read(kind: str) -> None:
    assert load_image(encoded(picture(), kind)).size == (8, 6)


def test_a_photo_is_turned_upright_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the picture is to be turned by 90° clockwise
    file = tmp_path / "photo.png"
    picture().save(file, exif=exif)
    assert load_image(file).size == (6, 8)
    assert load_image(file).getpixel((5, 0)) == (0, 255, 0)
    assert load_image(Image.open(file)).size == (6, 8)
    turned = Image.open(file).rotate(
        -90, expand=True
    )  # by its owner, and it still says that it is to be turned
    assert load_image(turned).size == (6, 8)


def test_what_is_transparent_is_white() -> None:
    assert load_image(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    assert load_image(encoded(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_of_grey_are_scaled_and_not_cut() -> None:
    grey = Image.fromarray(np.array([[0, 0x4000, 0xFFFF]], np.uint16))
    assert [load_image(grey).getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (64,) * 3, (255,) * 3]


# --- what is refused


def truncated() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise))[:4000]


def pages() -> bytes:
    return encoded(picture(), "TIFF", save_all=True, append_images=[picture()])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (b"no image", ValueError, "is not a BMP, GIF, JPEG, PNG, TIFF, WEBP, HEIF, AVIF image"),
        (b"", ValueError, "is not a BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", ValueError, "is not a BMP"),
        (truncated(), ValueError, "is damaged"),
        (pages(), ValueError, "has 2 pages"),
        ("there/is/none.png", ValueError, "none.png cannot be read: No such file"),
        (Path(), ValueError, "cannot be read: Is a directory"),
        ("data:image/svg+xml,<svg/>", ValueError, "is not a data URI in base64"),
        ("data:image/png;base64,####", ValueError, "not valid base64"),
        ("https://example.org/a.png", ValueError, "only with allow_urls=True"),
        (3, TypeError, "a PIL image, a path, bytes, base64, a data URI or a URL, not a int"),
        (None, TypeError, "not a NoneType"),
        (Image.new("RGB", (0, 5)), ValueError, "has no pixels: it is 0×5"),
        (b"%PDF-1.4", ValueError, r"is a PDF: pdf_pages\(path\)"),
        ("~nobody.png", ValueError, "the image ~nobody.png cannot be read: No such file"),
    ],
)
def test_what_is_no_image_is_refused(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_image(source)  # type: ignore[arg-type]


def test_a_decompression_bomb_is_not_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encoded(Image.new("1", (300, 200)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="300×200 pixels"):
        load_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ValueError, match="decompression bomb"):
        load_image(bomb)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    for source in (file, PNG):
        with pytest.raises(ValueError, match=f"{len(PNG)} bytes; an image may have 50"):
            load_image(source)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'late-interaction\[colpali\]'"):
        load_image(PNG)


# --- time and memory


@pytest.mark.parametrize("filler", [" ", "\n", "A", "=", "A "])
def test_telling_base64_from_a_path_takes_linear_time(filler: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"cannot be read|base64|damaged"):
        load_image("A" * 64 + filler * 1_000_000 + "!")
    assert time.perf_counter() - start < 3


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - x], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    return Image.fromarray(pixels[:, :, 0].astype(np.uint16) << 8) if mode == "I;16" else image.convert(mode)


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The format; of "large PNG" all pictures count as large."""
    if request.param.startswith("large"):
        monkeypatch.setattr(large, "LARGE", 1)
    return request.param.split()[-1]


LARGE_KINDS = ["large PNG", "large TIFF", "large WEBP"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", *LARGE_KINDS], indirect=True)
def test_an_image_is_shrunk_for_a_model(mode: str, kind: str) -> None:
    image = smooth(1200, 900, mode)
    try:
        data = encoded(image, kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    whole = load_image(data)
    for fit in (lambda _: (100, 75), lambda _: (150, 75), lambda _: (450, 300), lambda size: size):
        loaded = open_image(data, fit=fit)
        wanted = fit((1200, 900))
        assert loaded.size == (1200, 900)
        assert loaded.image.width >= min(1200, 2 * wanted[0])
        assert loaded.image.height >= min(900, 2 * wanted[1])
        assert loaded.image.width <= max(1200 if wanted[0] > 300 else 0, 4 * wanted[0])
        by_model = whole.resize(wanted, Image.Resampling.BICUBIC)
        difference = np.abs(
            np.asarray(loaded.image.resize(wanted, Image.Resampling.BICUBIC), int) - np.asarray(by_model, int)
        )
        assert difference.mean() < (12 if mode == "1" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", *LARGE_KINDS], indirect=True)
def test_a_photo_is_upright_at_every_size(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(800, 400), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    whole = open_image(data)
    assert whole.size == whole.image.size == expected.size
    assert np.array_equal(np.asarray(whole.image), np.asarray(expected))
    small = open_image(data, fit=lambda size: (size[0] // 8, size[1] // 8))
    assert small.size == expected.size
    assert small.image.size == (expected.width // 4, expected.height // 4)
    difference = np.abs(
        np.asarray(small.image, int)
        - np.asarray(expected.resize(small.image.size, Image.Resampling.BOX), int)
    )
    assert difference.mean() < 2


def test_an_image_of_the_caller_is_not_changed() -> None:
    opened = Image.open(io.BytesIO(encoded(smooth(800, 400), "JPEG")))
    assert open_image(opened, fit=lambda _: (50, 25)).image.size == (100, 50)
    assert opened.size == (800, 400)
    assert load_image(opened).size == (800, 400)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the memory is read from /proc")
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "RGB"), ("WEBP", "RGBA")],
)
def test_the_memory_of_a_large_image_is_that_of_what_the_model_sees(
    tmp_path: Path, kind: str, mode: str
) -> None:
    file = tmp_path / "large"
    settings = {"TIFF": {"compression": "tiff_deflate"}, "WEBP": {"method": 0}, "PNG": {"compress_level": 1}}
    Image.linear_gradient("L").resize((6000, 6000)).convert(mode).save(file, kind, **settings.get(kind, {}))
    code = (
        "import resource, sys; from late_interaction.images.opening import open_image; from PIL import Image; "
        "peak = lambda whose: resource.getrusage(whose).ru_maxrss // 1024; "
        "open_image(Image.new('RGB', (9, 9))); before = peak(resource.RUSAGE_SELF); "
        "open_image(sys.argv[1], fit=lambda _: (400, 400)); "
        "print(peak(resource.RUSAGE_SELF) - before, peak(resource.RUSAGE_CHILDREN))"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    here, in_the_process = map(int, done.stdout.split())
    assert here < 60  # MB; the pixels take 108, or 144 with transparency
    assert in_the_process < 150  # of which 45 are Python's and libvips' own


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE_KINDS, indirect=True)
def test_a_damaged_large_image_is_an_error_of_ours(kind: str) -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)), kind)
    with pytest.raises(ValueError, match="damaged"):
        open_image(data[: len(data) // 2], fit=lambda _: (40, 30))


@pytest.mark.slow
def test_a_picture_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", 1)
    monkeypatch.setattr(large, "TIMEOUT_S", 0.001)
    with pytest.raises(ValueError, match="damaged: it took longer than"):
        open_image(encoded(smooth(800, 400), "PNG"), fit=lambda _: (40, 30))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_large_image_is_read_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", 1)
    data = encoded(smooth(800, 400), "PNG")
    open_image(data, fit=lambda _: (40, 30))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(size_shrunk, (data,)).get(timeout=60) == (80, 40)


def size_shrunk(data: bytes) -> tuple[int, int]:
    return open_image(data, fit=lambda _: (40, 20)).image.size


def test_the_extra_is_named_where_a_large_image_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", 1)
    monkeypatch.setattr(large, "_LIBRARIES", ("no_such_module_here",))
    with pytest.raises(MissingExtraError, match=r"pip install 'late-interaction\[colpali\]'"):
        open_image(encoded(smooth(800, 400), "PNG"), fit=lambda _: (40, 30))


def test_a_damaged_tiff_is_an_error_of_ours() -> None:
    data = bytearray(pages())
    offset = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[offset : offset + 2], "little")
    following = offset + 2 + 12 * entries
    data[following : following + 4] = (len(data) - 4).to_bytes(4, "little")
    with pytest.raises(ValueError, match=r"is damaged: .*|has \d+ pages"):
        load_image(bytes(data))


# --- what is stored


def test_what_is_stored_of_an_image(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    picture(2000, 1000).save(file)
    loaded = open_image(file)
    assert stored_image(file, loaded, "reference") == {"image": str(file)}
    assert stored_image(file, None, "reference") == {"image": str(file)}
    small = stored_image(file, loaded, "thumbnail")
    assert small["image"] == str(file)
    assert small["thumbnail"].startswith("data:image/jpeg;base64,")
    assert load_image(small["thumbnail"]).size == (512, 256)
    full = stored_image(file, loaded, "full")["image"]
    assert base64.b64decode(full.removeprefix("data:image/png;base64,")) == file.read_bytes()


def test_an_image_without_a_path_leaves_no_reference() -> None:
    for source in (picture(), PNG, base64.b64encode(PNG).decode()):
        assert image_reference(source) is None
        assert stored_image(source, open_image(source), "reference") == {}
        assert np.array_equal(
            np.asarray(load_image(stored_image(source, open_image(source), "full")["image"])),
            np.asarray(picture()),
        )
    assert describe_image(open_image(picture())) == "image of 8×6 pixels"


def test_what_a_browser_does_not_show_is_stored_as_png() -> None:
    tiff = encoded(picture(), "TIFF")
    assert stored_image(tiff, open_image(tiff), "full")["image"].startswith("data:image/png;base64,")


def test_a_whole_image_that_is_too_large_for_a_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "MAX_STORED", 100)
    with pytest.raises(ValueError, match="100 is the most: store a reference or a thumbnail"):
        stored_image(PNG, open_image(PNG), "full")


# --- URLs


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to") + ("?" + query if query else ""))
        elif path == "/file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
        elif path == "/missing":
            self.send_response(404)
        elif path == "/late":
            time.sleep(1)
        elif path == "/head":
            for _ in range(20):
                self.wfile.write(b"H")
                time.sleep(0.1)
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if path == "/page" else "image/png; charset=x")
        self.end_headers()
        if path == "/drip":
            for _ in range(20):
                self.wfile.write(b"x" * 10)
                time.sleep(0.1)
        self.wfile.write(PNG)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://pictures.example:{serving.server_port}"
        serving.shutdown()


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test's own server pass for one with a public address."""
    monkeypatch.setattr(fetching, "public_address", lambda host, port: "127.0.0.1")


@pytest.mark.slow
@pytest.mark.usefixtures("public")
def test_an_image_is_fetched(server: str) -> None:
    for path in ("/a.png", "/to/a.png", "/to/to/to/a.png", "/a.png#part", "/ü b.png?ä", "/to/ü", "/a.png\n"):
        image = load_image(server + path, allow_urls=True)
        assert np.array_equal(np.asarray(image), np.asarray(picture()))
    assert load_image(f"{server.replace('pictures', 'bücher')}/a.png", allow_urls=True).size == (8, 6)
    assert image_reference(server) == server


@pytest.mark.slow
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/to/to/to/to/a.png", "redirects more than 3 times"),
        ("/file", "leads to file:, and only http and https"),
        ("/missing", "answers with status 404"),
        ("/page", "is of type text/html, not an image"),
        ("/late", "did not answer within"),
        ("/drip", "did not answer within"),
        ("/head", "did not answer within"),
    ],
)
def test_an_answer_that_is_refused(
    server: str, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if message == "did not answer within":  # The others must be answered, on a busy machine too.
        monkeypatch.setattr(fetching, "TIMEOUT_S", 0.5)
    with pytest.raises(ValueError, match=message) as caught:
        load_image(f"{server.replace('//', '//user:pass@')}{path}?token=secret", allow_urls=True)
    assert not {"user", "pass", "secret"} & set(str(caught.value).replace("=", " ").split())
    assert "pictures.example" in str(caught.value)


@pytest.mark.usefixtures("public")
def test_an_answer_that_is_too_long_is_not_read_to_its_end(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 20)
    with pytest.raises(ValueError, match="has more than 20 bytes"):
        load_image(f"{server}/a.png", allow_urls=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "224.0.0.1", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::", "64:ff9b::a00:1", "::127.0.0.1", "fec0::1", "64:ff9b:1::7f00:1", "::ffff:0:7f00:1", "5f00::1",
        "192.88.99.1", "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1", "192.0.2.1", "198.18.0.1", "240.0.0.1",
        "2002:808:808::1", "ff02::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_never_connected_to(host: str) -> None:
    with pytest.raises(ConnectionRefusedError, match="not a public address"):
        fetching.public_address(host, 80)
    url = f"http://[{host}]/a.png" if ":" in host else f"http://{host}/a.png"
    with pytest.raises(ValueError, match="not a public address"):
        load_image(url, allow_urls=True)


def test_a_public_address_is_the_one_connected_to() -> None:
    assert fetching.public_address("9.9.9.9", 443) == "9.9.9.9"
    assert fetching.public_address("2620:fe::fe", 443) == "2620:fe::fe"
    assert fetching.public_address("64:ff9b::909:909", 443) == "64:ff9b::909:909"


def test_every_address_that_some_python_refuses_is_refused() -> None:
    """The lists are our own; nothing that this Python knows as not global may be missing."""
    rng = np.random.default_rng(0)
    for network in ("0.0.0.0/0", "2000::/3", "::/0", "fc00::/6", "2001::/16"):
        whole = ipaddress.ip_network(network)
        for _ in range(2000):
            offset = int.from_bytes(rng.bytes(16), "big") % whole.num_addresses
            address = whole[offset]
            if fetching._is_public(address):
                assert address.is_global, address
                assert not address.is_multicast, address


@pytest.mark.slow
def test_a_resolver_that_hangs_is_inside_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: ended.wait(20))
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    start = time.monotonic()
    with pytest.raises(ValueError, match="did not answer within"):
        load_image("http://slow.example/a.png", allow_urls=True)
    assert time.monotonic() - start < 5
    ended.set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "http:// names no host"),
        ("http://[half/a.png", "Invalid IPv6 URL"),
        ("http://host:port/a.png", "http://host/a.png is not a URL: Invalid port: 'port'"),
        ("http://ho\x7fst/a.png", "is not a URL: Invalid non-printable"),
    ],
)
def test_what_is_no_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(url, allow_urls=True)
