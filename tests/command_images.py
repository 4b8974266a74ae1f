# SPDX-License-Identifier: Apache-2.0
"""Pictures as the command duallora decodes them: files of every kind are made here, exported by the command as PNG, and
compared with what they must show. Standard library alone.

    command_images.py DUALLORA SCRATCH     all checks
    command_images.py --make FOLDER        a few files for test_command_images.sh
"""
import os
import struct
import subprocess
import sys
import zlib

BLOCK, COLUMNS, ROWS = 8, 3, 2
WIDTH, HEIGHT = BLOCK * COLUMNS, BLOCK * ROWS
# One colour a block, two values a channel: what a JPEG of one coefficient a block and a WebP of two codes a channel hold.
COLOURS = [(200, 20, 20), (20, 200, 20), (20, 20, 200), (200, 200, 20), (20, 200, 200), (200, 20, 200)]
OPACITIES = [255, 128, 128, 255, 128, 255]


def blocks(values):
    """One value a block as rows of pixels."""
    return [[values[y // BLOCK * COLUMNS + x // BLOCK] for x in range(WIDTH)] for y in range(HEIGHT)]


PICTURE = blocks(COLOURS)


def on_white(colour, alpha):
    return tuple((c * alpha + 255 * (255 - alpha) + 127) // 255 for c in colour)


def upright(rows, orientation):
    """By the standard's words: which side of the scene row 0 and column 0 are."""
    if orientation >= 5:  # row 0 is the left or the right side
        rows = [list(column) for column in zip(*rows)]
    if orientation in (2, 3, 6, 7):  # the first column of what is shown came last
        rows = [row[::-1] for row in rows]
    if orientation in (3, 4, 7, 8):
        rows = rows[::-1]
    return rows


def exif(orientation, big=True, entries=None, offset=8):
    """TIFF data with another tag before the orientation, as cameras write them."""
    order = ">" if big else "<"
    if entries is None:
        entries = [(0x0100, 4, 1, struct.pack(order + "I", 7)), (0x0112, 3, 1, struct.pack(order + "Hxx", orientation))]
    data = (b"MM\0*" if big else b"II*\0") + struct.pack(order + "IH", offset, len(entries))
    for tag, kind, count, value in entries:
        data += struct.pack(order + "HHI", tag, kind, count) + value
    return data + struct.pack(order + "I", 0)


# ---- JPEG: one DC coefficient a block, all quantisers 1 ----


def jpeg(planes, ids=(1, 2, 3, 4), adobe=None, progressive=False, meta=None, precision=8, end=True):
    """planes: for each component the value of each block."""
    out = bytearray(b"\xff\xd8")

    def segment(marker, data):
        out.extend(b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data)

    if meta is not None:
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")  # the same marker holds XMP
        segment(0xE1, b"Exif\0\0" + meta)
    if adobe is not None:
        segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe))
    segment(0xDB, b"\0" + b"\1" * 64)
    frame = struct.pack(">BHHB", precision, HEIGHT, WIDTH, len(planes))
    segment(0xC2 if progressive else 0xC0, frame + b"".join(bytes([i, 0x11, 0]) for i in ids[: len(planes)]))
    segment(0xC4, b"\x00" + bytes([0, 0, 0, 12] + 12 * [0]) + bytes(range(12)))  # DC: 12 categories of 4 bits
    segment(0xC4, b"\x10" + bytes([1] + 15 * [0]) + b"\0")  # AC: the end of the block in 1 bit

    def scan(components, first, last, bits):
        segment(0xDA, bytes([len(components)]) + b"".join(bytes([ids[c], 0]) for c in components) + bytes([first, last, 0]))
        bits += "1" * (-len(bits) % 8)
        coded = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        out.extend(coded.replace(b"\xff", b"\xff\0"))

    def dc(value, before):
        change = 8 * (value - 128) - before
        size = abs(change).bit_length()
        code = change if change >= 0 else change + (1 << size) - 1
        return format(size, "04b") + (format(code, f"0{size}b") if size else "")

    before = [0] * len(planes)
    bits = ""
    for b in range(COLUMNS * ROWS):
        for c, plane in enumerate(planes):
            bits += dc(plane[b], before[c]) + ("" if progressive else "0")
            before[c] = 8 * (plane[b] - 128)
    scan(range(len(planes)), 0, 0 if progressive else 63, bits)
    for c in range(len(planes)) if progressive else ():
        scan([c], 1, 63, "0" * COLUMNS * ROWS)
    return bytes(out) + (b"\xff\xd9" if end else b"")


def planes(values):
    return [list(plane) for plane in zip(*values)]


def to_rgb(luma, blue, red):
    rgb = luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128), luma + 1.772 * (blue - 128)
    return tuple(min(255, max(0, round(value))) for value in rgb)


# ---- PNG ----


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, colour, depth=8, before=b"", after=b"", interlaced=False):
    """rows: for each pixel a tuple of samples."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for y0, x0, dy, dx in starts if interlaced else [(0, 0, 1, 1)]:
        for row in rows[y0::dy]:
            bits = "".join(format(sample, f"0{depth}b") for pixel in row[x0::dx] for sample in pixel)
            bits += "0" * (-len(bits) % 8)
            raw += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, colour, 0, 0, interlaced)
    data = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(raw)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def read_png(path):
    """What the command writes: 8 bits, RGB, in one piece."""
    with open(path, "rb") as file:
        data = file.read()
    at, packed, size = 8, b"", None
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if name == b"IHDR":
            size = struct.unpack(">IIBBBBB", body)
            assert size[2:] == (8, 2, 0, 0, 0), size
        if name == b"IDAT":
            packed += body
        at += 12 + length
    raw, stride = zlib.decompress(packed), 3 * size[0]
    rows, last = [], bytearray(stride)
    for y in range(size[1]):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            left, up, corner = (row[i - 3] if i >= 3 else 0), last[i], (last[i - 3] if i >= 3 else 0)
            nearest = min((abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner))
            row[i] = row[i] + (0, left, up, (left + up) // 2, nearest[2])[kind] & 255
        rows.append([tuple(row[i : i + 3]) for i in range(0, stride, 3)])
        last = row
    return rows


# ---- WebP, lossless ----


def webp(rows, meta=None, animated=False):
    """rows: (red, green, blue, alpha), at most two values a channel."""
    bits = []

    def put(value, count):
        bits.extend(value >> i & 1 for i in range(count))

    put(len(rows[0]) - 1, 14)
    put(len(rows) - 1, 14)
    put(1, 1)  # alpha
    put(0, 3 + 3)  # version; no transform, no colour cache, no groups of codes
    values = [sorted({pixel[c] for row in rows for pixel in row}) for c in (1, 0, 2, 3)] + [[0]]
    for channel in values:
        put(1, 1)
        put(len(channel) - 1, 1)
        put(1, 1)
        for value in channel:
            put(value, 8)
    for row in rows:
        for pixel in row:
            for channel, c in zip(values, (1, 0, 2, 3)):
                if len(channel) == 2:
                    put(channel.index(pixel[c]), 1)
    bits += [0] * (-len(bits) % 8)
    coded = b"\x2f" + bytes(sum(bits[i + j] << j for j in range(8)) for i in range(0, len(bits), 8))

    def piece(name, data):
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    flags = 0x10 | (0x08 if meta is not None else 0) | (0x02 if animated else 0)
    sizes = struct.pack("<I", len(rows[0]) - 1)[:3] + struct.pack("<I", len(rows) - 1)[:3]
    data = b"WEBP" + piece(b"VP8X", struct.pack("<I", flags) + sizes) + piece(b"VP8L", coded)
    if meta is not None:
        data += piece(b"EXIF", meta)
    return b"RIFF" + struct.pack("<I", len(data)) + data


# ---- the checks ----

failures = 0


def fail(text):
    global failures
    failures += 1
    print("FAILED:", text, file=sys.stderr)


class Checker:
    def __init__(self, duallora, scratch):
        self.duallora, self.scratch, self.count = duallora, scratch, 0

    def export(self, name, data):
        self.count += 1
        folder = os.path.join(self.scratch, f"source-{self.count}")
        target = os.path.join(self.scratch, f"target-{self.count}")
        os.makedirs(os.path.join(folder, "class"))
        with open(os.path.join(folder, "class", name), "wb") as file:
            file.write(data)
        done = subprocess.run(
            [self.duallora, "export", "--data", folder, "--out", target], capture_output=True, text=True, check=False
        )
        return done, os.path.join(target, "class", "000000.png")

    def shows(self, name, data, expected, tolerance=0):
        done, path = self.export(name, data)
        if done.returncode:
            fail(f"{name}: {done.stderr.strip()}")
            return
        found = read_png(path)
        if (len(found), len(found[0])) != (len(expected), len(expected[0])):
            fail(f"{name}: {len(found[0])} x {len(found)} pixels instead of {len(expected[0])} x {len(expected)}")
            return
        wrong = [
            (x, y, found[y][x], expected[y][x])
            for y in range(len(found))
            for x in range(len(found[0]))
            if max(abs(a - b) for a, b in zip(found[y][x], expected[y][x])) > tolerance
        ]
        if wrong:
            fail(f"{name}: {len(wrong)} pixels are wrong, first of all (x, y, found, expected) {wrong[0]}")

    def refused(self, name, data, sentence):
        done, _ = self.export(name, data)
        if done.returncode != 1 or sentence not in done.stderr:
            fail(f"{name}: exit code {done.returncode}, no '{sentence}' in '{done.stderr.strip()}'")


def check_orientations(check, has_webp):
    translucent = blocks([c + (a,) for c, a in zip(COLOURS, OPACITIES)])
    composed = blocks([on_white(c, a) for c, a in zip(COLOURS, OPACITIES)])
    for orientation in range(1, 9):
        for big in (True, False):
            meta = exif(orientation, big)
            name = f"{orientation}{'big' if big else 'little'}"
            right = upright(PICTURE, orientation)
            check.shows(name + ".jpg", jpeg(planes(COLOURS), adobe=0, meta=meta), right)
            check.shows(name + "-first.png", png(PICTURE, 2, before=chunk(b"eXIf", meta)), right)
            check.shows(name + "-last.png", png(PICTURE, 2, after=chunk(b"eXIf", meta)), right)
            if has_webp:
                check.shows(name + ".webp", webp(translucent, meta), upright(composed, orientation))
        check.shows(f"{orientation}-alpha.png", png(translucent, 6, before=chunk(b"eXIf", meta)), upright(composed, orientation))
    # Where the corners of the scene go, in the words of the standard, which the function above must agree with.
    corner = upright(PICTURE, 6)[0][-1]  # 6: row 0 is the right side, column 0 the top
    assert corner == PICTURE[0][0] and upright(PICTURE, 8)[-1][0] == PICTURE[0][0]


def check_hostile(check, has_webp):
    """Whatever is said of a picture, it is shown, upright."""
    short = struct.pack(">Hxx", 6)
    bad = {
        "empty": b"",
        "cut": exif(6)[:9],
        "no-entries": exif(6)[:10],
        "cut-entry": exif(6)[:-8],
        "order": b"XX" + exif(6)[2:],
        "offset-beyond": exif(6, offset=0xFFFFFFFF),
        "offset-at-end": exif(6, offset=len(exif(6)) - 1),
        "offset-to-itself": exif(6, offset=0),
        "many-entries": b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\x00\x03\x00",
        "zero": exif(0),
        "nine": exif(9),
        "large": exif(0xFFFF),
        "count": exif(6, entries=[(0x0112, 3, 0xFFFFFFFF, short)]),
        "kind": exif(6, entries=[(0x0112, 7, 1, short)]),
        "first-counts": exif(6, entries=[(0x0112, 3, 1, struct.pack(">Hxx", 1)), (0x0112, 3, 1, short)]),
        "next-is-first": exif(1)[:-4] + struct.pack(">I", 8),
    }
    for name, meta in bad.items():
        check.shows(f"hostile-{name}.jpg", jpeg(planes(COLOURS), adobe=0, meta=meta), PICTURE)
        check.shows(f"hostile-{name}.png", png(PICTURE, 2, before=chunk(b"eXIf", meta)), PICTURE)
        if has_webp:
            check.shows(f"hostile-{name}.webp", webp([[p + (255,) for p in row] for row in PICTURE], meta), PICTURE)
    check.shows("long.png", png(PICTURE, 2, before=chunk(b"eXIf", exif(1) + bytes(300000))), PICTURE)
    check.shows("comment.png", png(PICTURE, 2, before=chunk(b"tEXt", b"k\0" + 400000 * b"v")), PICTURE)
    check.shows("prefix.png", png(PICTURE, 2, before=chunk(b"eXIf", b"Exif\0\0" + exif(6))), upright(PICTURE, 6))
    entries = [(0x0112, 4, 1, struct.pack(">I", 6))]
    check.shows("long-value.jpg", jpeg(planes(COLOURS), adobe=0, meta=exif(6, entries=entries)), upright(PICTURE, 6))


def check_png_kinds(check):
    grays = [0, 40, 90, 140, 200, 255]
    gray = blocks(grays)
    as_rgb = [[(v, v, v) for v in row] for row in gray]
    check.shows("gray.png", png([[(v,) for v in row] for row in gray], 0), as_rgb)
    check.shows("gray-16.png", png([[(257 * v,) for v in row] for row in gray], 0, 16), as_rgb)
    check.shows("rgb-16.png", png([[tuple(257 * c for c in p) for p in row] for row in PICTURE], 2, 16), PICTURE)
    # 16 bits are rounded, not cut.
    check.shows("rounded-16.png", png([[(0x01FF,)]], 0, 16), [[(2, 2, 2)]])
    bits = [[(x // 3 + y) % 2 for x in range(21)] for y in range(5)]
    as_bits = [[(255 * v,) * 3 for v in row] for row in bits]
    check.shows("bit.png", png([[(v,) for v in row] for row in bits], 0, 1), as_bits)
    check.shows("bit-interlaced.png", png([[(v,) for v in row] for row in bits], 0, 1, interlaced=True), as_bits)
    composed = blocks([on_white((v, v, v), a) for v, a in zip(grays, OPACITIES)])
    check.shows("gray-alpha.png", png(blocks(list(zip(grays, OPACITIES))), 4), composed)
    deep = blocks([(257 * v, 257 * a) for v, a in zip(grays, OPACITIES)])
    check.shows("gray-alpha-16.png", png(deep, 4, 16), composed)
    see_through = chunk(b"tRNS", struct.pack(">H", 90))
    holes = blocks([(255,) * 3 if v == 90 else (v,) * 3 for v in grays])
    check.shows("gray-hole.png", png([[(v,) for v in row] for row in gray], 0, before=see_through), holes)
    see_through = chunk(b"tRNS", struct.pack(">HHH", *COLOURS[2]))
    holes = blocks([(255,) * 3 if c == COLOURS[2] else c for c in COLOURS])
    check.shows("rgb-hole.png", png(PICTURE, 2, before=see_through), holes)
    palette = chunk(b"PLTE", bytes(v for c in COLOURS for v in c))
    indexes = blocks([(i,) for i in range(6)])
    check.shows("palette.png", png(indexes, 3, 4, before=palette), PICTURE)
    palette += chunk(b"tRNS", bytes([0, 128, 255]))
    composed = blocks([on_white(c, a) for c, a in zip(COLOURS, [0, 128, 255, 255, 255, 255])])
    check.shows("palette-alpha.png", png(indexes, 3, 8, before=palette), composed)
    check.shows("palette-alpha-interlaced.png", png(indexes, 3, 4, before=palette, interlaced=True), composed)
    opacities = [0, 1, 127, 128, 254, 255]
    translucent = blocks([c + (a,) for c, a in zip(COLOURS, opacities)])
    composed = blocks([on_white(c, a) for c, a in zip(COLOURS, opacities)])
    check.shows("rgba.png", png(translucent, 6), composed)
    check.shows("rgba-interlaced.png", png(translucent, 6, interlaced=True), composed)
    deep = [[tuple(257 * v for v in p) for p in row] for row in translucent]
    check.shows("rgba-16.png", png(deep, 6, 16), composed)


def check_jpeg_kinds(check):
    ycc = [(90, 100, 180), (120, 128, 128), (40, 200, 90), (200, 60, 140), (255, 128, 128), (16, 110, 150)]
    black = [255, 230, 130, 60, 255, 200]
    rgb = [to_rgb(*v) for v in ycc]
    gray = [0, 40, 90, 140, 200, 255]
    for kind in (False, True):
        name = "progressive" if kind else "baseline"
        check.shows(f"{name}-gray.jpg", jpeg([gray], progressive=kind), blocks([(v,) * 3 for v in gray]))
        check.shows(f"{name}-ycc.jpg", jpeg(planes(ycc), progressive=kind), blocks(rgb), 1)
        inks = [c + (k,) for c, k in zip(COLOURS, black)]
        inverted = [tuple((v * k + 127) // 255 for v in c) for c, k in zip(COLOURS, black)]
        check.shows(f"{name}-cmyk-adobe.jpg", jpeg(planes(inks), adobe=0, progressive=kind), blocks(inverted))
        plain = [tuple(((255 - v) * (255 - k) + 127) // 255 for v in c) for c, k in zip(COLOURS, black)]
        check.shows(f"{name}-cmyk.jpg", jpeg(planes(inks), progressive=kind), blocks(plain))
        inks = [c + (k,) for c, k in zip(ycc, black)]
        inverted = [tuple(((255 - v) * k + 127) // 255 for v in c) for c, k in zip(rgb, black)]
        check.shows(f"{name}-ycck.jpg", jpeg(planes(inks), adobe=2, progressive=kind), blocks(inverted), 2)
    check.refused("twelve-bits.jpg", jpeg([gray], precision=12), "twelve-bits.jpg: a kind of JPEG file that is not read")
    check.refused("two-components.jpg", jpeg([gray, gray]), "two-components.jpg: a kind of JPEG file that is not read")


def check_damage(check, has_webp):
    files = {"cut.jpg": ("JPEG", jpeg(planes(COLOURS), adobe=0)), "cut.png": ("PNG", png(PICTURE, 2))}
    if has_webp:
        files["cut.webp"] = ("WebP", webp([[p + (255,) for p in row] for row in PICTURE]))
    for name, (kind, data) in files.items():
        for share in (0.5, 0.9):
            check.refused(name, data[: int(share * len(data))], f"{name}: truncated {kind} file")
    check.refused("progressive.jpg", jpeg(planes(COLOURS), progressive=True)[:-20], "progressive.jpg: truncated JPEG file")


def check_contents(check, has_webp):
    """The first bytes say what a file is, whatever its name does."""
    check.shows("png-called.jpg", png(PICTURE, 2), PICTURE)
    check.shows("jpeg-called.png", jpeg(planes(COLOURS), adobe=0), PICTURE)
    check.shows("UPPER.JPG", jpeg(planes(COLOURS), adobe=0), PICTURE)
    called = webp([[p + (255,) for p in row] for row in PICTURE])
    if has_webp:
        check.shows("webp-called.jpg", called, PICTURE)
        check.refused("moving.webp", webp([[p + (255,) for p in row] for row in PICTURE], animated=True), "animated WebP")
    else:
        check.refused("webp-called.jpg", called, "webp-called.jpg is a WebP file, and this program was built without")
    for data, sentence in (
        (b"GIF89a" + bytes(40), "is a GIF file"),
        (b"BM" + bytes(40), "is a BMP file"),
        (b"II*\0" + bytes(40), "is a TIFF file"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIF file"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "is an AVIF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"", "(it is empty)"),
        (b"x" * 40, "is neither a JPEG nor a PNG"),
    ):
        check.refused("other.jpg", data, sentence)


def make(folder):
    os.makedirs(folder, exist_ok=True)
    files = {
        "plain.jpg": jpeg(planes(COLOURS), adobe=0),
        "plain.png": png(PICTURE, 2),
        "plain.webp": webp([[p + (255,) for p in row] for row in PICTURE]),
        "upright.png": png(upright(PICTURE, 6), 2),
        "lying.png": png(PICTURE, 2, before=chunk(b"eXIf", exif(6))),
        "cut.jpg": jpeg(planes(COLOURS), adobe=0)[:-40],
    }
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    for number in range(4):  # two kinds of pictures to learn
        for kind, colours in (("red", COLOURS), ("blue", [c[::-1] for c in COLOURS])):
            shift = number % len(COLOURS)
            with open(os.path.join(folder, f"{kind}{number}.png"), "wb") as file:
                file.write(png(blocks(colours[shift:] + colours[:shift]), 2))


def main():
    if sys.argv[1] == "--make":
        make(sys.argv[2])
        return 0
    told = subprocess.run([sys.argv[1], "predict", "--help"], capture_output=True, text=True, check=True).stdout
    has_webp = "WebP" in told
    check = Checker(sys.argv[1], sys.argv[2])
    check_orientations(check, has_webp)
    check_hostile(check, has_webp)
    check_png_kinds(check)
    check_jpeg_kinds(check)
    check_damage(check, has_webp)
    check_contents(check, has_webp)
    print(f"{check.count} files, {failures} failures{'' if has_webp else '; without WebP'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
