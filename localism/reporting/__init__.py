"""The report's parts: facts from the corpus, plots as SVG, the exported data set."""
