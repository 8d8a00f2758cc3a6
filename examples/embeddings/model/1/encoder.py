"""all-MiniLM-L6-v2 in numpy: sentences in, normalised embeddings out.

A BERT encoder of six layers, mean pooling over the tokens, and normalisation, as
sentence-transformers defines the model.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MAX_TOKENS = 256

Array = NDArray[np.float32]


class Encoder:
    """The network with its weights and its tokenizer."""

    def __init__(self, weights: Path) -> None:
        """Loads what fetch_weights.py put into a directory."""
        config = json.loads((weights / "config.json").read_text())
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]
        self._weights: dict[str, Array] = load_file(weights / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        # Pads to the longest sentence of the batch, not to a fixed length.
        self._tokenizer.enable_padding(pad_id=config["pad_token_id"])

    def encode(self, sentences: list[str]) -> Array:
        """Embeddings of some sentences: [sentence, 384], each of length 1."""
        encodings = self._tokenizer.encode_batch(sentences)
        tokens = np.array([encoding.ids for encoding in encodings])
        mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)
        hidden = self._embed(tokens)
        # Added to the attention scores: padding gets no attention.
        bias = (1 - mask[:, None, None, :]) * np.float32(-1e9)
        for layer in range(self._layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias)
        mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def _embed(self, tokens: NDArray[np.int64]) -> Array:
        word = self._weights["embeddings.word_embeddings.weight"][tokens]
        position = self._weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        segment = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._normalise("embeddings.LayerNorm", word + position + segment)

    def _layer(self, name: str, hidden: Array, bias: Array) -> Array:
        attended = self._attend(f"{name}.attention.self", hidden, bias)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        hidden = self._normalise(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = _gelu(self._linear(f"{name}.intermediate.dense", hidden))
        narrow = self._linear(f"{name}.output.dense", wide)
        return self._normalise(f"{name}.output.LayerNorm", hidden + narrow)

    def _attend(self, name: str, hidden: Array, bias: Array) -> Array:
        batch, length, width = hidden.shape
        query, key, value = (
            self._linear(f"{name}.{part}", hidden)
            .reshape(batch, length, self._heads, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32((width / self._heads) ** 0.5)
        scores += bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normalise(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + self._epsilon)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """x·Φ(x), with erf as in Abramowitz and Stegun, 7.1.26: off by at most 1.5e-7."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    return x * np.float32(0.5) * (1 + erf)
