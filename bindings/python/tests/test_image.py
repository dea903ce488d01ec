from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from conftest import TALL, WIDE

import llava


def seen(model: llava.Model, image: llava.ImageLike) -> bytes:
    """What the tower makes of an image."""
    return model.encode(image).memoryview().tobytes()


def test_paths_bytes_and_images_are_the_same_picture(model: llava.Model) -> None:
    data = WIDE.read_bytes()
    expected = seen(model, WIDE)
    padded = memoryview(b"".join(bytes([b, 0]) for b in data))[::2]
    for source in (str(WIDE), llava.Image.open(WIDE), data, bytearray(data), memoryview(data), padded):
        assert seen(model, source) == expected
    with llava.Image.open(TALL) as tall:
        assert tall.height > tall.width and tall.size == (tall.width, tall.height)
    with pytest.raises(OSError, match="nowhere"):
        llava.Image.open("nowhere.png")
    with pytest.raises(llava.InvalidImage):
        llava.Image.decode(data[:50])


def test_pixels_of_every_format(model: llava.Model) -> None:
    rgb = bytes(range(48)) * 4  # 8 by 8
    expected = seen(model, llava.Image.from_pixels(rgb, 8, 8))
    pixels = [rgb[i : i + 3] for i in range(0, len(rgb), 3)]
    formats = {
        "BGR": b"".join(p[::-1] for p in pixels),
        "RGBA": b"".join(p + b"\xff" for p in pixels),
        "BGRA": b"".join(p[::-1] + b"\xff" for p in pixels),
    }
    for format, data in formats.items():
        assert seen(model, llava.Image.from_pixels(data, 8, 8, format)) == expected, format
    rows = b"".join(rgb[24 * y : 24 * y + 24] + b"gap" for y in range(8))
    assert seen(model, llava.Image.from_pixels(rows, 8, 8, stride=27)) == expected
    shaped = memoryview(rgb).cast("B", (8, 8, 3))
    assert seen(model, shaped) == expected
    grey = llava.Image.from_pixels(bytes(64), 8, 8, "L")
    assert seen(model, grey) == seen(model, llava.Image.from_pixels(bytes(192), 8, 8))
    wrong: list[tuple[Any, ...]] = [(rgb, 8, 9), (rgb, 0, 8), (rgb, 8, 8, "CMYK"), (rgb, 8, 8, "RGB", 23), (rgb, 1 << 40, 8)]
    for arguments in wrong:
        with pytest.raises(llava.Error):
            llava.Image.from_pixels(*arguments)


def test_arrays_of_any_layout(model: llava.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(1)
    array = rng.integers(0, 256, (20, 30, 3), numpy.uint8)
    expected = seen(model, array)

    # Where the library reads from: the array's own memory, or a copy.
    addresses: list[int] = []
    real = llava.Image._from_pixels.__func__  # type: ignore[attr-defined]

    def spy(cls: Any, address: int, *rest: Any) -> llava.Image:
        addresses.append(address)
        image: llava.Image = real(cls, address, *rest)
        return image

    monkeypatch.setattr(llava.Image, "_from_pixels", classmethod(spy))
    wide = numpy.zeros((40, 50, 3), numpy.uint8)
    wide[5:25, 7:37] = array
    fixed = array.copy()
    fixed.setflags(write=False)
    rgba = numpy.concatenate([array, numpy.full((20, 30, 1), 255, numpy.uint8)], 2)
    for same in (array, wide[5:25, 7:37], fixed, rgba):
        assert seen(model, same) == expected
        assert addresses.pop() == same.__array_interface__["data"][0], "read where it is"
    reversed_twice = numpy.ascontiguousarray(array[::-1])[::-1]
    planes = numpy.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0)
    fortran = numpy.asfortranarray(array)
    for same in (reversed_twice, planes, fortran, wide[5:25, 7:37][:, ::-1][:, ::-1], rgba[..., :3]):
        assert seen(model, same) == expected
    assert seen(model, llava.Image.from_array(array[..., ::-1], "BGR")) == expected
    grey = array[..., 0]
    assert seen(model, grey) == seen(model, grey[..., None]) == seen(model, numpy.stack([grey] * 3, 2))
    assert seen(model, numpy.fromfile(WIDE, numpy.uint8).data) == seen(model, WIDE)
    for wrong in (array.astype(numpy.float32), array[None], array[..., :2], numpy.zeros((0, 5, 3), numpy.uint8)):
        with pytest.raises(llava.Error):
            llava.Image.from_array(wrong)
    with pytest.raises(llava.InvalidArgument, match="channels"):
        llava.Image.from_array(array, "RGBA")


def test_pil_images_of_every_mode(model: llava.Model, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    picture = pil.open(WIDE)
    expected = seen(model, WIDE)
    assert seen(model, picture) == expected
    for mode in ("RGBA", "P", "L", "LA", "1", "CMYK", "YCbCr", "I", "F", "HSV"):
        converted = picture.convert("RGB").convert(mode)
        reference = converted.convert("RGBA" if mode == "LA" else "RGB")
        assert seen(model, converted) == seen(model, reference), mode
    # Transparency in a palette is not lost.
    see_through = pil.new("RGBA", (40, 30), (255, 0, 0, 0))
    see_through.paste((0, 0, 255, 255), (0, 0, 20, 30))
    data = io.BytesIO()
    see_through.quantize().save(data, "PNG")
    assert seen(model, pil.open(io.BytesIO(data.getvalue()))) == seen(model, data.getvalue())
    # As a file that says it is turned.
    turned = picture.convert("RGB")
    exif = pil.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    opened = pil.open(tmp_path / "turned.png")
    assert llava.Image.of(opened).size == llava.Image.open(tmp_path / "turned.png").size == picture.size[::-1]
    assert seen(model, opened) == seen(model, tmp_path / "turned.png")
