"""A small Llama in plain torch, fast on a CPU, and its export to transformers' format."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITIONS = 1024
THETA = 10000.0
EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    vocabulary: int
    """Tokens, specials included."""
    layers: int
    """Blocks."""
    width: int
    """Hidden size."""
    heads: int
    """Attention heads of width / heads each."""
    inner: int
    """Hidden size of the gated MLP."""


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), -1)


class Block(nn.Module):
    """Attention and gated MLP, each behind an RMS norm and a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_attention = nn.RMSNorm(shape.width, eps=EPSILON)
        self.norm_mlp = nn.RMSNorm(shape.width, eps=EPSILON)
        self.query_key = nn.Linear(shape.width, 2 * shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.gate_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape; attention is causal."""
        batch, tokens, width = x.shape
        normed = self.norm_attention(x)
        split = (batch, tokens, 2 * self.heads, width // self.heads)
        both = _rotate(self.query_key(normed).view(split).transpose(1, 2), cosine, sine)
        query, key = both.chunk(2, 1)
        value = self.value(normed).view(batch, tokens, self.heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        gate, up = self.gate_up(self.norm_mlp(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class TinyLlama(nn.Module):
    """Llama with tied embeddings."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=EPSILON)
        self._initialise()
        half = shape.width // shape.heads
        frequencies = THETA ** (-torch.arange(0, half, 2).float() / half)
        angles = torch.arange(POSITIONS).float()[:, None] * frequencies
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() != 2:
                continue
            scale = 0.02 if name.startswith("embedding") else 0.5 / math.sqrt(weight.shape[1])
            nn.init.normal_(weight, 0.0, scale)
            if name.endswith(("output.weight", "down.weight")):
                weight.data.mul_(1 / math.sqrt(2 * self.shape.layers))

    def hidden(self, tokens: Tensor) -> Tensor:
        """Final hidden states of (batch, tokens) ids."""
        length = tokens.shape[1]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosine[:length], self.sine[:length])
        return self.norm(x)

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean cross-entropy; logits are made only where the weight is not zero."""
        wanted = weights > 0
        logits = functional.linear(self.hidden(tokens)[wanted], self.embedding.weight)
        losses = functional.cross_entropy(logits.float(), targets[wanted], reduction="none")
        chosen = weights[wanted]
        return (losses * chosen).sum() / chosen.sum()


@torch.no_grad()
def grown(model: TinyLlama, layers: int) -> TinyLlama:
    """The same function in a deeper model: new blocks, evenly between the old, add nothing yet."""
    larger = TinyLlama(replace(model.shape, layers=layers))
    larger.embedding.load_state_dict(model.embedding.state_dict())
    larger.norm.load_state_dict(model.norm.state_dict())
    old = model.shape.layers
    places = [index * layers // old for index in range(old)]
    for block in larger.blocks:
        assert isinstance(block, Block)
        block.output.weight.zero_()
        block.down.weight.zero_()
    for index, place in enumerate(places):
        larger.blocks[place].load_state_dict(model.blocks[index].state_dict())
    return larger


def save_checkpoint(model: TinyLlama, path: Path) -> None:
    """Weights and sizes, for training further."""
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict()}, path)


def load_checkpoint(path: Path) -> TinyLlama:
    """A model as save_checkpoint wrote it."""
    state = torch.load(path, weights_only=True)
    model = TinyLlama(Shape(**state["shape"]))
    model.load_state_dict(state["weights"])
    return model


def export(model: TinyLlama, folder: Path, end_token: int, pad_token: int) -> None:
    """Write config, generation config and bf16 weights as transformers and vLLM load them."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = model.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_token,
        pad_token_id=pad_token,
    )
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(_transformers_weights(model))
    llama.generation_config = GenerationConfig(eos_token_id=end_token, pad_token_id=pad_token)
    llama.to(torch.bfloat16).save_pretrained(folder)


def _transformers_weights(model: TinyLlama) -> dict[str, Tensor]:
    weights = {
        "model.embed_tokens.weight": model.embedding.weight,
        "lm_head.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
    }
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        query, key = block.query_key.weight.chunk(2, 0)
        gate, up = block.gate_up.weight.chunk(2, 0)
        parts = {
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": block.value.weight,
            "self_attn.o_proj": block.output.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.down.weight,
            "input_layernorm": block.norm_attention.weight,
            "post_attention_layernorm": block.norm_mlp.weight,
        }
        for name, weight in parts.items():
            weights[f"model.layers.{index}.{name}.weight"] = weight
    return {name: weight.detach().clone() for name, weight in weights.items()}
