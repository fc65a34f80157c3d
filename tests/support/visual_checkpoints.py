"""Tiny checkpoints with seeded random weights, one for each family that `ColPaliModel` reads.

They are built from the families' own configs and written in a fraction of a second. Their vectors mean nothing, but
shapes, prompts, padding and the way from an image to tokens are those of the real families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import colpali_engine.models as engine
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

POSITIONS = 128
WORDS = (
    "the of and a chart table page rain cat dog user User Assistant Describe image this Query Question : ."
)
_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 384,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,  # the usual 0.02 gives tokens that hardly differ
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_CAUSAL = _TEXT | {"num_key_value_heads": 1, "head_dim": 16, "pad_token_id": None}
_VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def visual_checkpoint(path: Path, family: str) -> Path:
    """Write the checkpoint of a family, by our name for it."""
    torch.manual_seed(0)
    model, processor = BUILDERS[family]()
    for weight in model.parameters():
        if not weight.any() and weight.ndim > 1:
            torch.nn.init.normal_(weight)  # Gemma's projection of images begins as zero.
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def adapter_checkpoint(path: Path, base: Path, family: str, **settings: Any) -> Path:
    """A LoRA adapter for a checkpoint that is there, with weights that change what comes out."""
    import peft

    torch.manual_seed(1)
    model_class, processor_class = CLASSES[family]
    config = peft.LoraConfig(r=2, init_lora_weights=False, **settings)
    model = peft.get_peft_model(model_class.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(path)
    processor_class.from_pretrained(base).save_pretrained(path)
    return path


def _tokenizer(special: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A token for each byte, as some families' tokenizers are taken for byte-level ones when they are loaded."""
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def _pali(model: Callable[[Any], Any], processor: type) -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        ["<pad>", "<bos>", "<eos>", "<image>"],
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = transformers.SiglipImageProcessor(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    made = processor(image_processor=images, tokenizer=tokenizer)
    config = transformers.PaliGemmaConfig(
        vision_config=_VISION
        | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14, "projection_dim": 32},
        text_config=_CAUSAL | {"model_type": "gemma", "vocab_size": 4096},
        projection_dim=32,
        image_token_id=made.image_token_id,
        image_token_index=made.image_token_id,
    )
    return model(config), made


def _qwen(
    model: Callable[[Any], Any],
    processor: Callable[..., Any],
    config: Callable[..., Any],
    vision: Mapping[str, Any],
    text: Mapping[str, Any] | None = None,
    patch: int = 14,
) -> tuple[Any, Any]:
    roles = ("image", "video", "vision_start", "vision_end")
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *names],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={f"{role}_token": name for role, name in zip(roles, names, strict=True)},
    )
    images = transformers.Qwen2VLImageProcessor(
        min_pixels=2 * (2 * patch) ** 2, max_pixels=16 * (2 * patch) ** 2, patch_size=patch
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    made = config(
        text_config=_CAUSAL | {"rope_parameters": rope} | (text or {}),
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2} | vision,
        **{
            f"{role}_token_id": tokenizer.convert_tokens_to_ids(name)
            for role, name in zip(roles, names, strict=True)
        },
    )
    return model(made), processor(image_processor=images, tokenizer=tokenizer)


def _tiles(model: Callable[[Any], Any], processor: type, config: Callable[..., Any]) -> tuple[Any, Any]:
    names = ["<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>"]
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|begin_of_text|>", "<|im_start|>", "<|im_end|>", *names, *places],
        pad_token="<|im_end|>",
        eos_token="<|im_end|>",
        bos_token="<|begin_of_text|>",
    )
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    made = config(
        vision_config=_VISION | {"image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return model(made), processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4)


def _idefics3(**settings: Any) -> Any:
    return transformers.Idefics3Config(
        text_config=_CAUSAL | {"model_type": "llama"}, scale_factor=2, **settings
    )


def _modernvbert(**settings: Any) -> Any:
    text = _TEXT | {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 1}
    return transformers.ModernVBertConfig(text_config=text, pixel_shuffle_factor=2, **settings)


def _gemma() -> tuple[Any, Any]:
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = _tokenizer(
        ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", *names.values()],
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=names,
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }} "
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>{% endfor %}"
    )
    boi, eoi, image = (tokenizer.convert_tokens_to_ids(name) for name in names.values())
    config = transformers.Gemma3Config(
        vision_config=_VISION | {"image_size": 56, "patch_size": 7, "vision_use_head": False},
        text_config=_CAUSAL | {"sliding_window": 64},
        mm_tokens_per_image=16,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_id=image,
        image_token_index=image,
    )
    images = transformers.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = engine.ColGemmaProcessor3(image_processor=images, tokenizer=tokenizer, image_seq_length=16)
    return engine.ColGemma3(config), processor


def _native(model: Callable[[Any], Any], config: Callable[..., Any]) -> Callable[[Any], Any]:
    """transformers' own model around a backbone's config, 16 dimensions wide."""
    return lambda backbone: model(config(vlm_config=backbone, embedding_dim=16))


