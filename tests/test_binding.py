# SPDX-License-Identifier: Apache-2.0
"""The C interface as a binding in another language sees it: ctypes and numpy, the shared library and nothing else.

Everything goes through dlora_* functions, fixed-width types and the layouts of the header; no macro, no enum. With the
library's path it runs the tests below:

    python3 tests/test_binding.py libduallora.so vit.safetensors
"""

import ctypes
import os
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy (Debian: python3-numpy)")
    sys.exit(77)

OK, ERR_ARGUMENT, ERR_STRUCT_SIZE, ERR_STATE, ERR_IO, ERR_MISMATCH, ERR_CANCELLED = 0, 1, 3, 4, 5, 7, 9
ERR_NOT_FINITE = 8
RELEVANCE_NONE = 4

size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
i32, i64, f32, f64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_double


def struct(name, *members):
    return type(name, (ctypes.Structure,), {"_fields_": list(members)})


Images = struct(
    "Images", ("u8", pointer), ("f32", pointer), ("count", size_t), ("height", size_t), ("width", size_t),
    ("channels", size_t),
)
Source = struct(
    "Source", ("struct_size", size_t), ("read", pointer), ("user", pointer), ("count", size_t), ("labels", pointer),
    ("tasks", pointer),
)
Progress = struct(
    "Progress", ("struct_size", size_t), ("task", i64), ("done", size_t), ("total", size_t), ("loss", f64),
    ("images_per_second", f64), ("phase", i32), ("reserved", i32),
)
# Options go by name: longer than the struct of any version, and no member is known here.
OPTIONS_SIZE = 1024

Report = struct(
    "Report", ("struct_size", size_t), ("task", i64), ("num_classes", size_t), ("num_images", size_t),
    ("num_steps", size_t), ("first_loss", f64), ("last_loss", f64), ("seconds_observe", f64), ("seconds_train", f64),
    ("seconds_statistics", f64), ("used_directions_min", size_t), ("used_directions_max", size_t),
    ("rank_orthogonal_min", size_t), ("rank_orthogonal_max", size_t), ("evidence_images", size_t),
    ("evidence_gain", f64), ("untouched_weight", f64),
)
Evaluation = struct(
    "Evaluation", ("struct_size", size_t), ("num_images", size_t), ("num_skipped", size_t), ("accuracy", f64),
    ("task_accuracy", f64), ("accuracy_given_task", f64), ("ece", f64), ("task_ece", f64), ("untouched_accuracy", f64),
    ("average_accuracy", f64), ("forgetting", f64), ("backward_transfer", f64),
)
ModelInfo = struct("ModelInfo", ("struct_size", size_t), ("embed_dim", size_t), ("depth", size_t))
# dlora_prediction never grows: an array of it is a numpy array.
PREDICTION = np.dtype([
    ("class_id", np.int64), ("task", np.int64), ("class_probability", np.float32), ("task_probability", np.float32),
    ("unknown_score", np.float32), ("unknown", np.int32),
])
READ_IMAGE = ctypes.CFUNCTYPE(i32, size_t, ctypes.POINTER(Images), pointer)
PROGRESS = ctypes.CFUNCTYPE(i32, ctypes.POINTER(Progress), pointer)

