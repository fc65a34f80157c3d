"""The store on Astra DB, HCD and DSE, through the Data API."""

from late_interaction.stores.astra.store import AstraStore

__all__ = ["AstraStore"]
