"""`ColPaliModel`: encoders of images and text of the ColPali kind, on colpali-engine and transformers."""

from __future__ import annotations

import importlib
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import Item, LateInteractionModel, Role, check_texts
from late_interaction.encoders.batching import token_batches
from late_interaction.encoders.checkpoint import content_hash, find_checkpoint, quiet_loading, read_json
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_positive

if TYPE_CHECKING:
    import torch
    from PIL import Image

_DTYPES = ("float32", "float16", "bfloat16")
_PIXELS_PER_TOKEN = 28 * 28  # what a token of text is taken to cost; Qwen's models see so many in one token


@dataclass(frozen=True, slots=True)
class VisualFamily:
    """A kind of visual late-interaction model.

    Attributes:
        name: what we call it.
        model: its class, which checkpoints name under `architectures`.
        processor: the class that prepares its input.
        model_type: of its config, for checkpoints that name no such class: adapters are made for plain backbones.
        library: the package that has the classes.
        in_chat: texts are rendered by the tokenizer's chat template, a query behind "Query: ", as it stands in the
            processor's code.
    """

    name: str
    model: str
    processor: str
    model_type: str
    library: str = "colpali_engine.models"
    in_chat: bool = False


FAMILIES = (
    VisualFamily("colpali", "ColPali", "ColPaliProcessor", "paligemma"),
    VisualFamily("colqwen2", "ColQwen2", "ColQwen2Processor", "qwen2_vl"),
    VisualFamily("colqwen2.5", "ColQwen2_5", "ColQwen2_5_Processor", "qwen2_5_vl"),
    VisualFamily("colqwen3", "ColQwen3", "ColQwen3Processor", "qwen3_vl"),
    VisualFamily("colqwen3.5", "ColQwen3_5", "ColQwen3_5Processor", "qwen3_5"),
    VisualFamily("colidefics3", "ColIdefics3", "ColIdefics3Processor", "idefics3"),
    VisualFamily("colmodernvbert", "ColModernVBert", "ColModernVBertProcessor", "modernvbert"),
    VisualFamily("colgemma3", "ColGemma3", "ColGemmaProcessor3", "gemma3", in_chat=True),
    VisualFamily("colpali-native", "ColPaliForRetrieval", "ColPaliProcessor", "colpali", "transformers"),
    VisualFamily("colqwen2-native", "ColQwen2ForRetrieval", "ColQwen2Processor", "colqwen2", "transformers"),
    VisualFamily(
        "colmodernvbert-native",
        "ColModernVBertForRetrieval",
        "ColModernVBertProcessor",
        "colmodernvbert",
        "transformers",
    ),
)


