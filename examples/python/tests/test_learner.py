# SPDX-License-Identifier: Apache-2.0
"""Model and Learner: every form of images and labels, predictions, evaluation, files."""

import enum
import pickle

import duallora
import numpy as np
import pytest
from conftest import SMALL, backbone_path, pictures

Image = pytest.importorskip("PIL.Image", reason="no Pillow (Debian: python3-pil)")


class Kind(enum.Enum):
    CAT = 1
    DOG = 2


def new(model, **options):
    return duallora.Learner(model, **{**SMALL, **options})


def normalised(model, pixels):
    info = model.info
    array = (pixels.astype(np.float32) / 255 - np.float32(info.mean)) / np.float32(info.std)
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


# ---- model ----


def test_a_model_tells_its_geometry(model):
    info = model.info
    assert (info.embed_dim, info.depth, info.num_heads, info.image_size, info.patch_size) == (32, 2, 2, 16, 4)
    assert info.mean == pytest.approx((0.485, 0.456, 0.406)) and info.naming == 0 and len(info.fingerprint) == 32
    assert info.pool is duallora.Pool.CLASS and "32" in repr(model)


def test_all_forms_of_an_image_have_the_same_features(model, tmp_path):
    pixels, _ = pictures([1, 2, 3], 2, 5)
    expected = model.embed(pixels)
    assert expected.shape == (6, 32) and expected.dtype == np.float32 and np.isfinite(expected).all()
    files = []
    for i, picture in enumerate(pixels):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(files[-1])
    forms = {
        "list of arrays": list(pixels), "tuple": tuple(pixels), "paths": files, "text": list(map(str, files)),
        "PIL": [Image.open(file) for file in files], "iterator": (picture for picture in pixels),
        "strided": np.repeat(pixels, 2, axis=0)[::2], "float32": normalised(model, pixels),
        "Fortran": np.asfortranarray(pixels), "float64": normalised(model, pixels).astype(np.float64),
        "list of float32": list(normalised(model, pixels)),
    }
    for name, form in forms.items():
        assert np.allclose(model.embed(form), expected, atol=2e-4), name
    assert np.allclose(model.embed(files[0]), expected[:1], atol=1e-5)


def test_images_of_different_sizes_keep_their_order(model):
    sizes = [16, 20, 16, 8, 20, 31, 16]
    images = [pictures([i + 1], 1, i, side)[0][0] for i, side in enumerate(sizes)]
    together = model.embed(images)
    for image, features in zip(images, together):
        assert np.allclose(model.embed(image[None])[0], features, atol=1e-5)
    many = [images[i % 7] for i in range(300)]
    assert np.allclose(model.embed(many), together[np.arange(300) % 7], atol=1e-5)


