# SPDX-License-Identifier: Apache-2.0
"""Data sets of the development suite, as folders of image files: <part>/<class>/<file>, part train or test."""
import gzip
import os
import shutil
import struct
import zipfile
import zlib

IMAGE_NAMES = (".jpg", ".jpeg", ".png", ".webp")
# Binary sets have thousands of images of a class; cells choose among the first so many.
MOST = {"train": 250, "test": 100}
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


class DataError(Exception):
    """A sentence about data that cannot be read."""


class ImageSet:
    def __init__(self, name, folder):
        self.name = name
        self.classes = {}  # name -> {"train": [path], "test": [path]}
        parts = {part: os.path.join(folder, part) for part in ("train", "test")}
        for part, path in parts.items():
            if not os.path.isdir(path):
                raise DataError(f"{folder} has no folder {part}")
        for label in sorted(os.listdir(parts["train"])):
            files = {part: images_in(os.path.join(path, label)) for part, path in parts.items()}
            if files["train"] and files["test"]:
                self.classes[label] = files
        if len(self.classes) < 2:
            raise DataError(f"{folder} has fewer than two classes with training and test images")


def images_in(folder):
    if not os.path.isdir(folder):
        return []
    return [os.path.abspath(os.path.join(folder, name)) for name in sorted(os.listdir(folder))
            if name.lower().endswith(IMAGE_NAMES)]


# ---- files that become folders ----

def png(width, height, pixels):
    """A PNG file's bytes. pixels: rows of gray (width * height bytes) or of red, green, blue."""
    channels = len(pixels) // (width * height)
    stride = width * channels
    rows = b"".join(b"\0" + pixels[y * stride:(y + 1) * stride] for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) +
            chunk(b"IEND", b""))


def write_image(folder, part, label, name, data):
    path = os.path.join(folder, part, label)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, name), "wb") as f:
        f.write(data)


def unpack_zip(path, folder):
    """Members train/<class>/<image> and test/<class>/<image>, also below further folders."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            words = member.split("/")
            if len(words) < 3 or words[-3] not in MOST or not words[-1].lower().endswith(IMAGE_NAMES):
                continue
            if ".." not in words and not words[-1].startswith("."):
                write_image(folder, *words[-3:], archive.read(member))


def unpack_cifar100(source, folder):
    """Records of a coarse label, a fine label, and planes of 32 x 32 red, green and blue."""
    with open(os.path.join(source, "fine_label_names.txt"), encoding="utf-8") as f:
        names = f.read().split()
    for part in MOST:
        with open(os.path.join(source, part + ".bin"), "rb") as f:
            data = f.read()
        if len(data) % 3074 != 0:
            raise DataError(f"{source}/{part}.bin is not in the layout of CIFAR-100")
        counts = dict.fromkeys(names, 0)
        for index in range(len(data) // 3074):
            record = data[index * 3074:(index + 1) * 3074]
            if record[1] >= len(names):
                raise DataError(f"{source}/{part}.bin: record {index} has the label {record[1]}")
            label = names[record[1]]
            counts[label] += 1
            if counts[label] <= MOST[part]:
                pixels = bytearray(3072)
                for channel in range(3):
                    pixels[channel::3] = record[2 + 1024 * channel:2 + 1024 * (channel + 1)]
                write_image(folder, part, label, f"{index:05d}.png", png(32, 32, bytes(pixels)))


def unpack_idx(source, folder):
    for part, stem in (("train", "train"), ("test", "t10k")):
        with gzip.open(os.path.join(source, stem + "-images-idx3-ubyte.gz")) as f:
            magic, count, height, width = struct.unpack(">IIII", f.read(16))
            pixels = f.read()
        with gzip.open(os.path.join(source, stem + "-labels-idx1-ubyte.gz")) as f:
            label_magic, label_count = struct.unpack(">II", f.read(8))
            labels = f.read()
        if (magic, label_magic) != (0x803, 0x801) or label_count != count or len(pixels) != count * height * width:
            raise DataError(f"{source}: the {stem} files are not a pair of idx files")
        counts = {}
        for index, label in enumerate(labels):
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= MOST[part]:
                image = pixels[index * height * width:(index + 1) * height * width]
                write_image(folder, part, f"class_{label}", f"{index:05d}.png", png(width, height, image))


def unpacked(name, source, unpack, out):
    """The folder of a set that is unpacked once; its file `source` says from what."""
    folder = os.path.join(out, "sets", name)
    origin = f"{os.path.realpath(source)} {os.path.getsize(source)}\n"
    if os.path.isdir(folder):
        with open(os.path.join(folder, "source"), encoding="utf-8") as f:
            if f.read() != origin:
                raise DataError(f"{folder} was unpacked from another {name}; name another folder by --out")
        return folder
    temporary = f"{folder}.{os.getpid()}.tmp"
    try:
        os.makedirs(temporary)
        unpack(source, temporary)
        with open(os.path.join(temporary, "source"), "w", encoding="utf-8") as f:
            f.write(origin)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


# ---- what there is ----

def listed(folders):
    """(name, path) of the zip files and data folders in these folders."""
    for folder in folders:
        for entry in sorted(os.listdir(folder)):
            path = os.path.join(folder, entry)
            if entry.endswith(".zip"):
                yield entry[:-len(".zip")], path
            elif os.path.isdir(os.path.join(path, "train")):
                yield entry, path


def open_sets(arguments, say):
    """Sets by name. What is not there is left out with a sentence; what is there and damaged is an error."""
    found = []
    folders = []
    for folder in arguments.data:
        if os.path.isdir(folder):
            folders.append(folder)
        else:
            say(f"left out: --data {folder} is not there")
    for name, path in listed(folders):
        found.append((name, path, unpack_zip if path.endswith(".zip") else None))
    for name, path, unpack in (("cifar100", arguments.cifar100, unpack_cifar100),
                               ("fashion-mnist", arguments.fashion_mnist, unpack_idx)):
        if path and os.path.isdir(path):
            found.append((name, path, unpack))
        elif path:
            say(f"left out: {name}, {path} is not there")
    names = [name for name, _, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two data sets are called {name}")
    for name in arguments.sets or ():
        if name not in names:
            raise DataError(f"--sets: there is no {name}, only {', '.join(names) or 'nothing'}")
    sets = {}
    for name, path, unpack in found:
        if not arguments.sets or name in arguments.sets:
            try:
                sets[name] = ImageSet(name, unpacked(name, path, unpack, arguments.out) if unpack else path)
            except (OSError, zipfile.BadZipFile, struct.error, EOFError) as error:
                raise DataError(f"{path}: {error}") from error
    if not sets:
        raise DataError("no data set is left; name some by --data, --cifar100 or --fashion-mnist")
    return sets