class ColPaliModel(LateInteractionModel):
    """A late-interaction encoder of images and texts: unit vectors for the patches of an image, or for tokens.

    The families are those of `FAMILIES`: ColPali, ColQwen2, 2.5, 3 and 3.5, ColIdefics3 (ColSmol), ColModernVBert and
    ColGemma3 of colpali-engine, and ColPali, ColQwen2 and ColModernVBert of transformers. Which one a checkpoint is
    says its config, for a LoRA adapter that of its base model. Weights are read from safetensors only, and code that
    comes with a checkpoint is never run.

    A document is an image or a text; a query likewise. All vectors of the model's own input are kept, those of its
    prompt ("Describe the image.") too, as its authors do. A vector does not depend on the batch. One thread encodes
    at a time. In a process forked after loading, torch computes on one core.

    Args:
        model_name: a model id on the Hugging Face hub, or the folder of a model.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
        device_map: how to spread a model over devices, such as "auto" (as transformers has it); not with `device`.
        dtype: of weights and computation: "float32", "float16", "bfloat16" or the torch dtype. None is float32 on a
            CPU and bfloat16 elsewhere. Vectors come out as float32 whatever it is.
        batch_pixels: most pixels in a forward pass, after the model's own scaling of the images; a token of text
            counts as 784. An image larger than that is encoded alone.
        query_prefix: what to put before a text query: the one that the checkpoint was trained with, where that is not
            the one of the installed library. colpali-engine had "Query: " up to 0.3.12 and has none since.
        revision: branch, tag or commit of a model on the hub.

    Attributes:
        family: the checkpoint's family, a name of `FAMILIES`.
        query_prefix: the prefix in force.

    Raises:
        ModelError: the checkpoint cannot be had or loaded, is of no known family, or lacks weights of its own.
        MissingExtraError: colpali-engine, Pillow or torchvision is not installed.
        ValueError: an argument that no checkpoint can be loaded with.
    """

    supports_images = True

    def __init__(
        self,
        model_name: str | os.PathLike[str] = "vidore/colqwen2-v1.0",
        *,
        device: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        batch_pixels: int = 4_000_000,
        query_prefix: str | None = None,
        revision: str | None = None,
    ) -> None:
        dtype_name = None if dtype is None else str(dtype).removeprefix("torch.")
        if dtype_name not in (None, *_DTYPES):
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}.")
        if device is not None and device_map is not None:
            raise ValueError("give either device or device_map, not both.")
        check_positive("batch_pixels", batch_pixels)

        self.model_name = os.fspath(model_name)
        self.batch_pixels = batch_pixels
        self._lock = threading.Lock()  # A fast tokenizer cannot be used by two threads at a time.
        self._pid = os.getpid()
        folder = find_checkpoint(self.model_name, revision)
        base = base_checkpoint(folder)
        family = visual_family(base or folder)
        if family is None:
            raise ModelError(f"{base or folder} is no model of images: open it with ColBERTModel.")
        self._family, self.family = family, family.name
        try:
            self._model = _load_model(self._family, folder, base, device, device_map, dtype_name)
            self._processor = _load_processor(self._family, folder, base)
        except (ModelError, MissingExtraError):
            raise
        except Exception as error:
            raise ModelError(f"{self.model_name} could not be loaded: {error}") from error
        config = self._model.config
        self.dim = int(config.embedding_dim if family.library == "transformers" else self._model.dim)
        if query_prefix is None:
            query_prefix = "Query: " if family.in_chat else self._processor.query_prefix
        self.query_prefix = query_prefix
        tokenizer = self._processor.tokenizer
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        special = {*tokenizer.all_special_tokens, *added, self._processor.image_token}
        self._special = re.compile("|".join(re.escape(token) for token in special if len(token) > 1))
        self._positions = min(config.get_text_config().max_position_embeddings, tokenizer.model_max_length)
        one = len(self._token_ends("a"))
        self._overhead = {
            role: self._text_input(["a"], role)["input_ids"].shape[1] - one for role in get_args(Role)
        }
        is_folder = Path(self.model_name).expanduser().is_dir()
        self._model_id = folder.resolve().name if is_folder else self.model_name
        self._content = content_hash(folder)
        self._base_content = None if base is None else content_hash(base)

    def __repr__(self) -> str:
        return f"ColPaliModel({self.model_name!r}, family={self.family!r}, dim={self.dim}, device={self.device!r})"

    @property
    def device(self) -> str:
        """Where the model computes, or where it begins to."""
        return str(self._model.device)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what the vectors of an image or text are, as JSON values by name.

        As with `ColBERTModel`, device, dtype and batch size are left out. The prompts are not all of the checkpoint:
        some stand in the code of the library that is installed, and have changed from one release to the next.
        """
        suffix = "" if self._family.in_chat else self._processor.query_augmentation_token * 10
        return {
            "model": self._model_id,
            "content": self._content,
            "base_content": self._base_content,
            "family": self.family,
            "dim": self.dim,
            "query_prefix": self.query_prefix,
            "query_suffix": suffix,
            "image_prompt": getattr(self._processor, "visual_prompt_prefix", None),
        }

    def encode_queries(self, queries: Sequence[Item]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per query, in the order given.

        An image is encoded as it is as a document.

        Args:
            queries: texts and PIL images.

        Raises:
            TypeError: a bare str or image, or an item that is neither.
            ValueError: a text is empty or only white space; an image that the model cannot scale.
        """
        return self._encode(queries, "query")

    def encode_documents(self, documents: Sequence[Item]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per document, in the order given.

        Args:
            documents: texts and PIL images.

        Raises:
            TypeError: a bare str or image, or an item that is neither.
            ValueError: a text is empty or only white space; an image that the model cannot scale.
        """
        return self._encode(documents, "document")

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """How many of the texts have more tokens than the model has positions, and so lose their end."""
        with self._lock:
            return sum(self._fit(text, role).cut for text in texts)

    def encode_patches(self, image: Image.Image) -> NDArray[np.float32]:
        """The vectors of an image's patches where they lie: (rows, columns, dim) float32, unit length.

        They are those rows of `encode_documents` that are neither of the prompt nor, where a family looks at tiles, of
        the whole image once more. A patch is the same part of the image's width and height everywhere.
        """
        processor = self._processor
        with self._lock:
            inputs = processor.process_images([image.convert("RGB")])
            (vectors,) = self._forward(inputs)
            config = getattr(self._model.config, "vlm_config", self._model.config)
            grid: NDArray[np.float32]
            patches = vectors[(inputs["input_ids"][0] == config.image_token_id).numpy()]
            if "image_grid_thw" in inputs:
                merged = processor.image_processor.merge_size
                rows, columns = (int(n) // merged for n in inputs["image_grid_thw"][0, 1:])
                grid = patches.reshape(rows, columns, self.dim)
            elif inputs["pixel_values"].ndim == 5 and inputs["pixel_values"].shape[1] > 1:
                side = math.isqrt(processor.image_seq_len)
                found = processor.image_processor([[image.convert("RGB")]], return_row_col_info=True)
                rows, columns = found["rows"][0][0], found["cols"][0][0]
                tiles = patches[: -(side**2)].reshape(rows, columns, side, side, self.dim)
                grid = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, self.dim)
            else:
                side = math.isqrt(len(patches))
                grid = patches.reshape(side, side, self.dim)
        return grid

    def _encode(self, items: Sequence[Item], role: Role) -> list[FloatMatrix]:
        checked = _check_items(items, role)
        if os.getpid() != self._pid:
            import torch

            # OpenMP waits forever for the threads that a forked process does not have.
            torch.set_num_threads(1)
        images = [i for i, item in enumerate(checked) if not isinstance(item, str)]
        texts = [i for i, item in enumerate(checked) if isinstance(item, str)]
        matrices: dict[int, FloatMatrix] = {}
        with self._lock:
            for batch in token_batches([self._pixels(checked[i]) for i in images], self.batch_pixels):
                inputs = self._processor.process_images([checked[images[j]].convert("RGB") for j in batch])
                matrices |= zip([images[j] for j in batch], self._forward(inputs), strict=True)
            fitted = [self._fit(checked[i], role) for i in texts]
            for i, text in zip(texts, fitted, strict=True):
                if text.n_tokens == self._overhead[role]:
                    raise ValueError(
                        f"The {role} at position {i}, {checked[i][:40]!r}, has no token that {self.model_name} knows."
                    )
            costs = [text.n_tokens * _PIXELS_PER_TOKEN for text in fitted]
            for batch in token_batches(costs, self.batch_pixels):
                inputs = self._text_input([fitted[j].text for j in batch], role)
                matrices |= zip([texts[j] for j in batch], self._forward(inputs), strict=True)
        return [matrices[i] for i in range(len(checked))]

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> list[FloatMatrix]:
        """The rows of each input that are not padding."""
        import torch

        device, dtype = self._model.device, self._model.dtype
        tensors = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
            if name != "labels"  # of some processors, for training: the loss would be computed
        }
        mask = tensors["attention_mask"].bool()
        with torch.inference_mode():
            output = self._model(**tensors)
        embeddings = getattr(output, "embeddings", output)
        # By mask and not by norm: no row of a token is zero by chance, nor one of padding different from zero.
        rows = [matrix[kept].float().cpu().numpy() for matrix, kept in zip(embeddings, mask, strict=True)]
        if not all(np.isfinite(matrix).all() for matrix in rows):
            raise ModelError(
                f"{self.model_name} computed vectors that are not finite in {dtype}: load it with dtype='float32'."
            )
        return [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in rows]

    def _text_input(self, texts: list[str], role: Role) -> Mapping[str, torch.Tensor]:
        """What the processor makes of texts, a document's without the prefix and suffix of a query."""
        processor, prefix = self._processor, self.query_prefix if role == "query" else ""
        inputs: Mapping[str, torch.Tensor]
        if self._family.in_chat:
            inputs = processor(
                text=[self._in_chat(prefix + text) for text in texts], padding="longest", return_tensors="pt"
            )
        else:
            processor.query_prefix = prefix
            if role == "query":
                inputs = processor.process_queries(texts)
            elif self._family.library == "transformers":
                inputs = processor.process_queries(texts, suffix="")
            else:
                inputs = processor.process_texts(texts)
        if self._family.model_type == "paligemma":
            import torch

            # Without them transformers (5.23) attends both ways where a batch has no padding, and causally where it
            # has. All zero is the prefix, which attends both ways, as it did when ColPali was trained.
            inputs = {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])}
        return inputs

    def _in_chat(self, text: str) -> str:
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        rendered: str = self._processor.tokenizer.apply_chat_template([message], tokenize=False)
        return rendered

    def _fit(self, text: str, role: Role) -> _FittedText:
        """A text that has room in the model's positions."""
        # "<image>" in a text is not an image, and would be taken for one.
        text = self._special.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)
        ends = self._token_ends(text)
        room = self._positions - self._overhead[role]
        if len(ends) > room:
            return _FittedText(text[: ends[room - 1]], self._positions, cut=True)
        return _FittedText(text, len(ends) + self._overhead[role], cut=False)

    def _token_ends(self, text: str) -> list[int]:
        """Where each token of a text ends, in characters."""
        encoded = self._processor.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [end for _, end in encoded["offset_mapping"]]

    def _pixels(self, image: Image.Image) -> int:
        """How many pixels of an image the model computes with, about."""
        size = self._processor.image_processor.size
        if size.get("height"):
            return int(size["height"] * size["width"])  # every image is scaled to the same size
        if size.get("shortest_edge"):  # Qwen's, where this is not an edge but a number of pixels
            return int(min(max(image.width * image.height, size["shortest_edge"]), size["longest_edge"]))
        tile = self._processor.image_processor.max_image_size["longest_edge"]
        scale = size["longest_edge"] / max(image.size)
        tiles = math.ceil(image.width * scale / tile) * math.ceil(image.height * scale / tile)
        return int((tiles + 1) * tile**2)  # and the whole image once more, as one tile


