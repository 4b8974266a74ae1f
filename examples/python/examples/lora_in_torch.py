#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gives a network of your own in PyTorch adapters that learn a second task without forgetting the first.

    python3 lora_in_torch.py
"""

import torch
from duallora.torch import LoRALinear
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))  # stands for yours, pre-trained
layers = [LoRALinear(network[i], rank=8, energy_threshold=0.999) for i in (0, 2)]
network[0], network[2] = layers


def make_task() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs in a subspace of their own, and what the network shall answer."""
    x = torch.randn(256, 8) @ torch.linalg.qr(torch.randn(32, 8))[0].T
    return x, (network(x) + 0.5 * torch.sin(x @ torch.randn(32, 8))).detach()


def observe(x: torch.Tensor) -> None:
    for layer in layers:
        layer.observing = True
    network(x)
    for layer in layers:
        layer.observing = False


def error(x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return nn.functional.mse_loss(network(x), y).item()


tasks = []
for number in range(2):
    x, y = make_task()
    tasks.append((x, y))
    before = error(x, y)
    observe(x)  # the adapters' directions are chosen from the inputs of the layers
    for layer in layers:
        layer.begin_task()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(300):
        loss = nn.functional.mse_loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    observe(x)  # what later tasks must avoid: the inputs of the trained network
    for layer in layers:
        layer.end_task()
    print(f"task {number}: error {before:.4f} -> {error(x, y):.4f}")
print(f"task 0 after task 1: error {error(*tasks[0]):.4f}")
