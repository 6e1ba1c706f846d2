"""SAM's prompt encoder and mask decoder as one module whose prompts come in a batch of any size, for export.

The numbers are those of segment-anything (segment_anything/modeling: prompt_encoder.py, mask_decoder.py and
transformer.py); the sums are taken in another order, for there are few tokens beside the 4096 places of the picture:

- what concerns the picture alone keeps a batch of 1 as long as no mask comes in for each prompt;
- after the first layer `q @ (x @ W).T` is `(q @ W.T) @ x.T`, and so on: the tokens are projected, not the places;
- a transposed convolution whose kernel is its stride is one matrix product for every place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Decoder(nn.Module):
    """Prompts for one picture, in batches of B prompts with N points each -> four masks for each prompt.

    image_embeddings  [1, 256, 64, 64] float32
    point_coords      [B, N, 2] float32, x y in the 1024 x 1024 frame; a box is its two corners
    point_labels      [B, N] float32: 1 foreground, 0 background, 2 and 3 a box's top left and bottom right, -1 padding
    mask_input        [M, 1, 256, 256] float32 logits; M is B, or 1 for all prompts alike
    has_mask_input    [M] float32, 1 or 0: a prompt without a mask ignores its mask_input
    low_res_masks     [B, 4, 256, 256] float32 logits: the single mask, then the three of an ambiguous prompt
    iou_predictions   [B, 4] float32
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.prompts = _Prompts(sam.prompt_encoder)
        self.transformer = _Transformer(sam.mask_decoder.transformer)
        self.masks = _Masks(sam.mask_decoder)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        points = self.prompts.points(point_coords, point_labels)
        places = _places(image_embeddings) + self.prompts.mask(mask_input, has_mask_input)
        own = self.masks.tokens.expand(points.shape[0], -1, -1)
        tokens, places = self.transformer(torch.cat([own, points], 1), places, self.prompts.positions())
        masks: tuple[Tensor, Tensor] = self.masks(tokens, places)
        return masks