@dataclass(frozen=True, slots=True)
class _FittedText:
    """A text as it is encoded, how many tokens it has with its prompt, and whether its end was cut off."""

    text: str
    n_tokens: int
    cut: bool


def visual_family(folder: Path) -> VisualFamily | None:
    """The family of a checkpoint, or of an adapter's base, by its config; None where it is no visual model.

    Raises:
        ModelError: it is a model of images of another family.
    """
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    for family in FAMILIES:
        if family.model in architectures:
            return family
    for family in FAMILIES:
        if family.model_type == config.get("model_type"):
            return family
    if "vision_config" in config or "vlm_config" in config:
        known = ", ".join(f"{family.model} ({family.model_type})" for family in FAMILIES)
        raise ModelError(
            f"{folder} is a model of images of no family that is known here: its config.json names the architectures "
            f"{architectures} and the model_type {config.get('model_type')!r}. Known are {known}."
        )
    return None


def base_checkpoint(folder: Path) -> Path | None:
    """The folder of the model that an adapter was made for; None where the checkpoint is whole.

    Raises:
        ModelError: it cannot be had.
    """
    adapter = read_json(folder / "adapter_config.json")
    if not adapter or (folder / "config.json").is_file():  # an adapter beside its base, in one folder
        return None
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{folder} is an adapter, and its adapter_config.json does not say of which model.")
    return find_checkpoint(base, adapter.get("revision"))


