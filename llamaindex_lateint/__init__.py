"""LlamaIndex adapter for late-interaction retrieval.

Empty so far: the `BasePydanticVectorStore`, the `BaseRetriever` and the node postprocessor over
`late_interaction.LateInteractionPipeline` will live here. Nothing can be imported from it yet.
"""
