# SPDX-License-Identifier: Apache-2.0
"""Images as programs have them, as the library reads them: arrays, lists of arrays of different sizes, PIL images, paths,
torch tensors and datasets.

An Images is a sequence: len(images), and images.read(i) -> uint8 [height, width, 1 or 3] or float32 [3, side, side].
Where all of them lie in one array, images.array is that array, and nothing is copied."""

from __future__ import annotations

import ctypes
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _abi
from ._arrays import to_numpy
from .errors import ArgumentError, ArgumentTypeError, FileError

Pixels = npt.NDArray[Any]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
_GROUP, _PENDING = 32, 256


def _from(module: str, value: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == module for kind in type(value).__mro__)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and _from("torch", value)


def is_image(value: Any) -> bool:
    """Whether value is a single image that is no array: a path or a PIL image."""
    return isinstance(value, (str, os.PathLike)) or (_from("PIL", value) and hasattr(value, "getexif"))


def struct_of(array: Pixels) -> _abi.dlora_images:
    """dlora_images of uint8 [n, height, width, channels] or float32 [n, 3, height, width]; the array must live on."""
    if array.dtype == np.uint8:
        count, height, width, channels = array.shape
        return _abi.dlora_images(array.ctypes.data, None, count, height, width, channels)
    count, channels, height, width = array.shape
    return _abi.dlora_images(None, array.ctypes.data, count, height, width, channels)


# ---- one image ----


def _opened(path: Any) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ArgumentTypeError("paths of images need Pillow: pip install pillow") from None
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{os.fspath(path)!r}: {error}") from error


def _composed(image: Any) -> Pixels:
    """A PIL image as uint8 [height, width, 1 or 3]; what is transparent on white, as the command does it."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        from PIL import Image
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return np.asarray(image.convert("RGB"))


def pixels_of(image: Any) -> Pixels:
    """One image as a contiguous uint8 [height, width, 1 or 3] or float32 [3, height, width]."""
    if isinstance(image, (str, os.PathLike)):
        image = _opened(image)
    if is_image(image):
        return np.ascontiguousarray(_composed(image))
    from_torch = not isinstance(image, np.ndarray) and _is_tensor(image)
    array = np.asarray(to_numpy(image) if from_torch else image)
    if array.dtype == np.uint8 and array.ndim == 3 and from_torch and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)  # of torch: [channels, height, width]
    if array.dtype == np.uint8 and array.ndim == 2:
        array = array[:, :, None]
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3) and array.size > 0:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and array.ndim == 3 and array.shape[0] == 3 and array.size > 0:
        return np.ascontiguousarray(array, dtype=np.float32)
    raise _refused(array, image, "an image", "[height, width, 3], [height, width, 1] or [height, width]", "[3, side, side]")


def _refused(array: Pixels, value: Any, what: str, bytes_shape: str, float_shape: str) -> ArgumentError:
    expected = f"uint8 {bytes_shape}, or float32 {float_shape} normalised by the model's mean and std, is expected"
    if array.dtype == object or array.dtype.kind in "USO":
        return ArgumentTypeError(f"{what} is of type {type(value).__name__}; {expected}, or a path or PIL image")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        return ArgumentTypeError(f"{what} has dtype {array.dtype}; {expected}")
    return ArgumentError(f"{what} has shape {list(array.shape)} and dtype {array.dtype}; {expected}")


# ---- many images ----


def _batch(value: Any) -> Pixels:
    """An array of images, contiguous, uint8 [n, height, width, channels] or float32 [n, 3, height, width]."""
    from_torch = not isinstance(value, np.ndarray) and _is_tensor(value)
    array = np.asarray(to_numpy(value) if from_torch else value)
    if array.dtype == np.uint8 and array.ndim == 4 and from_torch and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    shapes = "[n, height, width, 3], [n, height, width, 1] or [n, height, width]", "[n, 3, side, side]"
    if array.size == 0:
        raise ArgumentError(f"there are no images: the array's shape is {list(array.shape)}")
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3):
        raise ArgumentError(f"the images' shape {list(array.shape)} looks like one image; several are expected: image[None]")
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, :, :, None]
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 3):
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and array.ndim == 4 and array.shape[1] == 3:
        return np.ascontiguousarray(array, dtype=np.float32)
    raise _refused(array, value, "the array of images", *shapes)


class Images:
    """A sequence of images that are read one by one."""

    array: Pixels | None = None

    def __init__(self, items: Any, pick: Any = None) -> None:
        self._items, self._pick = items, pick
        if len(items) == 0:
            raise ArgumentError("there are no images: the sequence is empty")

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> Pixels:
        item = self._items[index]
        try:
            return pixels_of(item if self._pick is None else self._pick(item))
        except ArgumentError as error:
            raise type(error)(f"image {index}: {error.sentence}") from None

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[np.intp] | slice, Pixels]]:
        """Arrays of images of one size, each with the places of its images."""
        groups: dict[Any, list[tuple[int, Pixels]]] = {}
        pending = 0
        for index in range(len(self)):
            pixels = self.read(index)
            key = pixels.shape, pixels.dtype
            group = groups.setdefault(key, [])
            group.append((index, pixels))
            pending += 1
            if len(group) == min(size, _GROUP):
                yield _stacked(groups.pop(key))
                pending -= len(group)
            elif pending >= _PENDING:
                yield from map(_stacked, groups.values())
                groups, pending = {}, 0
        yield from map(_stacked, groups.values())


def _stacked(group: list[tuple[int, Pixels]]) -> tuple[npt.NDArray[np.intp], Pixels]:
    return np.array([index for index, _ in group]), np.stack([pixels for _, pixels in group])


class ArrayImages(Images):
    """Images in one array."""

    def __init__(self, array: Pixels) -> None:
        super().__init__(array)
        self.array = array

    def read(self, index: int) -> Pixels:
        return self._items[index]  # type: ignore[no-any-return]

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[np.intp] | slice, Pixels]]:
        for start in range(0, len(self), size):
            yield slice(start, start + size), self._items[start:start + size]


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _first(item: Any) -> Any:
    """The image of an item of a dataset, which may be (image, label)."""
    return item[0] if isinstance(item, (tuple, list)) else item


def open_images(images: Any) -> Images:
    """Images in any of the accepted forms."""
    if isinstance(images, Images):
        return images
    if isinstance(images, np.ndarray) and images.dtype != object or _is_tensor(images):
        return ArrayImages(_batch(images))
    if is_image(images):
        if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
            raise ArgumentError(f"{os.fspath(images)!r} is a folder; give a list of its files, in the order you want")
        return Images([images])
    images = _dataset_of(images)
    if isinstance(images, (list, tuple, np.ndarray)):
        return Images(images)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, (bytes, dict)):
        return Images(images, _first)
    if isinstance(images, Iterable) and not isinstance(images, (bytes, dict)):
        return Images([image for image, _ in _unbatched(images)])
    raise ArgumentTypeError(f"images of type {type(images).__name__} cannot be read; give an array, a list or a dataset")


# ---- images with their labels ----


def _dataset_of(images: Any) -> Any:
    """The dataset of a DataLoader, if its images can be read in any order. How images are batched and shuffled is the
    learner's matter."""
    dataset = getattr(images, "dataset", None)
    if dataset is None or not hasattr(images, "batch_sampler"):
        return images
    return dataset if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else images


