"""`MultiVectorModel`: what our own classes do not know, encoded by sentence-transformers' `MultiVectorEncoder`."""

from __future__ import annotations

import copy
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from late_interaction.encoders.base import (
    Item,
    LateInteractionModel,
    NoTokenError,
    Role,
    check_items,
    without_tokens,
)
from late_interaction.encoders.checkpoint import (
    brings_code,
    code_hash,
    content_hash,
    is_head,
    own_code,
    quiet_loading,
)
from late_interaction.encoders.colpali_families import (
    base_checkpoint,
)
from late_interaction.encoders.fallback import unloadable
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.pickled import converted
from late_interaction.encoders.soundness import load_error, require_sound, require_vocabulary
from late_interaction.encoders.torch_runtime import (
    check_attention,
    default_dtype,
    device_or_best,
    dtype_name,
    finite_rows,
    guard_fork,
    model_id,
    require_packages,
)
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.recipes import Remade
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_positive

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder

logger = logging.getLogger(__name__)

_LIBRARIES = ("sentence-transformers", "transformers")


class MultiVectorModel(Remade, LateInteractionModel):
    """A checkpoint of sentence-transformers' late-interaction format that our other classes do not know.

    `load_model` chooses it where neither of them opens the checkpoint, and a log line says so. Modules, prompts, chat
    template and lengths are the checkpoint's, and what sentence-transformers makes of them is not changed: only that
    rows are unit vectors, and that a token pooling of the checkpoint is refused. Where a vector comes from in its text
    or image is not known, so there are no explanations by word or patch.

    Args:
        model_name: a model id on the Hugging Face hub, or the folder of a model.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
        dtype: of weights and computation: "float32", "float16", "bfloat16" or the torch dtype. "auto", or None, is
            float32 on a CPU and bfloat16 elsewhere. Vectors come out as float32 whatever it is.
        batch_size: most texts in a forward pass.
        image_batch_size: most images in a forward pass.
        revision: branch, tag or commit of a model on the hub.
        trust_remote_code: allow a checkpoint to bring Python code and run it. Only for one you have read.
        allow_pickle: read weights that are in a pickle, as `ColBERTModel` does.
        attn_implementation: what computes attention, as for `ColBERTModel`. None is transformers' own choice.

    Attributes:
        supports_images: whether the checkpoint encodes images.
        document_length: most tokens of a text that are read; None where the checkpoint names no limit.
        query_length: the same for a query.

    Raises:
        MissingExtraError: the colbert extra is not installed; for images, the colpali extra.
        ModelError: the checkpoint is not found, is not of this format, or cannot be loaded.
        ValueError: an argument that no checkpoint can be loaded with.

    Example:
        >>> from late_interaction import load_model
        >>> model = load_model("organisation/multi-vector-vlm")  # doctest: +SKIP
        >>> model.encode_documents([image])[0].shape  # doctest: +SKIP
        (742, 128)
    """

    _kept = ("model_name",)

    def __init__(
        self,
        model_name: str | os.PathLike[str],
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = "auto",
        batch_size: int = 32,
        image_batch_size: int = 4,
        revision: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        attn_implementation: str | None = None,
    ) -> None:
        require_packages("MultiVectorModel")
        check_positive("batch_size", batch_size)
        check_positive("image_batch_size", image_batch_size)
        weights, best = dtype_name(dtype), device_or_best(device)
        check_attention(attn_implementation, best, weights or default_dtype(best))
        self.model_name = os.fspath(model_name)
        self.batch_size, self.image_batch_size = batch_size, image_batch_size
        self._lock = threading.Lock()  # A fast tokenizer cannot be used by two threads at a time.
        self._pid = os.getpid()
        folder = find_checkpoint(self.model_name, revision, pickled=allow_pickle)
        if allow_pickle:
            folder = converted(folder)
        base = base_checkpoint(folder)
        if reason := unloadable(folder, base, trust_remote_code=trust_remote_code):
            raise ModelError(reason)
        for part in filter(None, (folder, base)):
            require_sound(part)
        left_out = not trust_remote_code and any(map(brings_code, filter(None, (folder, base))))
        if left_out:
            logger.warning(
                "%s: its config names Python code that comes with it (auto_map). It is not run, and the vectors may "
                "differ from those its authors mean. Read it, and if you trust it, load the model with "
                "trust_remote_code=True.",
                folder,
            )
        try:
            self._encoder = _load(folder, best, weights, trust_remote_code, attn_implementation)
            self._transformer = self._encoder[0]
            self._tokenizer = self._encoder.tokenizer
            require_vocabulary(folder, self._tokenizer)
            self.supports_images = bool(self._encoder.supports("image"))
            (probe,) = self._encoder.encode_document(["a"], show_progress_bar=False, convert_to_numpy=True)
        except ModelError:
            raise
        except ImportError as error:
            raise MissingExtraError(f"The model {self.model_name}", "colpali", error.name) from error
        except Exception as error:
            raise load_error(self.model_name, error, folder, base) from error
        self.dim = int(probe.shape[1])
        limits = {role: getattr(self._transformer, f"{role}_length", None) for role in ("query", "document")}
        longest = getattr(self._encoder, "max_seq_length", None)
        default = longest if longest is not None and longest < 1_000_000 else None
        self.query_length: int | None = limits["query"] or default
        self.document_length: int | None = limits["document"] or default
        self._special = _special_tokens(self._tokenizer) if self.supports_images else ()
        self._model_id = model_id(self.model_name)
        self._content = content_hash(folder)
        self._base_content = None if base is None else content_hash(base)
        self._code = (
            "not run" if left_out else code_hash(folder) if brings_code(folder) or own_code(folder) else None
        )
        self._backend = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)

    def __repr__(self) -> str:
        return f"MultiVectorModel({self.model_name!r}, dim={self.dim}, device={self.device!r})"

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(self._encoder.device)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what the vectors are, as JSON values by name.

        `content` is a hash of weights, configs and vocabulary, `base_content` that of an adapter's base, `remote_code`
        one of the checkpoint's Python files, or "not run". The `backend` names the libraries with their
        versions: prompts and templates are partly theirs. An index opens with other versions too, and a log line says
        so.
        """
        return {
            "model": self._model_id,
            "content": self._content,
            "family": "sentence-transformers",
            "backend": self._backend,
            "dim": self.dim,
            "images": self.supports_images,
            "prompts": dict(sorted(self._encoder.prompts.items())),
            "query_length": self.query_length,
            "document_length": self.document_length,
            **({} if self._base_content is None else {"base_content": self._base_content}),
            **({} if self._code is None else {"remote_code": self._code}),
        }

    def as_built(self, encoder: Mapping[str, Any]) -> LateInteractionModel:
        """Return this model in the place of one with other versions of the libraries."""
        backend = encoder.get("backend")
        if encoder.get("content") != self._content or backend in (None, self._backend):
            return self
        logger.warning(
            "The index was built with %s, and %s are installed: where they write prompts in another way, new "
            "vectors do not fit those of the index.",
            backend,
            self._backend,
        )
        earlier = copy.copy(self)
        earlier._backend = str(backend)  # noqa: SLF001 - one of us
        return earlier

    def encode_queries(self, queries: Sequence[Item]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per query, in the order given.

        Args:
            queries: texts; PIL images too, where the checkpoint encodes them.

        Raises:
            TypeError: a bare str or image, or an item that the model does not encode.
            ValueError: a text is empty or only white space, or has no token.
        """
        return self._encode(queries, "query")

    def encode_documents(self, documents: Sequence[Item]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per document, in the order given.

        Args:
            documents: texts; PIL images too, where the checkpoint encodes them.

        Raises:
            TypeError: a bare str or image, or an item that the model does not encode.
            ValueError: a text is empty or only white space, or has no token.
        """
        return self._encode(documents, "document")

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """Count the texts that have more tokens than the model reads."""
        return sum(share != 0 for share in self.unread_shares(texts, role))

    def unread_shares(self, texts: Sequence[str], role: Role = "document") -> list[float | None]:
        """Tell which texts are not read to their end: 0 where all is read, None where some is not."""
        limit = self.query_length if role == "query" else self.document_length
        if limit is None:
            return [0.0] * len(texts)
        # No token is shorter than a byte, so most texts need no tokenizer.
        overhead = self.count_tokens(["a"], role)[0] + 1
        return [
            0.0
            if len(text.encode()) + overhead <= limit or self.count_tokens([text], role)[0] <= limit
            else None
            for text in texts
        ]

    def count_tokens(self, texts: Sequence[str], role: Role = "document") -> list[int]:
        """Count the tokens of each text, with those of prompt and template, whether it fits or not."""
        prompt = self._encoder.prompts.get(role)
        whole = {"text": {"truncation": False, "max_length": None}}
        with self._lock:
            read = [
                self._encoder.preprocess([text], prompt=prompt, task=role, processing_kwargs=whole)
                for text in texts
            ]
        return [int(one["input_ids"].shape[1]) for one in read]

    def _encode(self, items: Sequence[Item], role: Role) -> list[FloatMatrix]:
        checked = check_items(items, role)
        if not self.supports_images and (first := next((i for i in checked if not isinstance(i, str)), None)):
            raise TypeError(
                f"{self.model_name} encodes texts, not {type(first).__name__}: give texts, or take a model of images."
            )
        guard_fork(self._pid)
        encode = self._encoder.encode_query if role == "query" else self._encoder.encode_document
        matrices: dict[int, FloatMatrix] = {}
        for wanted, size in ((True, self.batch_size), (False, self.image_batch_size)):
            places = [i for i, item in enumerate(checked) if isinstance(item, str) == wanted]
            # "<image>" in a text is not an image, and would be taken for one.
            batch = [
                without_tokens(checked[i], self._special) if wanted else checked[i].convert("RGB")
                for i in places
            ]
            if not batch:
                continue
            with self._lock:
                encoded = encode(batch, batch_size=size, show_progress_bar=False, convert_to_numpy=True)
            matrices.update(zip(places, map(self._checked, encoded), strict=True))
        for i, matrix in matrices.items():
            if len(matrix) == 0:
                raise NoTokenError(
                    f"The {role} at position {i}, {checked[i]!r:.60}, has no token that {self.model_name} gives a "
                    "vector for: leave it out, or add words to it."
                )
        return [matrices[i] for i in range(len(checked))]

    def _checked(self, matrix: Any) -> FloatMatrix:
        dtype = str(next(self._encoder.parameters()).dtype).removeprefix("torch.")
        return finite_rows(np.asarray(matrix, np.float32), self.model_name, dtype)


def _load(
    folder: Path, device: str, dtype: str | None, trust_remote_code: bool, attn_implementation: str | None
) -> MultiVectorEncoder:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    options = {"dtype": dtype or default_dtype(device), "use_safetensors": True}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    with quiet_loading() as report:
        encoder = MultiVectorEncoder(
            str(folder),
            device=device,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            model_kwargs=options,
        )
    if report.missing:
        raise ModelError(
            f"{folder} lacks weights of its own architecture, which would be random: {', '.join(report.missing[:5])}. "
            "Save it again with sentence-transformers' save_pretrained, or ask its authors."
        )
    if not any(isinstance(module, Dense) for module in encoder) and (
        heads := [name for name in report.unexpected if is_head(name)]
    ):
        raise ModelError(
            f"{folder} has a projection in its files that would not be used: {', '.join(heads)}. Its modules.json "
            "names no Dense. Ask its authors for one, or load it by their code in a subclass of LateInteractionModel."
        )
    if getattr(encoder[0], "query_expansion", None) and not any(
        isinstance(module, MultiVectorMask) for module in encoder
    ):
        raise ModelError(
            f"{folder} would be encoded without its query expansion: modules.json names no MultiVectorMask. Put one "
            "behind the Transformer with sentence-transformers, and save the model."
        )
    pooling = [type(module).__name__ for module in encoder if "TokenPooling" in type(module).__name__]
    if pooling:
        raise ModelError(
            f"{folder} pools tokens by a {pooling[0]} of its own, and an index pools once more: take the module off "
            "with sentence-transformers, save the model, and give doc_pool_factor."
        )
    return encoder


def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(token for token in {*tokenizer.all_special_tokens, *added} if len(token) > 1))
