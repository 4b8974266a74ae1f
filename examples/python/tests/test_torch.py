# SPDX-License-Identifier: Apache-2.0
"""In PyTorch: gradients, layers, datasets, and backbones taken from it."""

import copy
import io

import duallora
import numpy as np
import pytest
from conftest import SMALL, backbone_path, pictures

torch = pytest.importorskip("torch", reason="no torch (Debian: python3-torch)")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset  # noqa: E402

from duallora.torch import AdaptedBackbone, LoRALinear, bank_terms, project_gradients, session_features  # noqa: E402

PIXELS, LABELS = pictures([1, 2], 16, 1)


def tensors_of(path):
    """Tensors of a safetensors file, by NumPy alone."""
    import json
    raw = np.fromfile(path, np.uint8)
    size = int(raw[:8].view(np.uint64)[0])
    header = json.loads(raw[8:8 + size].tobytes())
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.int16}
    metadata = header.pop("__metadata__", {})
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = raw[8 + size + begin:8 + size + end].copy().view(kinds[entry["dtype"]]).reshape(entry["shape"])
        tensor = torch.from_numpy(array)
        found[name] = tensor.view(torch.bfloat16) if entry["dtype"] == "BF16" else tensor
    return found, metadata


# ---- gradients ----


def test_gradients_of_a_bank_pass_gradcheck():
    bank = duallora.Bank([duallora.site(5, 4), duallora.site(4, 3)])
    bank.begin_task()
    torch.manual_seed(0)
    for index, width in enumerate((5, 4)):
        bank.set_residual(index, torch.randn(2, width), train_a=True)
        bank.set_orthogonal(index, torch.randn(1, width))
    parameters = torch.randn(bank.parameters.size, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)

    def function(x, parameters):
        return bank_terms(bank, 1, torch.tanh(bank_terms(bank, 0, x, parameters)), parameters)

    assert torch.autograd.gradcheck(function, (x, parameters), eps=1e-2, atol=2e-2, rtol=2e-2, nondet_tol=1e-5)
    with pytest.raises(duallora.ArgumentError, match="numbers"):
        bank_terms(bank, 0, x, parameters[:3])


def test_gradients_of_a_session_pass_gradcheck(model):
    bank = duallora.Bank([duallora.site(32, 32, 1, "value")])
    session = duallora.Session(model, bank, training=True, threads=1)
    bank.begin_task()
    bank.set_orthogonal(0, np.linalg.qr(np.random.default_rng(0).standard_normal((32, 1)))[0].T)
    parameters = torch.zeros(bank.parameters.size, dtype=torch.float64, requires_grad=True)
    readout = torch.randn(32, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def function(parameters):
        # Two passes before the gradients: the workspace holds the second one only.
        return sum(session_features(session, parameters, PIXELS[i:i + 2]) @ readout for i in (0, 2))

    assert torch.autograd.gradcheck(function, parameters, eps=2e-2, atol=5e-2, rtol=2e-2, nondet_tol=1e-4)
    with pytest.raises(duallora.ArgumentError, match="no bank"):
        session_features(duallora.Session(model), parameters, PIXELS)


# ---- modules ----


def test_a_backbone_learns_two_tasks_in_a_loop_of_ten_lines(model):
    network, head = AdaptedBackbone(model, rank=2, max_batch=32, threads=1), nn.Linear(32, 4)
    torch.manual_seed(0)
    nn.init.normal_(head.weight, std=0.1)
    assert not list(network.parameters())
    for task, classes in enumerate(([1, 2], [3, 4])):
        images, labels = pictures(classes, 16, task)
        targets = torch.from_numpy(labels - 1)
        network.observe(images)
        network.begin_task()
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-2)
        losses = []
        for _ in range(20):
            loss = nn.functional.cross_entropy(head(network(images)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        learned = network(images).detach()
        network.observe(images)
        network.end_task()
        # Merged, it computes the same.
        assert torch.allclose(network(images), learned, atol=1e-4)
    assert network.bank.num_tasks == 2 and all(p.size > 0 for p in network.projectors.values())
    assert (network.bank.merged(0) != 0).any()
    with pytest.raises(duallora.StateError):
        network.end_task()
    # state_dict has what was learned.
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other = AdaptedBackbone(model, rank=2, max_batch=32, threads=1)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other(images), network(images))


def test_a_linear_layer_learns_a_task_and_keeps_the_one_before():
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(16, 8), rank=8, energy_threshold=0.9999)
    frozen = copy.deepcopy(layer.linear)
    inputs = [torch.randn(64, 8) @ torch.linalg.qr(torch.randn(16, 8))[0].T for _ in range(2)]
    targets = [frozen(x).detach() + x @ torch.randn(16, 8) * 0.3 for x in inputs]
    with pytest.raises(duallora.StateError, match="observe"):
        layer.begin_task()
    after = []
    for x, target in zip(inputs, targets):
        layer.observing = True
        layer(x)
        layer.observing = False
        layer.begin_task()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        first = nn.functional.mse_loss(layer(x), target).item()
        for _ in range(300):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(layer(x), target)
            loss.backward()
            optimizer.step()
        layer.end_task()
        after.append(nn.functional.mse_loss(layer(x), target).item())
        assert after[-1] < 0.9 * first
    assert after[0] < 1e-4
    assert nn.functional.mse_loss(layer(inputs[0]), targets[0]).item() < after[0] + 1e-4  # not forgotten
    assert torch.equal(layer.linear.weight, frozen.weight) and "2 finished tasks" in repr(layer)
    other = LoRALinear(copy.deepcopy(frozen), rank=8)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs[1]), layer(inputs[1])) and other.projector.size == layer.projector.size
    # It is differentiable in its input, where it stands in a network.
    x = inputs[1].clone().requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, (frozen.weight + torch.from_numpy(layer.bank.merged(0))).sum(0).expand_as(x), atol=1e-4)


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.05),
])
def test_an_optimizer_is_kept_out_of_used_directions(make):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    old = torch.randn(64, 5) @ torch.linalg.qr(torch.randn(16, 5))[0].T
    projector = duallora.Projector(16)
    projector.observe(old)
    projector.commit_task(0.99999)
    before, x = layer(old).detach() - layer.bias.detach(), torch.randn(64, 16)
    optimizer = make(layer.parameters())
    remove = project_gradients(optimizer, {layer.weight: projector})

    def train():
        for _ in range(20):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
        return (layer(old) - layer.bias - before).abs().max().item()

    start = layer.weight.detach().clone()
    assert train() < 1e-4 and (layer.weight - start).abs().max() > 1e-2
    remove()
    assert train() > 1e-2
    with pytest.raises(duallora.ArgumentError, match="reads inputs of 16"):
        project_gradients(optimizer, {layer.weight: duallora.Projector(4)})


