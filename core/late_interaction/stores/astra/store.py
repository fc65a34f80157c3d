"""The Astra store: documents in a table of the Data API, on Astra DB, HCD or DSE, and what proposes candidates.

Whatever happens between two requests, a search is right: a document exists if its row in the docs table does, and
scores come from the packed matrix in that row alone. Candidates are proposed by a table of token vectors, whose rows
are written before the document's row and deleted after it, or by one learned vector in the document's own row.
`late-interaction doctor` finds what a crash left over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from late_interaction.candidates import Scaling
from late_interaction.errors import StoreError
from late_interaction.filters import Filter, check_parsed
from late_interaction.metadata import MetadataChange, as_change
from late_interaction.stems import check_fts5
from late_interaction.stores.astra.catalogue import Catalogue
from late_interaction.stores.astra.client import DataApiClient
from late_interaction.stores.astra.database import Parts, astra_database
from late_interaction.stores.astra.document_searching import DocumentSearcher
from late_interaction.stores.astra.documents import document_parts
from late_interaction.stores.astra.fitting import EncodeQueries, Fitter
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.row_writing import RowWriter
from late_interaction.stores.astra.rows import check_id, declared_columns
from late_interaction.stores.astra.scaling import TOKENS_SCALING, documents_scaling
from late_interaction.stores.astra.schema import (
    Declaration,
    Tables,
    check_name,
    fields_of,
    most_filterable,
    type_names,
)
from late_interaction.stores.astra.searching import Searcher
from late_interaction.stores.astra.tasks import for_each_concurrently
from late_interaction.stores.astra.unversioned import UnversionedWriter
from late_interaction.stores.astra.word_searching import WordSearcher
from late_interaction.stores.astra.writing import Writer
from late_interaction.stores.base import Candidates, Store, WordMatches, check_search
from late_interaction.types import (
    CandidatesBy,
    Document,
    EncodedDocument,
    FloatMatrix,
    IndexSpec,
    QueryVectors,
    RaggedTokens,
)
from late_interaction.validation import (
    check_encoded,
    check_flag,
    check_ids,
    check_matrix,
    check_not_negative,
    check_one_of,
    check_positive,
    check_query,
    check_seconds,
    check_spec,
)

if TYPE_CHECKING:
    import numpy as np
    from astrapy import AsyncDatabase, Database
    from astrapy.authentication import TokenProvider
    from numpy.typing import NDArray


class _Opened(NamedTuple):
    """An open index: what it was built with, its tables, and what reads, searches, writes and fits them.

    `words` is None without an index of words, `fitter` with token rows.
    """

    spec: IndexSpec
    tables: Tables
    reader: Reader
    searcher: Searcher | DocumentSearcher
    writer: RowWriter
    fitter: Fitter | None = None
    words: WordSearcher | None = None

    def count_anew(self) -> None:
        """Count documents and words anew in the next search: something is written."""
        if self.words is not None:
            self.words.forget()


class AstraStore(Store):
    """An index in a keyspace of Astra DB, HCD or DSE, through astrapy.

    The connections belong to the event loop that first uses them: for threads and several loops there is
    `SyncPipeline`.

    A store made by `AstraStore.from_environment` can be pickled and copied: the copy connects by itself, with the token
    of its own environment. A store made with a database of astrapy cannot.

    Args:
        database: astrapy's, async or not; it gives endpoint, token, keyspace, callers and the other options.
        name: the index's name: letters, digits and `_`, at most 41.
        filterable: metadata fields on which the service itself filters, and their types: str, int, float, bool,
            datetime (or a str in ISO 8601) or list[str]; at most nine. A document must have values of these types, or
            none. Part of the index; None opens an index with any, and declares none for a new one.
        candidates: what stage 1 compares a query with. "tokens": every stored token vector, a row each, by some 30 ANN
            queries a search. "documents": one learned vector in each document's row, by one ANN query; then eight
            fields can be declared. Part of the index; None opens an index with either, and is "tokens" for a new one.
        lexical: whether there is an index of words, which searches by words need (`mode="hybrid"` and "lexical"): a
            text index of the service, with the words as a folder has them (docs/astra.md). With
            `candidates="documents"` it takes the place of a field, so that seven can be declared. Part of the index;
            None opens an index with or without, and makes one without.
        concurrency: requests in flight at a time, at most; there are fewer where the service asks for it, or does not
            answer. astrapy keeps 20 connections alive for each table.
        timeout_s: seconds until a request counts as lost, of whatever kind.
        retry_for_s: seconds for which lost requests are sent again, after waits that double from 0.25 s to 5 s, until
            the call fails. None for 60 in calls that write, as long as a restart of a node takes, and for 15 in those
            that read. 0 for no second attempt.
        retries: further attempts at a request that was lost, at most; None for as many as there is time for.
        limits: sizes of requests and waits; the defaults fit the service.

    Example:
        >>> from astrapy import DataAPIClient
        >>> client = DataAPIClient("AstraCS:your-token")
        >>> database = client.get_async_database("https://your-id-us-east-2.apps.astra.datastax.com")
        >>> AstraStore(database, "my_index", filterable={"year": int, "tags": list[str]})
        AstraStore('astra:my_index (default_keyspace at your-id-us-east-2.apps.astra.datastax.com)')

        Pass it to `LateInteractionPipeline` or `SyncPipeline` in place of the database.
    """

    def __init__(
        self,
        database: Database | AsyncDatabase,
        name: str = "late_interaction",
        *,
        filterable: Declaration | None = None,
        candidates: CandidatesBy | None = None,
        lexical: bool | None = None,
        concurrency: int = 20,
        timeout_s: float = 20.0,
        retry_for_s: float | None = None,
        retries: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        check_positive("concurrency", concurrency)
        if retries is not None:
            check_not_negative("retries", retries)
        if check_seconds("timeout_s", timeout_s) == 0:
            raise ValueError("timeout_s must be above 0.")
        if retry_for_s is not None:
            check_seconds("retry_for_s", retry_for_s)
        self.name = check_name(name)
        self._declared = None if filterable is None else type_names(filterable)
        if candidates is not None:
            check_one_of("candidates", candidates, get_args(CandidatesBy))
        if lexical is not None:
            check_flag("lexical", lexical)
        most = most_filterable(of_documents=candidates == "documents", lexical=bool(lexical))
        fields_of(self._declared or {}, most)
        self._candidates = candidates
        self._lexical, self._new_lexical = lexical, False
        self._encode_queries: EncodeQueries | None = None
        self._limits = limits or Limits()
        self.requests = DataApiClient(
            database,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retry_for_s=retry_for_s,
            retries=retries,
            limits=self._limits,
        )
        self.catalogue = Catalogue(self.requests, name, self.location)
        self._open: _Opened | None = None
        self._recipe: tuple[Parts, str, dict[str, Any]] | None = None

    @classmethod
    def from_environment(
        cls,
        name: str = "late_interaction",
        *,
        token: str | TokenProvider | None = None,
        api_endpoint: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        callers: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> Self:
        """Make a store of parts; those that are not given come from the environment.

        Args:
            name: the index's name.
            token: by default ASTRA_DB_APPLICATION_TOKEN.
            api_endpoint: by default ASTRA_DB_API_ENDPOINT.
            keyspace: by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
            environment: astrapy's name for it (prod, hcd, dse, …); by default ASTRA_DB_ENVIRONMENT, or else by the
                endpoint: one that is not Astra's is taken to be HCD's.
            callers: names and versions of the calling libraries, for the service's statistics.
            options: the other arguments of `AstraStore`.

        Raises:
            StoreError: there is no token, or no endpoint.
        """
        parts = Parts.of(api_endpoint, keyspace, environment, callers)
        store = cls(astra_database(token, **parts.to_dict()), name, **options)
        store._recipe = (parts, name, options)
        return store

    def __repr__(self) -> str:
        return f"AstraStore({self.location!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Reduce to the parts it was made of, without the token."""
        if self._recipe is None:
            raise StoreError(
                f"{self!r} was made with a database of astrapy, which holds connections and a token, and so cannot be "
                "pickled or copied. Make it by AstraStore.from_environment(…) instead, or make a new one where it is "
                "needed."
            )
        return _remade, (type(self), *self._recipe)

    @property
    def scaling(self) -> Scaling:
        """How deep stage 1 looks: with document vectors it depends on how many documents there are."""
        if self._open is None or self._open.fitter is None:
            return TOKENS_SCALING
        return documents_scaling(self._open.fitter.about)

    @property
    def location(self) -> str:
        """Name index, keyspace and host."""
        return f"astra:{self.name} ({self.requests.keyspace} at {self.requests.host})"

    @property
    def tables(self) -> Tables:
        """The tables and indexes of the open index."""
        return self._opened().tables

    # --- opening and closing

    async def spec(self) -> IndexSpec | None:
        """Return what the index was built with, from the catalogue; None if there is no index."""
        entry = await self.catalogue.entry()
        return None if entry is None else entry.spec

    async def open(self, spec: IndexSpec) -> None:
        """Create tables, indexes and the catalogue's row, or attach to them; definitions are read and compared.

        Raises:
            IndexMismatchError: the index was built with another spec or declaration, or a table or an index of that
                name has another definition.
        """
        try:
            tables = await self.catalogue.attach(
                check_spec(spec),
                self._declared,
                self._candidates,
                lexical=self._lexical,
                new_lexical=self._new_lexical,
                width=self._limits.document_width,
            )
            if tables.lexical:
                await asyncio.to_thread(check_fts5, self.location)
        except BaseException:
            if self._open is None:
                await self.requests.aclose()
            raise
        reader = Reader(self.requests, tables, self._limits, self.location)
        words = WordSearcher(self.requests, tables, reader) if tables.lexical else None
        if tables.width is None:
            writer = writer_of(self.requests, tables, reader, self._limits, self.location)
            searcher = Searcher(self.requests, tables, reader)
            self._open = _Opened(spec, tables, reader, searcher, writer, words=words)
            return
        parts = await document_parts(
            self.requests, self.catalogue, tables, reader, self._limits, self.location
        )
        parts.fitter.encode_queries = self._encode_queries
        self._open = _Opened(spec, tables, reader, parts.searcher, parts.writer, parts.fitter, words)

    def _opened(self) -> _Opened:
        if self._open is None:
            raise StoreError(f"The index {self.location} is not open: call initialize() first.")
        return self._open

    async def take_after(self, source: Store) -> None:
        """Make a new index with an index of words, unless it was told otherwise, if the one on Astra has one."""
        if isinstance(source, AstraStore):
            self._new_lexical = source.tables.lexical

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            self._open.writer.leftovers.tell()
        self._open = None
        await self.requests.aclose()

    async def drop(self) -> None:
        """Delete the tables with their indexes and the catalogue's row; the catalogue too if that was its last row."""
        with self.requests.loading():
            await self.catalogue.drop()
        await self.close()

    def waited(self) -> dict[str, float]:
        """Return the seconds that requests waited for the network, and for the service."""
        waits = self.requests.waits
        return {"network": waits.network_s, "service": waits.service_s}

    # --- writing

    def check(self, document: Document) -> None:
        """Check that a document's id is not too long, and that declared fields have values of their types."""
        check_id(document.doc_id)
        declared_columns(document.metadata, self._opened().tables.fields)

    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write documents; each wholly or not at all.

        Raises:
            DocumentError: the service refused some documents, or a declared field has a value of another type; all
                others are written.
            StoreWriteError: the service failed; it says which documents are written.
            TypeError, ValueError: a matrix is not one of unit vectors, or an id is given twice; nothing is written.
        """
        opened = self._opened()
        checked = await asyncio.to_thread(check_encoded, documents, opened.spec.dim)
        opened.count_anew()
        with self.requests.loading():
            await opened.writer.upsert(checked, opened.spec.packing)
            if opened.fitter is not None:
                await opened.fitter.wrote(len(checked))

    async def update_metadata(self, selection: str | Filter, change: MetadataChange | dict[str, Any]) -> int:
        """Change the metadata of a document, or of all that match a filter.

        If it fails, some may be changed.

        Raises:
            ValueError: a declared field would have a value of another type.
        """
        change, opened = as_change(change), self._opened()
        updated: list[bool] = []

        async def update(doc_id: str) -> None:
            updated.append(await opened.writer.update_metadata(doc_id, change))

        with self.requests.loading():
            if not isinstance(selection, Filter):
                return bool(check_ids([selection])) and await opened.writer.update_metadata(selection, change)
            doc_ids = [row["doc_id"] async for row in opened.reader.matching(selection, ())]
            await for_each_concurrently(update, doc_ids, self.requests.concurrency)
        return updated.count(True)

    async def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete documents' rows, then their tokens; return how many documents existed.

        If it fails, some may be deleted; the same call again deletes the rest.
        """
        opened = self._opened()
        if not isinstance(selection, Filter):
            doc_ids = list(dict.fromkeys(check_ids(selection)))
        else:
            doc_ids = [row["doc_id"] async for row in opened.reader.matching(selection, ())]
        opened.count_anew()
        with self.requests.loading():
            return await opened.writer.delete(doc_ids)

    async def clear(self) -> None:
        """Truncate the tables."""
        opened = self._opened()
        opened.count_anew()
        with self.requests.loading():
            await opened.writer.clear()

    async def optimize(self, *, show_progress: bool = False) -> dict[str, Any]:
        """Finish what is unfinished of document vectors; the service keeps its vector indexes up to date by itself.

        Returns:
            With document vectors `vectors`, how many were written, and `fitted` where a reduction was fitted, as far as
            there was something to do.
        """
        opened = self._opened()
        opened.writer.leftovers.tell()
        if opened.fitter is None:
            return {}
        with self.requests.loading():
            return await opened.fitter.settle(show_progress=show_progress)

    def use_query_encoder(self, encode: EncodeQueries) -> None:
        """Take what encodes texts as queries: document vectors are fitted to the collection's texts by it."""
        self._encode_queries = encode
        if self._open is not None and self._open.fitter is not None:
            self._open.fitter.encode_queries = encode

    async def fit_candidates(
        self, sample: FloatMatrix | None = None, *, show_progress: bool = False
    ) -> dict[str, Any]:
        """Fit document vectors to what is in the index by now, and write them all anew, from the packed matrices.

        It happens by itself at 300 documents; do it again when the collection has become another, as `doctor` tells.
        Searches go on meanwhile. If it fails, the next write or `optimize()` goes on with it.

        Args:
            sample: (n, dim) unit rows, token vectors of queries as they are expected; by default those of the
                documents' own texts, encoded as queries where a pipeline's model can do that, or else the stored ones.
                If there are fewer than 6,144, stored ones make up for them.
            show_progress: show a progress bar over the documents.

        Returns:
            `fitted` and `vectors`, how many were written.

        Raises:
            StoreError: the index has token rows, or no document with vectors.
        """
        opened = self._opened()
        if opened.fitter is None:
            return await super().fit_candidates(sample, show_progress=show_progress)
        tokens = None if sample is None else check_matrix(sample, opened.spec.dim)
        with self.requests.loading():
            return await opened.fitter.fit(tokens, show_progress=show_progress)

    # --- reading

    async def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Return token matrices in the order asked, as they are packed: nothing is widened yet."""
        return await self._opened().reader.matrices(check_ids(doc_ids))

    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Return the stored documents in the order asked; unknown ids are left out."""
        return await self._opened().reader.documents(check_ids(doc_ids))

    async def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the index."""
        with self.requests.loading():  # It is asked where a run goes on.
            return await self._opened().reader.existing(check_ids(doc_ids))

    async def find(
        self, filter: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Return the documents whose metadata match, in the order they were written.

        An offset leaves out the first ones in the database's own order, and with a limit reading ends early.
        """
        if limit is not None:
            check_not_negative("limit", limit)
        return await self._opened().reader.find(
            check_parsed(filter), limit, check_not_negative("offset", offset)
        )

    async def count(self, filter: Filter | None = None) -> int:
        """Count the documents (that match). The service cannot count: the id of every one is read."""
        return await self._opened().reader.count(check_parsed(filter))

    async def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Yield every document with its token matrix, in the database's own order, which does not change."""
        check_positive("batch_size", batch_size)
        async with aclosing(self._opened().reader.scan(batch_size)) as batches:
            async for batch in batches:
                yield batch

    async def info(self) -> dict[str, Any]:
        """Return counts, and what is declared. Every document's row is read for it, without content and vectors."""
        opened = self._opened()
        n_tokens = await opened.reader.token_counts()
        return {
            "location": self.location,
            "documents": len(n_tokens),
            "tokens": sum(n_tokens),
            "filterable": {field.name: field.type for field in opened.tables.fields.values()},
            "candidates": "tokens" if opened.fitter is None else "documents",
            "lexical": opened.words is not None,
            **({} if opened.fitter is None else {"fitted": opened.fitter.is_fitted}),
            "tables": list(opened.tables.definitions()),
        }

    # --- searching

    async def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Do stage 1: one ANN query per query vector, concurrently, or one by document vectors.

        With document vectors `n_ann_tokens` is how many documents that query lists.

        Raises:
            TypeError, ValueError: an argument is not what the signature says.
        """
        opened = self._opened()
        check_search(query, opened.spec.dim, n, n_ann_tokens, filter)
        return await opened.searcher.candidates(query, n, n_ann_tokens, filter)

    async def lexical(
        self, text: str, n: int, *, filter: Filter | None = None, also: Sequence[str] = ()
    ) -> WordMatches:
        """Rank by BM25 the documents that have a word of a text; of more than 32 different words the first 32 count.

        The service is asked for each word, and tells the order of its documents; their scores are computed here, as in
        a folder. They are exact, and the same as there, as long as no word has more than 1,000 documents. How often a
        more common one comes is estimated by a sample.

        Raises:
            StoreError: the index was made without `lexical=True`.
        """
        opened = self._opened()
        check_positive("n", n)
        if opened.words is None:
            raise StoreError(
                f"The index {self.location} has no index of words, because it was made without lexical=True: copy it "
                "into a new one that has (`late-interaction copy … --lexical`; nothing is encoded again), or search "
                'with mode="late".'
            )
        return await opened.words.search(text, n, check_parsed(filter), check_ids(also))

    async def score(
        self, query: QueryVectors, doc_ids: Sequence[str]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Do stage 2: return the exact MaxSim of documents, in the order asked."""
        return await super().score(check_query(query, self._opened().spec.dim), doc_ids)


def writer_of(client: DataApiClient, tables: Tables, reader: Reader, limits: Limits, location: str) -> Writer:
    """Return the writer for the layout that the tables have."""
    kind = Writer if tables.versioned else UnversionedWriter
    return kind(client, tables, reader, limits, location)


def _remade(cls: type[AstraStore], parts: Parts, name: str, options: dict[str, Any]) -> AstraStore:
    return cls.from_environment(name, **parts.to_dict(), **options)