def _load_model(
    family: VisualFamily,
    folder: Path,
    base: Path | None,
    device: str | None,
    device_map: str | Mapping[str, Any] | None,
    dtype: str | None,
) -> Any:
    """The model, with no weight that is not the checkpoint's own."""
    import torch
    from sentence_transformers.util import get_device_name

    for part in (folder, base or folder):
        if not any(part.glob("*.safetensors")):
            raise ModelError(
                f"{part} has no weights in safetensors files. Weights in a pickle can run code when they are loaded "
                "and are refused: convert the checkpoint to safetensors."
            )
    options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
    if device_map is not None:
        options["device_map"] = device_map
    # Where a map spreads the model, the layers may be anywhere: what they share is the better of both.
    on_cpu = torch.device(device or get_device_name()).type == "cpu"
    options["dtype"] = dtype or ("float32" if on_cpu else "bfloat16")
    if (folder / "adapter_config.json").is_file():
        options["adapter_kwargs"] = {"_adapter_model_path": str(folder)}
    with quiet_loading() as missing:
        model, info = _class(family, family.model).from_pretrained(str(base or folder), **options)
    if family.model == "ColPali":
        # It computes the logits of every token, of no use here and gigabytes large, with a head whose weights
        # transformers 5 leaves unloaded.
        model.model.lm_head = torch.nn.Identity()
    saved = read_json(folder / "adapter_config.json").get("modules_to_save") or []
    lacking = {name for name in missing if name.split(".")[-2] not in saved} | set(info["missing_keys"])
    if lacking:
        raise ModelError(
            f"{base or folder} lacks weights of {family.model}, which would be random: "
            f"{', '.join(sorted(lacking)[:5])}. A vision-language model not trained for retrieval has no projection."
        )
    if "adapter_kwargs" in options and info["unexpected_keys"]:
        unused = ", ".join(sorted(info["unexpected_keys"])[:5])
        raise ModelError(f"weights of the adapter {folder} have no place in {family.model}: {unused}.")
    if device_map is None:
        return model.eval().to(device or get_device_name())
    # The models multiply the projected vectors by the mask, which stays where the input is.
    *_, projection = model.children()
    projection.register_forward_hook(lambda module, inputs, vectors: vectors.to(model.device))
    return model.eval()