def test_gray_and_transparent_images(model, tmp_path):
    gray = pictures([1, 2], 2, 5)[0][..., 0]
    expected = model.embed(np.repeat(gray[..., None], 3, axis=3))
    assert np.allclose(model.embed(gray), expected, atol=1e-5)
    assert np.allclose(model.embed(gray[..., None]), expected, atol=1e-5)
    assert np.allclose(model.embed([Image.fromarray(picture) for picture in gray]), expected, atol=1e-5)
    # What is transparent is white; photos are turned upright.
    Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert np.allclose(model.embed(tmp_path / "clear.png"), model.embed(np.full((1, 16, 16, 3), 255, np.uint8)), atol=1e-5)
    picture = Image.fromarray(pictures([4], 1, 1)[0][0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(model.embed(tmp_path / "turned.png"), model.embed([picture.rotate(-90)]), atol=1e-5)


def test_models_load_from_memory_with_options(model):
    with open(backbone_path(), "rb") as file:
        data = file.read()
    pixels, _ = pictures([1, 2], 2, 5)
    with duallora.Model.from_bytes(data, threads=1, image_size=32, mean=(0.5, 0.5, 0.5), std=[0.5, 0.5, 0.5]) as other:
        assert other.info.image_size == 32 and other.info.mean == (0.5, 0.5, 0.5)
        assert not np.allclose(other.embed(pixels), model.embed(pixels))
        again = pickle.loads(pickle.dumps(other))
        assert np.array_equal(again.embed(pixels), other.embed(pixels))
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.embed(pixels), model.embed(pixels))


# ---- learning ----


def test_two_tasks_are_learned_and_told_apart(model):
    with new(model) as learner:
        first, first_labels = pictures([3, 50], 20, 1)
        report = learner.learn(first, first_labels)
        assert (report.task, report.num_classes, report.num_images) == (0, 2, 40) and np.isfinite(report.last_loss)
        second, second_labels = pictures([-7, 2**40 + 5], 20, 2)
        report = learner.learn(list(second), second_labels)
        assert report.task == 1 and learner.num_tasks == 2
        assert learner.classes_.tolist() == [3, 50, -7, 2**40 + 5] and learner.classes_.dtype == np.int64
        pixels, truth = pictures([3, 50, -7, 2**40 + 5], 10, 3)
        predicted = learner.predict(pixels)
        assert predicted.dtype == np.int64
        accuracy = float(np.mean(predicted == truth))
        assert accuracy > 0.7 and learner.score(pixels, truth) == pytest.approx(accuracy)
        probabilities = learner.predict_proba(pixels)
        assert probabilities.shape == (40, 4) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
        assert (learner.classes_[probabilities.argmax(axis=1)] == predicted).all()
        decisions = learner.decide(pixels)
        assert decisions.dtype.names == ("class_id", "task", "class_probability", "task_probability", "unknown_score", "unknown")
        assert (learner.labels_of(decisions["class_id"]) == predicted).all()
        assert np.allclose(decisions["class_probability"], probabilities.max(axis=1), atol=1e-4)
        tasks = np.repeat([0, 0, 1, 1], 1)[np.arange(40) % 4]
        assert (learner.decide(pixels, tasks=tasks)["task"] == tasks).all()
        # One by one, and as a list, they are the same.
        assert (learner.predict(list(pixels)) == predicted).all()
        assert np.allclose(learner.predict_proba(pixels[7:8]), probabilities[7:8], atol=1e-4)
        evaluation = learner.evaluate(pixels, truth)
        assert evaluation.num_images == 40 and evaluation.accuracy == pytest.approx(accuracy)
        matrix = learner.accuracy_matrix
        assert np.isnan(matrix[0]).all() and matrix[1].mean() == pytest.approx(accuracy)
        assert 0 <= learner.untouched_weight <= 1 and learner.profile.task_end > 0
        assert learner.embed(pixels).shape == (40, 32)
        assert learner.embed(pixels, tasks=np.full(40, -1)).shape == (40, 32)


def test_labels_of_any_hashable_kind_survive_files(model, tmp_path):
    labels = ["cat", "Fernglas ü", 7, 0, True, 2.5, ("pair", 3), b"bytes", 2**70, "7"]
    pixels = np.concatenate([pictures([i], 6, i)[0] for i in range(len(labels))])
    given = [label for label in labels for _ in range(6)]
    learner = new(model, rank_orthogonal=0, rank_residual=0)
    learner.learn(pixels, given)
    assert list(learner.classes_) == labels
    assert [type(label) for label in learner.classes_] == [type(label) for label in labels]
    predicted = list(learner.predict(pixels))
    assert sum(a == b and type(a) is type(b) for a, b in zip(predicted, given)) > 50
    path = tmp_path / "learnt ü.safetensors"
    learner.save(path)
    loaded = duallora.Learner.load(model, path, threads=1)
    assert list(loaded.classes_) == labels and list(loaded.predict(pixels)) == predicted
    # Other programs see names.
    metadata = {entry.name: entry.value for entry in duallora.inspect(path) if entry.dtype is None}
    ids = {str(label): class_id for label, class_id in zip(learner.classes_, learner.class_ids)}
    assert metadata[f"class_name.{ids['cat']}"] == "cat" and metadata[f"class_name.{ids['Fernglas ü']}"] == "Fernglas ü"
    # Learning goes on with known and new labels.
    loaded.learn(pixels[:12], ["cat"] * 6 + ["new"] * 6)
    assert list(loaded.classes_) == [*labels, "new"]


def test_labels_without_a_literal_are_found_by_their_text(model, tmp_path):
    pixels, numbers = pictures([1, 2], 8, 1)
    learner = new(model, rank_orthogonal=0, rank_residual=0)
    learner.learn(pixels, [Kind(number) for number in numbers])
    assert list(learner.classes_) == [Kind.CAT, Kind.DOG] and learner.predict(pixels)[0] is Kind.CAT
    learner.save(tmp_path / "kinds.safetensors")
    assert list(duallora.Learner.load(model, tmp_path / "kinds.safetensors").classes_) == ["Kind.CAT", "Kind.DOG"]
    loaded = duallora.Learner.load(model, tmp_path / "kinds.safetensors", labels=Kind)
    assert list(loaded.classes_) == [Kind.CAT, Kind.DOG]


def test_kinds_of_labels_keep_their_arrays(model):
    pixels, numbers = pictures([1, 2], 8, 1)
    for labels, kind in ((numbers == 1, np.bool_), (np.array(["no", "a", "b"])[numbers], np.str_), (numbers, np.int64),
                         (numbers.astype(np.uint8), np.int64)):
        learner = new(model, rank_orthogonal=0, rank_residual=0)
        learner.learn(pixels, labels)
        assert learner.predict(pixels).dtype.type is kind and (learner.predict(pixels) == labels).all()


def test_names_of_the_command_are_labels(model, tmp_path):
    # A checkpoint of another program has names and no note of this package.
    pixels, labels = pictures([0, 1], 8, 1)
    learner = new(model, rank_orthogonal=0, rank_residual=0)
    learner.learn(pixels, np.array(["oak", "elm"])[labels])
    with learner._exclusive as pointer:
        duallora._library.library.learner_set_note(pointer, b"python.labels", None)
    learner.save(tmp_path / "named.safetensors")
    assert duallora.Learner.load(model, tmp_path / "named.safetensors").classes_.tolist() == ["oak", "elm"]


def test_folders_and_pairs(model, tmp_path):
    for name, seed in (("ant", 1), ("bee", 2)):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures([seed], 8, seed)[0]):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    by_folder = new(model, rank_orthogonal=0, rank_residual=0)
    assert by_folder.learn(tmp_path).num_images == 16 and by_folder.classes_.tolist() == ["ant", "bee"]
    pixels = np.concatenate([pictures([seed], 8, seed)[0] for seed in (1, 2)])
    pairs = new(model, rank_orthogonal=0, rank_residual=0)
    pairs.learn((picture, "ant" if i < 8 else "bee") for i, picture in enumerate(pixels))
    assert np.allclose(pairs.predict_proba(pixels), by_folder.predict_proba(pixels), atol=1e-5)
    assert by_folder.evaluate(tmp_path).num_images == 16
    assert by_folder.predict(tmp_path / "bee" / "3.png").tolist() == ["bee"]


