"""The limits that the Data API enforces, each under the name by which the Data API knows it."""

MAX_BODY_BYTES = 20 * 1024 * 1024
"""HTTP ``max-body-size`` (20M); beyond it the answer is HTTP 413, not an error envelope."""

MAX_MUTATION_BYTES = 16 * 1024 * 1024
"""What Cassandra takes in one write: half of a commit log segment. Its refusal says that it is safe to retry."""

SYSTEM_KEYSPACES = ("system", "system_auth", "system_distributed", "system_schema", "system_traces")
"""findKeyspaces of a self-hosted Data API lists them beside the user's."""

MAX_INSERT_DOCUMENTS = 100
"""``max-document-insert-count``: documents in one insertMany."""

MAX_IN_VALUES = 100
"""``max-in-operator-value-size``: values of one ``$in`` or ``$nin``."""

MAX_FILTER_PROPERTIES = 64
"""``max-filter-object-properties``: comparisons in one filter."""

MAX_ANN_ROWS = 1000
"""``max-vector-search-limit``: also what an ANN find without a limit returns."""

DEFAULT_LEXICAL_ROWS = 100
"""What a find with a lexical sort and without a limit returns."""

MAX_LEXICAL_ROWS = 1000
"""What a lexical sort returns at most; a higher limit is lowered to it, and not refused."""

MAX_ANALYZED_BYTES = 8 * 1024
"""Cassandra's ``cassandra.sai.max_analyzed_size_kb``: bytes of all terms of a cell of a text index."""

MAX_TABLE_NAME = 48
"""Schema naming rule of tables and keyspaces: word characters, this many at most."""

MAX_INDEX_NAME = 100
"""Schema naming rule of indexes, whose names are unique in the keyspace."""

MAX_INDEXES_PER_TABLE = 10
"""Guardrail ``sai_indexes_per_table``."""

MAX_INDEXES = 100
"""Guardrail ``sai_indexes_total``."""
