"""Benchmarks by lm-evaluation-harness, offline: staged data, a process of its own, a sandbox."""