def test_a_loop_of_ones_own_does_the_same(model):
    pixels, labels = pictures([1, 2], 20, 1)
    learner = new(model)
    learner.begin_task(6)
    assert learner.open_task.num_observed == 0
    learner.observe(pixels, np.array(["x", "one", "two"])[labels])
    learner.begin_training()
    losses = [learner.step(pixels[i:i + 8], np.array(["x", "one", "two"])[labels[i:i + 8]]) for i in range(0, 40, 8)]
    assert np.isfinite(losses).all()
    learner.observe_trained(pixels, np.array(["x", "one", "two"])[labels])
    report = learner.commit_task()
    assert report.num_steps == 5 and learner.open_task is None and learner.classes_.tolist() == ["one", "two"]
    learner.begin_task()
    learner.discard_task()
    with pytest.raises(duallora.StateError):
        learner.discard_task()


def test_options_go_by_name(model):
    defaults = duallora.learner_defaults()
    table = duallora.learner_option_table()
    assert set(defaults) == set(table) and table["epochs"].help and defaults["batch_size"] == 16
    assert duallora.learner_defaults(paper=True)["routing"] == "energy" and defaults["routing"] == "none"
    options = {"epochs": 3, "learning_rate": 0.25, "sites": ("key", "value"), "routing": "two-pass", "train_head": False,
               "threads": 1, "seed": 2**63, "shrinkage": "auto", "first_block": "middle"}
    learner = duallora.Learner(model, **options)
    assert {name: learner.options[name] for name in options} == options
    # Every option goes out and in unchanged, and every word and enum is taken.
    again = duallora.Learner(model, **learner.options)
    assert again.options == learner.options
    flags = duallora.Projection.QUERY | duallora.Projection.FC2
    other = duallora.Learner(model, sites=flags, routing=duallora._abi.Routing.GIVEN, held_out=np.float32(0.25),
                             epochs=duallora._abi.Auto.AUTO, use_prior=np.bool_(True), batch_size=np.int64(8))
    assert other.options["sites"] == ("query", "fc2") and other.options["routing"] == "given"
    assert other.options["held_out"] == 0.25 and other.options["epochs"] == "auto" and other.options["use_prior"] is True
    learner.configure(epochs=5)
    assert learner.options["epochs"] == 5
    with pytest.raises(duallora.MismatchError):
        learner.configure(sites="query")


