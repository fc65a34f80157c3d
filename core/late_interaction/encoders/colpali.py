"""`ColPaliModel`: encoders of images and text of the ColPali kind, on colpali-engine and transformers."""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import (
    Item,
    LateInteractionModel,
    NoTokenError,
    Role,
    check_items,
    without_tokens,
)
from late_interaction.encoders.batching import token_batches
from late_interaction.encoders.checkpoint import content_hash
from late_interaction.encoders.colpali_loading import VisualCheckpoint
from late_interaction.encoders.colpali_queries import QueryForm, library_form, trained_form
from late_interaction.encoders.prefetching import prefetched
from late_interaction.encoders.replicas import Replicas, check_devices, ready_for
from late_interaction.encoders.soundness import load_error
from late_interaction.encoders.tokenizing import shared
from late_interaction.encoders.torch_runtime import (
    check_attention,
    default_dtype,
    device_or_best,
    dtype_name,
    finite_rows,
    guard_fork,
    is_cpu,
    model_id,
    require_packages,
)
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.images.scaling import factors_for, scaled_rgb
from late_interaction.recipes import Remade
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_positive

if TYPE_CHECKING:
    import torch
    from PIL import Image

PREPARING = 4
"""Threads that prepare images for a GPU: processing takes 10 to 94 ms of a page on one core, by the family."""
_PIXELS_PER_TOKEN = 28 * 28  # what a token of text is taken to cost; Qwen's models see so many in one token


