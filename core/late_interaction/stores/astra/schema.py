"""The tables of an index on Astra: one or two of its own, with their indexes, and rows in the keyspace's catalogue.

    {name}_docs      doc_id | content, content_type, metadata (JSON), n_tokens, generation, packed, revision, meta_…,
                     and with candidates="documents" document_vector, reduction, vector_of,
                     and with lexical=True words, n_words
    {name}_tokens    doc_id, generation, token_id | token_embedding, meta_…; not with candidates="documents"
    late_interaction_indexes    name | spec (JSON), filterable (JSON), created, library, reduction (JSON), size (JSON),
                     data (see `reductions`)

The vectors in the tokens table are exactly what the packed matrix of the docs row unpacks to. A column
`meta_{field}` holds a declared field's value, in both tables, each with an index of its own. `generation` is the
time of the write in nanoseconds, made unique: it names a version of a document, and gives the order of writing.
Token rows of different versions never share a key (see `writing`). `revision` is what `update_metadata` changed
since (see `rows`).

A document vector is made of the packed matrix by the reduction that the column `reduction` names (0: by none, null:
of a blank document), for the version of the document that `vector_of` names (see `fitting`).

The index of words is on the column `words`: the stems of the document's words, as an index in a folder has them, some
marks by which documents are counted, and nothing else (see `words`). `n_words` is how many words there are in all.

Indexes made before versions were in the key have `doc_id, token_id` as the key of their tokens, and no `revision`.
They still open, and are written as they were then (see `unversioned`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args, get_origin

from late_interaction.filters import value_of
from late_interaction.metadata import instant
from late_interaction.validation import shown

Row: TypeAlias = dict[str, Any]
Declaration: TypeAlias = Mapping[str, Any]
"""The name of a field -> its type: str, int, float, bool, datetime, or list[str]."""

CATALOGUE = "late_interaction_indexes"
CATALOGUE_TABLE: Row = {
    "columns": {
        **{name: {"type": "text"} for name in ("name", "spec", "filterable", "library")},
        "created": {"type": "timestamp"},
        "reduction": {"type": "text"},
        "size": {"type": "text"},
        "data": {"type": "blob"},
    },
    "primaryKey": {"partitionBy": ["name"], "partitionSort": {}},
}
_OLDER_KEY = "(doc_id, token_id)"
VECTOR_OPTIONS = {"metric": "dot_product", "sourceModel": "other"}
TEXT_OPTIONS = {"analyzer": "whitespace"}
"""What is a word, and its stem, is decided before, so that all there is to do is to cut at spaces."""

MAX_NAME = 41
"""A table's name has at most 48 characters, and ours end in `_tokens`."""
MAX_FILTERABLE = 9
"""A table has at most 10 indexes, and one of them is for the vectors."""
MAX_FILTERABLE_OF_DOCUMENTS = 8
"""With document vectors one more index says which reduction each is of, and an index of words takes another one; an
index with token rows has room for it in the table of documents."""
MAX_TERM_BYTES = 1000
"""The longest term that every version of the text index takes (older ones 1 KiB, newer ones 8 KiB)."""

_COLUMN_TYPES: dict[str, Row] = {
    "str": {"type": "text"},
    "int": {"type": "bigint"},
    "float": {"type": "double"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "timestamp"},
    "list[str]": {"type": "set", "valueType": "text"},
}


@dataclass(frozen=True, slots=True)
class Field:
    """A declared metadata field.

    Attributes:
        name: as in metadata, dotted where it reaches into objects.
        type: the name of its type.
        column: its column in both tables.
    """

    name: str
    type: str
    column: str

    def cell(self, metadata: Mapping[str, Any]) -> Any:
        """Return the value of the column for these metadata; None if the field is missing or null.

        Raises:
            ValueError: the value is not of the declared type.
        """
        value = value_of(metadata, self.name)
        if value is None:
            return None
        try:
            return _cell(self.type, value)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"metadata {self.name!r} is declared filterable as {self.type}, and {value!r:.60} is not: {error}."
            ) from None


def check_name(name: str) -> str:
    """Check an index's name, of which the names of its tables are made, and return it.

    Raises:
        TypeError: it is not a str.
        ValueError: it is too long, or has characters that a table's name may not have.
    """
    if not isinstance(name, str):
        raise TypeError(f"an index's name must be a str, not {shown(name)}.")
    if not re.fullmatch(rf"[A-Za-z0-9_]{{1,{MAX_NAME}}}", name, re.ASCII):
        raise ValueError(
            f"on Astra an index's name must have 1 to {MAX_NAME} ASCII letters, digits and underscores, "
            f"not {name!r:.80}."
        )
    return name