STATUS_FUNCTIONS = {
    "dlora_model_load": [pointer, ctypes.c_char_p, pointer],
    "dlora_model_get_info": [pointer, pointer],
    "dlora_model_embed": [pointer, pointer, pointer],
    "dlora_learner_options_init": [pointer, size_t],
    "dlora_learner_options_set": [pointer, ctypes.c_char_p, ctypes.c_char_p],
    "dlora_learner_options_get": [pointer, ctypes.c_char_p, pointer, size_t],
    "dlora_option_get_info": [size_t, pointer],
    "dlora_learner_set_progress": [pointer, pointer, pointer],
    "dlora_learner_create": [pointer, pointer, pointer],
    "dlora_learner_learn_task": [pointer, pointer, pointer, pointer],
    "dlora_learner_learn_source": [pointer, pointer, pointer],
    "dlora_learner_get_classes": [pointer, pointer],
    "dlora_learner_set_class_name": [pointer, i64, ctypes.c_char_p],
    "dlora_learner_predict": [pointer, pointer, pointer, pointer],
    "dlora_learner_evaluate": [pointer, pointer, pointer],
    "dlora_learner_get_accuracy_matrix": [pointer, pointer],
    "dlora_learner_save": [pointer, ctypes.c_char_p],
    "dlora_learner_load": [pointer, pointer, ctypes.c_char_p, pointer],
    "dlora_predictor_create": [pointer, size_t, pointer],
    "dlora_predictor_observe": [pointer, pointer, pointer, size_t],
    "dlora_predictor_commit_task": [pointer],
    "dlora_predictor_predict": [pointer, pointer, size_t, pointer],
    "dlora_projector_create": [pointer, size_t, pointer],
    "dlora_projector_observe": [pointer, pointer, size_t],
    "dlora_projector_commit_task": [pointer, f32, pointer],
    "dlora_projector_get_bases": [pointer, i64, pointer, pointer],
    "dlora_projector_project": [pointer, pointer, size_t],
}
OTHER_FUNCTIONS = {
    "dlora_last_error": (ctypes.c_char_p, []),
    "dlora_status_name": (ctypes.c_char_p, [i32]),
    "dlora_version": (ctypes.c_char_p, []),
    "dlora_build_info": (ctypes.c_char_p, []),
    "dlora_model_destroy": (None, [pointer]),
    "dlora_learner_destroy": (None, [pointer]),
    "dlora_learner_num_tasks": (size_t, [pointer]),
    "dlora_learner_num_classes": (size_t, [pointer]),
    "dlora_learner_get_untouched_weight": (f64, [pointer]),
    "dlora_learner_get_class_name": (ctypes.c_char_p, [pointer, i64]),
    "dlora_learner_get_projector": (pointer, [pointer, size_t, i32]),
    "dlora_predictor_destroy": (None, [pointer]),
    "dlora_projector_destroy": (None, [pointer]),
    "dlora_projector_size": (size_t, [pointer]),
}


class Failure(Exception):
    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class Library:
    """Calls by name: lib.learner_save(handle, path) raises Failure with the library's sentence."""

    def __init__(self, path):
        library = ctypes.CDLL(path)
        for name, (result, arguments) in OTHER_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name[len("dlora_"):], function)
        for name, arguments in STATUS_FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = i32, arguments
            setattr(self, name[len("dlora_"):], self._checked(function))

    def _checked(self, function):
        def call(*arguments):
            status = function(*arguments)
            if status:
                raise Failure(status, self.last_error().decode())
        return call

    def make(self, function, *arguments):
        """The handle that a _create or _load function gives through its first argument."""
        out = pointer(1)
        try:
            function(ctypes.byref(out), *arguments)
        except Failure:
            assert out.value is None, "*out must be NULL after a failure"
            raise
        assert out.value
        return out


def sized(kind):
    value = kind()
    value.struct_size = ctypes.sizeof(kind)
    return value


def data(array):
    assert array.flags["C_CONTIGUOUS"]
    return array.ctypes.data


def images_of(pixels):
    """pixels: uint8 [n, height, width, 3] or float32 [n, 3, size, size], borrowed."""
    if pixels.dtype == np.uint8:
        return Images(data(pixels), None, *pixels.shape)
    return Images(None, data(pixels), pixels.shape[0], pixels.shape[2], pixels.shape[3], 3)


# ---- the tests ----


