"""Prompt packs: their manifest, their templates, a pack as text."""
