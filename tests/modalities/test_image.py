"""Pictures as they come: every mode and format, turned, broken, too large; and their views."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.image import Image, ImageSettings
from tests.modalities.hostile import chunk, png
from tests.modalities.media import gradient, image_bytes

SMALL = ImageSettings.model_validate({"size": 32, "oversize": 1.25})


def decode(data: bytes) -> np.ndarray:
    return Image(SMALL).decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_every_format_gives_the_centre_square(kind: str) -> None:
    picture = decode(image_bytes(gradient(96, 64), kind))
    assert picture.shape == (40, 40, 3)
    assert picture.dtype == np.uint8
    # The centre square of 96 x 64 spans a sixth to five sixths of red, all of green.
    assert abs(int(picture[20, 0, 0]) - 255 / 6) < 12
    assert abs(int(picture[20, -1, 0]) - 255 * 5 / 6) < 12
    assert picture[0, 20, 1] < 16
    assert picture[-1, 20, 1] > 239


def test_a_small_picture_is_not_enlarged_before_the_view() -> None:
    image = Image(SMALL)
    decoded = image.decode(image_bytes(gradient(20, 28)))
    assert decoded.shape == (20, 20, 3)
    assert image.view(decoded, np.random.default_rng(0)).shape == (3, 32, 32)


def test_one_pixel() -> None:
    image = Image()
    decoded = image.decode(image_bytes(np.full((1, 1, 3), 9, np.uint8)))
    assert (image.view(decoded, None) == 9).all()
    assert image.view(decoded, np.random.default_rng(1)).shape == image.spec.shape


def test_a_long_strip() -> None:
    assert decode(image_bytes(gradient(3000, 2))).shape == (2, 2, 3)


def test_grey_becomes_rgb() -> None:
    picture = decode(image_bytes(np.full((50, 50), 77, np.uint8), "JPEG"))
    assert np.abs(picture.astype(int) - 77).max() <= 1


def test_one_bit_becomes_rgb() -> None:
    picture = decode(image_bytes(Pillow.new("1", (50, 50), 1)))
    assert (picture == 255).all()


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red = Pillow.new("RGB", (50, 50), (250, 10, 10)).convert("CMYK")
    picture = decode(image_bytes(red, "JPEG", quality=95))
    assert picture[..., 0].min() > 230
    assert picture[..., 1:].max() < 40


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Pillow.fromarray(np.full((50, 50), 0x4000, np.uint16))
    assert (decode(image_bytes(grey)) == 0x40).all()


def test_transparency_lies_on_white() -> None:
    clear = Pillow.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert (decode(image_bytes(clear)) == 255).all()


def test_palette_with_transparency() -> None:
    palette = Pillow.new("P", (50, 50), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 50, 25))
    picture = decode(image_bytes(palette, transparency=0))
    assert picture[5, 20].tolist() == [200, 100, 50]
    assert picture[35, 20].tolist() == [255, 255, 255]


def test_grey_with_alpha() -> None:
    assert (decode(image_bytes(Pillow.new("LA", (50, 50), (0, 128)))) == 127).all()


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, second = (Pillow.new("RGB", (50, 50), colour) for colour in ("red", "blue"))
    data = image_bytes(first, kind, save_all=True, append_images=[second], duration=50)
    assert decode(data)[20, 20].tolist() == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    from PIL import ImageOps

    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = image_bytes(gradient(96, 64), "JPEG", exif=exif, quality=95)
    with Pillow.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    width, height = upright.size
    short = min(width, height)
    box = ((width - short) / 2, (height - short) / 2, (width + short) / 2, (height + short) / 2)
    expected = np.asarray(upright.resize((40, 40), Pillow.Resampling.BILINEAR, box=box))
    assert np.abs(decode(data).astype(int) - expected).max() <= 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def _with_chunk(data: bytes, name: bytes, content: bytes, before: bytes = b"IEND") -> bytes:
    at = data.index(before) - 4
    return data[:at] + chunk(name, content) + data[at:]


def _exif(orientation: int = 6) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _profile(kind: str, content: bytes) -> bytes:
    return f"Raw profile type {kind}\0\n{kind}\n{len(content):8d}\n{content.hex()}\n".encode()


XMP = b'<rdf:Description tiff:Orientation="6"/>'
XMP_OTHERWISE = b"<rdf:Description tiff:Orientation = '6'/>"
TURNED = {
    "eXIf": (b"eXIf", _exif().removeprefix(b"Exif\0\0")),
    "exif profile": (b"tEXt", _profile("exif", _exif())),
    "APP1 profile": (b"tEXt", _profile("APP1", _exif())),
    "xmp profile": (b"tEXt", _profile("xmp", XMP)),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "XMP otherwise": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_OTHERWISE),
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("kind", TURNED)
def test_a_png_is_upright_whatever_says_it(kind: str, before: bytes) -> None:
    stored = image_bytes(gradient(64, 64))
    turned = decode(_with_chunk(stored, *TURNED[kind], before))
    np.testing.assert_array_equal(turned, np.rot90(decode(stored), -1))


def test_exif_that_says_upright_is_believed_before_xmp() -> None:
    stored = image_bytes(gradient(64, 64), "JPEG", quality=95)
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    both = image_bytes(gradient(64, 64), "JPEG", quality=95, exif=_exif(1), xmp=XMP)
    assert xmp in both
    np.testing.assert_array_equal(decode(both), decode(stored))


def test_a_gif_that_covers_a_part_of_its_canvas_lies_on_white() -> None:
    part = image_bytes(Pillow.new("P", (20, 20), 1), "GIF", palette=bytes([9, 9, 9, 200, 0, 0]))
    moved = bytearray(part)
    moved[6:10] = struct.pack("<HH", 40, 40)  # the canvas
    at = part.index(b",\0\0\0\0\x14\0\x14\0")
    moved[at + 1 : at + 5] = struct.pack("<HH", 20, 0)  # where the frame lies
    picture = decode(bytes(moved))
    assert (picture[:, :19] == 255).all()
    assert (picture[21:] == 255).all()
    assert (picture[1:19, 21:] == (200, 0, 0)).all()


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_megabytes_beside_the_pixels_are_left_out(name: bytes) -> None:
    stored = image_bytes(gradient(64, 64))
    long = {b"iTXt": b"k\0\1\0\0\0"}.get(name, b"k\0\0") + zlib.compress(b"a" * 3_000_000)
    np.testing.assert_array_equal(decode(_with_chunk(stored, name, long, b"IDAT")), decode(stored))
    both = _with_chunk(_with_chunk(stored, name, long, b"IDAT"), *TURNED["XMP"])
    np.testing.assert_array_equal(decode(both), np.rot90(decode(stored), -1))


@pytest.mark.parametrize(("bits", "row"), [(16, b"\x12\x34\x12\x35"), (4, b"\x5a"), (2, b"\x60")])
def test_a_transparent_grey_lies_on_white(bits: int, row: bytes) -> None:
    columns = len(row) * 8 // bits
    data = png(columns, columns, zlib.compress((b"\0" + row) * columns), bits, 0)
    key = {16: 0x1234, 4: 5, 2: 1}[bits]
    picture = decode(_with_chunk(data, b"tRNS", struct.pack(">H", key), b"IDAT"))
    assert (picture[:, 0] == 255).all()
    assert (picture[:, 1] == {16: 0x12, 4: 170, 2: 170}[bits]).all()


def test_a_refusal_names_what_there_is() -> None:
    with pytest.raises(DecodeError, match=r"none of JPEG, .*, but PDF"):
        decode(b"%PDF-1.7 and so on")
    with pytest.raises(DecodeError, match="but HEIC"):
        decode(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DecodeError, match="32 bits has no known white"):
        decode(image_bytes(np.ones((8, 8), np.float32), "TIFF"))


ODD = Path(__file__).resolve().parents[3] / "shared" / "data" / "odd" / "images"


@pytest.mark.skipif(not ODD.exists(), reason="files that are not part of the project")
def test_files_of_others() -> None:
    for name in ("exif_after.png", "raw_profile.png"):
        red, blue = decode((ODD / name).read_bytes())[:, -1], decode((ODD / name).read_bytes())[0]
        assert red[10:, 0].mean() > 2 * red[10:, 2].mean()
        assert blue[:-10, 2].mean() > 2 * blue[:-10, 0].mean()
    assert decode((ODD / "text_1mb.png").read_bytes()).shape == (40, 40, 3)


def test_broken_exif_is_ignored() -> None:
    data = image_bytes(gradient(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(data).shape == (40, 40, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_short(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    data = image_bytes(noise, kind)
    with pytest.raises(DecodeError) as raised:
        decode(data[: int(len(data) * share)])
    assert raised.value.kind == "undecodable"
    assert "image" in str(raised.value)


@pytest.mark.parametrize("data", [b"\x00" * 100, b"<html>not found</html>", b"\xff\xd8\xff"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(DecodeError, match="image") as raised:
        decode(data)
    assert raised.value.kind == "undecodable"


def test_formats_that_run_an_interpreter_are_refused() -> None:
    with pytest.raises(DecodeError, match="none of JPEG, PNG"):
        decode(image_bytes(gradient(), "EPS"))


def test_no_bytes() -> None:
    with pytest.raises(DecodeError) as raised:
        decode(b"")
    assert raised.value.kind == "empty"


def test_a_json_value_instead_of_a_file() -> None:
    with pytest.raises(DecodeError, match=r"data\.fields\.image"):
        Image().decode("picture.jpg")


def test_too_many_pixels_name_the_setting() -> None:
    image = Image(ImageSettings.model_validate({"max_pixels": 1000}))
    with pytest.raises(DecodeError, match=r"96 x 64.*modalities\.image\.max_pixels") as raised:
        image.decode(image_bytes(gradient()))
    assert raised.value.kind == "too_large"


@pytest.mark.parametrize("side", [9_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(DecodeError) as raised:
        decode(bomb)
    assert raised.value.kind == "too_large"


def test_decoding_twice_gives_the_same() -> None:
    data = image_bytes(gradient(300, 200), "JPEG")
    assert np.array_equal(decode(data), decode(data))


def test_draft_mode_shows_the_same_picture() -> None:
    picture = gradient(640, 480)
    reference = decode(image_bytes(picture, "PNG")).astype(int)
    drafted = decode(image_bytes(picture, "JPEG", quality=95)).astype(int)
    assert np.abs(drafted - reference).mean() < 3


def test_the_clean_view_is_the_whole_square() -> None:
    image = Image(SMALL)
    decoded = image.decode(image_bytes(gradient()))
    clean = image.view(decoded, None)
    assert clean.shape == image.spec.shape == (3, 32, 32)
    assert clean.dtype == np.uint8
    expected = Pillow.fromarray(decoded).resize((32, 32), Pillow.Resampling.BILINEAR)
    # Weights of 15 bits, where Pillow has 22.
    apart = np.abs(clean.astype(int) - np.asarray(expected).transpose(2, 0, 1))
    assert apart.max() <= 1


def test_strength_zero_is_the_clean_view() -> None:
    image = Image(ImageSettings.model_validate({"strength": 0}))
    decoded = image.decode(image_bytes(gradient()))
    view = image.view(decoded, np.random.default_rng(3))
    assert np.array_equal(view, image.view(decoded, None))


def test_every_part_of_a_view_can_be_switched_off() -> None:
    off = {"crop_scale": 1, "brightness": 0, "contrast": 0}
    image = Image(ImageSettings.model_validate(off))
    decoded = image.decode(image_bytes(gradient()))
    for seed in range(5):
        view = image.view(decoded, np.random.default_rng(seed))
        assert np.array_equal(view, image.view(decoded, None))


def test_a_stronger_view_is_further_away() -> None:
    image = {s: Image(ImageSettings.model_validate({"strength": s})) for s in (0.25, 1, 3)}
    decoded = image[1].decode(image_bytes(gradient()))
    clean = image[1].view(decoded, None).astype(int)

    def distance(strength: float) -> float:
        views = [image[strength].view(decoded, np.random.default_rng(i)) for i in range(30)]
        return float(np.mean([np.abs(view - clean).mean() for view in views]))

    assert 0 < distance(0.25) < distance(1) < distance(3)


def test_views_depend_on_the_seed_alone() -> None:
    image = Image()
    decoded = image.decode(image_bytes(gradient()))
    kept = decoded.copy()
    one, two, other = (image.view(decoded, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.array_equal(decoded, kept)


def test_views_are_not_mirrored() -> None:
    image = Image()
    decoded = image.decode(image_bytes(gradient()))
    for seed in range(20):
        view = image.view(decoded, np.random.default_rng(seed)).astype(int)
        assert view[0, :, -1].mean() > view[0, :, 0].mean()


def test_a_read_only_array_can_be_viewed() -> None:
    image = Image()
    decoded = image.decode(image_bytes(gradient()))
    decoded.setflags(write=False)
    assert image.view(decoded, np.random.default_rng(0)).flags.writeable


def test_views_are_mirrored_where_it_is_asked_for() -> None:
    image = Image(ImageSettings.model_validate({"flip": 0.5, "crop_scale": 1}))
    decoded = image.decode(image_bytes(gradient()))
    views = [image.view(decoded, np.random.default_rng(seed)).astype(int) for seed in range(60)]
    mirrored = sum(view[0, :, 0].mean() > view[0, :, -1].mean() for view in views)
    assert 15 < mirrored < 45


def test_saturation_changes_colours_and_leaves_grey_alone() -> None:
    only = {"saturation": 0.5, "crop_scale": 1, "brightness": 0, "contrast": 0}
    image = Image(ImageSettings.model_validate(only))
    grey = image.decode(image_bytes(np.full((40, 40, 3), 90, np.uint8)))
    coloured = image.decode(image_bytes(np.full((40, 40, 3), (200, 90, 60), np.uint8)))
    spread = []
    for seed in range(40):
        assert (image.view(grey, np.random.default_rng(seed)) == 90).all()
        view = image.view(coloured, np.random.default_rng(seed))[:, 0, 0].astype(float)
        spread.append(np.ptp(view) / 140)
        assert view @ [0.299, 0.587, 0.114] == pytest.approx(119.5, abs=1.5)
    assert 0.5 <= min(spread) < 0.7
    assert 1.3 < max(spread) <= 1.51