def pictures(classes, each, seed):
    """Flat colours with noise, one colour a class; labels in turn."""
    random = np.random.RandomState(seed)
    labels = np.tile(np.array(classes, np.int64), each)
    colours = np.random.RandomState(7).randint(40, 216, size=(100, 1, 1, 3))
    pixels = colours[labels % 100] + random.randint(-30, 31, size=(len(labels), 16, 16, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def refused(status, words, function, *arguments):
    try:
        function(*arguments)
    except Failure as failure:
        assert failure.status == status, (failure.status, str(failure))
        assert words in str(failure), str(failure)
        return
    raise AssertionError("not refused: " + words)


def small_options(lib, **changes):
    options = ctypes.create_string_buffer(OPTIONS_SIZE)
    lib.learner_options_init(options, OPTIONS_SIZE)
    text = ctypes.create_string_buffer(64)
    lib.learner_options_get(options, b"batch_size", text, 64)
    assert text.value == b"16"
    small = {"threads": 1, "epochs": 1, "rank_orthogonal": 2, "rank_residual": 2, **changes}
    for name, value in small.items():
        lib.learner_options_set(options, name.encode(), str(value).encode())
        lib.learner_options_get(options, name.encode(), text, 64)
        assert text.value.decode() == str(value)
    refused(ERR_ARGUMENT, "learning_rate", lib.learner_options_set, options, b"learning_rate", b"fast")
    return options


def source_of(pixels, labels, keep):
    @READ_IMAGE
    def read(index, image, user):
        image[0] = images_of(pixels[index:index + 1])
        return 0

    keep.extend([read, pixels, labels])
    source = sized(Source)
    source.read = ctypes.cast(read, pointer)
    source.count, source.labels = len(labels), data(labels)
    return source


def predict(lib, learner, pixels):
    found = np.zeros(len(pixels), PREDICTION)
    log_probs = np.zeros((len(pixels), lib.learner_num_classes(learner)), np.float32)
    lib.learner_predict(learner, ctypes.byref(images_of(pixels)), data(found), data(log_probs))
    assert np.allclose(np.exp(log_probs).sum(axis=1), 1.0, atol=1e-4)
    assert np.allclose(np.exp(log_probs).max(axis=1), found["class_probability"], atol=1e-5)
    return found, log_probs


def the_whole_method(lib, backbone, folder):
    keep = []
    model = lib.make(lib.model_load, backbone, None)
    info = sized(ModelInfo)
    lib.model_get_info(model, ctypes.byref(info))
    options = small_options(lib)
    calls = []

    @PROGRESS
    def progress(now, user):
        calls.append((now[0].phase, now[0].done, now[0].total))
        return 0

    learner = lib.make(lib.learner_create, model, options)
    lib.learner_set_progress(learner, ctypes.cast(progress, pointer), None)
    refused(ERR_STATE, "learn a task first", lib.learner_predict, learner, ctypes.byref(images_of(pictures([3], 1, 1)[0])),
            data(np.zeros(1, PREDICTION)), None)

    # Task 1 from an array, task 2 through a callback.
    pixels, labels = pictures([3, 50], 20, 1)
    report = sized(Report)
    lib.learner_learn_task(learner, ctypes.byref(images_of(pixels)), data(labels), ctypes.byref(report))
    assert (report.task, report.num_classes, report.num_images) == (0, 2, 40) and np.isfinite(report.last_loss)
    assert {phase for phase, _, _ in calls} == {0, 1, 2} and all(done <= total for _, done, total in calls)
    second, second_labels = pictures([-7, 2**40 + 5], 20, 2)
    source = source_of(second, second_labels, keep)
    lib.learner_learn_source(learner, ctypes.byref(source), ctypes.byref(report))
    assert (report.task, lib.learner_num_tasks(learner)) == (1, 2)
    # All images of the second task before training, some held-out ones after it.
    assert 40 <= report.evidence_images < 80 and np.isfinite(report.evidence_gain)
    assert 0.0 <= report.untouched_weight <= 1.0
    assert report.untouched_weight == lib.learner_get_untouched_weight(learner)
    classes = np.zeros(lib.learner_num_classes(learner), np.int64)
    lib.learner_get_classes(learner, data(classes))
    assert classes.tolist() == [3, 50, -7, 2**40 + 5]

    unseen, truth = pictures([3, 50, -7, 2**40 + 5], 10, 3)
    found, log_probs = predict(lib, learner, unseen)
    accuracy = float((found["class_id"] == truth).mean())
    assert accuracy > 0.7, accuracy
    assert (classes[log_probs.argmax(axis=1)] == found["class_id"]).all()
    evaluation = sized(Evaluation)
    source = source_of(unseen, truth, keep)
    lib.learner_evaluate(learner, ctypes.byref(source), ctypes.byref(evaluation))
    assert evaluation.num_images == 40 and abs(evaluation.accuracy - accuracy) < 1e-9
    assert 0.0 <= evaluation.untouched_accuracy <= 1.0
    matrix = np.zeros((2, 2))
    lib.learner_get_accuracy_matrix(learner, data(matrix))
    assert np.isnan(matrix[0]).all() and abs(matrix[1].mean() - accuracy) < 1e-9

    lib.learner_set_class_name(learner, -7, "Fernglas ü".encode())
    path = os.path.join(folder, "learnt ü.safetensors").encode()
    lib.learner_save(learner, path)
    # With NULL for the options the threads would be all processors, and roundings others.
    loaded = lib.make(lib.learner_load, model, path, options)
    assert lib.learner_get_class_name(loaded, -7).decode() == "Fernglas ü"
    assert lib.learner_get_class_name(loaded, 3) is None
    again, again_log_probs = predict(lib, loaded, unseen)
    assert (again == found).all() and (again_log_probs == log_probs).all()

    # The file is open to other programs: its header is JSON, its tensors lie behind.
    raw = np.fromfile(path.decode(), np.uint8)
    assert b"duallora.learner" in raw[8:8 + int(raw[:8].view(np.uint64)[0])].tobytes()

    # A borrowed part, and its array as numpy sees it.
    projector = lib.learner_get_projector(loaded, info.depth - 1, 0)
    bases, count = ctypes.POINTER(f32)(), size_t()
    lib.projector_get_bases(projector, 0, ctypes.byref(bases), ctypes.byref(count))
    rows = np.ctypeslib.as_array(bases, (count.value, info.embed_dim))
    assert count.value > 0 and np.allclose(rows @ rows.T, np.eye(count.value), atol=1e-5)

    lib.learner_destroy(loaded)
    lib.learner_destroy(learner)
    lib.model_destroy(model)


def errors_come_as_status_and_sentence(lib, backbone, folder):
    refused(ERR_IO, "/nonexistent/vit", lib.make, lib.model_load, b"/nonexistent/vit", None)
    model = lib.make(lib.model_load, backbone, None)
    assert lib.status_name(ERR_IO) == b"DLORA_ERR_IO" and lib.version().count(b".") == 2 and lib.build_info()
    options = small_options(lib)
    options[0:8] = (3).to_bytes(8, sys.byteorder)  # struct_size
    refused(ERR_STRUCT_SIZE, "dlora_learner_options", lib.make, lib.learner_create, model, options)
    options = small_options(lib)
    options = small_options(lib)
    lib.learner_options_set(options, b"rank_residual", b"100000")
    refused(ERR_ARGUMENT, "rank_residual", lib.make, lib.learner_create, model, options)
    learner = lib.make(lib.learner_create, model, ctypes.byref(small_options(lib)))

    pixels, labels = pictures([1, 2], 4, 1)
    one = pixels[:1].astype(np.float32).transpose(0, 3, 1, 2).copy()
    refused(ERR_ARGUMENT, "images->u8", lib.learner_learn_task, learner, ctypes.byref(images_of(one)), data(labels), None)
    one = one / np.float32(127.5) - np.float32(1)
    one[0, 1, 2, 3] = np.nan
    refused(ERR_NOT_FINITE, "", lib.learner_learn_task, learner, ctypes.byref(images_of(one)), data(labels), None)

    @READ_IMAGE
    def fail_at_five(index, image, user):
        image[0] = images_of(pixels[index:index + 1])
        return 1 if index == 5 else 0

    keep = []
    source = source_of(pixels, labels, keep)
    source.read = ctypes.cast(fail_at_five, pointer)
    refused(ERR_IO, "5", lib.learner_learn_source, learner, ctypes.byref(source), None)

    @PROGRESS
    def cancel(now, user):
        return 1

    options = small_options(lib)
    cancelled = lib.make(lib.learner_create, model, options)
    lib.learner_set_progress(cancelled, ctypes.cast(cancel, pointer), None)
    refused(ERR_CANCELLED, "", lib.learner_learn_task, cancelled, ctypes.byref(images_of(pixels)), data(labels), None)
    assert lib.learner_num_tasks(cancelled) == 0 and lib.learner_num_tasks(learner) == 0
    lib.learner_destroy(cancelled)
    lib.learner_destroy(learner)
    lib.model_destroy(model)


def parts_work_on_plain_arrays(lib, backbone, folder):
    random = np.random.RandomState(5)
    features = random.randn(60, 12).astype(np.float32)
    labels = np.arange(60, dtype=np.int64) % 3
    features += 3.0 * np.eye(3, 12, dtype=np.float32)[labels]
    predictor = lib.make(lib.predictor_create, 12, None)
    lib.predictor_observe(predictor, data(features), data(labels), 60)
    lib.predictor_commit_task(predictor)
    found = np.zeros(60, PREDICTION)
    lib.predictor_predict(predictor, data(features), 60, data(found))
    assert (found["class_id"] == labels).mean() > 0.9
    lib.predictor_destroy(predictor)

    # Inputs in a plane of a space: after one task the plane is taken, and what is projected has nothing left in it.
    plane = np.linalg.qr(random.randn(12, 2))[0].T.astype(np.float32)
    inputs = (random.randn(60, 2).astype(np.float32) @ plane).copy()
    projector = lib.make(lib.projector_create, 12, None)
    lib.projector_observe(projector, data(inputs), 60)
    lib.projector_commit_task(projector, 0.9999, None)
    assert lib.projector_size(projector) == 2
    lib.projector_project(projector, data(features), 60)
    assert np.abs(features @ plane.T).max() < 1e-4 * np.abs(features).max()
    lib.projector_destroy(projector)


def main():
    lib, backbone = Library(sys.argv[1]), sys.argv[2].encode()
    assert PREDICTION.itemsize == 32
    with tempfile.TemporaryDirectory() as folder:
        for test in (the_whole_method, errors_come_as_status_and_sentence, parts_work_on_plain_arrays):
            test(lib, backbone, folder)
            print("ok", test.__name__)


if __name__ == "__main__":
    main()