# ---- images ----


class Pairs(Dataset):
    def __init__(self, labelled=True):
        self.reads = 0
        if labelled:
            self.targets = LABELS.tolist()

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        self.reads += 1
        return torch.from_numpy(PIXELS[index]).permute(2, 0, 1), int(LABELS[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter((torch.from_numpy(picture).permute(2, 0, 1), int(label)) for picture, label in zip(PIXELS, LABELS))


def test_tensors_are_images(model):
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    expected = model.embed(PIXELS)
    info = model.info
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))
    normalised = (tensor.float() / 255 - mean) / std
    for form in (tensor, torch.from_numpy(PIXELS), list(tensor), normalised, normalised.double(), list(normalised),
                 normalised.requires_grad_()):
        assert np.allclose(model.embed(form), expected, atol=2e-4)


@pytest.mark.parametrize("source", [
    Pairs(), Pairs(False), DataLoader(Pairs(), batch_size=5, shuffle=True), TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
    DataLoader(Stream(), batch_size=5), Stream(), Subset(Pairs(), range(32)), DataLoader(Subset(Pairs(), range(32)), batch_size=3),
])
def test_datasets_and_loaders_are_learned(model, source):
    options = {**SMALL, "rank_orthogonal": 0, "rank_residual": 0}
    expected = duallora.Learner(model, **options)
    expected.learn(PIXELS, LABELS)
    learner = duallora.Learner(model, **options)
    assert learner.learn(source).num_images == 32
    assert learner.classes_.tolist() == [1, 2]
    assert np.allclose(learner.predict_proba(PIXELS), expected.predict_proba(PIXELS), atol=1e-4)
    assert np.allclose(learner.predict_proba(source), expected.predict_proba(PIXELS), atol=1e-4)
    assert learner.evaluate(source).num_images == 32


def test_a_dataset_that_has_its_labels_is_not_read_for_them(model):
    pairs = Pairs()
    duallora._images.open_labelled(pairs, None)
    assert pairs.reads == 0
    one_by_one = Pairs(False)
    duallora._images.open_labelled(one_by_one, None)
    assert one_by_one.reads == 32


# ---- backbones ----


@pytest.mark.parametrize("name", ["tiny_timm_f32", "tiny_timm_f16", "tiny_timm_bf16", "tiny_hf_vit_f32", "tiny_hf_dinov2_f32"])
def test_weights_pass_through_memory(name):
    path = backbone_path(name)
    state, metadata = tensors_of(path)
    config = {key: value for key, value in metadata.items()
              if key in ("num_heads", "num_attention_heads", "layer_norm_eps", "image_size", "mean", "std")}
    config.setdefault("num_heads", 2)
    from_file, through_memory = duallora.Model.load(path, num_heads=2), duallora.Model.from_torch(state, config)
    assert through_memory.info == from_file.info
    assert np.array_equal(through_memory.embed(PIXELS), from_file.embed(PIXELS))
    arrays = {key: value.numpy() for key, value in state.items() if value.dtype != torch.bfloat16}
    if len(arrays) == len(state):
        assert duallora.Model.from_torch(arrays, config).info.fingerprint == from_file.info.fingerprint
    with pytest.raises(duallora.ArgumentError, match="save_pretrained"):
        duallora.Model.from_torch(state, {"model_type": "vit", "num_attention_heads": 2})
    with pytest.raises(duallora.ArgumentError, match="num_head'"):
        duallora.Model.from_torch(state, {"num_head": 2})
    with pytest.raises(duallora.ArgumentTypeError, match="expected a mapping"):
        duallora.Model.from_torch(state, [("num_heads", 2)])
    with pytest.raises(duallora.ArgumentTypeError, match="complex"):
        duallora.Model.from_torch({"x": torch.zeros(2, dtype=torch.complex64)})


@pytest.mark.parametrize("name, size", [
    ("vit_tiny_patch16_224", 64), ("vit_small_patch14_reg4_dinov2", 56), ("deit_tiny_distilled_patch16_224", 64),
    ("vit_small_patch16_dinov3", 64),
])
def test_models_of_timm_pass_through_memory(name, size):
    timm = pytest.importorskip("timm", reason="no timm")
    torch.manual_seed(0)
    network = timm.create_model(name, img_size=size, num_classes=0, pretrained=False).eval()
    with duallora.Model.from_timm(network) as model:
        info = model.info
        assert info.image_size == size and info.depth == len(network.blocks)
        assert info.mean == pytest.approx(network.pretrained_cfg["mean"])
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert np.allclose(model.embed(x), network(x).numpy(), atol=2e-3)
    with pytest.raises(duallora.ArgumentTypeError, match="no Vision Transformer"):
        duallora.Model.from_timm(nn.Linear(2, 2))
