"""The texts of a batch one behind the other, without padding: sentence-transformers' `unpad_inputs`, on a CPU."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from late_interaction.encoders.torch_runtime import PROBES, ROUNDING, dtype_name

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Transformer

logger = logging.getLogger(__name__)

_PADDED, _UNPADDED = "sdpa", "sdpa_unpadded"
_BOUNDS = "cu_seq_lens_q"
_ROUNDING_16 = 0.03  # as ROUNDING, in 16 bits


def leave_out_padding(encoder: MultiVectorEncoder) -> None:
    """Have the texts of a batch go through the transformer one behind the other, where that gives the same vectors.

    sentence-transformers does it for flash attention, which is for GPUs. Here torch's own attention takes the texts of
    one length at a time. Padding is not computed then, and no mask is read, which takes as long on a CPU.

    Args:
        encoder: on the CPU; it is left as it is where its transformer does not take such a batch.
    """
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    transformer: Transformer = encoder[0]
    model = transformer.model
    attention = getattr(model.config, "_attn_implementation", None)
    # The mask is what puts a batch in rows again.
    if attention != _PADDED or not any(isinstance(part, MultiVectorMask) for part in encoder):
        return
    if not getattr(model, "is_backend_compatible", lambda: False)():
        return
    model.eval()
    expected, known = _vectors(transformer), transformer.model_forward_params
    _unpad(transformer)
    with suppress(Exception):  # Some architectures fail on such a batch.
        difference = float((_vectors(transformer) - expected).abs().max())
        if difference <= (ROUNDING if dtype_name(model.dtype) == "float32" else _ROUNDING_16):
            return
    logger.debug("%s takes padded batches only.", type(model).__name__)
    transformer.unpad_inputs, transformer.model_forward_params = False, known
    model.set_attn_implementation(_PADDED)


def _unpad(transformer: Transformer) -> None:
    """Do what sentence-transformers does where it finds flash attention."""
    from transformers import AttentionInterface, AttentionMaskInterface, DataCollatorWithFlattening
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_UNPADDED, _attention())
    AttentionMaskInterface.register(_UNPADDED, sdpa_mask)
    transformer.model.set_attn_implementation(_UNPADDED)
    transformer.data_collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    transformer.can_flatten_inputs = True
    transformer._flatten_position_offset = transformer._infer_flatten_position_offset()  # noqa: SLF001
    if transformer.model_forward_params is not None:
        transformer.model_forward_params = transformer.model_forward_params | {_BOUNDS}


def _attention() -> Callable[..., tuple[torch.Tensor, None]]:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def each_text(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cu_seq_lens_q: torch.Tensor | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Compute attention within each text of a batch, as transformers calls for it.

        Args:
            module: the layer.
            query: (1, heads, n_tokens, width) of all texts, one behind the other.
            key: as `query`.
            value: as `query`.
            attention_mask: (1, 1 or heads, n_tokens, n_tokens), such as that of local attention; None for none.
            cu_seq_lens_q: (n_texts + 1,) where each text begins, and the end; None for a padded batch.
            options: what transformers' own takes.

        Returns:
            (1, n_tokens, heads, width), and no weights.
        """
        if cu_seq_lens_q is None:
            padded: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, **options
            )
            return padded
        outputs, start = [], 0
        for length, texts in itertools.groupby(np.diff(cu_seq_lens_q.tolist()).tolist()):
            end = start + length * sum(1 for _ in texts)
            states = [
                states[0, :, start:end].unflatten(1, (-1, length)).transpose(0, 1)
                for states in (query, key, value)
            ]
            masks = attention_mask
            if attention_mask is not None:
                places = [slice(first, first + length) for first in range(start, end, length)]
                masks = torch.stack([attention_mask[0, :, place, place] for place in places])
            output, _ = sdpa_attention_forward(module, *states, masks, **options)
            outputs.append(output.flatten(0, 1))
            start = end
        return torch.cat(outputs)[None], None

    return each_text


def _vectors(transformer: Transformer) -> torch.Tensor:
    """Return the unit vectors of some tokens, a row each."""
    import torch
    from sentence_transformers.util.tensor import repad_flattened_features

    with torch.inference_mode():
        features = transformer.forward(transformer.preprocess(list(PROBES)))
    if _BOUNDS in features:
        features = repad_flattened_features(features)
    rows = features["token_embeddings"][features["attention_mask"].bool()]
    return torch.nn.functional.normalize(rows.float(), dim=-1)