def test_files_keep_everything(model, learned, tmp_path):
    path = tmp_path / "learner.safetensors"
    learned.save(path)
    pixels, _ = pictures([3, 50, -7], 5, 9)
    loaded = duallora.Learner.load(model, path, threads=1)
    assert np.array_equal(loaded.predict_proba(pixels), learned.predict_proba(pixels))
    assert loaded.options == learned.options
    assert duallora.Learner.load(model, path, threads=1, unknown_quantile=0.5).options["unknown_quantile"] == 0.5
    for copy in (pickle.loads(pickle.dumps(learned)), duallora.Learner.from_bytes(model, learned.to_bytes(), threads=1)):
        assert np.array_equal(copy.predict_proba(pixels), learned.predict_proba(pixels))
    loaded.set_note("run", "monday ü")
    loaded.save(path)
    assert duallora.Learner.load(model, path).note("run") == "monday ü"
    assert loaded.note("none") is None and loaded.class_name(3) is None
    loaded.set_note("run", None)
    assert loaded.note("run") is None


def test_an_interrupted_task_goes_on_where_it_was(model, tmp_path):
    path = tmp_path / "run.safetensors"
    options = {**SMALL, "epochs": 4}
    tasks = [(pictures([1, 2], 24, 1)[0], np.array(["a", "b"] * 24)), (pictures([3, 4], 24, 2)[0], np.array(["c", "d"] * 24))]
    whole = duallora.Learner(model, **options)
    for images, labels in tasks:
        whole.learn(images, labels)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.phase == duallora.Phase.TRAIN and progress.task == 1 and progress.done >= 5:
            raise Stop

    learner = duallora.Learner.resume(model, path, steps=2, **options)
    learner.learn(*tasks[0])
    learner.save(path)
    with pytest.raises(Stop):
        learner.learn(*tasks[1], progress=stop)
    assert learner.num_tasks == 1
    again = duallora.Learner.resume(model, path, steps=2)
    again.close()
    again = duallora.Learner.load(model, path, threads=1)  # as many threads as before: the same bits
    assert again.num_tasks == 1 and again.open_task.num_steps == 5
    with pytest.raises(duallora.MismatchError):
        again.learn(tasks[0][0], tasks[1][1])
    again.learn(*tasks[1])
    pixels, _ = pictures([1, 2, 3, 4], 4, 5)
    assert again.classes_.tolist() == ["a", "b", "c", "d"]
    assert np.array_equal(again.predict_proba(pixels), whole.predict_proba(pixels))


def test_parts_of_a_learner_can_be_read_and_cloned(model, learned):
    bank, predictor, projector = learned.bank, learned.predictor, learned.projector(1)
    assert bank.num_tasks == 2 and bank.merged(0).shape == (32, 32) and np.abs(bank.merged(len(bank.sites) - 1)).max() > 0
    assert predictor.num_classes == 4 and predictor.components.counts.sum() == 80
    bases = projector.bases(0)
    assert np.allclose(bases @ bases.T, np.eye(len(bases)), atol=1e-5)
    assert learned.projector(1, "fc2") is None
    with pytest.raises(duallora.StateError, match="clone"):
        projector.observe(np.ones((2, 32)))
    own = projector.clone()
    own.observe(np.random.default_rng(0).standard_normal((8, 32)))
    assert own.num_observed == 8
    # A part lives as long as its learner, and follows it.
    learner = new(model)
    learner.learn(*pictures([1, 2], 10, 1))
    part = learner.projector(1)
    learner.learn(*pictures([3, 4], 10, 2))
    assert part.num_tasks == 2
    learner.close()
    assert part.num_tasks == 2
    part.close()
    with pytest.raises(duallora.ClosedError):
        part.size


def test_settings_say_where_they_come_from(model):
    settings = {setting.name: setting for setting in model.settings}
    assert settings["num_heads"].value == "2" and settings["num_heads"].origin is duallora.Origin.METADATA
    with duallora.Model.load(backbone_path(), layer_norm_eps=1e-5) as other:
        changed = {setting.name: setting for setting in other.settings}["layer_norm_eps"]
        assert changed.origin is duallora.Origin.OPTION and float(changed.value) == pytest.approx(1e-5)


def test_what_was_learned_goes_out_to_other_libraries(model, learned, tmp_path):
    learned.export_peft(tmp_path / "lora")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (tmp_path / "lora").iterdir()}
    learned.export_backbone(tmp_path / "merged")
    names = {entry.name for entry in duallora.inspect(tmp_path / "merged" / "model.safetensors") if entry.dtype}
    assert any(name.endswith("head.weight") for name in names)
    # Merged in at loading, the LoRA makes the features that the learner has.
    pixels, _ = pictures([3, 50], 4, 9)
    with duallora.Model.load(backbone_path(), adapter=tmp_path / "lora") as adapted:
        assert np.allclose(adapted.embed(pixels), learned.embed(pixels), atol=1e-3)
        assert not np.allclose(adapted.embed(pixels), model.embed(pixels), atol=1e-3)
    with pytest.raises(duallora.ArgumentError):
        learned.export_peft(tmp_path / "none", task=17)
