"""Tiny checkpoints with seeded random weights, one builder for each format that `ColBERTModel` reads.

They are written to a folder in under a second and need no network. Their vectors mean nothing, but shapes,
markers, lengths and skiplists are those of the real formats.
"""

from __future__ import annotations

import json
import string
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, Sequence, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
    XmodConfig,
    XmodModel,
)

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
Lowercase = Literal["tokenizer", "module"]
_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def stanford_checkpoint(
    path: Path,
    *,
    query_maxlen: int = 12,
    doc_maxlen: int = 24,
    attend_to_mask_tokens: bool = False,
    mask_punctuation: bool = True,
    positions: int = POSITIONS,
    seed: int = 0,
) -> Path:
    """colbert-ai's format: `bert.` and `linear.weight` in one file, settings in artifact.metadata."""
    _backbone(path, seed, positions=positions)
    settings = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": query_maxlen,
        "doc_maxlen": doc_maxlen,
        "attend_to_mask_tokens": attend_to_mask_tokens,
        "mask_punctuation": mask_punctuation,
    }
    _to_stanford(path, "bert", seed, settings)
    return path


def jina_checkpoint(path: Path, *, query_maxlen: int = 32, doc_maxlen: int = 40, seed: int = 0) -> Path:
    """jina-colbert-v2's layout in colbert-ai's format: XLM-RoBERTa's vocabulary, markers as added tokens, and
    [MASK] tokens that are attended to."""
    config = XLMRobertaConfig(**_sizes(positions=POSITIONS + 2))  # its positions begin at 2
    _save(path, XLMRobertaModel, config, _xlm_roberta_tokenizer(), seed)
    settings = {
        "query_token_id": "[QueryMarker]",
        "doc_token_id": "[DocumentMarker]",
        "query_maxlen": query_maxlen,
        "doc_maxlen": doc_maxlen,
        "attend_to_mask_tokens": True,
        "mask_punctuation": True,
    }
    _to_stanford(path, "roberta", seed, settings)
    return path


def bge_checkpoint(path: Path, *, seed: int = 0) -> Path:
    """bge-m3's layout, as FlagEmbedding publishes it: sentence-transformers' files, and two heads in pickles."""
    config = XLMRobertaConfig(**_sizes(positions=POSITIONS + 2))
    _save(path, XLMRobertaModel, config, _xlm_roberta_tokenizer(), seed)
    pickle_weights(path)
    for name, width in (("colbert_linear", HIDDEN), ("sparse_linear", 1)):
        weights = {
            "weight": _weight(name, (width, HIDDEN), seed),
            "bias": _weight(f"{name}.b", (1, width), seed)[0],
        }
        torch.save(weights, path / f"{name}.pt")
    _merge_json(path / "sentence_bert_config.json", {"max_seq_length": 40})
    _merge_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN})
    prefix = "sentence_transformers.models."
    _modules(path, [f"{prefix}Transformer", f"{prefix}Pooling", f"{prefix}Normalize"])
    return path


def xmod_checkpoint(path: Path, *, default_language: str | None = None, seed: int = 0) -> Path:
    """A plain X-MOD, with adapters for two languages, as colbert-xm's backbone has them for 81."""
    config = XmodConfig(
        **_sizes(positions=POSITIONS + 2), languages=["en_XX", "fr_XX"], default_language=default_language
    )
    return _save(path, XmodModel, config, _xlm_roberta_tokenizer(), seed)


def pylate_checkpoint(
    path: Path,
    *,
    query_length: int = 12,
    document_length: int = 24,
    do_query_expansion: bool = True,
    attend_to_expansion_tokens: bool = False,
    skiplist_words: list[str] | None = None,
    model_type: str | None = "ColBERT",
    dense: int = 1,
    prefixes: tuple[str, str] = ("[Q] ", "[D] "),
    lowercase: Lowercase = "tokenizer",
    seed: int = 0,
) -> Path:
    """PyLate's format: `[Q] ` and `[D] ` as added tokens, the projection in `1_Dense`.

    With two Dense layers the first has a bias, an activation and a residual connection. Lowercasing is the
    tokenizer's, or that of the Transformer module before a tokenizer that keeps case.
    """
    added = [prefix for prefix in prefixes if prefix]
    _backbone(path, seed, added_tokens=added, lowercase=lowercase == "tokenizer")
    if lowercase == "module":
        _merge_json(path / "sentence_bert_config.json", {"do_lower_case": True})
    settings = {
        "query_prefix": prefixes[0],
        "document_prefix": prefixes[1],
        "query_length": query_length,
        "document_length": document_length,
        "do_query_expansion": do_query_expansion,
        "attend_to_expansion_tokens": attend_to_expansion_tokens,
        "skiplist_words": list(string.punctuation) if skiplist_words is None else skiplist_words,
    }
    if model_type is not None:
        settings["model_type"] = model_type
    _merge_json(path / "config_sentence_transformers.json", settings)
    if dense == 2:
        _dense_with_residual(path / "1_Dense", seed)
    if dense:
        _dense(path / f"{dense}_Dense", seed)
    _modules(path, ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * dense])
    return path


