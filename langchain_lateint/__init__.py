"""LangChain adapter for late-interaction retrieval.

Empty so far: the `VectorStore`, the `BaseRetriever` and the document compressor over
`late_interaction.LateInteractionPipeline` will live here. Nothing can be imported from it yet.
"""