class _Prompts(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.side_hw = encoder.input_image_size
        self.frequencies = encoder.pe_layer.positional_encoding_gaussian_matrix
        self.kinds = nn.ParameterList([kind.weight for kind in encoder.point_embeddings])
        self.padding = encoder.not_a_point_embed.weight
        self.no_mask = encoder.no_mask_embed.weight
        *self.downscaling, last = encoder.mask_downscaling
        self.downscaling = nn.Sequential(*self.downscaling)
        self.to_places = _linear(last.weight.flatten(1), last.bias)
        height, width = encoder.image_embedding_size
        self.rows, self.columns = _fixed(torch.arange(height)[:, None] + 0.5), _fixed(torch.arange(width)[None] + 0.5)

    def points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """[B, N, 2] and [B, N] -> [B, N, 256]."""
        height, width = self.side_hw
        x, y = (coords[..., at : at + 1] + 0.5 for at in range(2))
        kind = labels.unsqueeze(-1)
        embedded = self._waves(x / width, y / height) * (kind != -1) + self.padding * (kind == -1)
        for at, weight in enumerate(self.kinds):
            embedded = embedded + weight * (kind == at)
        return embedded

    def positions(self) -> Tensor:
        """[1, 4096, 256]: where each place of the picture lies. Expanded, so that no exporter stores them all."""
        height, width = len(self.rows), self.columns.shape[1]
        x, y = self.columns.expand(height, width) / width, self.rows.expand(height, width) / height
        return self._waves(x.reshape(1, -1, 1), y.reshape(1, -1, 1))

    def mask(self, logits: Tensor, present: Tensor) -> Tensor:
        """[M, 1, 256, 256] and [M] -> [M, 4096, 256]."""
        there = present.reshape(-1, 1, 1)
        return there * self.to_places(_places(self.downscaling(logits))) + (1 - there) * self.no_mask

    def _waves(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., 1] in 0..1 twice -> [..., 256]. A product of two numbers is written out: no kernel, never rounded."""
        turns = 2 * math.pi * ((2 * x - 1) * self.frequencies[0] + (2 * y - 1) * self.frequencies[1])
        return torch.cat([turns.sin(), turns.cos()], -1)


class _Transformer(nn.Module):
    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(layer, first=at == 0) for at, layer in enumerate(transformer.layers))
        self.final = _TokensToPlaces(transformer.final_attn_token_to_image)
        self.final_norm = transformer.norm_final_attn

    def forward(self, tokens: Tensor, places: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, 256], [M, 4096, 256], [1, 4096, 256] -> [B, T, 256], [B, 4096, 256]."""
        queries = tokens
        for layer in self.layers:
            queries, places = layer(queries, places, tokens, positions)
        queries = queries + self.final(queries + tokens, places, positions)
        return self.final_norm(queries), places


class _Layer(nn.Module):
    def __init__(self, layer: Any, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.itself = _Attention(layer.self_attn)
        to_places, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        self.to_places: nn.Module = _TokensToShared(to_places) if first else _TokensToPlaces(to_places)
        self.to_tokens = _PlacesToTokens(to_tokens, shared=first)
        self.mlp = layer.mlp
        self.norms = nn.ModuleList([layer.norm1, layer.norm2, layer.norm3, layer.norm4])

    def forward(self, queries: Tensor, places: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            queries = self.norms[0](self.itself(queries, queries, queries))
        else:
            queries = self.norms[0](queries + self.itself(queries + tokens, queries + tokens, queries))
        queries = self.norms[1](queries + self.to_places(queries + tokens, places, positions))
        queries = self.norms[2](queries + self.mlp(queries))
        places = self.norms[3](places + self.to_tokens(places, positions, queries + tokens, queries))
        return queries, places


class _Heads(nn.Module):
    """A projection, head by head: [B, L, 256] -> [B, heads, L, C]."""

    def __init__(self, linear: Any, heads: int) -> None:
        super().__init__()
        self.linear, self.heads, self.size = linear, heads, linear.out_features // heads

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.linear(x)
        return projected.reshape(x.shape[0], -1, self.heads, self.size).transpose(1, 2)


class _Attention(nn.Module):
    """As published."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = _by_head(attention)
        self.out = attention.out_proj

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        weights = _scaled(self.query(queries)) @ self.key(keys).transpose(2, 3)
        joined: Tensor = self.out(_joined(weights.softmax(-1) @ self.value(values), self.out.in_features))
        return joined


class _TokensToShared(_Attention):
    """Tokens attend to projected places, which are the same for all prompts where there is but one mask."""

    def forward(self, queries: Tensor, places: Tensor, positions: Tensor) -> Tensor:
        """[B, T, 256], [M, 4096, 256], [1, 4096, 256] -> [B, T, 256]."""
        return super().forward(queries, places + positions, places)


class _TokensToPlaces(nn.Module):
    """Tokens attend to places: the tokens are projected into the places' 256 channels, and back."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, value = _by_head(attention)
        self.out = attention.out_proj
        self.inner, self.value = _fixed(_weight(self.key)), _fixed(_weight(value).transpose(1, 2))
        self.value_bias = value.linear.bias

    def forward(self, queries: Tensor, places: Tensor, positions: Tensor) -> Tensor:
        """[B, T, 256], [B, 4096, 256], [1, 4096, 256] -> [B, T, 256]."""
        heads, _, width = self.inner.shape
        scores = _scores(_scaled(self.query(queries)), self.inner, places, self.key(positions))
        taken = (_in_one(scores.softmax(-1)) @ places).reshape(queries.shape[0], heads, -1, width)
        joined: Tensor = self.out(_joined(taken @ self.value, self.out.in_features) + self.value_bias)
        return joined


class _PlacesToTokens(nn.Module):
    """Places attend to tokens: what a place would take of a token is made of the token at once."""

    def __init__(self, attention: Any, *, shared: bool) -> None:
        super().__init__()
        self.shared, out = shared, attention.out_proj
        self.query, self.key, self.value = _by_head(attention)
        self.inner = _fixed(_weight(self.query))
        self.out = _fixed(out.weight.T.unflatten(0, (attention.num_heads, -1)))
        self.out_bias = _fixed(out.bias / attention.num_heads)  # each head's weights sum to 1

    def forward(self, places: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[M or B, 4096, 256], [1, 4096, 256], [B, T, 256] twice -> [B, 4096, 256]."""
        k = _scaled(self.key(keys))
        if self.shared:
            scores = k @ self.query(places + positions).transpose(2, 3)
        else:
            scores = _scores(k, self.inner, places, self.query(positions))
        given = self.value(values) @ self.out + self.out_bias
        return _in_one(scores.softmax(-2)).transpose(1, 2) @ _in_one(given)


class _Masks(nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.tokens = _fixed(torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None])
        self.quality, self.kernels = decoder.iou_prediction_head, decoder.output_hypernetworks_mlps
        first, norm, self.gelu, second, _ = decoder.output_upscaling
        self.first = _linear(torch.cat([*_quarters(first)]), first.bias.repeat(4))
        self.second = nn.ModuleList(_linear(quarter, second.bias) for quarter in _quarters(second))
        self.norm = nn.LayerNorm(len(norm.weight), norm.eps)
        self.norm.weight, self.norm.bias = norm.weight, norm.bias

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, 256], [B, 4096, 256] -> [B, 4, 256, 256], [B, 4]."""
        side = math.isqrt(places.shape[1])
        kernels = torch.stack([kernel(tokens[:, 1 + at]) for at, kernel in enumerate(self.kernels)], 1)
        finer = self.gelu(self.norm(self.first(places.reshape(-1, places.shape[2])).reshape(-1, len(self.norm.weight))))
        # One quarter after the other: all places of the finest map together would be most of the memory.
        quarters = [kernels @ self._finest(quarter, finer, side).transpose(1, 2) for quarter in self.second]
        masks = torch.stack(quarters, 2).reshape(-1, side * side, 4).transpose(1, 2).reshape(-1, 4, side, side)
        masks = functional.pixel_shuffle(masks, 2).reshape(-1, 4, 2 * side, 2 * side)
        masks = functional.pixel_shuffle(masks, 2).reshape(-1, len(self.kernels), 4 * side, 4 * side)
        return masks, self.quality(tokens[:, 0])

    def _finest(self, quarter: nn.Module, finer: Tensor, side: int) -> Tensor:
        """[B * 4096 * 4, 64] -> [B, 4096 * 4, 32]."""
        finest: Tensor = self.gelu(quarter(finer))
        return finest.reshape(-1, 4 * side * side, finest.shape[1])


def _quarters(convolution: Any) -> Iterator[Tensor]:
    """A transposed convolution 2 x 2 with stride 2 as four products [D, C] for each place: of its top left, top right,
    bottom left and bottom right."""
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yield convolution.weight[:, :, row, column].T


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = _fixed(weight), _fixed(bias)
    return linear


def _scores(tokens: Tensor, inner: Tensor, places: Tensor, positions: Tensor) -> Tensor:
    """What `tokens` [B, heads, T, C] and the projected places have in common: [B, heads, T, 4096].

    inner      [heads, C, 256], the places' projection
    places     [B, 4096, 256]
    positions  [1, heads, 4096, C], the positions' projection and its bias
    """
    own = _in_one(tokens @ inner) @ places.transpose(1, 2)
    return own.reshape(tokens.shape[0], len(inner), -1, places.shape[1]) + tokens @ positions.transpose(2, 3)


def _scaled(x: Tensor) -> Tensor:
    return x / math.sqrt(x.shape[-1])


def _joined(x: Tensor, width: int) -> Tensor:
    """[B, heads, L, C] -> [B, L, heads * C], which is `width`."""
    return x.transpose(1, 2).reshape(x.shape[0], -1, width)


def _in_one(x: Tensor) -> Tensor:
    """[B, heads, T, L] -> [B, heads * T, L]."""
    return x.reshape(x.shape[0], -1, x.shape[3])


def _by_head(attention: Any) -> tuple[_Heads, _Heads, _Heads]:
    """Of queries, keys and values."""
    q, k, v = (_Heads(linear, attention.num_heads) for linear in (attention.q_proj, attention.k_proj, attention.v_proj))
    return q, k, v


def _weight(projection: _Heads) -> Tensor:
    """[heads, C, 256]."""
    weight: Tensor = projection.linear.weight
    return weight.unflatten(0, (projection.heads, -1))


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().contiguous(), requires_grad=False)


def _places(picture: Tensor) -> Tensor:
    """[M, C, H, W] -> [M, H * W, C]."""
    return picture.flatten(2).transpose(1, 2)