def decoder_checkpoint(
    path: Path,
    *,
    begins: bool = False,
    ends: bool = False,
    do_query_expansion: bool = True,
    padding_side: Literal["left", "right"] = "right",
    seed: int = 0,
) -> Path:
    """PyLate's format on a decoder with Qwen3's kind of tokenizer: bytes, and no token that begins a text.

    With `begins` the tokenizer is of Llama's kind instead: a BOS, and "▁" before the first word only.
    """
    names = ["<|endoftext|>", "<|im_end|>", "<s>", "<unk>"]
    if begins:
        pieces = [*string.punctuation, "▁", *string.ascii_letters, *string.digits]
        scores = [(token, 0.0) for token in names] + [(piece, -8.0) for piece in pieces]
        scores += [(f"▁{word}", -4.0) for word in WORDS] + [(word, -5.0) for word in WORDS]
        tokenizer = Tokenizer(Unigram(scores, unk_id=3))
        tokenizer.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    else:
        vocabulary = {token: i for i, token in enumerate([*names, *sorted(ByteLevel.alphabet())])}
        tokenizer = Tokenizer(BPE(vocabulary, []))
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    around = f"{'<s> ' if begins else ''}$A{' <|endoftext|>' if ends else ''}"
    special = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "<|endoftext|>")]
    tokenizer.post_processor = TemplateProcessing(single=around, special_tokens=special)
    finished = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=POSITIONS,
        padding_side=padding_side,
    )
    finished.add_tokens(["[Q] ", "[D] "])
    config = Qwen3Config(**_sizes(positions=POSITIONS), num_key_value_heads=1, head_dim=16)
    _save(path, Qwen3Model, config, finished, seed)
    settings = {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 32,
        "document_length": 40,
        "do_query_expansion": do_query_expansion,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "model_type": "ColBERT",
    }
    _merge_json(path / "config_sentence_transformers.json", settings)
    _dense(path / "1_Dense", seed)
    _modules(path, ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"])
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


def transformer_checkpoint(
    path: Path, kind: type[PreTrainedModel], config: type[PreTrainedConfig], seed: int = 0, **options: object
) -> Path:
    """A bare transformer of any architecture, with BERT's kind of tokenizer."""
    tokenizer = _bert_tokenizer(POSITIONS, lowercase=True)
    sizes = {**_sizes(positions=POSITIONS), "vocab_size": len(tokenizer), "pad_token_id": 0}
    return _save(path, kind, config(**{**sizes, **options}), tokenizer, seed)


def pickle_weights(folder: Path) -> None:
    """Turn a folder's model.safetensors into the pickle that older checkpoints have."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _backbone(
    path: Path,
    seed: int,
    *,
    added_tokens: list[str] | None = None,
    positions: int = POSITIONS,
    lowercase: bool = True,
) -> Path:
    tokenizer = _bert_tokenizer(positions, lowercase)
    tokenizer.add_tokens(added_tokens or [])
    return _save(path, BertModel, BertConfig(**_sizes(positions=positions)), tokenizer, seed)


def _sizes(positions: int) -> dict[str, int]:
    return {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
    }


def _save(
    path: Path,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
) -> Path:
    config.vocab_size = len(tokenizer)
    model = model_class(config)
    model.load_state_dict({name: _weight(name, old.shape, seed) for name, old in model.state_dict().items()})
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    # The class under the name that transformers 4 knows too.
    _merge_json(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return path


def _weight(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """The same numbers in every release of torch and numpy, whose RandomState is frozen; for each name its own.

    They are wider than the usual 0.02, with which two layers give tokens that hardly differ.
    """
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    frozen = np.random.RandomState([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(0.5 * frozen.standard_normal(shape)).to(torch.float32)


def _to_stanford(path: Path, prefix: str, seed: int, settings: dict[str, object]) -> None:
    """Turn a saved backbone into a checkpoint of colbert-ai."""
    weights = {f"{prefix}.{name}": tensor for name, tensor in load_file(path / "model.safetensors").items()}
    save_file({**weights, "linear.weight": _projection(seed)}, path / "model.safetensors", {"format": "pt"})
    _merge_json(path / "config.json", {"architectures": ["HF_ColBERT"]})
    _merge_json(path / "artifact.metadata", {**settings, "dim": DIM})


def _bert_tokenizer(positions: int, lowercase: bool) -> PreTrainedTokenizerFast:
    characters = [*string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [f"##{character}" for character in string.ascii_letters + string.digits]
    names = [_SPECIAL["pad"], "[unused0]", "[unused1]", *list(_SPECIAL.values())[1:]]
    vocabulary = list(dict.fromkeys([*names, *characters, *pieces, *WORDS]))
    tokenizer = Tokenizer(
        WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token=_SPECIAL["unk"])
    )
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return _finish(tokenizer, _SPECIAL, positions)


def _xlm_roberta_tokenizer() -> PreTrainedTokenizerFast:
    """Words after a "▁", as SentencePiece has them; no punctuation mark has a piece of its own after one."""
    special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
    characters = [*string.punctuation, "▁", *string.ascii_letters, *string.digits]
    pieces = [(token, 0.0) for token in special.values()]
    pieces += [(character, -8.0) for character in characters] + [(f"▁{word}", -4.0) for word in WORDS]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Metaspace()])
    tokenizer.add_special_tokens(["<mask>"])
    finished = _finish(tokenizer, {**special, "mask": "<mask>"}, POSITIONS)
    finished.add_tokens(["[QueryMarker]", "[DocumentMarker]"])
    return finished


def _finish(tokenizer: Tokenizer, special: dict[str, str], positions: int) -> PreTrainedTokenizerFast:
    ends = [special["cls"], special["sep"]]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{ends[0]} $A {ends[1]}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ends],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        **{f"{name}_token": token for name, token in special.items()},
    )


def _projection(seed: int) -> torch.Tensor:
    return _weight("projection", (DIM, HIDDEN), seed)


def _dense_with_residual(path: Path, seed: int) -> None:
    settings = {
        "in_features": HIDDEN,
        "out_features": HIDDEN,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
        "use_residual": True,
    }
    _merge_json(path / "config.json", settings)
    bias = _weight("bias", (1, HIDDEN), seed)[0]
    weights = {"linear.weight": _weight("first", (HIDDEN, HIDDEN), seed), "linear.bias": bias}
    save_file(weights, path / "model.safetensors")


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
