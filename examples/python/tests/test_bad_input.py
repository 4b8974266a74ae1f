# SPDX-License-Identifier: Apache-2.0
"""Bad input: an exception of the right kind with a sentence that names the culprit, and the handle as it was."""

import duallora
import numpy as np
import pytest
from conftest import SMALL, backbone_path, pictures
from duallora import ArgumentError, ArgumentTypeError


def test_errors_are_a_hierarchy():
    assert issubclass(duallora.ArgumentError, ValueError) and issubclass(duallora.FileError, OSError)
    assert issubclass(duallora.OutOfMemoryError, MemoryError) and issubclass(duallora.ArgumentTypeError, TypeError)
    for status in duallora.Status:
        if status:
            error = duallora.errors.error_of(status, "a sentence")
            assert isinstance(error, duallora.DualLoRAError) and type(error) is not duallora.DualLoRAError
            assert (error.status, error.sentence, str(error)) == (status, "a sentence", "a sentence")
    assert duallora.errors.error_of(99, "of a newer library").status == 99


def test_errors_carry_the_librarys_status_and_sentence(model, tmp_path):
    with pytest.raises(duallora.FileError, match="/nonexistent/vit") as caught:
        duallora.Model.load("/nonexistent/vit")
    assert caught.value.status is duallora.Status.IO
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(duallora.FormatError, match="GGUF"):
        duallora.Model.load(broken)
    with pytest.raises(duallora.FormatError):
        duallora.Model.from_bytes(b"")
    with pytest.raises(duallora.FormatError):
        duallora.Learner.load(model, backbone_path())
    with pytest.raises(duallora.FileError):
        duallora.Learner.load(model, tmp_path / "none")
    with pytest.raises(duallora.StateError, match="learn"):
        duallora.Learner(model).predict(pictures([1], 1, 1)[0])
    with pytest.raises(ArgumentError, match="NUL"):
        duallora.Model.load("a\0b")
    with pytest.raises(ArgumentTypeError):
        duallora.Model.load(7)


def test_a_checkpoint_needs_its_own_backbone(learned, tmp_path):
    learned.save(tmp_path / "l.safetensors")
    with duallora.Model.load(backbone_path(), image_size=32) as other, pytest.raises(duallora.MismatchError):
        duallora.Learner.load(other, tmp_path / "l.safetensors")


@pytest.mark.parametrize("make, words", [
    (lambda m: duallora.Learner(m, learningrate=1), "did you mean 'learning_rate'"),
    (lambda m: duallora.Learner(m, zzz=1), "there are"),
    (lambda m: duallora.Learner(m, rank_residual=100000), "rank_residual"),
    (lambda m: duallora.Learner(m, routing="sideways"), "routing"),
    (lambda m: duallora.Learner(m, epochs=-5), "epochs"),
    (lambda m: duallora.Learner(m, learning_rate=float("nan")), "learning_rate"),
    (lambda m: duallora.Learner(m, learning_rate="fast"), "learning_rate"),
    (lambda m: duallora.Learner(m, epochs=None), "epochs"),
    (lambda m: duallora.Learner(m, sites=("key", 3)), "sites"),
    (lambda m: duallora.Learner("vit.safetensors"), "duallora.Model"),
    (lambda m: duallora.Model.load(backbone_path(), image_sise=32), "did you mean 'image_size'"),
    (lambda m: duallora.Model.load(backbone_path(), image_size=30), "image_size"),
    (lambda m: duallora.Model.load(backbone_path(), image_size=-1), "image_size"),
    (lambda m: duallora.Model.load(backbone_path(), products="int3"), "blas, packed, bfloat16"),
    (lambda m: duallora.Model.load(backbone_path(), mean=(1, 2)), "3 are expected"),
    (lambda m: duallora.Model.load(backbone_path(), mean=0.5, std=0.5), "mean"),
    (lambda m: duallora.Model.load(backbone_path(), threads=2.5), "threads"),
    (lambda m: duallora.Model.load(backbone_path(), threads=2**40), "threads"),
    (lambda m: duallora.Model.load(backbone_path(), struct_size=3), "no option"),
    (lambda m: duallora.Predictor(4, readout="linear"), "gaussian"),
    (lambda m: duallora.Predictor(4, temprature=2), "did you mean 'temperature'"),
    (lambda m: duallora.Bank([duallora.site(3, 4)], optimizer="lion"), "adam, sgd"),
    (lambda m: duallora.Bank([]), "sites"),
    (lambda m: duallora.Bank([(3, 4)]), "duallora.site"),
    (lambda m: duallora.Session(m, batch=3), "did you mean 'max_batch'"),
    (lambda m: duallora.Projector(0), "dim"),
    (lambda m: duallora.Model(), "Model.load"),
])
def test_options_are_checked(model, make, words):
    with pytest.raises((ArgumentError, TypeError), match=words):
        make(model)


