"""`ColBERTModel`: text encoders of the ColBERT kind, on sentence-transformers' `MultiVectorEncoder`."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from late_interaction.demo import MODEL_NAME, is_demo
from late_interaction.encoders.base import LateInteractionModel, NoTokenError, Role, check_texts
from late_interaction.encoders.batching import token_batches
from late_interaction.encoders.checkpoint import (
    brings_code,
    code_hash,
    content_hash,
    own_code,
    text_family,
)
from late_interaction.encoders.colbert_loading import Backend, load_text_encoder, position_limit
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.markers import pylate_markers, with_markers
from late_interaction.encoders.pickled import converted
from late_interaction.encoders.replicas import Replicas, check_devices
from late_interaction.encoders.soundness import load_error, require_safetensors, require_sound
from late_interaction.encoders.tokenizing import shared, with_memory
from late_interaction.encoders.torch_runtime import (
    check_attention,
    computing_dtype,
    cpu_threads,
    device_or_best,
    dtype_name,
    finite_rows,
    guard_fork,
    is_cpu,
    model_id,
    require_packages,
    take_share,
)
from late_interaction.encoders.windows import (
    CHARACTERS_AHEAD,
    MAX_DOCUMENT_TOKENS,
    LongDocuments,
    Span,
    Window,
    cut_windows,
)
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.recipes import Remade
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_one_of, check_positive

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Transformer

logger = logging.getLogger(__name__)

_OPENVINO = ("openvino_model.*", "openvino/openvino_model.*")
BATCH_TOKENS = 16_384
BATCH_TOKENS_CPU = 2048
MOST_AT_ONCE = 8
"""Most batches that a CPU computes at a time, as each takes memory."""
LEAST_AT_ONCE = 512
"""Fewest tokens of a batch, where there is one for each core."""


class ColBERTModel(Remade, LateInteractionModel):
    """A late-interaction text encoder: one unit vector per token of a query or document.

    Loads what sentence-transformers does: its own `MultiVectorEncoder` checkpoints, PyLate's, and those of
    colbert-ai (`HF_ColBERT` with `artifact.metadata`); and bge-m3, by its ColBERT head. Markers, lengths, query
    expansion and the skiplist of punctuation come from the checkpoint. Weights are read from safetensors, unless
    `allow_pickle` says otherwise.

    A plain encoder without a late-interaction head, such as all-MiniLM-L6-v2, is used by the token vectors of
    its last layer, without those of special tokens; a log line says so. Its pooling is left out, and so is a
    Dense behind that, which was trained on sentences and not on tokens. Prompts that it names are used.

    A text's vectors do not depend on the texts it is encoded with, but for rounding. One thread encodes at a time. In a
    process forked after loading, torch computes on one core.

    Args:
        model_name: a model id on the Hugging Face hub, the folder of a model, or "demo" for the packaged
            all-MiniLM-L6-v2 (the extra `demo`), which needs no connection.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
        devices: several of one kind, such as ["cuda:0", "cuda:1"]: each has a whole copy of the model, and a batch goes
            to whichever is free. Not with `device`, and with the torch backend only.
        dtype: of weights and computation: "float32", "float16", "bfloat16" or the torch dtype. "auto", or None, is that
            of the index that is opened. For a new one it is bfloat16 where the device is fast in it (a GPU since
            Ampere; a CPU with AMX, or with AVX512_BF16 and not Intel's), else float16 on a CUDA GPU and float32 on a
            CPU; on other devices the checkpoint's own. Vectors come out as float32 whatever it is.
        batch_tokens: most tokens in a forward pass, padding included; texts of like length go together. A text
            that is longer goes alone. It bounds the memory, whatever the texts. None is 2,048 on a CPU, where more
            take longer, and 16,384 elsewhere. On a CPU as many passes are made at a time as torch has threads there
            (`torch.set_num_threads`), at most 8.
        batch_size: most texts in a forward pass, however short; None for as many as `batch_tokens` allows.
        query_length: most tokens of a query, markers included, and with query expansion the number to which
            every query is filled up. None is the checkpoint's own.
        document_length: most tokens of a document that are read at once, markers included. None is the checkpoint's
            own.
        long_documents: what to do with a document that is longer. "windows" reads all of it, a window after the
            other: they are cut at sentence ends, overlap a little, and their vectors together are the document's.
            "truncate" reads the beginning, and "error" refuses the document. A document that fits has the same
            vectors with each.
        max_document_tokens: most tokens of a document that are kept with "windows", which bounds the memory; what is
            behind them is not read.
        revision: branch, tag or commit of a model on the hub.
        trust_remote_code: allow a checkpoint to bring Python code and run it. Only for one you have read.
        allow_pickle: read weights that are in a pickle (pytorch_model.bin), as tensors and nothing else, so that no
            code is run. They are written as safetensors to the Hugging Face cache once, and loaded from there.
        backend: what computes: "torch"; "onnx", ONNX Runtime on the CPU, with an export that is made once, compared
            with torch and kept in the Hugging Face cache (`pip install 'late-interaction[onnx]'`); or an "openvino"
            export (`pip install 'sentence-transformers[openvino]'`). On some CPUs both are faster than torch.
        language: whose adapters an X-MOD model uses, such as "fr_XX". None is the checkpoint's default language.
        attn_implementation: what computes attention, as transformers names it: "sdpa", "eager", "flex_attention",
            "flash_attention_2" or "flash_attention_3" (which need their packages, a GPU, and a dtype of 16 bits). None
            is transformers' own choice; where that is "sdpa" on a CPU, each text of a batch is taken by itself, without
            padding. Vectors differ by rounding; with the torch backend only.

    Attributes:
        family: the checkpoint's format: "multi-vector", "pylate", "stanford", "bge-m3" or "plain".
        query_length: most tokens of a query; None where the model has no limit.
        document_length: most tokens of a document that are read at once; None where the model has no limit.
        long_documents: what happens to a longer one.
        max_document_tokens: most tokens of a document that are kept.

    Raises:
        MissingExtraError: the colbert extra is not installed.
        ModelError: the checkpoint cannot be downloaded or loaded, or it is not a text encoder.
        ValueError: an argument that no checkpoint, or not this one, can be loaded with.

    Example:
        `load_model("demo")` is a `ColBERTModel` too, of a model that the demo extra installs.

        >>> from late_interaction import load_model
        >>> model = load_model("demo", device="cpu")
        >>> [matrix] = model.encode_documents(["Apple pie with cinnamon"])
        >>> matrix.shape, str(matrix.dtype)
        ((4, 384), 'float32')
        >>> ["Apple pie with cinnamon"[start:end] for start, end in model.document_spans("Apple pie with cinnamon")]
        ['Apple', 'pie', 'with', 'cinnamon']
    """

    _kept = ("model_name", "long_documents")

    def __init__(
        self,
        model_name: str | os.PathLike[str] = "answerdotai/answerai-colbert-small-v1",
        *,
        device: str | None = None,
        devices: Sequence[str] | None = None,
        dtype: str | torch.dtype | None = "auto",
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        long_documents: LongDocuments = "windows",
        max_document_tokens: int = MAX_DOCUMENT_TOKENS,
        revision: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        backend: Backend = "torch",
        language: str | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        require_packages("ColBERTModel")
        check_one_of("long_documents", long_documents, get_args(LongDocuments))
        check_positive("max_document_tokens", max_document_tokens)
        check_one_of("backend", backend, get_args(Backend))
        weights = dtype_name(dtype)
        if weights is not None and backend != "torch":
            raise ValueError(
                f"dtype is for the torch backend; an {backend} export has its own: leave it out."
            )
        if attn_implementation is not None and backend != "torch":
            raise ValueError(
                f"attn_implementation is for the torch backend; an {backend} export has its own: leave it out."
            )
        self._devices = check_devices(devices, device)
        if len(self._devices) > 1 and backend != "torch":
            raise ValueError(f"devices is for the torch backend; {backend} computes on one: give device=.")
        device = self._devices[0] if self._devices else None
        if attn_implementation is not None:
            check_attention(attn_implementation, device_or_best(device), weights)
        for name, number in (("batch_tokens", batch_tokens), ("batch_size", batch_size)):
            if number is not None:
                check_positive(name, number)

        self.model_name = os.fspath(model_name)
        self.long_documents: LongDocuments = long_documents
        self.max_document_tokens = max_document_tokens
        # A fast tokenizer cannot be used by two threads at a time ("Already borrowed").
        self._lock = threading.RLock()
        self._pid = os.getpid()
        folder = find_checkpoint(
            self.model_name, revision, _OPENVINO if backend == "openvino" else (), pickled=allow_pickle
        )
        self._model_id = model_id(self.model_name)
        if is_demo(self.model_name):
            self.model_name, self._model_id = MODEL_NAME, folder.name
        try:
            if allow_pickle:
                folder = converted(folder)
            self.family = text_family(folder)
            require_sound(folder)
            if backend != "openvino":
                require_safetensors(folder, self.family)
            encoder = load_text_encoder(
                folder,
                self.family,
                device=device,
                dtype=weights,
                trust_remote_code=trust_remote_code,
                backend=backend,
                language=language,
                attn_implementation=attn_implementation,
            )
        except (ModelError, MissingExtraError):
            raise
        except Exception as error:
            raise load_error(self.model_name, error, folder) from error
        if self.family == "plain":
            logger.info(
                "%s has no late-interaction head: its last layer's token vectors are used, without those of "
                "special tokens.",
                self.model_name,
            )

        self._dtype_given = weights is not None or backend != "torch"
        self._only_half = (attn_implementation or "").startswith("flash")
        self.dtype = next((dtype_name(part.dtype) for part in encoder.parameters()), None) or "float32"
        self._dtype_told = self.dtype  # An index's, where this model stands in for the one that built it.
        self._in_dtype: dict[str, Self] = {}
        if not self._dtype_given and self.dtype != "float32":
            logger.info(
                "%s computes in %s on %s; dtype='float32' makes it slower, and exact to the last digits.",
                self.model_name,
                self.dtype,
                encoder.device,
            )
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS_CPU if is_cpu(str(encoder.device)) else BATCH_TOKENS
        self.batch_tokens = batch_tokens
        self.batch_size = batch_size
        self._prompts: dict[Role, str] = {role: encoder.prompts[role] for role in get_args(Role)}
        self._skiplist = sorted({word for part in encoder for word in getattr(part, "skiplist_words", ())})
        self._skipped_ids = set(encoder.tokenizer.convert_tokens_to_ids(self._skiplist))
        self._skipped_ids.discard(encoder.tokenizer.unk_token_id)
        self._skipping = {role for part in encoder for role in getattr(part, "skiplist_tasks", ())}
        tokenizer = encoder.tokenizer
        self._use(encoder)
        self._set_lengths(query_length, document_length)
        self._unmarked = encoder
        if self.family == "pylate":
            self._use(with_markers(encoder, tokenizer, pylate_markers(folder, tokenizer)))
        self.dim = int(encoder.get_embedding_dimension())
        self._content = content_hash(folder)
        self._language = language
        self._remote_code: str | None = None
        if brings_code(folder) or (self.family != "plain" and own_code(folder)):
            self._remote_code = code_hash(folder) if trust_remote_code else "not run"
        self._on_cores = backend == "torch" and len(self._devices) < 2 and is_cpu(self.device)
        self._copy_encoder()

    def _use(self, encoder: MultiVectorEncoder) -> None:
        """Encode with it from now on."""
        self._cut: dict[str, list[Window]] = {}  # The windows of the documents that were encoded last.
        self._encoder = encoder
        self._transformer: Transformer = encoder[0]
        self._tokenizer = encoder.tokenizer
        if not hasattr(self._tokenizer, "remember"):
            self._tokenizer = self._transformer.processor = with_memory(self._tokenizer)
            shared(self._tokenizer, self._lock)  # The copies of the encoder have it, too.
        self._overheads = {role: self._overhead(role) for role in get_args(Role)}
        self.protected_tokens = self._count_leading_special_tokens()

    def _copy_encoder(self) -> None:
        """Put copies of the encoder on the devices behind the first one, or on a CPU beside it, with its weights.

        They share the tokenizer, which remembers a text's tokens. One core computes a batch in less time than two
        compute half of it each.
        """
        devices = self._devices[1:]
        if self._on_cores:
            devices = [self.device] * (min(cpu_threads(), MOST_AT_ONCE) - 1)
        weights = [*self._encoder.parameters(), *self._encoder.buffers()] if self._on_cores else []

        def copied(device: str) -> MultiVectorEncoder:
            kept = {id(part): part for part in (self._tokenizer, *weights)}
            return copy.deepcopy(self._encoder, kept).to(device)

        self._replicas = Replicas([self._encoder, *map(copied, devices)])

    def __repr__(self) -> str:
        return f"ColBERTModel({self.model_name!r}, dim={self.dim}, device={self.device!r})"

    @property
    def device(self) -> str:
        """Where the model computes; the first one of several devices."""
        return str(self._encoder.device)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what a text's vectors are, as JSON values by name.

        `model` is the hub id or the folder's name, `content` a hash of the weights, configs and vocabulary,
        which stands for the revision, but stays when a folder moves or the model card changes. Left out are
        device, backend and batch size: they move a vector less than storing it as int8 does. So does `dtype`, which is
        there unless it is float32, as for most indexes of earlier releases; an index opens whatever it is (`as_built`):
        one built in float16 on a GPU has to serve queries encoded in float32 on a CPU. `long_documents` is
        there unless it is "truncate", which is what earlier releases did. `max_document_tokens` is not: what it cuts
        off is told when the document is indexed. `remote_code` is there for a checkpoint that brings Python code: its
        hash, or "not run". `markers` is there for a PyLate checkpoint whose tokenizer begins no text with a token of
        its own: the marker is behind the text's first token then, as PyLate has it. `language` is there where one
        was given.
        """
        long = {} if self.long_documents == "truncate" else {"long_documents": self.long_documents}
        return {
            "model": self._model_id,
            "content": self._content,
            "family": self.family,
            "dim": self.dim,
            "query_prompt": self._prompts["query"],
            "document_prompt": self._prompts["document"],
            "query_length": self._lengths_kept["query"],
            "document_length": self._lengths_kept["document"],
            "query_expansion": self._transformer.query_expansion,
            "skiplist": self._skiplist,
            **long,
            **({} if self._dtype_told == "float32" else {"dtype": self._dtype_told}),
            **({} if self._language is None else {"language": self._language}),
            **({} if self._remote_code is None else {"remote_code": self._remote_code}),
            **({} if self._encoder is self._unmarked else {"markers": "behind the first token"}),
        }

    def as_built(self, encoder: Mapping[str, Any]) -> LateInteractionModel:
        """Return this model as the index was built.

        It computes in the index's dtype, if none was given to this model and the device is quick in it, and else stands
        in for it. As an earlier release built an index, documents were truncated, code was not told about, and each
        marker stood before its text.
        """
        if "model" not in encoder:
            return self
        changes: dict[str, Any] = {}
        told = encoder.get("dtype", "float32")
        if told != self._dtype_told and encoder.get("content") == self._content:
            wanted = self.dtype if self._dtype_given else computing_dtype(self.device, told)
            if wanted not in ("auto", self.dtype) and not (self._only_half and wanted == "float32"):
                return self._computing_in(wanted).as_built(encoder)
            changes["_dtype_told"] = told
            logger.info(
                "The index was built in %s, and %s computes in %s: vectors differ by less than storing them as int8 "
                "makes them.",
                told,
                self.model_name,
                self.dtype,
            )
        if self.long_documents == "windows" and "long_documents" not in encoder:
            changes["long_documents"] = "truncate"
        told_lengths = {role: encoder.get(f"{role}_length") for role in get_args(Role)}
        if (
            told_lengths == self._lengths_told != self._lengths_kept
        ):  # Of an earlier release, beyond the positions.
            changes["_lengths_kept"] = self._lengths_told
        if self._remote_code is not None and "remote_code" not in encoder:
            changes["_remote_code"] = None
        unmarked = self._encoder is not self._unmarked and "markers" not in encoder
        if not (changes or unmarked):
            return self
        earlier = copy.copy(self)  # Each has a thread of its own; they share the lock.
        vars(earlier).update(changes)
        if unmarked:
            earlier._use(self._unmarked)  # noqa: SLF001 - one of us
            earlier._copy_encoder()  # noqa: SLF001
        return earlier

    def _computing_in(self, dtype: str) -> Self:
        """Return this model in another dtype; it is loaded once."""
        with self._lock:
            if dtype not in self._in_dtype:
                self._in_dtype[dtype] = self.remade(dtype=dtype)
            return self._in_dtype[dtype]

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per query, in the order given.

        Raises:
            TypeError: a bare str, or an item that is no str.
            ValueError: a query is empty or only white space, or nothing is left of it after tokenisation.
        """
        return self._encode(check_texts(queries, "query"), "query")

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per document, in the order given.

        A document of nothing but skipped punctuation keeps the vectors of its special tokens.

        Raises:
            TypeError: a bare str, or an item that is no str.
            ValueError: a document is empty or only white space, or nothing is left of it after tokenisation, or it is
                longer than the model reads and `long_documents` is "error".
        """
        texts = check_texts(documents, "document")
        if self.long_documents == "error":
            self._refuse_long(texts)
        if self.long_documents != "windows":
            return self._encode(texts, "document")
        self._remember(texts, "document")
        self._cut = {}
        windows = [self._windows(text, keep=True) for text in texts]
        self._cut = dict(zip(texts, windows, strict=True))
        parts = [text[w.start : w.end] for text, cut in zip(texts, windows, strict=True) for w in cut]
        self._remember([*texts, *parts], "document")
        encoded = iter(self._encode_parts(parts, "document"))
        matrices = [
            self._union(text, cut, list(itertools.islice(encoded, len(cut))))
            for text, cut in zip(texts, windows, strict=True)
        ]
        return self._check_not_empty(texts, matrices, "document")

    def count_tokens(self, texts: Sequence[str], role: Role = "document") -> list[int]:
        """Count the tokens of each text, with those that are added to every one, and whether it fits or not."""
        return self._count_tokens([self._prompts[role] + text for text in texts])

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """How many texts are not read to their end: see `unread_shares`."""
        return sum(share != 0 for share in self.unread_shares(texts, role))

    def unread_shares(self, texts: Sequence[str], role: Role = "document") -> list[float | None]:
        """Tell how much of each text is not read, as a share of its characters; 0 where all of it is.

        With "windows" that is what is behind `max_document_tokens` of a document, else what is behind
        `document_length`; of a query what is behind `query_length`.
        """
        return [self._unread_share(text, role) for text in texts]

    def query_spans(self, query: str) -> list[Span]:
        """Where each row of the query's matrix comes from: start and end in characters of `query`.

        A marker or another special token has an empty span. Rows of a query expansion are left out; they come last.
        """
        return self._row_spans(query, "query")

    def document_spans(self, document: str) -> list[Span]:
        """Where each row of the document's matrix comes from: start and end in characters of `document`.

        A marker or another special token has an empty span.
        """
        if self.long_documents != "windows":
            return self._row_spans(document)
        return [
            (start + window.start, end + window.start) if start < end else (0, 0)
            for window in self._windows(document)
            for start, end in self._row_spans(document[window.start : window.end])
            if window.keeps((start, end))
        ]

    def _windows(self, text: str, *, keep: bool = False) -> list[Window]:
        """Return the parts of a document that are read at once; of one that fits, all of it.

        Args:
            text: the document; of those that were encoded last, the windows are known.
            keep: remember the tokens of what is looked at, for encoding it.
        """
        if self.document_length is None or self._surely_fits(text, "document"):
            return [Window(0, len(text), 0, len(text))]
        known = self._cut.get(text)
        if known is not None:
            return known
        spans = partial(self._token_spans, keep=keep)
        return cut_windows(text, spans, self.document_length, self.max_document_tokens)

    def _union(self, text: str, windows: Sequence[Window], matrices: Sequence[FloatMatrix]) -> FloatMatrix:
        """Put the rows of a document's windows together, those of the overlap once."""
        if len(windows) == 1:
            return matrices[0]
        kept = []
        for window, matrix in zip(windows, matrices, strict=True):
            spans = self._row_spans(text[window.start : window.end])
            # A checkpoint may pool tokens by itself. Which ones a row stands for is not known then, and all are kept.
            one_each = len(spans) == len(matrix)
            kept.append(matrix[[window.keeps(span) for span in spans]] if one_each else matrix)
        return np.concatenate(kept)

    def _refuse_long(self, texts: Sequence[str]) -> None:
        for position, share in enumerate(self.unread_shares(texts)):
            if share:
                (n_tokens,) = self.count_tokens([texts[position]])
                raise ValueError(
                    f"The document at position {position}, {texts[position][:40]!r}, has {n_tokens} tokens, and "
                    f"{self.model_name} reads {self.document_length} at once: cut it into passages, or load the model "
                    "with long_documents='windows'."
                )

    def _unread_share(self, text: str, role: Role) -> float:
        limit = self._limit(role)
        if limit is None or self._surely_fits(text, role):
            return 0.0
        if role == "document" and self.long_documents == "windows":
            end = self._windows(text)[-1].end
        elif self._count_tokens([self._prompts[role] + text])[0] <= limit:
            return 0.0
        else:
            end = max((end for _, end in self._token_spans(text, role, limit)), default=0)
        return 0.0 if end >= len(text) else 1 - end / len(text)

    def _surely_fits(self, text: str, role: Role) -> bool:
        """Whether a text fits by its length alone, as most do; others need the tokenizer."""
        limit = self._limit(role)
        # No token is shorter than a byte. The one more is the word-start mark that some tokenizers put first.
        return limit is None or len(text.encode()) <= limit - self._overheads[role] - 1

    def _row_spans(self, text: str, role: Role = "document") -> list[Span]:
        """Return the spans of the rows of a text that is read at once."""
        prompt, skipped = self._prompts[role], self._skipped_ids if role in self._skipping else set()
        ids, spans = self._tokenize(prompt + text, self._limit(role))
        return [
            _without_prompt(span, len(prompt))
            for token, span in zip(ids, spans, strict=True)
            if token not in skipped
        ]

    def _token_spans(
        self, text: str, role: Role = "document", limit: int | None = None, *, keep: bool = False
    ) -> list[Span]:
        """Return the spans of the tokens of a text, of at most `limit` of them."""
        prompt = self._prompts[role]
        _, spans = self._tokenize(prompt + text, limit, keep=keep)
        return [_without_prompt(span, len(prompt)) for span in spans]

    def _tokenize(self, text: str, limit: int | None, *, keep: bool = False) -> tuple[list[int], list[Span]]:
        with self._lock:
            [row] = self._tokenizer.rows([text], keep=keep)
            if limit is not None and len(row["input_ids"]) > limit:
                row = self._tokenizer(
                    text, truncation=True, max_length=limit, return_offsets_mapping=True, verbose=False
                )
        spans = np.asarray(row["offset_mapping"]).tolist()
        return np.asarray(row["input_ids"]).tolist(), [(start, end) for start, end in spans]

    def _remember(self, texts: Sequence[str], role: Role) -> None:
        """Tokenize texts that may fit at once, for all that asks for their tokens until the next texts are encoded."""
        limit, prompt = self._limit(role), self._prompts[role]
        most = math.inf if limit is None else CHARACTERS_AHEAD * limit
        with self._lock:
            self._tokenizer.remember([prompt + text for text in texts if len(text) <= most])

    def _encode(self, texts: list[str], role: Role) -> list[FloatMatrix]:
        self._remember(texts, role)
        return self._check_not_empty(texts, self._encode_parts(texts, role), role)

    def _check_not_empty(
        self, texts: Sequence[str], matrices: list[FloatMatrix], role: Role
    ) -> list[FloatMatrix]:
        for position, (text, matrix) in enumerate(zip(texts, matrices, strict=True)):
            if len(matrix) == 0:
                raise NoTokenError(
                    f"The {role} at position {position}, {text[:40]!r}, has no token that "
                    f"{self.model_name} gives a vector for: leave it out, or add words to it."
                )
        return matrices

    def _encode_parts(self, texts: Sequence[str], role: Role) -> list[FloatMatrix]:
        """Encode texts that are read at once, in batches; a matrix may be empty."""
        guard_fork(self._pid)
        lengths, budget = self._lengths(texts, role), self.batch_tokens
        at_once = min(len(self._replicas), cpu_threads()) if self._on_cores else len(self._replicas)
        if at_once > 1:  # A batch for each, if there are not more.
            least = LEAST_AT_ONCE if self._on_cores else 1
            budget = min(budget, max(least, -(-sum(lengths) // at_once)))
        batches = list(token_batches(lengths, budget, self.batch_size))

        def compute(encoder: MultiVectorEncoder, batch: list[int]) -> list[FloatMatrix]:
            encode = encoder.encode_query if role == "query" else encoder.encode_document
            encoded = encode(
                [texts[position] for position in batch],
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            return [finite_rows(matrix, self.model_name, self.dtype) for matrix in encoded]

        matrices: dict[int, FloatMatrix] = {}
        begin = partial(take_share, at_once) if self._on_cores else None
        computed = self._replicas.map(compute, batches, at_once, begin)
        for batch, rows in zip(batches, computed, strict=True):
            matrices.update(zip(batch, rows, strict=True))
        return [matrices[position] for position in range(len(texts))]

    def _set_lengths(self, query_length: int | None, document_length: int | None) -> None:
        transformer = self._transformer
        limit = position_limit(transformer)
        wanted: dict[Role, int | None] = {"query": query_length, "document": document_length}
        for role, length in wanted.items():
            if length is None:
                continue
            least = self._overheads[role] + 1
            if length < least or (limit is not None and length > limit):
                most = "" if limit is None else f" and at most {limit}, the positions it has"
                raise ValueError(
                    f"{role}_length={length} does not fit {self.model_name}: give at least {least}, "
                    f"one token beside the special ones{most}."
                )

        expansion = transformer.query_expansion
        if query_length is not None:
            transformer.query_length = None  # the expansion's setter compares with it
            if expansion is not None:
                fixed = expansion["strategy"] == "fixed"
                floor = query_length if fixed else min(query_length, expansion["length"])
                transformer.query_expansion = {**expansion, "length": floor}
            transformer.query_length = query_length
        if document_length is not None:
            transformer.document_length = document_length

        # A tokeniser that knows no limit has a sentinel of 1e30 for it.
        longest = transformer.max_seq_length
        default = longest if longest is not None and longest < 1_000_000 else None
        self.document_length = transformer.document_length or default
        self.query_length = transformer.query_length or default
        if transformer.query_expansion is not None and transformer.query_expansion["strategy"] == "fixed":
            self.query_length = transformer.query_expansion["length"]
        self._lengths_told = {role: self._limit(role) for role in get_args(Role)}
        for role, length in self._lengths_told.items():
            self._check_length(role, length, limit)
        self._lengths_kept = {role: self._limit(role) for role in get_args(Role)}

    def _check_length(self, role: Role, length: Any, limit: int | None) -> None:
        """Refuse a length of the checkpoint that cannot be, and read no more than there are positions for."""
        least = self._overheads[role] + 1
        if length is None:
            return
        if not isinstance(length, int) or length < least:
            raise ModelError(
                f"{self.model_name} has {length!r} for its {role}_length in its config files: it has to be a whole "
                f"number, and at least {least}, one token beside the special ones. Give {role}_length=, or correct it."
            )
        if limit is None or length <= limit:
            return
        expansion = self._transformer.query_expansion if role == "query" else None
        if expansion is not None and expansion["length"] > limit:
            raise ModelError(
                f"{self.model_name} fills up its queries to {expansion['length']} tokens, and has {limit} positions "
                f"for them: give query_length=, at most {limit}."
            )
        logger.info(
            "%s names %d as its %s_length, and has %d positions for tokens: so many are read at once.",
            self.model_name,
            length,
            role,
            limit,
        )
        setattr(self._transformer, f"{role}_length", limit)
        setattr(self, f"{role}_length", limit)

    def _limit(self, role: Role) -> int | None:
        return self.query_length if role == "query" else self.document_length

    def _overhead(self, role: Role) -> int:
        """Tokens that are there before any text: special ones, and the marker or prompt."""
        return self._count_tokens([self._prompts[role]])[0]

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            return [len(row["input_ids"]) for row in self._tokenizer.rows(texts)]

    def _lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """How many tokens of each text go through the model."""
        expansion = self._transformer.query_expansion if role == "query" else None
        least = 0 if expansion is None else expansion["length"]
        limit = self._limit(role)
        counts = self._count_tokens([self._prompts[role] + text for text in texts])
        return [max(least, count if limit is None else min(count, limit)) for count in counts]

    def _count_leading_special_tokens(self) -> int:
        tokenizer = self._tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_encoder.values()}
        special.discard(tokenizer.unk_token_id)
        skipped = set(tokenizer.convert_tokens_to_ids(self._skiplist))
        count = 0
        for token in tokenizer(self._prompts["document"] + "a")["input_ids"]:
            if token not in special:
                break
            count += token not in skipped
        return count


def _without_prompt(span: Span, length: int) -> Span:
    start, end = span
    return max(0, start - length), max(0, end - length)
