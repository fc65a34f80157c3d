"""Commands by the path to which they are posted: the database, a keyspace, a table."""

from collections.abc import Callable
from typing import Any

from tools.data_api import definitions, reads, writes
from tools.data_api.context import Context
from tools.data_api.errors import DataApiError

Reply = dict[str, Any]
Command = Callable[[Context, dict[str, Any]], Reply]

_DATABASE: dict[str, Command] = {
    "createKeyspace": definitions.create_keyspace,
    "dropKeyspace": definitions.drop_keyspace,
    "findKeyspaces": definitions.find_keyspaces,
}
_KEYSPACE: dict[str, Command] = {
    "createTable": definitions.create_table,
    "dropIndex": definitions.drop_index,
    "dropTable": definitions.drop_table,
    "listTables": definitions.list_tables,
}
_TABLE: dict[str, Command] = {
    "alterTable": definitions.alter_table,
    "createIndex": definitions.create_index,
    "createTextIndex": definitions.create_text_index,
    "createVectorIndex": definitions.create_vector_index,
    "deleteMany": writes.delete_many,
    "deleteOne": writes.delete_one,
    "find": reads.find,
    "findOne": reads.find_one,
    "insertMany": writes.insert_many,
    "insertOne": writes.insert_one,
    "listIndexes": definitions.list_indexes,
    "updateOne": writes.update_one,
}
_COLLECTIONS_ONLY = {
    "countDocuments",
    "estimatedDocumentCount",
    "findAndRerank",
    "findOneAndDelete",
    "findOneAndReplace",
    "findOneAndUpdate",
    "updateMany",
}


def carry_out(context: Context, body: Any) -> Reply:
    """Carry out the command of the request.

    Raises:
        DataApiError: there is no such command at this path, or the command fails as a whole.
    """
    request = context.request
    if not isinstance(body, dict):
        raise DataApiError(
            "", "REQUEST_STRUCTURE_MISMATCH", f"The command {request.command} needs an object."
        )
    if request.table is not None:
        kind, commands = "table", _TABLE
        if request.command in _COLLECTIONS_ONLY:
            raise DataApiError(
                "",
                "UNSUPPORTED_TABLE_COMMAND",
                f"Table '{request.table}' has no {request.command}; these it has: {', '.join(_TABLE)}.",
            )
    else:
        kind, commands = ("keyspace", _KEYSPACE) if request.keyspace is not None else ("database", _DATABASE)
    if request.command not in commands:
        raise DataApiError(
            "",
            "COMMAND_UNKNOWN",
            f"'{request.command}' is not a {kind} command; these are: {', '.join(commands)}.",
        )
    return commands[request.command](context, body)