def _with_video(processor: Callable[..., Any], video: Callable[[], Any]) -> Callable[..., Any]:
    return lambda **parts: processor(video_processor=video(), **parts)


_VIDEO_2, _VIDEO_3 = transformers.Qwen2VLVideoProcessor, transformers.Qwen3VLVideoProcessor
_QWEN2 = {"embed_dim": 32, "mlp_ratio": 1}
_QWEN3 = {"out_hidden_size": 32, "intermediate_size": 32, "num_position_embeddings": 16}
_QWEN3_5_TEXT = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 0],
        "partial_rotary_factor": 0.25,
    },
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}

BUILDERS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "colpali": lambda: _pali(engine.ColPali, engine.ColPaliProcessor),
    "colqwen2": lambda: _qwen(
        engine.ColQwen2,
        _with_video(engine.ColQwen2Processor, _VIDEO_2),
        transformers.Qwen2VLConfig,
        _QWEN2,
    ),
    "colqwen2.5": lambda: _qwen(
        engine.ColQwen2_5,
        _with_video(engine.ColQwen2_5_Processor, _VIDEO_2),
        transformers.Qwen2_5_VLConfig,
        {"out_hidden_size": 32, "intermediate_size": 32, "fullatt_block_indexes": [1]},
    ),
    "colqwen3": lambda: _qwen(
        engine.ColQwen3,
        _with_video(engine.ColQwen3Processor, _VIDEO_3),
        transformers.Qwen3VLConfig,
        _QWEN3 | {"deepstack_visual_indexes": [0]},
        patch=16,
    ),
    "colqwen3.5": lambda: _qwen(
        engine.ColQwen3_5,
        _with_video(engine.ColQwen3_5Processor, _VIDEO_3),
        transformers.Qwen3_5Config,
        _QWEN3 | {"deepstack_visual_indexes": []},
        _QWEN3_5_TEXT,
        patch=16,
    ),
    "colidefics3": lambda: _tiles(engine.ColIdefics3, engine.ColIdefics3Processor, _idefics3),
    "colmodernvbert": lambda: _tiles(engine.ColModernVBert, engine.ColModernVBertProcessor, _modernvbert),
    "colgemma3": _gemma,
    "colpali-native": lambda: _pali(
        _native(transformers.ColPaliForRetrieval, transformers.ColPaliConfig), transformers.ColPaliProcessor
    ),
    "colqwen2-native": lambda: _qwen(
        _native(transformers.ColQwen2ForRetrieval, transformers.ColQwen2Config),
        transformers.ColQwen2Processor,
        transformers.Qwen2VLConfig,
        _QWEN2,
    ),
    "colmodernvbert-native": lambda: _tiles(
        _native(transformers.ColModernVBertForRetrieval, transformers.ColModernVBertConfig),
        transformers.ColModernVBertProcessor,
        _modernvbert,
    ),
}
CLASSES: Mapping[str, tuple[Any, Any]] = {
    "colpali": (engine.ColPali, engine.ColPaliProcessor),
    "colqwen2": (engine.ColQwen2, engine.ColQwen2Processor),
    "colqwen2.5": (engine.ColQwen2_5, engine.ColQwen2_5_Processor),
    "colqwen3": (engine.ColQwen3, engine.ColQwen3Processor),
    "colqwen3.5": (engine.ColQwen3_5, engine.ColQwen3_5Processor),
    "colidefics3": (engine.ColIdefics3, engine.ColIdefics3Processor),
    "colmodernvbert": (engine.ColModernVBert, engine.ColModernVBertProcessor),
    "colgemma3": (engine.ColGemma3, engine.ColGemmaProcessor3),
}

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }} "
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if task == 'query' %}<|endoftext|><|endoftext|>{% endif %}"
)


def modules_checkpoint(path: Path, *, dim: int = 16) -> Path:
    """A vision-language model with a projection in a Dense, as sentence-transformers trains and saves."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    def processor(image_processor: Any, tokenizer: Any) -> Any:
        videos = transformers.Qwen2VLVideoProcessor(min_pixels=2 * 28**2, max_pixels=16 * 28**2)
        return transformers.Qwen2VLProcessor(
            image_processor=image_processor,
            tokenizer=tokenizer,
            video_processor=videos,
            chat_template=TEMPLATE,
        )

    torch.manual_seed(0)
    vision = {"embed_dim": 32, "mlp_ratio": 1}
    model, made = _qwen(transformers.Qwen2VLModel, processor, transformers.Qwen2VLConfig, vision)
    model.save_pretrained(path / "base")
    made.save_pretrained(path / "base")
    encoder = MultiVectorEncoder(
        modules=[
            Transformer(str(path / "base")),
            Dense(
                32,
                dim,
                bias=False,
                activation_function=torch.nn.Identity(),
                module_input_name="token_embeddings",
            ),
            MultiVectorMask(),
            Normalize(module_input_name="token_embeddings", module_output_name="token_embeddings"),
        ],
        device="cpu",
    )
    encoder.save_pretrained(str(path / "model"))
    return path / "model"