PIXELS, LABELS = pictures([1, 2], 4, 1)
FLOATS = np.zeros((2, 3, 16, 16), np.float32)


@pytest.mark.parametrize("images, words", [
    (PIXELS.astype(np.int32), "dtype int32"), (PIXELS.astype(bool), "dtype bool"), (PIXELS[0], "image\\[None\\]"),
    (PIXELS[..., :2], "shape"), (PIXELS[:0], "no images"), (np.zeros((2, 0, 16, 3), np.uint8), "no images"),
    (FLOATS[:, :2], "shape"), (FLOATS.transpose(0, 2, 3, 1), "shape"), (np.full_like(FLOATS, 200), "u8"),
    (FLOATS[:, :, :8], "image"), ([], "empty"), ([PIXELS[0], PIXELS[0][:, :, :2]], "image 1"), ([PIXELS[0], None], "image 1"),
    ([3, 4], "image 0"), (7, "int"), (b"bytes", "bytes"), ({"a": 1}, "dict"), (np.array(["a", "b"], object)[:0], "empty"),
    (np.zeros((2, 4, 4, 3), "M8[s]"), "dtype"),
])
def test_images_are_checked(model, learned, images, words):
    for function in (model.embed, learned.predict, learned.predict_proba):
        with pytest.raises(ArgumentError, match=words):
            function(images)


def test_a_file_that_is_no_image_is_named(model, tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "x.jpg").write_text("no image")
    with pytest.raises(duallora.FileError, match="x.jpg"):
        model.embed([tmp_path / "x.jpg"])
    with pytest.raises(duallora.FileError, match="none.jpg"):
        model.embed([tmp_path / "none.jpg"])
    with pytest.raises(ArgumentError, match="folder"):
        model.embed(tmp_path)
    with pytest.raises(duallora.FileError, match="sub-folder"):
        duallora.Learner(model).learn(tmp_path)


def test_nan_is_refused_with_its_place(model, learned):
    bad = FLOATS.copy()
    bad[1, 2, 3, 4] = np.nan
    with pytest.raises(duallora.NotFiniteError):
        model.embed(bad)
    with pytest.raises(duallora.NotFiniteError):
        learned.predict(bad)
    features = np.zeros((3, 8), np.float32)
    features[1, 2] = np.inf
    predictor, projector = duallora.Predictor(8), duallora.Projector(8)
    for call in (lambda: predictor.observe(features, [1, 2, 3]), lambda: projector.observe(features),
                 lambda: predictor.observe(np.full((2, 8), 1e300), [1, 2])):
        with pytest.raises(duallora.NotFiniteError):
            call()


@pytest.mark.parametrize("labels, words", [
    (LABELS[:-1], "8 images and 7 labels"), ([[1], [2]] * 4, "hashable"), ([None] * 8, "None"), ([float("nan")] * 8, "nan"),
    (LABELS[:, None], "shape"), (None, "labels are missing"),
])
def test_labels_are_checked(model, labels, words):
    learner = duallora.Learner(model, **SMALL)
    with pytest.raises(ArgumentError, match=words):
        learner.learn(PIXELS, labels)
    assert learner.num_tasks == 0
    learner.learn(PIXELS, LABELS)


def test_items_of_iterators_must_be_pairs(model):
    learner = duallora.Learner(model, **SMALL)
    with pytest.raises(ArgumentError, match="pairs"):
        learner.learn(iter(PIXELS))
    with pytest.raises(ArgumentError, match="empty"):
        learner.learn(iter([]))


