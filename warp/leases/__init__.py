"""The ledger: who may work on what."""
