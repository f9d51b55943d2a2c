"""Serving: start a vLLM or use servers that run already, and talk to them through the ledger."""