def test_a_failed_task_leaves_the_learner_as_it_was(model):
    learner = duallora.Learner(model, **SMALL)
    learner.learn(PIXELS, LABELS)
    before = learner.predict_proba(PIXELS)
    bad = list(PIXELS) + [np.zeros((4, 4, 9), np.uint8)]
    with pytest.raises(ArgumentError, match="image 8"):
        learner.learn(bad, [*LABELS, 9])
    assert learner.num_tasks == 1 and learner.classes_.tolist() == [1, 2]
    assert np.array_equal(learner.predict_proba(PIXELS), before)


def test_arrays_of_features_are_checked():
    predictor = duallora.Predictor(8)
    good = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    for features, words in ((good[:, :7], "shape"), (good[0], "shape"), (good.astype(complex), "dtype"), (good[:0], "empty"),
                            (np.full((6, 8), "x"), "dtype"), ([[1, 2], [3]], ".")):
        with pytest.raises(ValueError, match=words):
            predictor.observe(features, [0, 1, 0, 1, 0, 1])
    for ids, words in (([0, 1], "shape"), ([0.5] * 6, "dtype"), ([[0]] * 6, "shape"), (np.full(6, 2**63, np.uint64), "int64")):
        with pytest.raises(ArgumentError, match=words):
            predictor.observe(good, ids)
    # Other layouts and kinds of numbers are the same numbers.
    predictor.observe(np.asfortranarray(good), [0, 1, 0, 1, 0, 1])
    other = duallora.Predictor(8)
    other.observe(np.repeat(good.astype(np.float64), 2, axis=0)[::2], np.array([0, 1] * 3, np.int8))
    predictor.commit_task()
    other.commit_task()
    assert np.array_equal(predictor.components.means, other.components.means)


def test_what_is_written_to_must_be_writeable():
    projector = duallora.Projector(4)
    for x in (np.ones((2, 4)), np.ones((2, 8), np.float32)[:, ::2], np.ones((2, 5), np.float32), [[1.0] * 4],
              np.broadcast_to(np.float32(1), (2, 4)), np.ones((0, 4), np.float32)):
        with pytest.raises(ArgumentError):
            projector.project_(x)
    bank = duallora.Bank([duallora.site(4, 3)])
    with pytest.raises(ArgumentError):
        bank.forward(0, np.ones((2, 4)), duallora.Terms.MERGED, out=np.ones((3, 3), np.float32))
    with pytest.raises(ArgumentError, match="rows_per_item"):
        bank.forward(0, np.ones((3, 4)), duallora.Terms.MERGED, rows_per_item=2)
    with pytest.raises(ArgumentError, match="site"):
        bank.forward(7, np.ones((3, 4)), duallora.Terms.MERGED)


def test_closed_handles_raise():
    model = duallora.Model.load(backbone_path())
    bank = duallora.Bank([duallora.site(32, 32, 1, "value")])
    handles = {
        "predictor": (duallora.Predictor(4), lambda h: h.dim), "projector": (duallora.Projector(4), lambda h: h.size),
        "session": (duallora.Session(model, bank), lambda h: h.forward(PIXELS)),
        "learner": (duallora.Learner(model), lambda h: h.learn(PIXELS, LABELS)), "bank": (bank, lambda h: h.begin_task()),
        "model": (model, lambda h: h.embed(PIXELS)),
    }
    for name, (handle, use) in handles.items():
        assert not handle.closed
        handle.close()
        handle.close()
        assert handle.closed and "closed" in repr(handle)
        with pytest.raises(duallora.ClosedError, match=name):
            use(handle)
        with pytest.raises(duallora.ClosedError), handle:
            pass
    with pytest.raises(duallora.ClosedError):
        duallora.Learner(model)
    with pytest.raises(duallora.ClosedError):
        duallora.Session(model, bank)


def test_a_closed_handle_serves_those_that_use_it():
    with duallora.Model.load(backbone_path()) as model:
        learner = duallora.Learner(model, **SMALL)
    learner.learn(PIXELS, LABELS)
    assert learner.embed(PIXELS).shape == (8, 32) and learner.predict(PIXELS).shape == (8,)
    with pytest.raises(duallora.ClosedError):
        duallora.Learner(model)
    bank = duallora.Bank([duallora.site(32, 32, 1, "value")])
    session = duallora.Session(duallora.Model.load(backbone_path()), bank)
    bank.close()
    assert session.forward(PIXELS).shape == (8, 32)
