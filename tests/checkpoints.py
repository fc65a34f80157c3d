"""Tiny checkpoints with seeded random weights, one builder for each format that `ColBERTModel` reads.

They are written to a folder in under a second and need no network. Their vectors mean nothing, but shapes,
markers, lengths and skiplists are those of the real formats.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

HIDDEN = 32
DIM = 16
POSITIONS = 64
WORDS = [
    "the",
    "of",
    "and",
    "wing",
    "flow",
    "heat",
    "cat",
    "dog",
    "hello",
    "world",
    "token",
    "query",
    "index",
    "search",
]
_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def stanford_checkpoint(
    path: Path,
    *,
    query_maxlen: int = 12,
    doc_maxlen: int = 24,
    attend_to_mask_tokens: bool = False,
    mask_punctuation: bool = True,
    seed: int = 0,
) -> Path:
    """colbert-ai's format: `bert.` and `linear.weight` in one file, settings in artifact.metadata."""
    _backbone(path, seed)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(path / "model.safetensors").items()}
    save_file({**weights, "linear.weight": _projection(seed)}, path / "model.safetensors")
    _merge_json(path / "config.json", {"architectures": ["HF_ColBERT"]})
    _merge_json(
        path / "artifact.metadata",
        {
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "query_maxlen": query_maxlen,
            "doc_maxlen": doc_maxlen,
            "attend_to_mask_tokens": attend_to_mask_tokens,
            "mask_punctuation": mask_punctuation,
        },
    )
    return path


def pylate_checkpoint(
    path: Path,
    *,
    query_length: int = 12,
    document_length: int = 24,
    do_query_expansion: bool = True,
    attend_to_expansion_tokens: bool = False,
    skiplist_words: list[str] | None = None,
    model_type: str | None = "ColBERT",
    dense: bool = True,
    seed: int = 0,
) -> Path:
    """PyLate's format: `[Q] ` and `[D] ` as added tokens, the projection in `1_Dense`."""
    _backbone(path, seed, added_tokens=["[Q] ", "[D] "])
    settings = {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": query_length,
        "document_length": document_length,
        "do_query_expansion": do_query_expansion,
        "attend_to_expansion_tokens": attend_to_expansion_tokens,
        "skiplist_words": list(string.punctuation) if skiplist_words is None else skiplist_words,
    }
    if model_type is not None:
        settings["model_type"] = model_type
    _merge_json(path / "config_sentence_transformers.json", settings)
    modules = ["sentence_transformers.models.Transformer"]
    if dense:
        modules.append("pylate.models.Dense.Dense")
        _dense(path / "1_Dense", seed)
    _modules(path, modules)
    return path


def native_checkpoint(
    path: Path, *, query_expansion: dict[str, object] | None = None, document_length: int = 24, seed: int = 0
) -> Path:
    """sentence-transformers' own format, with a text prompt for queries."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    parts = _backbone(path / "parts", seed)
    transformer = Transformer(str(parts), document_length=document_length, query_expansion=query_expansion)
    projection = Dense(
        HIDDEN,
        DIM,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=_projection(seed),
        module_input_name="token_embeddings",
    )
    modules = [
        transformer,
        projection,
        MultiVectorMask(["."]),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "query ", "document": ""}
    MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save_pretrained(
        str(path / "model"), create_model_card=False
    )
    return path / "model"


def plain_checkpoint(
    path: Path,
    *,
    max_seq_length: int = 20,
    sentence_transformers: bool = True,
    prompts: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """An encoder of sentences with mean pooling and a sentence-level Dense, or its bare backbone."""
    _backbone(path, seed)
    if sentence_transformers:
        _merge_json(path / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
        _merge_json(path / "config_sentence_transformers.json", {"prompts": prompts or {}})
        _merge_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN})
        _dense(path / "2_Dense", seed)
        prefix = "sentence_transformers.models."
        _modules(path, [f"{prefix}Transformer", f"{prefix}Pooling", f"{prefix}Dense"])
    return path


def pickle_weights(folder: Path) -> None:
    """Turn a folder's model.safetensors into the pickle that older checkpoints have."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _backbone(path: Path, seed: int, added_tokens: list[str] | None = None) -> Path:
    tokenizer = _tokenizer()
    tokenizer.add_tokens(added_tokens or [])
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,  # the usual 0.02 gives two layers' tokens that hardly differ
    )
    BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _tokenizer() -> PreTrainedTokenizerFast:
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    names = [_SPECIAL["pad"], "[unused0]", "[unused1]", *list(_SPECIAL.values())[1:]]
    vocabulary = list(dict.fromkeys([*names, *characters, *pieces, *WORDS]))
    tokenizer = Tokenizer(
        WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token=_SPECIAL["unk"])
    )
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        **{f"{name}_token": token for name, token in _SPECIAL.items()},
    )


def _projection(seed: int) -> torch.Tensor:
    return torch.randn(DIM, HIDDEN, generator=torch.Generator().manual_seed(seed))


def _dense(path: Path, seed: int) -> None:
    settings = {
        "in_features": HIDDEN,
        "out_features": DIM,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _merge_json(path / "config.json", settings)
    save_file({"linear.weight": _projection(seed)}, path / "model.safetensors")


def _modules(path: Path, types: list[str]) -> None:
    """Write modules.json: the first module lies in the folder itself, each other in `1_Dense` and the like."""
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind.rpartition('.')[2]}" if i else "", "type": kind}
        for i, kind in enumerate(types)
    ]
    (path / "modules.json").write_text(json.dumps(entries))


def _merge_json(file: Path, values: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **values}))