def _load_processor(family: VisualFamily, folder: Path, base: Path | None) -> Any:
    """The processor, an adapter's own where it has one."""
    files = ("preprocessor_config.json", "processor_config.json")
    own = base is None or any((folder / file).is_file() for file in files)
    processor = _class(family, family.processor).from_pretrained(str(folder if own else base))
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise ModelError(f"{folder} has no {part}.")
    return processor


def _class(family: VisualFamily, name: str) -> Any:
    """A class of the family.

    Raises:
        MissingExtraError: its library, or one that reads images for it, is not installed.
    """
    for package in dict.fromkeys((family.library.partition(".")[0], "PIL", "torchvision")):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(f"A model of the family {family.name}", "colpali", package) from error
    return getattr(importlib.import_module(family.library), name)


def _check_items(items: Sequence[Item], role: Role) -> list[Any]:
    """The items as a list, once each one is known to be an image or a text that holds something."""
    from PIL import Image

    if isinstance(items, str):
        check_texts(items, role)
    if isinstance(items, Image.Image):
        raise TypeError("Pass a list of images, not a bare image.")
    checked = list(items)
    for position, item in enumerate(checked):
        if not isinstance(item, str | Image.Image):
            raise TypeError(
                f"The {role} at position {position} is neither a str nor a PIL image but {type(item).__name__}; "
                "load_image makes one of a path, bytes or a URL."
            )
        if not isinstance(item, str) and 0 in item.size:
            raise ValueError(f"The {role} at position {position} is an image without pixels, {item.size}.")
    check_texts([item if isinstance(item, str) else "image" for item in checked], role)
    return checked