def _unbatched(items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """(image, label) of each item: pairs, images alone (label None), or the batches of a DataLoader."""
    batched = hasattr(items, "batch_sampler") and getattr(items, "batch_size", None) is not None
    for item in items:
        image, label = item if _is_pair(item) else (item, None)
        if batched:
            labels = to_numpy(label) if label is not None else [None] * len(image)
            yield from zip(image, labels)
        else:
            yield image, label


def dataset_labels(dataset: Any) -> Sequence[Any]:
    """Labels of a dataset: those it has as an array, else those of its items."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # torch.utils.data.Subset
        whole = dataset_labels(dataset.dataset)
        return [whole[index] for index in dataset.indices]
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None and hasattr(labels, "__len__") and len(labels) == len(dataset):
            return list(to_numpy(labels))
    items = (dataset[index] for index in range(len(dataset)))
    return [to_numpy(item[1]) if _is_pair(item) else _no_label() for item in items]


def _no_label() -> Any:
    raise ArgumentError("labels are missing: the items of the dataset are not pairs (image, label)")


def folder_images(folder: Any) -> tuple[list[str], list[str]]:
    """Paths and labels of a folder with one sub-folder a class, both in the order of their names."""
    root = pathlib.Path(folder)
    paths: list[str] = []
    labels: list[str] = []
    for kind in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        found = sorted(path for path in kind.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        paths += map(str, found)
        labels += [kind.name] * len(found)
    if not paths:
        raise FileError(f"{os.fspath(folder)!r} has no sub-folder with images: one sub-folder a class is expected")
    return paths, labels


def open_labelled(images: Any, labels: Any) -> tuple[Images, Sequence[Any]]:
    """Images and their labels. labels None: of the images themselves, which are then a folder with one sub-folder a
    class, a dataset or DataLoader, or an iterable of pairs (image, label)."""
    if labels is not None:
        opened = open_images(images)
        labels = to_numpy(labels)
        if not hasattr(labels, "__len__"):
            labels = list(labels)
        if isinstance(labels, np.ndarray) and labels.ndim != 1:
            raise ArgumentError(f"labels have shape {list(labels.shape)}; [{len(opened)}] is expected")
        if len(labels) != len(opened):
            raise ArgumentError(f"there are {len(opened)} images and {len(labels)} labels")
        return opened, labels
    if isinstance(images, (str, os.PathLike)):
        if not os.path.isdir(images):
            raise ArgumentError(f"{os.fspath(images)!r} is no folder; labels are needed with a single image")
        paths, names = folder_images(images)
        return Images(paths), names
    images = _dataset_of(images)
    if isinstance(images, np.ndarray) or is_image(images) or _is_tensor(images):
        raise ArgumentError("labels are missing")
    if hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, (list, tuple)):
        return Images(images, _first), dataset_labels(images)
    pairs = [(image, _no_label() if label is None else label) for image, label in _unbatched(images)]
    return Images([image for image, _ in pairs]), [label for _, label in pairs]


class Source:
    """A dlora_image_source over Images. Its callback must be guarded by the caller's Callbacks."""

    def __init__(self, images: Images, labels: npt.NDArray[np.int64], tasks: npt.NDArray[np.int64] | None, guard: Any) -> None:
        self._images, self._labels, self._tasks = images, labels, tasks
        self._current: Pixels | None = None
        self._callback = _abi.ReadImageCallback(guard(self._read, 1))
        self.struct = _abi.dlora_image_source()
        self.struct.struct_size = ctypes.sizeof(_abi.dlora_image_source)
        self.struct.read = ctypes.cast(self._callback, ctypes.c_void_p)
        self.struct.count = len(images)
        self.struct.labels = labels.ctypes.data
        self.struct.tasks = None if tasks is None else tasks.ctypes.data

    def _read(self, index: int, image: int, _: Any) -> int:
        pixels = self._images.read(index)
        self._current = pixels  # until the next call
        ctypes.memmove(image, ctypes.byref(struct_of(pixels[None])), ctypes.sizeof(_abi.dlora_images))
        return 0
