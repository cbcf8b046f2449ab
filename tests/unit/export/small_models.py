"""Small models with random weights, large enough for a wrong gate to show."""

from __future__ import annotations

import numpy as np
import torch

from charrnn.export import TrainedModel
from charrnn.training.model import CharRNN, ModelShape

VOCAB_SIZE = 11


def make_model(
    cell: str = "lstm", num_layers: int = 1, embedding_dim: int = 0, hidden_size: int = 8, spread: float = 0.4
) -> CharRNN:
    """A model whose weights, biases too, are random with standard deviation ``spread``."""
    torch.manual_seed(1)
    model = CharRNN(ModelShape(VOCAB_SIZE, cell, num_layers, hidden_size, embedding_dim)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=spread)
    return model


def make_source(model: CharRNN, num_validation: int = 600) -> TrainedModel:
    """The model with a vocabulary that holds the newline at 3, and a random text to be judged by."""
    validation = np.random.default_rng(0).integers(0, VOCAB_SIZE, num_validation).astype(np.uint8)
    return TrainedModel(model, "char", (97, 98, 99, 10, *range(110, 117)), validation)
