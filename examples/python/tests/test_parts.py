# SPDX-License-Identifier: Apache-2.0
"""Bank, Projector, Predictor and Session on plain arrays."""

import gc
import pickle

import duallora
import numpy as np
import pytest
from conftest import pictures
from duallora import Terms

RANDOM = np.random.default_rng(0)


def orthonormal(rows, dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, rows)))[0].T.astype(np.float32)


# ---- projector ----


def test_a_projector_keeps_gradients_out_of_used_directions(tmp_path):
    used = orthonormal(3, 8)
    rows = (RANDOM.standard_normal((50, 3)) @ used).astype(np.float32)
    projector = duallora.Projector(8)
    projector.observe(rows[:20])
    other = duallora.Projector(8)
    other.observe(rows[20:])
    projector.merge_observed(other)
    assert projector.num_observed == 50
    assert projector.unused_directions(5).shape == (3, 8)  # no energy elsewhere
    assert projector.task_directions(2, 1.0).shape == (2, 8) and projector.used_directions(2).shape == (0, 8)
    assert projector.commit_task(0.9999) == 3 == projector.size and projector.num_tasks == 1
    bases = projector.bases(0)
    assert np.allclose(bases.T @ bases, used.T @ used, atol=1e-4)
    gradient = RANDOM.standard_normal((4, 8)).astype(np.float32)
    kept = gradient.copy()
    projected = projector.project(gradient)
    assert np.array_equal(gradient, kept) and np.abs(projected @ rows.T).max() < 1e-4
    assert projector.project_(gradient) is gradient and np.array_equal(gradient, projected)
    projector.calibrate(0, rows)
    assert projector.route(rows[:7]).shape == (7, 1) and np.allclose(projector.route(rows[:7]), 1, atol=1e-3)
    projector.save(tmp_path / "p.safetensors")
    for copy in (duallora.Projector.load(tmp_path / "p.safetensors"), projector.clone(), pickle.loads(pickle.dumps(projector))):
        assert np.array_equal(copy.project(gradient), projector.project(gradient)) and copy.dim == 8
    projector.observe(rows)
    projector.discard_task()
    with pytest.raises(duallora.StateError):
        projector.commit_task()


# ---- predictor ----


def features(classes, each, seed, dim=16):
    labels = np.repeat(classes, each)
    centres = 3 * np.random.default_rng(9).standard_normal((100, dim))
    return (centres[labels] + np.random.default_rng(seed).standard_normal((len(labels), dim))).astype(np.float32), labels


