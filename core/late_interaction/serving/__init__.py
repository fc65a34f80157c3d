"""An index served: a search page and an HTTP API (the extra `serve`), and an MCP server (the extra `mcp`)."""

TOKEN_VARIABLE = "LATE_INTERACTION_TOKEN"  # noqa: S105 - the name of a variable
"""Where the server's token may stand."""
