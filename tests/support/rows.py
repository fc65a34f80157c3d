"""Three rows that tests of the pipeline index."""

ROWS = [
    {"doc_id": "cats", "content": "cats chase mice", "year": 2001, "tags": ["animal", "pet"]},
    {"doc_id": "dogs", "content": "dogs chase cats", "year": 2002, "tags": ["animal"]},
    {"doc_id": "tea", "content": "tea with milk", "year": 2003, "tags": []},
]