def type_names(declaration: Declaration) -> dict[str, str]:
    """Return a declaration with the types by their names, as the catalogue keeps it.

    Raises:
        TypeError: it is not a mapping of names to types.
        ValueError: a type cannot be declared, there are too many fields, or two names give the same column.
    """
    if not isinstance(declaration, Mapping):
        raise TypeError(
            f"filterable must be a mapping such as {{'year': int}}, not a {type(declaration).__name__}."
        )
    names = {}
    for name, given in declaration.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"filterable: a field's name must be a str, not {shown(name)}.")
        names[name] = _type_name(given)
        if names[name] not in _COLUMN_TYPES:
            raise ValueError(
                f"filterable: {name!r} cannot be declared as {shown(given)}; the types are {', '.join(_COLUMN_TYPES)}."
            )
    fields_of(names)
    return names


def fields_of(names: Mapping[str, str], most: int = MAX_FILTERABLE) -> dict[str, Field]:
    """Return the declared fields by name, each with its column.

    Raises:
        ValueError: there are more than `most`, a name is too long, or two names give the same column.
    """
    if len(names) > most:
        raise ValueError(
            f"filterable: {len(names)} fields are declared, and {most} can be: a table has at most 10 "
            "indexes. You can filter on other fields too, only slower."
        )
    columns: dict[str, str] = {}
    for name in names:
        column = "meta_" + re.sub(r"\W", "_", name, flags=re.ASCII)
        if len(column) > 48:
            raise ValueError(f"filterable: the name {name!r} is longer than the 43 characters of a column.")
        if column in columns:
            raise ValueError(f"filterable: {columns[column]!r} and {name!r} would share the column {column}.")
        columns[column] = name
    return {name: Field(name, names[name], column) for column, name in columns.items()}


def most_filterable(*, of_documents: bool, lexical: bool) -> int:
    """Return how many fields can be declared in an index with document vectors, or with an index of words."""
    return MAX_FILTERABLE_OF_DOCUMENTS - lexical if of_documents else MAX_FILTERABLE


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables and indexes of one index, by name and definition.

    Attributes:
        name: the index's.
        dim: width of a token vector.
        fields: what is declared, by the field's name.
        versioned: True if the key of a token row names its version; False in indexes of an older layout.
        width: of a document vector, with candidates="documents"; None with token rows.
        lexical: whether there is an index of words.
    """

    name: str
    dim: int
    fields: Mapping[str, Field]
    versioned: bool = True
    width: int | None = None
    lexical: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        dim: int,
        fields: Mapping[str, Field],
        existing: Mapping[str, Row],
        width: int | None = None,
        *,
        lexical: bool = False,
    ) -> Tables:
        """Return the tables of an index, in the layout that the existing ones have."""
        if width is not None or lexical:
            return cls(name, dim, fields, width=width, lexical=lexical)
        docs, tokens = existing.get(f"{name}_docs"), existing.get(f"{name}_tokens")
        older = docs is not None and "revision" not in docs.get("columns", {})
        return cls(name, dim, fields, not (older and (tokens is None or _key_of(tokens) == _OLDER_KEY)))

    @property
    def docs(self) -> str:
        """Name the table of documents."""
        return f"{self.name}_docs"

    @property
    def tokens(self) -> str:
        """Name the table of tokens."""
        return f"{self.name}_tokens"

    def definitions(self) -> dict[str, Row]:
        """Return the definition of each table, by name."""
        tables = {self.docs: self._docs_definition()}
        return tables if self.width is not None else {**tables, self.tokens: self._tokens_definition()}

    @property
    def _declared(self) -> Row:
        return {field.column: _COLUMN_TYPES[field.type] for field in self.fields.values()}

    def _docs_definition(self) -> Row:
        bigint, text = {"type": "bigint"}, {"type": "text"}
        of_documents = {
            "document_vector": {"type": "vector", "dimension": self.width},
            "reduction": bigint,
            "vector_of": bigint,
        }
        return {
            "columns": {
                **dict.fromkeys(("doc_id", "content", "content_type", "metadata"), text),
                "n_tokens": {"type": "int"},
                "generation": bigint,
                "packed": {"type": "blob"},
                **({"revision": text} if self.versioned else {}),
                **({} if self.width is None else of_documents),
                **({"words": text, "n_words": {"type": "int"}} if self.lexical else {}),
                **self._declared,
            },
            "primaryKey": {"partitionBy": ["doc_id"], "partitionSort": {}},
        }

    def _tokens_definition(self) -> Row:
        return {
            "columns": {
                "doc_id": {"type": "text"},
                "token_id": {"type": "int"},
                "token_embedding": {"type": "vector", "dimension": self.dim},
                "generation": {"type": "bigint"},
                **self._declared,
            },
            "primaryKey": {
                "partitionBy": ["doc_id"],
                "partitionSort": {"generation": 1, "token_id": 1} if self.versioned else {"token_id": 1},
            },
        }

    def indexes(self) -> dict[str, dict[str, Row]]:
        """Return for each table the definitions of its indexes, by name."""
        by_table: dict[str, dict[str, Row]] = {
            table: {f"{table}_{field.column}": {"column": field.column} for field in self.fields.values()}
            for table in self.definitions()
        }
        if self.width is None:
            vector: Row = {"column": "token_embedding", "options": VECTOR_OPTIONS}
            by_table[self.tokens] = {f"{self.tokens}_ann": vector, **by_table[self.tokens]}
        else:
            by_table[self.docs] = {
                f"{self.docs}_ann": {"column": "document_vector", "options": VECTOR_OPTIONS},
                f"{self.docs}_reduction": {"column": "reduction"},
                **by_table[self.docs],
            }
        by_table[self.docs] |= self.text_index()
        return by_table

    def text_index(self) -> dict[str, Row]:
        """Return the definition of the index of words, by its name, if there is one."""
        return {f"{self.docs}_words": {"column": "words", "options": TEXT_OPTIONS}} if self.lexical else {}


def table_differences(name: str, found: Row | None, wanted: Row) -> dict[str, tuple[object, object]]:
    """Return how a table differs from what it should be; additional columns do not count."""
    if found is None:
        return {f"table {name}": (None, "a table")}
    columns = {column: _described(kind) for column, kind in found.get("columns", {}).items()}
    differences: dict[str, tuple[object, object]] = {
        f"table {name}, column {column}": (columns.get(column), _described(kind))
        for column, kind in wanted["columns"].items()
        if columns.get(column) != _described(kind)
    }
    if (key := _key_of(found)) != (wanted_key := _key_of(wanted)):
        differences[f"table {name}, primary key"] = (key, wanted_key)
    return differences


def index_differences(
    table: str, found: Mapping[str, Row], wanted: Mapping[str, Row]
) -> dict[str, tuple[object, object]]:
    """Return how a table's indexes differ from what they should be; additional indexes do not count."""
    differences: dict[str, tuple[object, object]] = {}
    for name, definition in wanted.items():
        have = _index_facets(found[name]) if name in found else None
        want = _index_facets(definition)
        if have != want:
            differences[f"index {name} on {table}"] = (have, want)
    return differences