def test_a_predictor_learns_in_closed_form(tmp_path):
    predictor = duallora.Predictor(16, temperature=1.5)
    for classes in ([0, 1], [2, 3]):
        x, labels = features(classes, 20, classes[0])
        predictor.observe(x[:30], labels[:30])
        predictor.observe(x[30:], labels[30:], held_out=True)
        predictor.commit_task()
    assert (predictor.num_tasks, predictor.num_classes, predictor.num_components) == (2, 4, 4)
    assert predictor.classes.tolist() == [0, 1, 2, 3]
    x, labels = features([0, 1, 2, 3], 10, 77)
    decisions, posterior = predictor.predict(x), predictor.posterior(x)
    assert (decisions["class_id"] == labels).mean() > 0.9 and (decisions["task"] == labels // 2).mean() > 0.9
    assert np.allclose(np.exp(posterior.class_log_probs).sum(axis=1), 1, atol=1e-4)
    assert posterior.component_log_probs.shape == (40, 4) and posterior.task_probs.shape == (40, 2)
    assert np.array_equal(posterior.unknown_scores, decisions["unknown_score"])
    assert np.array_equal(predictor.class_log_probs(x), posterior.class_log_probs)
    components = predictor.components
    assert components.tasks.tolist() == [0, 0, 1, 1] and components.counts.tolist() == [20] * 4
    assert np.allclose(components.means[0], np.concatenate([features([0, 1], 20, 0)[0]])[:20].mean(axis=0), atol=1e-5)
    assert np.allclose(predictor.scatter, predictor.scatter.T)
    weight, bias = predictor.linear_weights()
    assert ((x @ weight.T + bias).argmax(axis=1) == labels).mean() > 0.9
    assert predictor.linear_weights(4, 8)[0].shape == (4, 8)
    predictor.observe(*features([7], 5, 1))
    assert predictor.linear_weights(include_open=True)[0].shape == (5, 16) and predictor.num_components == 4
    predictor.discard_task()
    assert predictor.unknown_threshold(0.5) < predictor.unknown_threshold(0.95)
    predictor.temperature = 3.0
    assert predictor.temperature == 3.0
    predictor.save(tmp_path / "p.safetensors")
    for copy in (duallora.Predictor.load(tmp_path / "p.safetensors"), predictor.clone(), pickle.loads(pickle.dumps(predictor))):
        assert np.array_equal(copy.predict(x), predictor.predict(x))


def test_predictors_merge_append_and_follow_drift():
    x, labels = features([0, 1], 20, 1)
    whole, left, right = duallora.Predictor(16), duallora.Predictor(16), duallora.Predictor(16)
    for predictor, part in ((whole, slice(None)), (left, slice(0, None, 2)), (right, slice(1, None, 2))):
        predictor.observe(x[part], labels[part])
        predictor.commit_task()
    left.merge(right)
    assert np.allclose(left.components.means, whole.components.means) and left.num_tasks == 1
    more = duallora.Predictor(16)
    more.observe_pair(*[features([2, 3], 20, seed)[0] for seed in (2, 3)], features([2, 3], 20, 2)[1])
    more.commit_task()
    whole.append(more)
    assert whole.num_tasks == 2 and whole.num_classes == 4
    before = whole.components.means.copy()
    whole.compensate_drift(x, x + 1)
    assert np.abs(whole.components.means - before).mean() > 0.1
    projected = duallora.Predictor(16, readout="random-projection", random_features=50, seed=3)
    assert projected.projection.shape == (16, 50)
    with pytest.raises(duallora.StateError):
        whole.projection
    with pytest.raises(duallora.MismatchError):
        whole.merge(projected)


# ---- bank ----


def test_a_bank_adapts_a_layer_and_merges(tmp_path):
    bank = duallora.Bank([duallora.site(6, 4), duallora.site(5, 3, 2, "value")], optimizer="sgd", momentum=0.0)
    assert [(s.input_dim, s.output_dim, s.block) for s in bank.sites] == [(6, 4, 0), (5, 3, 2)]
    assert bank.sites[1].projection == duallora.Projection.VALUE
    a = orthonormal(2, 6)
    bank.begin_task()
    bank.set_orthogonal(0, a)
    bank.set_residual(1, orthonormal(1, 5), train_a=True)
    assert bank.parameters.shape == (4 * 2 + 3 * 1 + 1 * 5,)
    x = RANDOM.standard_normal((7, 6)).astype(np.float32)
    dy = RANDOM.standard_normal((7, 4)).astype(np.float32)
    assert not bank.forward(0, x).any()
    bank.parameters[:8] = RANDOM.standard_normal(8)
    b = bank.parameters[:8].reshape(4, 2).copy()
    out = np.ones((7, 4), np.float32)
    assert bank.forward(0, x, out=out) is out and np.allclose(out, 1 + x @ (b @ a).T, atol=1e-5)
    dx = bank.backward(0, x, dy, input_gradient=True)
    assert np.allclose(dx, dy @ (b @ a), atol=1e-5) and bank.backward(0, x, dy) is None
    assert np.allclose(bank.gradients[:8].reshape(4, 2), 2 * dy.T @ (x @ a.T), atol=1e-4)
    step = bank.gradients[:8].copy()
    bank.step(0.1)
    assert np.allclose(bank.parameters[:8], b.ravel() - 0.1 * step, atol=1e-5) and not bank.gradients.any()
    b = bank.parameters[:8].reshape(4, 2).copy()
    bank.set_merge_fractions(0.5, 0.0)
    bank.commit_task()
    assert bank.num_tasks == 1 and np.allclose(bank.merged(0), 0.5 * b @ a, atol=1e-5)
    kept_a, kept_b = bank.residual(1, 0)
    assert kept_a.shape == (1, 5) and kept_b.shape == (3, 1)
    assert bank.residual(0, 0)[0].shape == (0, 6)
    routed = bank.forward(1, RANDOM.standard_normal((6, 5)), Terms.MERGED, routing=np.ones((2, 1)), rows_per_item=3)
    assert routed.shape == (6, 3)
    with pytest.raises(duallora.ArgumentError, match="routing"):
        bank.forward(1, np.ones((6, 5)), Terms.MERGED, routing=np.ones((3, 1)), rows_per_item=3)
    bank.save(tmp_path / "b.safetensors")
    for copy in (duallora.Bank.load(tmp_path / "b.safetensors"), pickle.loads(pickle.dumps(bank))):
        assert np.array_equal(copy.merged(0), bank.merged(0))
    bank.begin_task()
    bank.discard_task()


def test_memory_of_a_bank_is_not_moved_under_an_array():
    bank = duallora.Bank([duallora.site(6, 4)])
    with pytest.raises(duallora.StateError):
        bank.parameters
    bank.begin_task()
    assert bank.parameters.size == 0
    bank.set_orthogonal(0, orthonormal(2, 6))
    view = bank.parameters[2:4]
    for call in (bank.commit_task, bank.discard_task, bank.close, lambda: bank.set_orthogonal(0, None),
                 lambda: bank.set_residual(0, None)):
        with pytest.raises(duallora.StateError, match="still alive"):
            call()
    del view
    gc.collect()
    bank.commit_task()
    # The memory lives as long as an array of it, even if the bank is forgotten.
    bank.begin_task()
    bank.set_orthogonal(0, orthonormal(2, 6))
    view = bank.parameters
    del bank
    gc.collect()
    view[:] = 1
    assert view.sum() == 8


def test_a_bank_keeps_its_projector():
    projector = duallora.Projector(6)
    projector.observe(orthonormal(2, 6))
    projector.commit_task(1.0)
    bank = duallora.Bank([duallora.site(6, 4)])
    bank.begin_task()
    bank.set_orthogonal(0, RANDOM.standard_normal((2, 6)), projector)
    core = projector._core
    del projector
    gc.collect()
    assert core.pointer and bank.parameters.size == 4 * 2 + 2 * 6
    x = orthonormal(2, 6) + 0
    bank.backward(0, x, np.ones((2, 4)))
    bank.step(0.1)
    bank.discard_task()
    assert not core.pointer  # nobody needs it any more


# ---- session ----


def test_a_session_differentiates_a_model_with_a_bank(model):
    bank = duallora.Bank([duallora.site(32, 32, 1, "key"), duallora.site(32, 32, 1, "value")])
    session = duallora.Session(model, bank, training=True, max_batch=4, threads=1)
    pixels, _ = pictures([1, 2, 3, 4], 1, 1)
    bank.begin_task()
    for index in range(2):
        bank.set_orthogonal(index, orthonormal(2, 32, index))
    plain = session.forward(pixels)
    assert np.allclose(plain, model.embed(pixels), atol=1e-4)
    above = RANDOM.standard_normal(plain.shape).astype(np.float32)
    bank.parameters[:] = 0.1 * RANDOM.standard_normal(bank.parameters.size)

    def loss():
        return float((session.forward(list(pixels)).astype(np.float64) * above).sum())

    loss()
    session.backward(above)
    steepest = int(np.abs(bank.gradients).argmax())
    gradient, h = float(bank.gradients[steepest]), 1e-2
    values = []
    for sign in (1, -1):
        bank.parameters[steepest] += sign * h
        values.append(loss())
        bank.parameters[steepest] -= sign * h
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(gradient, rel=0.02)
    assert session.input(1, "attention").shape == (4 * 17, 32) and session.early_features.shape == (4, 64)
    assert session.profile.products > 0 and session.workspace_size > 0 and "images" in repr(session)
    with pytest.raises(duallora.ArgumentError, match="4 images"):
        session.backward(above[:3])
    with pytest.raises(duallora.ArgumentError, match="max_batch"):
        session.forward(np.concatenate([pixels, pixels]))
    with pytest.raises(duallora.MismatchError, match="sizes"):
        session.forward([pixels[0], pixels[1][:8]])
    bank.commit_task()
    assert not np.allclose(session.forward(pixels, Terms.MERGED), plain)
    with pytest.raises(duallora.StateError):
        session.forward(pixels)


def test_a_session_without_a_bank_or_training(model):
    pixels, _ = pictures([1, 2], 1, 1)
    session = duallora.Session(model)
    assert np.allclose(session.forward(pixels), model.embed(pixels), atol=1e-5)
    with pytest.raises(duallora.ArgumentError, match="bank"):
        session.backward(np.zeros((2, 32)))
    bank = duallora.Bank([duallora.site(32, 32, 1, "key")])
    with pytest.raises(duallora.StateError):
        other = duallora.Session(model, bank)
        other.forward(pixels)
        other.backward(np.zeros((2, 32)))
    with pytest.raises(duallora.MismatchError):
        duallora.Session(model, duallora.Bank([duallora.site(31, 32, 1, "key")]))
