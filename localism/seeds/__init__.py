"""Seed data: files and folders read, the shapes of their rows."""