def _type_name(given: Any) -> str:
    if isinstance(given, str):
        return given
    if get_origin(given) is list:
        return f"list[{_type_name(*get_args(given))}]"
    return given.__name__ if isinstance(given, type) else shown(given)


def _cell(kind: str, value: Any) -> Any:
    match kind:
        case "str" if isinstance(value, str):
            return _term(value)
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            if not -(2**63) <= value < 2**63:
                raise ValueError("it has more than 64 bits")
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            if float(value) != value:
                raise ValueError("a float cannot hold it exactly")
            return float(value) + 0.0  # The database tells -0.0 from 0.0, and JSON values do not.
        case "bool" if isinstance(value, bool):
            return value
        case "datetime" if isinstance(value, str | dt.datetime):
            return timestamp(value)
        case "list[str]" if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return sorted({_term(item) for item in value}) or None
    raise ValueError(f"it is a {type(value).__name__}")


def _term(text: str) -> str:
    if len(text.encode()) > MAX_TERM_BYTES:
        raise ValueError(f"it has more than {MAX_TERM_BYTES} bytes, more than an index holds")
    return text


def timestamp(value: str | dt.datetime) -> str:
    """Return a datetime, or a date of ISO 8601, in the form that a timestamp column takes: UTC, to the ms.

    Without an offset it is read as UTC.

    Raises:
        ValueError: it is written in another way.
        OverflowError: in UTC it is outside of the years 1 to 9999.
    """
    if (moment := instant(value)) is None:
        raise ValueError("it is not written like 2024-05-31 or 2024-05-31T23:59:00Z")
    return timestamp_of(moment // 1000)


def timestamp_of(milliseconds: int) -> str:
    """Return milliseconds since 1970 in the form that a timestamp column takes; raises OverflowError."""
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _described(kind: Any) -> str:
    """Return a column's type as one string: `text`, `set<text>`, `vector<128>`."""
    if isinstance(kind, str):
        return kind
    inner = kind.get("valueType") or kind.get("dimension")
    outer = str(kind.get("type"))
    return outer if inner is None else f"{outer}<{inner if isinstance(inner, int) else _described(inner)}>"


def _key_of(definition: Row) -> str:
    key = definition.get("primaryKey", {})
    if isinstance(key, str):
        return f"({key})"
    return f"({', '.join([*key.get('partitionBy', []), *key.get('partitionSort', {})])})"


def _index_facets(definition: Row) -> Row:
    """Return what must be right about an index. A set's column may be written with the part of it that is indexed."""
    column, options = definition.get("column"), definition.get("options") or {}
    facets: Row = {"column": next(iter(column), None) if isinstance(column, Mapping) else column}
    if "metric" in options or "sourceModel" in options:
        return facets | {name: options.get(name) for name in VECTOR_OPTIONS}
    if "analyzer" in options:
        return facets | {"analyzer": options["analyzer"]}
    # Metadata are compared letter by letter; an index that folds letters would find too much.
    folds = not options.get("caseSensitive", True) or options.get("normalize") or options.get("ascii")
    return facets | {"exact": not folds}
