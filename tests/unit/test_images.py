"""Images as people have them: read, turned upright, refused where they should be, fetched only from public places."""

from __future__ import annotations

import base64
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from late_interaction import load_image
from late_interaction.errors import MissingExtraError
from late_interaction.images import fetching, storing
from late_interaction.images import loading as images
from late_interaction.images.loading import open_image
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
        (b"no image", ValueError, "is no BMP, GIF, JPEG, PNG, TIFF, WEBP image"),
        (b"", ValueError, "is no BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", ValueError, "is no BMP"),
        (truncated(), ValueError, "is damaged"),
        (pages(), ValueError, "has 2 pages"),
        ("there/is/none.png", ValueError, "none.png cannot be read: No such file"),
        (Path(), ValueError, "cannot be read: Is a directory"),
        ("data:image/svg+xml,<svg/>", ValueError, "is no data URI in base64"),
        ("data:image/png;base64,####", ValueError, "no valid base64"),
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
    assert describe_image(picture()) == "image of 8×6 pixels"


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


@pytest.mark.usefixtures("public")
def test_an_image_is_fetched(server: str) -> None:
    for path in ("/a.png", "/to/a.png", "/to/to/to/a.png", "/a.png#part", "/ü b.png?ä", "/to/ü", "/a.png\n"):
        image = load_image(server + path, allow_urls=True)
        assert np.array_equal(np.asarray(image), np.asarray(picture()))
    assert load_image(f"{server.replace('pictures', 'bücher')}/a.png", allow_urls=True).size == (8, 6)
    assert image_reference(server) == server


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


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "224.0.0.1", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::", "64:ff9b::a00:1",
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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "http:// names no host"),
        ("http://[half/a.png", "Invalid IPv6 URL"),
        ("http://host:port/a.png", "http://host/a.png is no URL: Invalid port: 'port'"),
        ("http://ho\x7fst/a.png", "is no URL: Invalid non-printable"),
    ],
)
def test_what_is_no_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(url, allow_urls=True)
