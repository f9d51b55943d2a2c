"""Instruct-SkillMix, offline and on open weights: skills -> data -> a tuned model -> evidence."""

__version__ = "0.1.0"