class ColPaliModel(Remade, LateInteractionModel):
    """A late-interaction encoder of images and texts: unit vectors for the patches of an image, or for tokens.

    The families are those of `FAMILIES`: ColPali, ColQwen2, 2.5, 3 and 3.5, ColIdefics3 (ColSmol), ColModernVBert and
    ColGemma3 of colpali-engine, and ColPali, ColQwen2 and ColModernVBert of transformers. The family is read from the
    checkpoint's config, for a LoRA adapter from that of its base model. Weights are read from safetensors, unless
    `allow_pickle` says otherwise, and code that comes with a checkpoint is never run.

    A document is an image or a text; a query likewise. All vectors of the model's own input are kept, those of its
    prompt ("Describe the image.") too, as its authors do. A vector does not depend on the batch. Threads may share the
    model: while a batch is computed, others prepare the next ones. In a process forked after loading, torch computes on
    one core.

    Args:
        model_name: a model id on the Hugging Face hub, or the folder of a model.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
        devices: several of one kind, such as ["cuda:0", "cuda:1"]: each has a whole copy of the model, and a batch goes
            to whichever is free. Not with `device`.
        device_map: how to spread one model over devices, such as "auto" (as transformers has it); not with `device` or
            `devices`.
        dtype: of weights and computation: "float32", "float16", "bfloat16" or the torch dtype. "auto", or None, is
            float32 on a CPU and bfloat16 elsewhere. Vectors come out as float32 whatever it is.
        batch_pixels: most pixels in a forward pass, after the model's own scaling of the images; a token of text
            counts as 784. An image larger than that is encoded alone.
        num_workers: threads that scale and cut up the images of the next batches while one is computed; so many batches
            are in memory beside it. None is 4, and 1 on a CPU, where they would take the model's cores.
        query_prefix: what to put before a text query. None is what the checkpoint was trained with, by the registry
            of known models and by the files of the checkpoint (docs/images.md); where neither tells, what the
            installed library has.
        revision: branch, tag or commit of a model on the hub.
        allow_pickle: read weights that are in a pickle, as `ColBERTModel` does.
        attn_implementation: what computes attention, as for `ColBERTModel`. None is transformers' own choice.

    Attributes:
        family: the checkpoint's family, a name of `FAMILIES`.
        query_prefix: the prefix in force.

    Raises:
        ModelError: the checkpoint is not found or cannot be loaded, is of no known family, or lacks weights of its own.
        MissingExtraError: the colpali extra, or torchvision, is not installed.
        ValueError: an argument that no checkpoint can be loaded with.

    Example:
        The checkpoint of this example has 4 GB.

        >>> import asyncio
        >>> from late_interaction import ColPaliModel, LateInteractionPipeline, pdf_pages
        >>> async def main():
        ...     model = ColPaliModel("vidore/colqwen2-v1.0")
        ...     async with LateInteractionPipeline("my_index", model) as pipeline:
        ...         await pipeline.index_documents(pdf_pages("report.pdf"))
        ...         print((await pipeline.search("revenue by quarter", k=1))[0].content)
        >>> asyncio.run(main())  # doctest: +SKIP
        report.pdf, page 3 of 12
    """

    supports_images = True
    calls_at_once = 2  # So that the next call's images are prepared when the last batch of one is computed.

    _kept = ("model_name",)

    def __init__(
        self,
        model_name: str | os.PathLike[str] = "vidore/colqwen2-v1.0",
        *,
        device: str | None = None,
        devices: Sequence[str] | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        dtype: str | torch.dtype | None = "auto",
        batch_pixels: int = 4_000_000,
        num_workers: int | None = None,
        query_prefix: str | None = None,
        revision: str | None = None,
        allow_pickle: bool = False,
        attn_implementation: str | None = None,
    ) -> None:
        require_packages("ColPaliModel", "colpali")
        weights = dtype_name(dtype)
        places = check_devices(devices, device)
        if places and device_map is not None:
            raise ValueError("give one of device, devices and device_map.")
        check_positive("batch_pixels", batch_pixels)
        best = places[0] if places else device_or_best(None)
        check_attention(attn_implementation, None if device_map else best, weights or default_dtype(best))
        if num_workers is None:
            num_workers = 1 if is_cpu(best) else PREPARING

        self.model_name = os.fspath(model_name)
        self.batch_pixels, self.num_workers = batch_pixels, check_positive("num_workers", num_workers)
        self._lock = threading.Lock()  # The processor holds the prefix of the queries that it writes.
        self._pid = os.getpid()
        checkpoint = VisualCheckpoint.find(self.model_name, revision, allow_pickle)
        self._family, self.family = checkpoint.family, checkpoint.family.name
        self._prefix_given = query_prefix is not None
        try:
            self._model, self._processor = checkpoint.load(best, device_map, weights, attn_implementation)
            more = [checkpoint.load(place, None, weights, attn_implementation)[0] for place in places[1:]]
            shared(self._processor.tokenizer)
            self._read_settings()
            form = trained_form(self.model_name, checkpoint.folder, self._family, self._processor)
            self._set_query_form(form if query_prefix is None else QueryForm(query_prefix, form.end))
        except (ModelError, MissingExtraError):
            raise
        except Exception as error:
            if "ignore_mismatched_sizes" in str(error):
                raise ModelError(
                    f"weights of {self.model_name} have other shapes than those of {checkpoint.family.model}: its "
                    "projection may have another width. Its authors' own code opens it, in a subclass of "
                    "LateInteractionModel; or sentence-transformers' modules.json, which load_model goes by."
                ) from error
            raise load_error(self.model_name, error, checkpoint.folder, checkpoint.base) from error
        self._replicas = Replicas([self._model, *more])
        self._model_id = model_id(self.model_name)
        self._content = content_hash(checkpoint.folder)
        self._base_content = None if checkpoint.base is None else content_hash(checkpoint.base)

    def _read_settings(self) -> None:
        """Take from the model and its processor what encoding needs: width, special tokens, positions."""
        config, tokenizer = self._model.config, self._processor.tokenizer
        of_transformers = self._family.library == "transformers"
        self.dim = int(config.embedding_dim if of_transformers else self._model.dim)
        self._library_end = library_form(self._family, self._processor).end
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        special = {*tokenizer.all_special_tokens, *added, self._processor.image_token}
        self._special = tuple(token for token in special if len(token) > 1)
        self._positions = min(config.get_text_config().max_position_embeddings, tokenizer.model_max_length)
        self.document_length = self._positions

    def _set_query_form(self, form: QueryForm) -> None:
        self.query_prefix, self._query_end = form.prefix, form.end
        one = len(self._token_ends("a"))
        self._overhead = {
            role: self._text_input(["a"], role)["input_ids"].shape[1] - one for role in get_args(Role)
        }

    def __repr__(self) -> str:
        return f"ColPaliModel({self.model_name!r}, family={self.family!r}, dim={self.dim}, device={self.device!r})"

    @property
    def device(self) -> str:
        """Where the model computes, or where it begins to; the first one of several devices."""
        return str(self._model.device)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what the vectors of an image or text are, as JSON values by name.

        As with `ColBERTModel`, device, dtype and batch size are left out. The prompts are not all of the checkpoint:
        some stand in the code of the library that is installed, and have changed from one release to the next.
        `query_end` is there where a query ends in another way than in the library.
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
            **({} if self._query_end == self._library_end else {"query_end": self._query_end}),
        }

    def as_built(self, encoder: Mapping[str, Any]) -> LateInteractionModel:
        """Return this model with queries as the index has them: an earlier release wrote them as its library did."""
        if "model" not in encoder:
            return self
        prefix = self.query_prefix if self._prefix_given else encoder.get("query_prefix", self.query_prefix)
        form = QueryForm(prefix, encoder.get("query_end", self._library_end))
        if form == QueryForm(self.query_prefix, self._query_end):
            return self
        earlier = copy.copy(self)  # Each has a thread of its own; they share the lock.
        earlier._set_query_form(form)  # noqa: SLF001 - one of us
        return earlier

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
        """Count the texts that have more tokens than the model has positions, and so lose their end."""
        return sum(share != 0 for share in self.unread_shares(texts, role))

    def unread_shares(self, texts: Sequence[str], role: Role = "document") -> list[float | None]:
        """Tell how much of each text is behind the model's positions, as a share of its characters."""
        with self._lock:
            return [self._fit(text, role).unread for text in texts]

    def count_tokens(self, texts: Sequence[str], role: Role = "document") -> list[int]:
        """Count the tokens of each text, with those of the prompt, whether it fits or not."""
        with self._lock:
            return [len(self._token_ends(self._plain(text))) + self._overhead[role] for text in texts]

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height to which the model scales an image of this width and height."""
        target, (width, height) = self._processor.image_processor.size, size
        if target.get("height"):
            return int(target["width"]), int(target["height"])
        if target.get("shortest_edge"):  # Qwen's: bounds for the number of pixels
            pixels = min(max(width * height, target["shortest_edge"]), target["longest_edge"])
            scale = math.sqrt(pixels / (width * height))
        else:
            scale = target["longest_edge"] / max(size)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def query_spans(self, query: str) -> list[tuple[int, int]] | None:
        """Where each row of a text query's matrix comes from: start and end in characters; equal for a prompt's."""
        return self._spans(query, "query")

    def document_spans(self, document: str) -> list[tuple[int, int]] | None:
        """Where each row of a text's matrix comes from: start and end in characters; equal for a prompt's."""
        return self._spans(document, "document")

    def encode_patches(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the vectors of an image's patches in their places: (rows, columns, dim) float32, unit length.

        They are those rows of `encode_documents` that are neither of the prompt nor, where a family looks at tiles, of
        the whole image once more. A patch is the same part of the image's width and height everywhere.

        Raises:
            ModelError: the family does not say where its patches lie.
        """
        vectors, places = self.encode_placed(image)
        return vectors[places]

    def encode_placed(self, image: Image.Image) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """Encode an image, and tell which rows of its matrix are its patches, as `LateInteractionModel` documents."""
        processor = self._processor
        with self._lock:
            image = self._rgb(image)
            inputs = processor.process_images([image])
            with self._replicas.free() as model:
                (vectors,) = self._forward(model, self._ready(inputs))
            config = getattr(self._model.config, "vlm_config", self._model.config)
            grid: NDArray[np.int64]
            patches = np.flatnonzero((inputs["input_ids"][0] == config.image_token_id).numpy())
            if "image_grid_thw" in inputs:
                merged = processor.image_processor.merge_size
                rows, columns = (int(n) // merged for n in inputs["image_grid_thw"][0, 1:])
                grid = patches.reshape(rows, columns)
            elif inputs["pixel_values"].ndim == 5 and inputs["pixel_values"].shape[1] > 1:
                side = math.isqrt(processor.image_seq_len)
                found = processor.image_processor([[image]], return_row_col_info=True)
                rows, columns = found["rows"][0][0], found["cols"][0][0]
                tiles = patches[: -(side**2)].reshape(rows, columns, side, side)
                grid = tiles.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
            else:
                side = math.isqrt(len(patches))
                if side**2 != len(patches):
                    raise ModelError(
                        f"{self.model_name} looks at {len(patches)} parts of this image, which are no square: how they "
                        "lie is not known, and there is no heat map. Search and scores need none."
                    )
                grid = patches.reshape(side, side)
        return vectors, grid

    def _spans(self, text: str, role: Role) -> list[tuple[int, int]] | None:
        """Find the text's own tokens among those of its input; None where they are not there as they are alone."""
        tokenizer = self._processor.tokenizer
        prefix = self.query_prefix if role == "query" else ""
        with self._lock:
            plain = self._fit(text, role).text
            ids = self._text_input([plain], role)["input_ids"][0].tolist()
            for before in dict.fromkeys((prefix, "")):
                encoded = tokenizer(
                    before + plain, add_special_tokens=False, return_offsets_mapping=True, verbose=False
                )
                own = encoded["input_ids"]
                starts = (n for n in range(len(ids) - len(own) + 1) if ids[n : n + len(own)] == own)
                if own and (start := next(starts, None)) is not None:
                    spans = [
                        (max(0, a - len(before)), max(0, b - len(before)))
                        for a, b in encoded["offset_mapping"]
                    ]
                    return (
                        [(0, 0)] * start
                        + _in_original(text, plain, spans)
                        + [(0, 0)] * (len(ids) - start - len(own))
                    )
        return None

    def _encode(self, items: Sequence[Item], role: Role) -> list[FloatMatrix]:
        checked = check_items(items, role)
        guard_fork(self._pid)
        images = [i for i, item in enumerate(checked) if not isinstance(item, str)]
        texts = [i for i, item in enumerate(checked) if isinstance(item, str)]
        matrices: dict[int, FloatMatrix] = {}
        with self._lock:
            fitted = [self._fit(checked[i], role) for i in texts]
        for i, text in zip(texts, fitted, strict=True):
            if text.n_tokens == self._overhead[role]:
                raise NoTokenError(
                    f"The {role} at position {i}, {checked[i][:40]!r}, has no token that {self.model_name} knows: "
                    "leave it out, or add words to it."
                )
        pixels = [self._pixels(checked[i]) for i in images]
        costs = [text.n_tokens * _PIXELS_PER_TOKEN for text in fitted]
        batches = [(False, batch) for batch in token_batches(pixels, self.batch_pixels)]
        batches += [(True, batch) for batch in token_batches(costs, self.batch_pixels)]

        def prepare(of: tuple[bool, list[int]]) -> dict[str, torch.Tensor]:
            is_text, batch = of
            if not is_text:
                return self._ready(
                    self._processor.process_images([self._rgb(checked[images[j]]) for j in batch])
                )
            with self._lock:
                return self._ready(self._text_input([fitted[j].text for j in batch], role))

        with closing(prefetched(prepare, batches, self.num_workers)) as prepared:
            computed = self._replicas.map(self._forward, prepared)
            for (is_text, batch), rows in zip(batches, computed, strict=True):
                matrices |= zip([(texts if is_text else images)[j] for j in batch], rows, strict=True)
        return [matrices[i] for i in range(len(checked))]

    def _ready(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Some processors give labels, for training: the loss would be computed.
        needed = {name: part for name, part in inputs.items() if name != "labels"}
        return ready_for(needed, self._model.device, self._model.dtype)

    def _forward(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> list[FloatMatrix]:
        """Return the rows of each input that are not padding."""
        import torch

        tensors = {name: part.to(model.device, non_blocking=True) for name, part in inputs.items()}
        with torch.inference_mode():
            output = model(**tensors)
            embeddings = getattr(output, "embeddings", output)
            # By mask and not by norm: no row of a token is zero by chance, nor one of padding different from zero.
            kept = embeddings[tensors["attention_mask"].bool()]
            rows = kept.float().cpu().numpy()  # All at once: each copy waits for the device.
        ends = np.cumsum(inputs["attention_mask"].sum(dim=1).numpy())[:-1]
        dtype = str(model.dtype).removeprefix("torch.")
        return [finite_rows(matrix, self.model_name, dtype) for matrix in np.split(rows, ends)]

    def _text_input(self, texts: list[str], role: Role) -> Mapping[str, torch.Tensor]:
        """Process texts; a document's get no prefix and suffix of a query."""
        processor, prefix = self._processor, self.query_prefix if role == "query" else ""
        inputs: Mapping[str, torch.Tensor]
        if self._family.in_chat:
            inputs = processor(
                text=[self._in_chat(prefix + text) for text in texts], padding="longest", return_tensors="pt"
            )
        else:
            processor.query_prefix = prefix
            if role == "query":
                inputs = self._query_input(texts)
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

    def _query_input(self, texts: list[str]) -> Mapping[str, torch.Tensor]:
        """Process queries: the prefix, the text, ten augmentation tokens, and the end."""
        suffix = self._processor.query_augmentation_token * 10
        inputs: Mapping[str, torch.Tensor]
        if self._query_end == self._library_end:
            inputs = self._processor.process_queries(texts)
        elif self._family.library == "transformers":  # Its processor has an end of its own.
            rendered = [f"{self.query_prefix}{text}{suffix}{self._query_end}" for text in texts]
            inputs = self._processor.tokenizer(rendered, padding="longest", return_tensors="pt")
        else:
            inputs = self._processor.process_queries(texts, suffix=suffix + self._query_end)
        return inputs

    def _in_chat(self, text: str) -> str:
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        rendered: str = self._processor.tokenizer.apply_chat_template([message], tokenize=False)
        return rendered

    def _fit(self, text: str, role: Role) -> _FittedText:
        """Return the text, cut to the model's positions."""
        text = self._plain(text)
        ends = self._token_ends(text)
        room = self._positions - self._overhead[role]
        if len(ends) > room:
            end = ends[room - 1]
            return _FittedText(text[:end], self._positions, 1 - end / len(text))
        return _FittedText(text, len(ends) + self._overhead[role], 0.0)

    def _plain(self, text: str) -> str:
        """Remove special tokens from a text: "<image>" in it is not an image, and would be taken for one."""
        return without_tokens(text, self._special)

    def _token_ends(self, text: str) -> list[int]:
        """Where each token of a text ends, in characters."""
        encoded = self._processor.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [end for _, end in encoded["offset_mapping"]]

    def _pixels(self, image: Image.Image) -> int:
        """Return how many pixels of an image the model computes with, about."""
        size = self._processor.image_processor.size
        width, height = self.scaled_size(image.size)
        if size.get("height"):
            return width * height
        if size.get("shortest_edge"):  # Qwen's, where this is not an edge but a number of pixels
            return int(min(max(image.width * image.height, size["shortest_edge"]), size["longest_edge"]))
        tile = self._processor.image_processor.max_image_size["longest_edge"]
        tiles = math.ceil(width / tile) * math.ceil(height / tile)
        return int((tiles + 1) * tile**2)  # and the whole image once more, as one tile

    def _rgb(self, image: Image.Image) -> Image.Image:
        """Return an image in RGB, one that is far larger than the model looks at averaged down first."""
        return scaled_rgb(image, factors_for(image.size, self.scaled_size))


@dataclass(frozen=True, slots=True)
class _FittedText:
    """A text as it is encoded, how many tokens it has with its prompt, and the share of it that was cut off."""

    text: str
    n_tokens: int
    unread: float


def _in_original(text: str, plain: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans of a text without special tokens, in which spaces were put in, as those of the text before it."""
    if text == plain:
        return spans
    place, places = 0, []  # of each character of the plain text, its place in the text
    for character in plain:
        places.append(place)
        place += place < len(text) and text[place] == character
    places.append(place)
    return [(places[start], places[end]) for start, end in spans]
